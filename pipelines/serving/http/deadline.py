"""The time limit of a request: when it expires, the client gets a response, whatever the application is doing.

A handler that awaits is cancelled. A handler that runs in a thread cannot be: the thread continues, and its response is
dropped.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from refold.pipelines.serving.http.problems import problem

_SAFETY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
]
"""No other site may frame, embed or reinterpret a response."""


async def run_until(
    deadline: float, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, seconds: float
) -> None:
    """Run an application for one request; at the deadline, respond in its place.

    Args:
        deadline: by the clock of the event loop.
        app: the application.
        scope: of the request.
        receive: of the request.
        send: of the request.
        seconds: the time limit, for the message.
    """
    started = False

    async def send_with_headers(message: Message) -> None:
        nonlocal started
        if message["type"] == "http.response.start":
            started = True
            message = {**message, "headers": [*message.get("headers", ()), *_SAFETY_HEADERS]}
        await send(message)

    limit = asyncio.timeout_at(deadline)
    try:
        async with limit:
            await app(scope, receive, send_with_headers)
    except TimeoutError:
        if not limit.expired():
            raise
        if not started:
            detail = f"The request took more than {seconds:g} seconds. It may or may not have been carried out."
            response = problem(503, detail=detail, code="time", headers={"retry-after": "1"})
            await response(scope, receive, send)
