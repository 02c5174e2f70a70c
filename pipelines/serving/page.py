"""Serves the page at ``/``: a few files of this package, read once, under headers that let nothing else run.

The page is plain HTML, CSS and JavaScript modules, without a build step and without a request to any other host. Its
files are looked up by name in what was read at the start, so that no path of a request ever reaches the disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request, Response

_FOLDER = "page"
_INDEX = "index.html"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# Nothing inline, nothing from elsewhere, no frame around it. Scripts and styles are files, so 'self' is enough for all.
_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Names don't change with the content, so each use asks whether it did; the answer is mostly 304.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, as it is sent.

    Attributes:
        content: its bytes.
        media_type: what they are.
        etag: changes when they do.
    """

    content: bytes
    media_type: str
    etag: str


def page_files() -> dict[str, PageFile]:
    """Read the page's files from the installed package, by name.

    Example:
        >>> sorted(name for name in page_files() if name.startswith("page"))
        ['page.css', 'page.js']
    """
    read = {}
    for entry in files(__package__).joinpath(_FOLDER).iterdir():
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type:
            content = entry.read_bytes()
            read[entry.name] = PageFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:20]}"')
    return read


def page_router() -> APIRouter:
    """Make the router that serves ``/`` and ``/static/NAME``; neither stands in the OpenAPI document.

    Example:
        >>> from fastapi import FastAPI
        >>> app = FastAPI()
        >>> app.include_router(page_router())
    """
    router = APIRouter(include_in_schema=False)
    found = page_files()

    async def page(request: Request) -> Response:
        return _answer(request, found[_INDEX])

    async def static(request: Request, name: str) -> Response:
        if name not in found or name == _INDEX:
            raise HTTPException(404, f"The page has no file {name!r}.")
        return _answer(request, found[name])

    for path, handle in (("/", page), ("/static/{name}", static)):
        router.add_api_route(path, handle, methods=["GET", "HEAD"])
    return router


def _answer(request: Request, file: PageFile) -> Response:
    headers = {**_HEADERS, "ETag": file.etag}
    known = request.headers.get("if-none-match", "")
    if file.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
