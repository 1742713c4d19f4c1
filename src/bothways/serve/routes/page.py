"""The page at / and the files beside it; /docs, which shows the OpenAPI document without a CDN."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

routes = APIRouter(include_in_schema=False)
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/page/words.js": ("words.js", "text/javascript; charset=utf-8"),
    "/page/results.js": ("results.js", "text/javascript; charset=utf-8"),
    "/page/attention.js": ("attention.js", "text/javascript; charset=utf-8"),
    "/page/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


@cache
def page_file(name: str) -> str:
    """A file of the page, from the package."""
    return files("bothways.serve").joinpath("page", name).read_text(encoding="utf-8")


def _serve(path: str, name: str, kind: str) -> None:
    async def send() -> Response:
        return Response(page_file(name), media_type=kind)

    routes.add_api_route(path, send, methods=["GET"], name=name)


for _path, (_name, _kind) in _FILES.items():
    _serve(_path, _name, _kind)
