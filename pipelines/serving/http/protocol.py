"""What uvicorn has no setting for: limits on a request's head, and an end of requests whose client disconnected.

The limits are the size of a head and the time until it is complete.

uvicorn limits the head with its h11 protocol only (``h11_max_incomplete_event_size``), which is pure Python and slower.
Its httptools protocol keeps every header byte of a head that never ends, and ``timeout_keep_alive`` covers neither a
connection that never sends a request nor one that sends half a head.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 1 << 16
HEAD_SECONDS = 10.0


class JoinedWrites:
    """A transport that joins the writes of one turn of the event loop: uvicorn writes the head and the body separately.

    Each write is a system call that wakes the client.

    Args:
        transport: receives the joined writes.
        loop: of the transport.
    """

    __slots__ = ("_buffer", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffer: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write when the running callback of the event loop ends."""
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append(data)

    def close(self) -> None:
        """Write what is buffered, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._buffer:
            data, self._buffer = b"".join(self._buffer), []
            self._transport.write(data)


class Connection:
    """A client's connection, as ``scope["state"]["connection"]`` of its requests.

    Attributes:
        running: the task of the request that is being handled; it is cancelled when the client disconnects.
        lost: whether the client disconnected.
    """

    __slots__ = ("lost", "running")

    def __init__(self) -> None:
        self.running: asyncio.Task[Any] | None = None
        self.lost = False

    def lose(self) -> None:
        """Cancel the request: nobody reads its response."""
        self.lost = True
        if self.running is not None:
            self.running.cancel()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with these limits, for ``uvicorn.Config(http=BoundedProtocol)``.

    A head that arrives in one piece costs nothing more.

    Example:
        >>> import uvicorn
        >>> app = "refold.pipelines.serving.server:from_environment"
        >>> config = uvicorn.Config(app, factory=True, http=BoundedProtocol)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._connection = Connection()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        super().connection_made(transport)
        self.transport = JoinedWrites(transport, self.loop)  # type: ignore[assignment]
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer and the request."""
        super().connection_lost(exc)
        self._stop_timer()
        self._connection.lose()

    def data_received(self, data: bytes) -> None:
        """Parse data; count it if it belongs to an incomplete head."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")
            elif self._head_timer is None:
                self._start_timer()

    def on_message_begin(self) -> None:
        """Note the start of a head."""
        super().on_message_begin()
        self.scope["state"]["connection"] = self._connection
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Note the end of a head."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse, b"408 Request Timeout")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: bytes) -> None:
        """Respond without the application, which never saw the request, and close the connection."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_timer()  # the response to the request before this one is not complete
            return
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()
