"""``HEAD``: answered as ``GET``, without the body."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """ASGI middleware that answers ``HEAD`` with the status and the headers of ``GET``.

    Args:
        app: handles the requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        inner = {**scope, "method": "GET"}  # a copy: the server must know that it sends no body
        try:
            await self._app(inner, receive, without_body)
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]  # for the metrics
