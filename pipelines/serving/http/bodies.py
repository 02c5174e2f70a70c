"""Request bodies: read completely before the application runs, limited in size and time, and checked as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
from starlette.types import Message, Receive

from refold.event_schemas.scalar_values import JsonNumber
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


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object with exact numbers.

    Raises:
        BodyMalformedError: it is not JSON, not an object, or has a name twice in one object.

    Example:
        >>> read_object(b'{"amount": 12345678901234567.89}')
        {'amount': Decimal('12345678901234567.89')}
        >>> read_object(b'{"amount": 1, "amount": 2}')
        Traceback (most recent call last):
        refold.pipelines.serving.http.bodies.BodyMalformedError: The body names 'amount' twice. Send each name once.
    """
    check_json(body)
    try:
        found = json.loads(body, parse_float=JsonNumber, object_pairs_hook=_named_once)
    except (
        ValueError,
        ArithmeticError,
        RecursionError,
    ) as error:  # such as an integer of more digits than Python converts
        raise BodyMalformedError(f"The body cannot be read as JSON: {error}.") from error
    if not isinstance(found, dict):
        raise BodyMalformedError("The body must be a JSON object.")
    return found


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BodyMalformedError(f"The body names {twice[:80]!r} twice. Send each name once.")
    return found


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
