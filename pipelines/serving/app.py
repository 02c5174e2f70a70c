"""The application: routes of a domain's endpoints and commands, and what says how it is doing."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from pipelines.serving.commanding import commanding_router
from pipelines.serving.measuring import Measuring
from pipelines.serving.page import page_router
from pipelines.serving.problems import MEDIA_TYPE, install_handlers
from pipelines.serving.reading import reading_router
from pipelines.serving.serving import Serving
from pipelines.serving.settings import ServeSettings
from pipelines.serving.telling import telling_router
from warehouse.domain import load_domain

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "For programs."},
    },
    "required": ["type", "title", "status"],
}
_USUAL = {"400": "The request is malformed.", "404": "There is no such thing.", "503": "Try again a little later."}


def create_app(settings: ServeSettings) -> FastAPI:
    """Make the application of one server process; log and read models are opened when it starts.

    Raises:
        UsageError: the domain cannot be found.
    """
    domain = load_domain(settings.domain)
    running: list[Serving] = []

    def serving() -> Serving:
        return running[0]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running.append(Serving(settings, domain))
        serving().start()
        app.state.following = serving().following
        try:
            yield
        finally:
            await serving().stop()

    app = FastAPI(
        title=f"{domain.name} on refold",
        version=version("refold"),
        description="Commands and read models. Every answer tells the log position that it shows, and its lag.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    install_handlers(app)
    app.include_router(page_router())
    app.include_router(telling_router(serving))
    if settings.commands and domain.deciders:
        app.include_router(commanding_router(serving, domain))
    app.include_router(reading_router(serving, domain.bound_endpoints))
    app.add_middleware(Measuring, measured=lambda: serving().measured)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def from_environment() -> FastAPI:
    """Make the application of a worker process."""
    return create_app(ServeSettings.load(os.environ))


def _document(app: FastAPI) -> dict[str, Any]:
    """Write the API's document: FastAPI's, with errors as they are answered here."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        found.setdefault("components", {}).setdefault("schemas", {})["Problem"] = _PROBLEM
        for unused in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(unused, None)
        for operations in found["paths"].values():
            for operation in operations.values():
                _tell_errors(operation["responses"])
        app.openapi_schema = found
    return app.openapi_schema


def _tell_errors(responses: dict[str, Any]) -> None:
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]  # malformed requests get 400 here
    for status, text in _USUAL.items():
        responses.setdefault(status, {"description": text})
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
