"""How long a request may take: at its end the caller is answered, whatever the application is at.

A handler that waits is cancelled. One that runs in a thread cannot be: it goes on, and what it answers is dropped.
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
"""Answers are data of this server for its own callers: no other site shall frame, embed or reinterpret them."""


class Deadline:
    """Runs an application for one request, and answers in its place when time is up.

    Args:
        seconds: how long it may take.
        scope: of the request.
        receive: of the request.
        send: of the request.

    Attributes:
        at: when time is up, by the clock of the event loop.
    """

    __slots__ = ("_answering", "_expired", "_receive", "_scope", "_seconds", "_send", "_started", "_task", "at")

    def __init__(self, seconds: float, scope: Scope, receive: Receive, send: Send) -> None:
        self.at = asyncio.get_running_loop().time() + seconds
        self._seconds = seconds
        self._scope, self._receive, self._send = scope, receive, send
        self._started = self._expired = False
        self._task: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Run the application until it is done, or time is up."""
        self._task = asyncio.current_task()
        timer = asyncio.get_running_loop().call_at(self.at, self._expire)
        try:
            await app(self._scope, receive, self._pass_on)
        except asyncio.CancelledError:
            if not self._expired or self._task is None or self._task.uncancel():
                raise  # somebody else's
        finally:
            timer.cancel()
            if self._answering is not None:
                await self._answering

    async def _pass_on(self, message: Message) -> None:
        if self._answering is not None:
            return  # the caller has been answered
        if message["type"] == "http.response.start":
            self._started = True
            message = {**message, "headers": [*message.get("headers", ()), *_SAFETY_HEADERS]}
        await self._send(message)

    def _expire(self) -> None:
        self._expired = True
        if not self._started:
            self._answering = asyncio.ensure_future(self._answer())
        if self._task is not None:
            self._task.cancel()

    async def _answer(self) -> None:
        detail = f"The request took more than {self._seconds:g} seconds. Whether it was carried out is not known."
        answer = problem(503, detail=detail, code="time", headers={"retry-after": "1"})
        await answer(self._scope, self._receive, self._send)
