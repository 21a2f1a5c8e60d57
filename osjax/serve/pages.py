"""The pages: the studio's files, as they lie in the package, and what the API has, on one page."""

import logging
from importlib import resources

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from osjax.pages import page
from osjax.serve import bodies
from osjax.serve.answers import Refused

log = logging.getLogger(__name__)
LONGEST = 500  # characters of what a browser tells

STUDIO = {
    "studio.html": "text/html",
    "studio.css": "text/css",
    "studio.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def routes(app: FastAPI) -> APIRouter:
    """The routes of the pages. app: whose API is shown."""
    router = APIRouter(include_in_schema=False)
    files = resources.files("osjax.serve") / "studio"
    held = {name: (files / name).read_bytes() for name in STUDIO if (files / name).is_file()}

    @router.get("/")
    def start() -> Response:
        return RedirectResponse("/studio/")

    @router.get("/studio/")
    def studio() -> Response:
        return _file("studio.html")

    @router.get("/studio/{name}")
    def file(name: str) -> Response:
        return _file(name)

    def _file(name: str) -> Response:
        if name not in held:
            raise Refused(404, "there is no such page", "not_found")
        return Response(held[name], media_type=f"{STUDIO[name]}; charset=utf-8", headers={"Cache-Control": "no-cache"})

    @router.post("/studio/errors")
    async def broken(request: Request) -> Response:
        """What went wrong in a browser, for the log."""
        told = bodies.read_json(await request.body())
        words = {key: str(told.get(key, ""))[:LONGEST] for key in ("message", "where")}
        log.warning("the studio failed", extra={"told": words})
        return Response(status_code=204)

    @router.get("/docs")
    def docs() -> HTMLResponse:
        return HTMLResponse(_docs(app.openapi()))

    return router


def _docs(schema: dict) -> str:
    """All routes of an OpenAPI schema as HTML, with what they take and give."""
    parts = [page.heading(f"{schema['info']['title']} {schema['info']['version']}", 1)]
    parts.append(
        page.paragraph("OpenAI's videos API and what there is besides. /openapi.json is this page for programs.")
    )
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts.append(page.heading(f"{method.upper()} {path}"))
            if route.get("description"):
                parts.append(page.paragraph(route["description"]))
            rows = [
                (p["name"], p["in"], "needed" if p.get("required") else "", _kind(p.get("schema", {})))
                for p in route.get("parameters", ())
            ]
            body = route.get("requestBody", {}).get("content", {}).get("multipart/form-data", {}).get("schema", {})
            needed = body.get("required", ())
            rows += [
                (n, "body", "needed" if n in needed else "", _kind(s)) for n, s in body.get("properties", {}).items()
            ]
            if rows:
                parts.append(page.table(("name", "where", "", "kind"), rows))
            parts.append(page.paragraph(f"Answers: {', '.join(route['responses'])}"))
    return page.document(schema["info"]["title"], "".join(parts))


def _kind(schema: dict) -> str:
    """What a value may be, in a few words."""
    options = [_kind(one) for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if options:
        return " or ".join(options)
    words = [
        str(schema.get("format") or schema.get("type", "")),
        *(["of " + ", ".join(map(str, schema["enum"]))] if "enum" in schema else []),
    ]
    limits = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    words += [
        f"{word} {schema[key]}"
        for key, word in (*limits, ("maxLength", "at most"), ("pattern", "like"))
        if key in schema
    ]
    return " ".join(words)
