"""Request bodies: read completely before the application runs, limited in size and time, and checked as JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.types import Message, Receive

from refold.pipelines.serving.http.problems import ServingError


class BodyTooLargeError(ServingError):
    """A body exceeds the size limit."""

    status = 413
    code = "size"


class BodyTooSlowError(ServingError):
    """A body did not arrive in time."""

    status = 408
    code = "slow"


class BodyMalformedError(ServingError):
    """A body is declared as JSON and is not valid JSON."""

    status = 400
    code = "malformed"


def too_large(max_bytes: int) -> BodyTooLargeError:
    """Return the error for a body that exceeds a limit."""
    return BodyTooLargeError(f"The body is too large. The limit is {max_bytes:,} bytes.")


async def read_body(receive: Receive, *, max_bytes: int, deadline: float) -> bytes | None:
    """Read a complete body.

    Args:
        receive: of the request.
        max_bytes: the size limit.
        deadline: when the body must be complete, by the clock of the event loop.

    Returns:
        None if the client disconnected: a partial body must not be acted on.

    Raises:
        BodyTooLargeError: the body exceeds the limit.
        BodyTooSlowError: the body is not complete at the deadline.
    """
    body = bytearray()
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise too_large(max_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise BodyTooSlowError("The body did not arrive in time. Send it without pauses.") from error


def check_json(body: bytes) -> None:
    """Check that a body is JSON: valid UTF-8, no lone surrogate, no NUL, no extreme nesting.

    Raises:
        BodyMalformedError: it is not.

    Example:
        >>> check_json(b'{"order_id": "order-1"}')
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyMalformedError(f"The body is not JSON: {error}.") from error
    if b"\\u0000" in body and _has_nul(document):
        raise BodyMalformedError("The body contains a NUL character.")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that yields a body that was already read, then the remaining messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
