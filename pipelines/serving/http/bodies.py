"""The body of a request: read whole before the application runs, within bounds of size and time, and real JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.types import Message, Receive

from refold.pipelines.serving.http.problems import ServingError


class BodyTooLargeError(ServingError):
    """A body has more bytes than are taken."""

    status = 413
    code = "size"


class BodyTooSlowError(ServingError):
    """A body did not arrive in time."""

    status = 408
    code = "slow"


class BodyMalformedError(ServingError):
    """A body that says it is JSON, and is not."""

    status = 400
    code = "malformed"


def too_large(most: int) -> BodyTooLargeError:
    """Make the error of a body of more than so many bytes."""
    return BodyTooLargeError(f"A body of at most {most:,} bytes is taken.")


async def read_body(receive: Receive, *, most: int, until: float) -> bytes | None:
    """Read a whole body.

    Args:
        receive: of the request.
        most: bytes that are taken.
        until: when it must be here, by the clock of the event loop.

    Returns:
        None if the caller went away: what came of it must not be acted on.

    Raises:
        BodyTooLargeError: more bytes came.
        BodyTooSlowError: it did not end in time.
    """
    body = bytearray()
    try:
        async with asyncio.timeout_at(until):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                body += message.get("body", b"")
                if len(body) > most:
                    raise too_large(most)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise BodyTooSlowError("The body did not arrive in time. Send it without pauses.") from error


def check_json(body: bytes) -> None:
    """Refuse what only looks like JSON, or breaks further in: bad UTF-8, half surrogates, endless nesting, NUL.

    Raises:
        BodyMalformedError: it is such.

    Example:
        >>> check_json(b'{"order_id": "order-1"}')
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BodyMalformedError(f"The body is not JSON: {error}.") from error
    if b"\\u0000" in body and _has_nul(document):
        raise BodyMalformedError("The body has a NUL character.")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(held) for key, held in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def replay(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already, and then whatever comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
