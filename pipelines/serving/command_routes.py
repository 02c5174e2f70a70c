"""Commanding: a route for each command of the domain."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Path, Query, Request, Response

from refold.event_schemas.decider import Rejected, command_from_json, command_schema
from refold.pipelines.serving.http.problems import problem
from refold.pipelines.serving.reads.openapi_schemas import POSITION, fields_schema
from refold.pipelines.serving.serving import Serving
from refold.warehouse.commands.handler import CommandHandler
from refold.warehouse.declarations.domain import Domain

_KEY_LETTERS = 200

_KEY = Header(
    max_length=_KEY_LETTERS,
    min_length=1,
    description="The command's identity: sent again with it, the command does nothing and gets the first answer.",
)
_CORRELATION = Header(max_length=_KEY_LETTERS, min_length=1, description="What the command belongs to, across streams.")
_EXPECTED = Query(description="Refuse the command, with 409, if its stream stands at another version.")

_HANDLED = {
    "type": "object",
    "properties": {
        "position": {"type": "integer", "description": "Of its last event: ask for it by `min_position`."},
        "stream_id": {"type": "string"},
        "stream_version": {"type": "integer"},
        "events": {"type": "integer", "description": "How many events it made."},
        "repeated": {"type": "boolean", "description": "Whether it was handled before."},
        "command_id": {"type": "string"},
    },
    "required": ["position", "stream_id", "stream_version", "events", "repeated", "command_id"],
}


def commanding_router(serving: Callable[[], Serving], domain: Domain) -> APIRouter:
    """Make the routes.

    Args:
        serving: gives the server that runs.
        domain: whose commands it takes.
    """
    router = APIRouter(prefix="/commands", tags=["commands"])
    for name, (_, cls) in sorted(domain.commands.items()):
        body = {"required": True, "content": {"application/json": {"schema": fields_schema(command_schema(cls))}}}
        router.add_api_route(
            f"/{name}",
            _route(serving, cls),
            methods=["POST"],
            status_code=201,
            response_class=Response,
            operation_id=name,
            summary=(cls.__doc__ or name).splitlines()[0],
            responses={
                201: {"description": "It was handled.", "content": {"application/json": {"schema": _HANDLED}}},
                409: {"description": "The stream has moved on; `actual_version` tells where it stands."},
                422: {"description": "A rule refused it; `code` tells which."},
            },
            openapi_extra={"requestBody": body},
        )

    @router.post("/{name}", include_in_schema=False)
    async def unknown(name: Annotated[str, Path()]) -> Response:
        known = ", ".join(sorted(domain.commands)) or "none"
        return problem(404, detail=f"There is no command {name[:80]!r}; there are: {known}.", code="unknown_command")

    return router


def _route(serving: Callable[[], Serving], cls: type) -> Callable[..., Any]:
    async def handle(
        request: Request,
        expected_version: Annotated[POSITION | None, _EXPECTED] = None,
        idempotency_key: Annotated[str | None, _KEY] = None,
        correlation_id: Annotated[str | None, _CORRELATION] = None,
    ) -> Response:
        server = serving()
        assert server.handler is not None
        try:
            values = orjson.loads(await request.body())
        except orjson.JSONDecodeError as error:
            return problem(400, "Malformed request", f"The body is no JSON: {error}.", code="malformed")
        if not isinstance(values, dict):
            return problem(400, "Malformed request", "The body must be a JSON object.", code="malformed")
        command: object = command_from_json(cls, values)
        command_id = idempotency_key or str(uuid.uuid4())
        return await asyncio.get_running_loop().run_in_executor(
            server.commanding, _handle, server, server.handler, command, command_id, expected_version, correlation_id
        )

    return handle


def _handle(
    server: Serving,
    handler: CommandHandler,
    command: object,
    command_id: str,
    expected_version: int | None,
    correlation_id: str | None,
) -> Response:
    handled = handler.handle(
        command, command_id=command_id, expected_version=expected_version, correlation_id=correlation_id
    )
    if isinstance(handled, Rejected):
        return problem(422, "Rejected", handled.reason, type="urn:refold:rejected", code=handled.code)
    server.watch.saw(handled.position)
    answer = {
        "position": handled.position,
        "stream_id": handled.stream_id,
        "stream_version": handled.stream_version,
        "events": handled.events,
        "repeated": handled.repeated,
        "command_id": command_id,
    }
    return Response(orjson.dumps(answer), 201, media_type="application/json")
