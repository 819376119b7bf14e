"""The HTTP API, in the shape of OpenAI's Videos API. Knows the job table and the media store, and no Ray."""

from __future__ import annotations

from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI

from serve_app.api import assets, avatars, delivery, errors, live, ops, pages, templates, videos
from serve_app.api.metrics import Metrics
from serve_app.api.schemas import ErrorAnswer
from serve_app.api.services import ApiSettings, EngineState, Services
from serve_app.api.uploads import sweep
from serve_app.api.watch import Watch

__all__ = ["ApiSettings", "EngineState", "Services", "create_api"]

ABOUT = (
    "New speech in, the same video out with the mouth following it. OpenAI's `client.videos` works against it: "
    "`OpenAI(base_url='http://HOST:PORT/v1')`."
)
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "what was expected, and what came"},
    "5XX": {"model": ErrorAnswer, "description": "the server's own trouble; `retryable` says whether to try again"},
}


def create_api(services: Services) -> FastAPI:
    """The application. It can run under any ASGI server, several times over the same stores."""
    app = FastAPI(title="lipsync-serve", description=ABOUT, version="1", docs_url=None, redoc_url=None, responses=REFUSALS)
    app.state.services = services
    app.state.checks = CapacityLimiter(services.settings.checks_at_once)
    app.state.streams = 0  # live portraits now
    app.state.metrics = Metrics(services.jobs, services.engines, services.media.root)
    app.add_middleware(Watch, metrics=app.state.metrics)
    errors.install(app)
    rooms = (videos.router, delivery.router, live.router, avatars.router, templates.router, assets.router)
    for router in (*rooms, ops.models, ops.router, pages.router):
        app.include_router(router)
    if pages.WEB.is_dir():
        app.mount("/web", pages.Static(directory=pages.WEB), name="web")
    pages.describe_bodies(app)
    sweep(services.incoming)
    return app
