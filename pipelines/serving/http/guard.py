"""The guard: what every request passes before the application sees it.

In this order: the request line, host and origin, who asks and whether so often, what for, how many are under way, how
large the body, and how long it all may take. Each refusal is a problem document, and none of them reaches a route, so
it changes nothing.
"""

from __future__ import annotations

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
from refold.pipelines.serving.http.deadline import Deadline
from refold.pipelines.serving.http.host_policy import host_of, is_own_origin
from refold.pipelines.serving.http.problems import ServingError, problem, problem_of
from refold.pipelines.serving.http.rate_limits import make_rates
from refold.pipelines.serving.http.request_line import check_request_line
from refold.pipelines.serving.http.tokens import (
    ANYBODY,
    Grant,
    Scope,
    Tokens,
)

ScopeOf = Callable[[str, str], Scope | None]
"""Method and path to the scope that is needed; None if anybody may ask."""

_HEADERS = frozenset({b"authorization", b"host", b"origin", b"content-length", b"content-type", b"transfer-encoding"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_DIGITS = 15
_MAX_DRAINED = 64 << 20
"""A body of so many bytes is taken and thrown away after a refusal: a client that still sends reads no answer."""


PUBLIC_RATE = "200/second"
"""What others than this machine are allowed unless it is said otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """What one request, and all together, may take.

    Attributes:
        body_bytes: of one request.
        seconds: from a request's head to the end of its answer.
        in_flight: requests at the same time, in one process.
        rate: requests a token, or a client address where there is no token, such as ``"200/second"``, in one process;
            None for any number.

    Raises:
        UsageError: one of them lets nothing through, or cannot be meant.
    """

    body_bytes: int = 1 << 20
    seconds: float = 30.0
    in_flight: int = 512
    rate: str | None = None

    def __post_init__(self) -> None:
        for name in ("body_bytes", "seconds", "in_flight"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; expected more than 0.")
        if self.rate:
            make_rates(self.rate)


class Guard:
    """The guard as ASGI middleware; what the caller may do is left in ``scope["state"]["grant"]``.

    Args:
        app: whom it guards.
        tokens: those that are known; with none, everybody may do everything.
        scope_of: which scope a method and path need.
        limits: what requests may take.
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
        self._rates = make_rates(limits.rate) if limits.rate else None
        self._in_flight = 0

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # nothing here speaks it
            return
        headers = {name: value for name, value in scope["headers"] if name in _HEADERS}
        refusal = self._refuse(scope, headers)
        if refusal is not None:
            if _has_no_end(headers):
                refusal.headers["connection"] = "close"
            await refusal(scope, receive, send)
            return
        self._in_flight += 1
        try:
            await self._hand_on(scope, headers, receive, send)
        finally:
            self._in_flight -= 1

    def _refuse(self, scope: AsgiScope, headers: dict[bytes, bytes]) -> Response | None:
        wrong = check_request_line(scope.get("raw_path") or scope["path"].encode(), scope["query_string"])
        if wrong is not None:
            return problem(wrong[0], detail=wrong[1], code="malformed")
        return self._check_doors(scope, headers) or self._check_caller(scope, headers) or self._check_size(headers)

    def _check_doors(self, scope: AsgiScope, headers: dict[bytes, bytes]) -> Response | None:
        host = headers.get(b"host", b"")
        if self._hosts is not None and host_of(host) not in self._hosts:
            return problem(421, detail="This server does not go by the host of the request.", code="host")
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
        if self._rates is not None:
            # A token and an address must not share a count: a token's name could be written like one.
            caller = f"token {grant.name}" if grant and self._tokens else f"at {(scope.get('client') or ('',))[0]}"
            seconds = self._rates.wait_for(caller)
            if seconds:
                detail = f"At most {self._limits.rate} requests are taken. Ask again later."
                return problem(429, detail=detail, code="rate", headers={"retry-after": str(seconds)})
        if grant is None:
            challenge = {"www-authenticate": 'Bearer realm="refold"'}
            detail = "Send Authorization: Bearer TOKEN, with a token that is known and has not expired."
            return problem(401, detail=detail, code="token", headers=challenge)
        if not grant.allows(needed):
            challenge = {"www-authenticate": f'Bearer error="insufficient_scope", scope="{needed}"'}
            return problem(403, detail=f"The token lacks the scope {needed}.", code="scope", headers=challenge)
        scope.setdefault("state", {})["grant"] = grant
        return None

    def _grant_of(self, headers: dict[bytes, bytes]) -> Grant | None:
        if not self._tokens:
            return ANYBODY
        scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
        return self._tokens.scopes_of(secret.strip()) if scheme.lower() == b"bearer" else None

    def _check_size(self, headers: dict[bytes, bytes]) -> Response | None:
        if self._in_flight >= self._limits.in_flight:
            busy = {"retry-after": "1"}
            return problem(503, detail="Too many requests are under way. Ask again.", code="busy", headers=busy)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return problem(400, detail="Content-Length is no number.", code="malformed")
        if len(length) > _MAX_DIGITS or int(length) > self._limits.body_bytes:
            return problem_of(too_large(self._limits.body_bytes))
        return None

    async def _hand_on(self, scope: AsgiScope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        deadline = Deadline(self._limits.seconds, scope, receive, send)
        if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
            try:
                body = await read_body(receive, most=self._limits.body_bytes, until=deadline.at)
                if body and _media_type(headers) == b"application/json":
                    check_json(body)
            except ServingError as error:
                # More of the body may come, and nobody knows how much.
                close = None if isinstance(error, BodyMalformedError) else {"connection": "close"}
                await problem_of(error, headers=close)(scope, receive, send)
                return
            if body is None:
                return
            receive = replay(body, receive)
        await deadline.run(self._app, receive)


def _has_no_end(headers: dict[bytes, bytes]) -> bool:
    length = headers.get(b"content-length", b"0")
    told = length.isdigit() and len(length) <= _MAX_DIGITS and int(length) <= _MAX_DRAINED
    return b"transfer-encoding" in headers or not told


def _media_type(headers: dict[bytes, bytes]) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
