"""Pages for people: the web page at `/`, and the list of routes at `/docs`, made here so that no other host is asked."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from serve_app.api.schemas import AssetRequest, AvatarRequest, TemplateRequest, VideoRequest

router = APIRouter(include_in_schema=False)
WEB = Path(__file__).resolve().parents[1] / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
DOCS_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}code,td{font-size:.9em}"
STYLE += "h2{margin-top:2em;font-size:1.1em}table{border-collapse:collapse}"
STYLE += "td{border-top:1px solid #ccc;padding:.2em .8em .2em 0;vertical-align:top}"


class Static(StaticFiles):
    """Files of the page, under the page's own policy."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """See the base class."""
        response = super().file_response(*args, **kwargs)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Cache-Control"] = "no-cache"  # asked again each time: an upgrade must not meet old scripts
        return response


@router.get("/")
def get_page() -> Response:
    """The web page, or a line that says where the routes are."""
    page = WEB / "index.html"
    if not page.is_file():
        return HTMLResponse('<p>lipsync-serve. <a href="/docs">The routes</a></p>', headers={"Content-Security-Policy": POLICY})
    return FileResponse(page, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})


@router.get("/docs")
def get_docs(request: Request) -> HTMLResponse:
    """All routes with their fields, from the OpenAPI document."""
    return HTMLResponse(docs_page(request.app.openapi()), headers={"Content-Security-Policy": DOCS_POLICY})


def docs_page(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    schemas = document["components"]["schemas"]
    parts = [
        show_route(method, path, route, schemas) for path, routes in document["paths"].items() for method, route in routes.items()
    ]
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>lipsync-serve</title>" + f"<style>{STYLE}</style>"
    return head + '<h1>Routes</h1><p>The same for machines: <a href="/openapi.json">openapi.json</a></p>' + "".join(parts)


def show_route(method: str, path: str, route: dict[str, Any], schemas: dict[str, Any]) -> str:
    """One route."""
    rows = [(one["name"], one["in"], one.get("description", "")) for one in route.get("parameters", ())]
    content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    fields = schemas.get(name, {}).get("properties", {})
    rows += [(field, "body", about.get("description", "")) for field, about in fields.items()]
    table = "".join(f"<tr><td><code>{escape(a)}</code><td>{escape(b)}<td>{escape(c)}" for a, b, c in rows)
    about = escape(route.get("description", ""))
    return f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{about}</p><table>{table}</table>"


def describe_bodies(app: FastAPI) -> None:
    """Add the bodies that we read ourselves to the OpenAPI document."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        known = document.setdefault("components", {}).setdefault("schemas", {})
        for model in (VideoRequest, AvatarRequest, TemplateRequest, AssetRequest):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            known.update(schema.pop("$defs", {}))
            known[model.__name__] = schema
        return document

    app.openapi = openapi  # type: ignore[method-assign]
