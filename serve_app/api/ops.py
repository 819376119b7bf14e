"""For operators: alive, ready, metrics; and which engines there are."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from deployments.engines.registry import ENGINES
from serve_app.api.auth import Owner
from serve_app.api.check import option_names
from serve_app.api.errors import ApiError
from serve_app.api.metrics import CONTENT_TYPE
from serve_app.api.services import Door, EngineState

router = APIRouter(tags=["operation"])
models = APIRouter(prefix="/v1", tags=["models"])


@router.get("/health")
async def get_health() -> dict[str, str]:
    """This process answers: on its event loop, however busy its threads are."""
    return {"status": "ok"}


@router.get("/ready")
def get_ready(services: Door) -> dict[str, Any]:
    """The service takes jobs; 503 with the reason while it does not."""
    reason = services.ready()
    if reason is not None:
        raise ApiError(f"not ready: {reason}", 503, "not_ready", retry_after=services.settings.retry_after_seconds)
    return {"status": "ready", "engines": {name: state.state for name, state in services.engines().items()}}


@router.get("/metrics")
def get_metrics(request: Request) -> Response:
    """Prometheus text."""
    return Response(request.app.state.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@models.get("/models")
def list_models(services: Door, owner: Owner) -> dict[str, Any]:
    """The engines, with the options that they take."""
    return {"object": "list", "data": [show_engine(state) for state in services.engines().values()]}


@models.get("/models/{name}")
def get_model(name: str, services: Door, owner: Owner) -> dict[str, Any]:
    """One engine."""
    known = services.engines()
    if name not in known:
        raise ApiError(f"expected a model of {', '.join(sorted(known))}; got {name[:60]!r}", 404, "not_found", "model")
    return show_engine(known[name])


@models.get("/voices")
def list_voices(owner: Owner) -> dict[str, Any]:
    """The voices that words can be said with: `voice` of a request, a segment or a script."""
    from deployments.audio.voice import known_voices

    usable = [facts for facts in known_voices() if not facts.problem]
    data = [
        {"id": facts.name, "object": "voice", "language": facts.language, "rate": facts.rate, "speakers": list(facts.speakers)}
        for facts in usable
    ]
    return {"object": "list", "data": data}


def show_engine(state: EngineState) -> dict[str, Any]:
    """An engine as OpenAI shows models, with more fields."""
    return {
        "id": state.name,
        "object": "model",
        "created": 0,
        "owned_by": "lipsync-serve",
        "about": state.about,
        "takes": state.takes,
        "state": state.state,
        "options": option_names(state, state.takes == "image"),
        "picture_options": option_names(state, True) if state.takes_kind(True) else [],
        "live": ENGINES[state.name].live,
    }
