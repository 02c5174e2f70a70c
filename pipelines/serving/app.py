"""The application: routes of a domain's endpoints and commands, and what says how it is doing."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from refold.pipelines.serving.command_routes import commanding_router
from refold.pipelines.serving.http.guard import PUBLIC_RATE, Guard, RequestLimits
from refold.pipelines.serving.http.host_policy import check_exposure, hosts_for, is_loopback
from refold.pipelines.serving.http.problems import MEDIA_TYPE, install_handlers
from refold.pipelines.serving.http.tokens import Scope, load_tokens
from refold.pipelines.serving.page import page_router
from refold.pipelines.serving.parent import end_with_parent
from refold.pipelines.serving.reads.openapi import reading_paths
from refold.pipelines.serving.reads.read_routes import Reading
from refold.pipelines.serving.sandbox.query_route import query_router
from refold.pipelines.serving.sandbox.sandbox_pool import Sandbox
from refold.pipelines.serving.serve_metrics import Measuring
from refold.pipelines.serving.serving import Serving
from refold.pipelines.serving.settings import ServeSettings
from refold.pipelines.serving.status_routes import telling_router
from refold.warehouse.declarations.domain import Domain, load_domain

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
_USUAL = {
    "400": "The request is malformed.",
    "401": "A token is needed.",
    "403": "The token lacks the scope, or the request comes from a page of another origin.",
    "404": "There is no such thing.",
    "408": "The request took too long to come.",
    "413": "The body is too large.",
    "414": "The path or the query is too long.",
    "415": "The body is not application/json.",
    "421": "The server does not go by the host of the request.",
    "429": "Too many requests.",
    "503": "Try again a little later.",
}
_COLLECT_AFTER = 50_000
_ANSWER_SECONDS = 10.0
_OPEN = frozenset({"/", "/healthz", "/readyz"})
"""Anybody may ask these."""


@dataclass(frozen=True, slots=True)
class Application:
    """All of a server process as one ASGI application.

    Attributes:
        asgi: measuring, the guard and the answers for read models, around the framework.
        framework: has the routes of everything else.
    """

    asgi: ASGIApp
    framework: FastAPI

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self.asgi(scope, receive, send)

    @property
    def failure(self) -> BaseException | None:
        """Why its stream failed; None if it did not, or there is none."""
        following = getattr(self.framework.state, "following", None)
        return following.error if following is not None else None


def create_app(settings: ServeSettings) -> Application:
    """Make the application of one server process; log and read models are opened when it starts.

    Raises:
        UsageError: the domain cannot be found.
    """
    domain = load_domain(settings.domain)
    running: list[Serving] = []

    def serving() -> Serving:
        return running[0]

    sandbox = Sandbox(lambda: serving().newest_file()) if settings.query else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running.append(Serving(settings, domain))
        serving().start()
        app.state.following = serving().following
        gc.freeze()  # requests make no cycles: what is here now need not be looked through again and again
        gc.set_threshold(_COLLECT_AFTER)
        try:
            yield
        finally:
            await serving().stop()
            if sandbox is not None:
                sandbox.close()

    app = FastAPI(
        title=f"{domain.name} on refold",
        version=version("refold"),
        description="Commands and read models. Every answer tells the log position that it shows, and its lag.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    install_handlers(app)
    tokens = load_tokens(os.environ, Path(settings.tokens_file) if settings.tokens_file else None)
    check_exposure(settings.host, tokens)
    app.include_router(page_router())
    app.include_router(telling_router(serving))
    if settings.commands and domain.deciders:
        app.include_router(commanding_router(serving, domain))
    if sandbox is not None:
        app.include_router(query_router(sandbox))
    app.openapi = lambda: _document(app, domain)  # type: ignore[method-assign]
    guard = Guard(
        Reading(app, serving=serving, endpoints=domain.bound_endpoints),
        tokens=tokens,
        scope_of=_scope_of,
        limits=RequestLimits(
            rate=settings.rate or (None if is_loopback(settings.host) else PUBLIC_RATE),
            seconds=max(RequestLimits().seconds, settings.max_wait + _ANSWER_SECONDS),
        ),
        hosts=hosts_for(settings.host, tokens, settings.hosts),
    )
    return Application(Measuring(guard, measured=lambda: serving().measured), app)


def _scope_of(method: str, path: str) -> Scope | None:
    """Tell what a token must be good for."""
    if path in _OPEN or path.startswith("/static/"):
        return None
    return Scope.COMMAND if path.startswith("/commands/") else Scope.READ


def from_environment() -> Application:
    """Make the application of a worker process, which ends with its supervisor."""
    end_with_parent()
    return create_app(ServeSettings.load(os.environ))


def _document(app: FastAPI, domain: Domain) -> dict[str, Any]:
    """Write the API's document: FastAPI's, with errors as they are answered here."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        found["paths"] |= reading_paths(domain.bound_endpoints)
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
