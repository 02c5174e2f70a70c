"""Serve a domain's page: static files, read once, under headers that allow nothing from another origin.

A page makes no request to another host and needs no build step. A request names a file that was read at the start, so
no path of a request reaches the disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

from refold.event_schemas import UsageError

_INDEX = "index.html"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
# No inline script or style, nothing from another origin, no frame around the page.
_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A file keeps its name when its content changes, so the browser revalidates each use; most answers are 304.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of a page.

    Attributes:
        content: its bytes.
        media_type: its content type.
        etag: changes with the content.
    """

    content: bytes
    media_type: str
    etag: str


def read_page(folder: Path) -> dict[str, PageFile]:
    """Read the files of a page by name; subfolders and files of other types are left out.

    Args:
        folder: holds ``index.html`` and the files that it uses.

    Raises:
        UsageError: the folder cannot be read, or has no ``index.html``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "index.html").write_text("<h1>Doors</h1>")
        ...     read_page(Path(folder))["index.html"].media_type
        'text/html; charset=utf-8'
    """
    try:
        found = {
            path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in _MEDIA_TYPES and path.is_file()
        }
    except OSError as error:
        raise UsageError(f"The page in {folder} cannot be read: {error.strerror}. Check the domain's page=.") from error
    if _INDEX not in found:
        raise UsageError(f"The page in {folder} has no {_INDEX}. Add it, or leave out the domain's page=.")
    return {
        name: PageFile(content, _MEDIA_TYPES[Path(name).suffix], f'"{hashlib.sha256(content).hexdigest()[:20]}"')
        for name, content in found.items()
    }


def page_router(folder: Path) -> APIRouter:
    """Return a router for ``/`` and ``/static/NAME``; neither is in the OpenAPI document.

    Args:
        folder: as for :func:`read_page`.

    Raises:
        UsageError: as for :func:`read_page`.
    """
    router = APIRouter(include_in_schema=False)
    files = read_page(folder)

    async def page(request: Request) -> Response:
        return _respond(request, files[_INDEX])

    async def static(request: Request, name: str) -> Response:
        if name not in files or name == _INDEX:
            raise HTTPException(404, f"The page has no file {name!r}.")
        return _respond(request, files[name])

    for path, handle in (("/", page), ("/static/{name}", static)):
        router.add_api_route(path, handle, methods=["GET", "HEAD"])
    return router


def _respond(request: Request, file: PageFile) -> Response:
    headers = {**_HEADERS, "ETag": file.etag}
    known = request.headers.get("if-none-match", "")
    if file.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
