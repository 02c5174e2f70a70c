"""The ASGI application of a server process: the guard, the domain's reads and commands, status and OpenAPI."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from refold.pipelines.metrics import Metrics
from refold.pipelines.serving.command_routes import command_router
from refold.pipelines.serving.domain_page import page_router
from refold.pipelines.serving.http.guard import PUBLIC_RATE, Guard, RequestLimits
from refold.pipelines.serving.http.head import HeadAsGet
from refold.pipelines.serving.http.host_policy import allowed_hosts, check_exposure, is_loopback
from refold.pipelines.serving.http.problems import install_handlers
from refold.pipelines.serving.http.tokens import Scope, load_tokens
from refold.pipelines.serving.reads.openapi import openapi_router
from refold.pipelines.serving.reads.read_routes import ReadRoutes
from refold.pipelines.serving.request_metrics import MetricsMiddleware
from refold.pipelines.serving.sandbox.query_route import query_router
from refold.pipelines.serving.sandbox.sandbox_pool import Sandbox
from refold.pipelines.serving.server_state import ServerState
from refold.pipelines.serving.settings import ServeSettings
from refold.pipelines.serving.status_routes import status_router
from refold.warehouse.declarations.domain import load_domain

_RESPONSE_SECONDS = 10.0
"""Time for a response after a request has waited for its position as long as it may."""

_PUBLIC = frozenset({"/", "/healthz", "/readyz"})
"""These paths, and a page's files, need no token."""


@dataclass(frozen=True, slots=True)
class Application:
    """A server process as one ASGI application.

    Attributes:
        asgi: metrics, guard and read routes, around the framework.
        framework: the other routes.
    """

    asgi: ASGIApp
    framework: FastAPI

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Respond to a request."""
        await self.asgi(scope, receive, send)

    @property
    def failure(self) -> BaseException | None:
        """Why the stream failed; None if it did not, or if there is none."""
        thread = getattr(self.framework.state, "stream_thread", None)
        return thread.error if thread is not None else None


def create_app(settings: ServeSettings) -> Application:
    """Create the application of one server process; it opens the log and the read models when it starts.

    Raises:
        UsageError: the domain does not exist, or a setting is invalid.
    """
    domain = load_domain(settings.domain)
    metrics = Metrics(server=True)
    running: list[ServerState] = []

    def state() -> ServerState:
        return running[0]

    sandbox = Sandbox(lambda: state().newest_file()) if settings.query else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running.append(ServerState(settings, domain, metrics))
        state().start()
        app.state.stream_thread = state().stream_thread
        try:
            yield
        finally:
            await state().stop()
            if sandbox is not None:
                sandbox.close()

    app = FastAPI(
        title=f"{domain.name} on refold",
        version=version("refold"),
        description="Commands and read models. Every response reports its log position and its lag.",
        lifespan=lifespan,
        docs_url=None,
        openapi_url=None,  # FastAPI's own route would encode the document for each request
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    install_handlers(app)
    tokens = load_tokens(os.environ, Path(settings.tokens_file) if settings.tokens_file else None)
    check_exposure(settings.host, tokens)
    if domain.page is not None:
        app.include_router(page_router(domain.page))
    app.include_router(status_router(state))
    if settings.commands and domain.deciders:
        app.include_router(command_router(state, domain))
    if sandbox is not None:
        app.include_router(query_router(sandbox))
    app.include_router(openapi_router(app, domain))
    guard = Guard(
        ReadRoutes(app, state=state, domain=domain),
        tokens=tokens,
        scope_of=_scope_of,
        limits=RequestLimits(
            rate=settings.rate or (None if is_loopback(settings.host) else PUBLIC_RATE),
            seconds=max(RequestLimits().seconds, settings.max_wait + _RESPONSE_SECONDS),
        ),
        hosts=allowed_hosts(settings.host, tokens, settings.hosts),
    )
    return Application(MetricsMiddleware(HeadAsGet(guard), metrics), app)


def _scope_of(method: str, path: str) -> Scope | None:
    """Return the scope that a request needs; None if it needs no token."""
    if path in _PUBLIC or path.startswith("/static/"):
        return None
    return Scope.COMMAND if path.startswith("/commands/") else Scope.READ
