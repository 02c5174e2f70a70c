"""The guard: the checks that every request passes before the application sees it.

In this order: request line, host and origin, token and rate, scope, requests in flight, body, time. Each refusal is a
problem document. A refused request reaches no route, so it changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from refold.event_schemas import UsageError
from refold.pipelines.serving.http.bodies import (
    BodyMalformedError,
    check_json,
    read_body,
    replay,
    too_large,
)
from refold.pipelines.serving.http.deadline import run_until
from refold.pipelines.serving.http.host_policy import host_of, is_own_origin
from refold.pipelines.serving.http.problems import ServingError, problem, problem_of
from refold.pipelines.serving.http.protocol import Connection
from refold.pipelines.serving.http.rate_limits import parse_rate
from refold.pipelines.serving.http.request_line import check_request_line
from refold.pipelines.serving.http.tokens import ANONYMOUS, Grant, Scope, Tokens

ScopeOf = Callable[[str, str], Scope | None]
"""From a method and a path to the scope that it needs; None if it needs no token."""

_HEADERS = frozenset({b"authorization", b"host", b"origin", b"content-length", b"content-type", b"transfer-encoding"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_RETRY = {"retry-after": "1"}
_MAX_LENGTH_DIGITS = 15
_MAX_DISCARDED = 64 << 20
"""After a refusal, a body of up to 64 MiB is read and discarded: a client that is still sending reads no response."""

PUBLIC_RATE = "200/second"
"""The default rate limit of a server that other machines reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """The limits on requests, in one server process.

    Attributes:
        body_bytes: of one request.
        seconds: from the end of a request's head to the end of its response.
        in_flight: concurrent requests, without those that need no token, such as ``/healthz``.
        in_flight_per_caller: concurrent requests of one token, or of one client address without a token, so that one
            caller cannot take all.
        body_seconds: from the end of a request's head to the end of its body.
        rate: requests of one token, or of one client address without a token, such as ``"200/second"``; None for no
            limit.

    Raises:
        UsageError: a limit is invalid or allows no request.
    """

    body_bytes: int = 1 << 20
    seconds: float = 30.0
    in_flight: int = 512
    in_flight_per_caller: int = 384
    body_seconds: float = 10.0
    rate: str | None = None

    def __post_init__(self) -> None:
        for name in ("body_bytes", "seconds", "in_flight", "in_flight_per_caller", "body_seconds"):
            if getattr(self, name) <= 0:
                raise UsageError(f"The limit {name} is {getattr(self, name)}. Give a number above 0.")
        if self.rate:
            parse_rate(self.rate)


