"""Telling: routes that say how the server and what it serves are doing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from refold.event_schemas import GenerationError
from refold.pipelines.serving.http.problems import problem
from refold.pipelines.serving.serving import Serving

_GENERATIONS = 20
_CONSTANT = orjson.dumps({"data": {"text": "constant " * 20}, "position": 1, "status": "current", "next": None})


def telling_router(serving: Callable[[], Serving]) -> APIRouter:
    """Make the routes.

    Args:
        serving: gives the server that runs.
    """
    router = APIRouter(tags=["operation"])

    @router.get("/status", summary="Where the log, the read models and their generations stand.")
    async def status() -> dict[str, Any]:
        return await asyncio.to_thread(_status, serving())

    @router.get("/healthz", summary="Whether the process is alive.")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(
        "/readyz",
        summary="Whether read models can be served.",
        responses={503: {"description": "Nothing is published or opened yet."}},
    )
    async def readyz() -> Any:
        if serving().source.standing() is None:
            detail = "Nothing is published, or opened, yet."
            return problem(503, detail=detail, code="unavailable", headers={"retry-after": "1"})
        return {"status": "ready"}

    @router.get("/metrics", summary="Prometheus metrics of this process.", response_class=Response)
    async def metrics() -> Response:
        server = serving()
        return Response(server.measured.text(server.watch, server.source.standing()), media_type=CONTENT_TYPE_LATEST)

    if os.environ.get("REFOLD_SERVE_CONSTANT"):  # for benchmarks.serve: what a request costs that asks nothing

        @router.get("/benchmark/constant", include_in_schema=False)
        async def constant() -> Response:
            return Response(_CONSTANT, headers={"cache-control": "no-cache"}, media_type="application/json")

    return router


def _status(serving: Serving) -> dict[str, Any]:
    """Look around; in a thread, since it reads files or objects."""
    standing = serving.source.standing()
    generations = []
    for number in reversed(serving.generations.numbers()[-_GENERATIONS:]):
        with suppress(GenerationError):  # collected since it was listed
            found = serving.generations.get(number)
            generations.append(
                {
                    "number": number,
                    "position": found.position,
                    "published_at": found.published_at,
                    "kind": found.kind,
                    "rows": sum(table.rows for table in found.tables.values()),
                }
            )
    end = serving.watch.end
    lag = serving.watch.lag(standing.position) if standing else None
    return {
        "domain": serving.domain.name,
        "log": {"position": end.position, "recorded_at": end.recorded_at or None},
        "read_models": standing
        and {
            "position": standing.position,
            "last_updated": standing.last_updated,
            "generation": standing.generation,
            "lag": lag and {"events": lag.events, "seconds": lag.seconds},
            "source": "live" if serving.settings.stream else "generation",
        },
        "generations": generations,
    }
