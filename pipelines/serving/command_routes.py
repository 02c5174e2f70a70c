"""Command routes: one route for each command of the domain."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Path, Query, Request, Response

from refold.event_schemas.decider import Rejected, command_from_json, command_schema
from refold.pipelines.serving.http.bodies import read_object
from refold.pipelines.serving.http.problems import problem
from refold.pipelines.serving.reads.openapi_schemas import POSITION, fields_schema
from refold.pipelines.serving.server_state import ServerState
from refold.warehouse.commands.handler import CommandHandler
from refold.warehouse.declarations.domain import Domain

_MAX_KEY_CHARACTERS = 200

_KEY = Header(
    max_length=_MAX_KEY_CHARACTERS,
    min_length=1,
    description="Identifies the command: a repeated request with the same key does nothing and gets the first answer. "
    "The same key with another command is refused with 422.",
)
_CORRELATION = Header(
    max_length=_MAX_KEY_CHARACTERS, min_length=1, description="Copied to the events; it links them across streams."
)
_EXPECTED = Query(description="Refuse the command with 409 if its stream is at another version.")

_HANDLED = {
    "type": "object",
    "properties": {
        "position": {"type": "integer", "description": "Of its last event; wait for it with `min_position`."},
        "stream_id": {"type": "string"},
        "stream_version": {"type": "integer"},
        "events": {"type": "integer", "description": "How many events it appended."},
        "repeated": {"type": "boolean", "description": "Whether it was handled before."},
        "command_id": {"type": "string"},
    },
    "required": ["position", "stream_id", "stream_version", "events", "repeated", "command_id"],
}


def command_router(state: Callable[[], ServerState], domain: Domain) -> APIRouter:
    """Return the command routes.

    Args:
        state: returns the state of the running server.
        domain: declares the commands.
    """
    router = APIRouter(prefix="/commands", tags=["commands"])
    for name, (_, cls) in sorted(domain.commands.items()):
        body = {"required": True, "content": {"application/json": {"schema": fields_schema(command_schema(cls))}}}
        router.add_api_route(
            f"/{name}",
            _route(state, cls),
            methods=["POST"],
            status_code=201,
            response_class=Response,
            operation_id=name,
            summary=(cls.__doc__ or name).splitlines()[0],
            responses={
                201: {"description": "The command was handled.", "content": {"application/json": {"schema": _HANDLED}}},
                409: {"description": "The stream is at another version; see `actual_version`."},
                422: {"description": "A rule rejected the command, or its key was used for another one; see `code`."},
            },
            openapi_extra={"requestBody": body},
        )

    @router.post("/{name}", include_in_schema=False)
    async def unknown(name: Annotated[str, Path()]) -> Response:
        known = ", ".join(sorted(domain.commands)) or "none"
        return problem(404, detail=f"Unknown command {name[:80]!r}. Known commands: {known}.", code="unknown_command")

    return router


def _route(state: Callable[[], ServerState], cls: type) -> Callable[..., Any]:
    async def handle(
        request: Request,
        expected_version: Annotated[POSITION | None, _EXPECTED] = None,
        idempotency_key: Annotated[str | None, _KEY] = None,
        correlation_id: Annotated[str | None, _CORRELATION] = None,
    ) -> Response:
        server = state()
        assert server.handler is not None
        command: object = command_from_json(cls, read_object(await request.body()))
        command_id = idempotency_key or str(uuid.uuid4())
        return await asyncio.get_running_loop().run_in_executor(
            server.command_threads,
            _handle,
            server,
            server.handler,
            command,
            command_id,
            expected_version,
            correlation_id,
        )

    return handle


def _handle(
    server: ServerState,
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
    server.tail.note_append(handled.position)
    document = {
        "position": handled.position,
        "stream_id": handled.stream_id,
        "stream_version": handled.stream_version,
        "events": handled.events,
        "repeated": handled.repeated,
        "command_id": command_id,
    }
    return Response(orjson.dumps(document), 201, media_type="application/json")
