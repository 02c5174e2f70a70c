"""Status routes: how the server, the log and the read models are doing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from refold.event_schemas import GenerationError, StoreUnavailableError
from refold.pipelines.serving.http.problems import problem
from refold.pipelines.serving.request_metrics import exposition
from refold.pipelines.serving.server_state import ServerState

_MAX_GENERATIONS = 20
_CONSTANT = orjson.dumps({"data": {"text": "constant " * 20}, "position": 1, "status": "current", "next": None})


def status_router(state: Callable[[], ServerState]) -> APIRouter:
    """Return the status routes.

    Args:
        state: returns the state of the running server.
    """
    router = APIRouter(tags=["operation"])

    @router.get("/status", summary="Positions of the log, the read models and their generations.")
    async def status() -> dict[str, Any]:
        return await asyncio.to_thread(_status, state())

    @router.get("/healthz", summary="Whether the process is alive.")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(
        "/readyz",
        summary="Whether read models can be served.",
        responses={503: {"description": "Nothing is published or open yet."}},
    )
    async def readyz() -> Any:
        if state().source.read_position() is None:
            detail = "Nothing is published or open yet."
            return problem(503, detail=detail, code="unavailable", headers={"retry-after": "1"})
        return {"status": "ready"}

    @router.get("/metrics", summary="Prometheus metrics of this process.", response_class=Response)
    async def metrics() -> Response:
        server = state()
        text = exposition(server.metrics, server.tail, server.source.read_position())
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    if os.environ.get("REFOLD_SERVE_CONSTANT"):  # benchmarks.serve measures a request without a query

        @router.get("/benchmark/constant", include_in_schema=False)
        async def constant() -> Response:
            return Response(_CONSTANT, headers={"cache-control": "no-cache"}, media_type="application/json")

    return router


def _status(state: ServerState) -> dict[str, Any]:
    """Collect the status; reads files or objects, so it runs in a thread."""
    shown = state.source.read_position()
    generations, outage = [], state.stream_thread.outage if state.stream_thread else ""
    try:
        numbers = state.generations.numbers()[-_MAX_GENERATIONS:]
    except StoreUnavailableError as error:
        numbers, outage = [], outage or str(error)
    for number in reversed(numbers):
        with suppress(GenerationError, StoreUnavailableError):  # collected since the listing
            found = state.generations.get(number)
            generations.append(
                {
                    "number": number,
                    "position": found.position,
                    "published_at": found.published_at,
                    "kind": found.kind,
                    "rows": sum(table.rows for table in found.tables.values()),
                }
            )
    end = state.tail.end
    lag = state.tail.lag(shown.position) if shown else None
    return {
        "domain": state.domain.name,
        "log": {"position": end.position, "recorded_at": end.recorded_at or None},
        "read_models": shown
        and {
            "position": shown.position,
            "last_updated": shown.last_updated,
            "generation": shown.generation,
            "lag": lag and {"events": lag.events, "seconds": lag.seconds},
            "source": "live" if state.settings.stream else "generation",
        },
        "generations": generations,
        "outage": outage or None,
    }