class Guard:
    """ASGI middleware that checks every request, and leaves the caller's grant in ``scope["state"]["grant"]``.

    Args:
        app: the application to protect.
        tokens: the known tokens; without any, every caller may do everything.
        scope_of: returns the scope that a method and a path need.
        limits: on requests.
        hosts: the hosts that a request may name; None for any.

    Example:
        >>> from fastapi import FastAPI
        >>> app = FastAPI()
        >>> app.add_middleware(Guard, tokens=Tokens(), scope_of=lambda method, path: Scope.READ)
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: Tokens,
        scope_of: ScopeOf,
        limits: RequestLimits = RequestLimits(),
        hosts: frozenset[str] | None = None,
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._scope_of = scope_of
        self._limits = limits
        self._hosts = hosts
        self._rate_limit = parse_rate(limits.rate) if limits.rate else None
        self._in_flight: Counter[str | None] = Counter()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # no route is a web socket
            return
        scope.setdefault("state", {})
        headers = {name: value for name, value in scope["headers"] if name in _HEADERS}
        refusal = self._refuse(scope, headers)
        if refusal is not None:
            if _is_body_endless(headers):
                refusal.headers["connection"] = "close"
            await refusal(scope, receive, send)
            return
        caller = scope["state"].get("caller")
        if caller is None and b"content-length" not in headers and b"transfer-encoding" not in headers:
            await self._pass_on(scope, headers, receive, send)  # /healthz and the like never wait for a slot
            return
        self._in_flight[caller] += 1
        try:
            await self._while_connected(scope, headers, receive, send)
        finally:
            self._in_flight[caller] -= 1
            if not self._in_flight[caller]:
                del self._in_flight[caller]

    async def _while_connected(
        self, scope: AsgiScope, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Pass a request on; it is cancelled when its client disconnects, if the server knows the connection."""
        connection: Connection | None = scope["state"].get("connection")
        if connection is None:
            await self._pass_on(scope, headers, receive, send)
            return
        connection.running = asyncio.current_task()
        try:
            await self._pass_on(scope, headers, receive, send)
        except asyncio.CancelledError:
            if not connection.lost:
                raise
        finally:
            connection.running = None

    def _refuse(self, scope: AsgiScope, headers: dict[bytes, bytes]) -> Response | None:
        invalid = check_request_line(scope.get("raw_path") or scope["path"].encode(), scope["query_string"])
        if invalid is not None:
            return problem(invalid[0], detail=invalid[1], code="malformed")
        return (
            self._check_host(scope, headers) or self._check_caller(scope, headers) or self._check_load(scope, headers)
        )

    def _check_host(self, scope: AsgiScope, headers: dict[bytes, bytes]) -> Response | None:
        host = headers.get(b"host", b"")
        if self._hosts is not None and host_of(host) not in self._hosts:
            return problem(421, detail="This server does not serve the host of the request.", code="host")
        if scope["method"] in _SAFE:
            return None
        if b"origin" in headers and not is_own_origin(headers[b"origin"], host, self._hosts):
            return problem(403, detail="The request comes from a page of another origin.", code="origin")
        if scope["method"] == "POST" and _media_type(headers) != b"application/json":
            return problem(415, detail="Send content-type: application/json.", code="media-type")
        return None

    def _check_caller(self, scope: AsgiScope, headers: dict[bytes, bytes]) -> Response | None:
        needed = self._scope_of(scope["method"], scope["path"])
        if needed is None:
            return None
        grant = self._grant_of(headers)
        # The prefix keeps the counts apart: a token may be named like an address.
        caller = f"token {grant.name}" if grant and self._tokens else f"at {(scope.get('client') or ('',))[0]}"
        scope["state"]["caller"] = caller
        if self._rate_limit is not None:
            seconds = self._rate_limit.retry_after(caller)
            if seconds:
                detail = f"The rate limit is {self._limits.rate}. Try again later."
                return problem(429, detail=detail, code="rate", headers={"retry-after": str(seconds)})
        if grant is None:
            challenge = {"www-authenticate": 'Bearer realm="refold"'}
            detail = "Send Authorization: Bearer TOKEN, with a known token that has not expired."
            return problem(401, detail=detail, code="token", headers=challenge)
        if not grant.allows(needed):
            challenge = {"www-authenticate": f'Bearer error="insufficient_scope", scope="{needed}"'}
            return problem(403, detail=f"The token lacks the scope {needed}.", code="scope", headers=challenge)
        scope["state"]["grant"] = grant
        return None

    def _grant_of(self, headers: dict[bytes, bytes]) -> Grant | None:
        if not self._tokens:
            return ANONYMOUS
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        return self._tokens.scopes_of(secret.strip()) if scheme.lower() == b"bearer" else None

    def _check_load(self, scope: AsgiScope, headers: dict[bytes, bytes]) -> Response | None:
        caller = scope["state"].get("caller")
        if caller is not None and self._in_flight.total() >= self._limits.in_flight:
            return problem(503, detail="Too many requests are in flight. Try again.", code="busy", headers=_RETRY)
        if self._in_flight[caller] >= self._limits.in_flight_per_caller:
            detail = "Too many requests of this caller are in flight. Wait for their responses, and try again."
            return problem(429, detail=detail, code="busy", headers=_RETRY)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return problem(400, detail="Content-Length is not a number.", code="malformed")
        if len(length) > _MAX_LENGTH_DIGITS or int(length) > self._limits.body_bytes:
            return problem_of(too_large(self._limits.body_bytes))
        return None

    async def _pass_on(self, scope: AsgiScope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        seconds = self._limits.seconds
        deadline = asyncio.get_running_loop().time() + seconds
        if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
            try:
                complete_by = deadline - seconds + min(seconds, self._limits.body_seconds)
                body = await read_body(receive, max_bytes=self._limits.body_bytes, deadline=complete_by)
                if body and _media_type(headers) == b"application/json":
                    check_json(body)
            except ServingError as error:
                # An unknown part of the body may still arrive.
                close = None if isinstance(error, BodyMalformedError) else {"connection": "close"}
                await problem_of(error, headers=close)(scope, receive, send)
                return
            if body is None:
                return
            receive = replay(body, receive)
        await run_until(deadline, self._app, scope, receive, send, seconds=seconds)


def _is_body_endless(headers: dict[bytes, bytes]) -> bool:
    """Check whether a body is too long to discard, or of unknown length."""
    length = headers.get(b"content-length", b"0")
    is_short = length.isdigit() and len(length) <= _MAX_LENGTH_DIGITS and int(length) <= _MAX_DISCARDED
    return b"transfer-encoding" in headers or not is_short


def _media_type(headers: dict[bytes, bytes]) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
