"""``POST /query``: SQL of analysts over HTTP, for servers that are told to offer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import anyio
import orjson
from anyio.to_thread import run_sync
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from refold.pipelines.serving.sandbox.sandbox_pool import QueryAnswer, QueryBusyError, Sandbox

_MAX_SQL = 100_000
_WAITING = 8
"""So many requests may wait for each process: each holds a thread."""

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
        Field(description="Values for $name by their names, or for ? in their order."),
    ] = {}


class QueryResult(BaseModel):
    """What a query yields, and where in the log it stands."""

    columns: Annotated[list[str], Field(description="Their names; one may come twice.")]
    types: Annotated[list[str], Field(description="DuckDB's types of them.")]
    data: Annotated[list[list[Any]], Field(description="Rows; decimals are text, times RFC 3339, blobs hexadecimal.")]
    truncated: Annotated[bool, Field(description="Whether rows were left out, because of their number or size.")]
    seconds: Annotated[float, Field(description="What the query took.")]
    generation: Annotated[int, Field(description="Number of the generation that was asked.")]
    position: Annotated[int, Field(description="Of the last event that it holds.")]
    last_updated: Annotated[str, Field(description="When its tables were brought there, RFC 3339.")]


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The query cannot be meant, or does something other than read."},
    401: {"description": "A token is needed."},
    403: {"description": "The token lacks the scope."},
    408: {"description": "The query took too long."},
    413: {"description": "The query needs too much memory, or the body is too large."},
    415: {"description": "The body is not application/json."},
    429: {"description": "Too many requests."},
    503: {"description": "Other queries are under way, or nothing is published."},
}


def query_router(sandbox: Sandbox) -> APIRouter:
    """Make the route of queries.

    Args:
        sandbox: answers them; whoever made it closes it.

    Example:
        >>> def answering(app, sandbox):
        ...     app.include_router(query_router(sandbox))
    """
    router = APIRouter(tags=["query"])
    threads = anyio.CapacityLimiter(sandbox.limits.processes * (1 + _WAITING))

    @router.post("/query", response_model=QueryResult, responses=_PROBLEMS, summary="Ask the read models in SQL")
    async def query(asked: Query) -> Response:
        """Run one read-only query on the newest generation, without files or network, within bounds."""
        if threads.available_tokens <= 0:
            raise QueryBusyError("Other queries are under way. Ask again.")
        parameters: Mapping[str, Any] | Sequence[Any] = asked.parameters
        ask = partial(_ask, sandbox, asked.sql, parameters)
        return Response(await run_sync(ask, limiter=threads), media_type="application/json")

    return router


def _ask(sandbox: Sandbox, sql: str, parameters: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return _written(sandbox.query(sql, parameters))


def _written(answer: QueryAnswer) -> bytes:
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
