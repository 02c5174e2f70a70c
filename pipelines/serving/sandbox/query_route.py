"""``POST /query``: SQL of analysts over HTTP, off unless the server is started with ``--query``."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from refold.pipelines.serving.sandbox.sandbox_pool import QueryBusyError, Sandbox

_MAX_SQL = 100_000
_MAX_WAITING = 8
"""Requests that may wait for each sandbox child; each holds a thread. Further ones get 503."""

Value = bool | int | float | str | None


class Query(BaseModel):
    """One query, and the values of its parameters."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "sql": "SELECT month, net_revenue FROM revenue_by_month WHERE month >= $since",
                    "parameters": {"since": "2026-01-01"},
                }
            ]
        },
    )

    sql: Annotated[str, Field(min_length=1, max_length=_MAX_SQL, description="One SELECT, or EXPLAIN of one.")]
    parameters: Annotated[
        dict[str, Value] | list[Value],
        Field(description="Values for $name by name, or for ? in order."),
    ] = {}


class QueryResult(BaseModel):
    """The answer to a query, and its position in the log."""

    columns: Annotated[list[str], Field(description="Their names, which need not be unique.")]
    types: Annotated[list[str], Field(description="Their DuckDB types.")]
    data: Annotated[list[list[Any]], Field(description="Rows; decimals are text, times RFC 3339, blobs hexadecimal.")]
    truncated: Annotated[
        bool, Field(description="Whether rows are missing because of a limit on their number or size.")
    ]
    seconds: Annotated[float, Field(description="Duration of the query.")]
    generation: Annotated[int, Field(description="Number of the generation.")]
    position: Annotated[int, Field(description="Of the last event in the generation.")]
    last_updated: Annotated[str, Field(description="When its tables reached that position, RFC 3339.")]


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The query is invalid, or is not a read."},
    401: {"description": "The request needs a token."},
    403: {"description": "The token lacks the scope."},
    408: {"description": "The query exceeded its time limit."},
    413: {"description": "The query exceeded its memory limit, or the body is too large."},
    415: {"description": "The body is not application/json."},
    429: {"description": "The rate limit is exceeded."},
    503: {"description": "Other queries are running, or nothing is published."},
}


def query_router(sandbox: Sandbox) -> APIRouter:
    """Return the route of queries.

    Args:
        sandbox: runs them; the caller closes it.

    Example:
        >>> def answering(app, sandbox):
        ...     app.include_router(query_router(sandbox))
    """
    router = APIRouter(tags=["query"])
    threads = anyio.CapacityLimiter(sandbox.limits.processes * (1 + _MAX_WAITING))

    @router.post("/query", response_model=QueryResult, responses=_PROBLEMS, summary="Query the read models in SQL")
    async def query(query: Query) -> Response:
        """Run one read-only query on the newest generation, without files or network, within limits."""
        if threads.available_tokens <= 0:
            raise QueryBusyError("Other queries are running. Try again.")
        body = await run_sync(_run, sandbox, query, limiter=threads)
        return Response(body, media_type="application/json")

    return router


def _run(sandbox: Sandbox, query: Query) -> bytes:
    answer = sandbox.query(query.sql, query.parameters)
    return orjson.dumps(
        {
            "columns": answer.columns,
            "types": answer.types,
            "data": answer.rows,
            "truncated": answer.truncated,
            "seconds": round(answer.seconds, 6),
            "generation": answer.generation,
            "position": answer.position,
            "last_updated": answer.last_updated,
        }
    )
