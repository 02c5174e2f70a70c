"""Reading: answers for the endpoints of the domain.

They are answered before the framework is asked for a route: that takes as long as all the rest of an answer.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote_plus, urlencode

import duckdb
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from refold.event_schemas import RefoldError
from refold.pipelines.serving.http.problems import (
    failed,
    malformed,
    problem,
    problem_of,
)
from refold.pipelines.serving.reads.parameters import Asked, Parameters
from refold.pipelines.serving.reads.query_batcher import Answered
from refold.pipelines.serving.serving import Serving
from refold.warehouse.declarations.endpoints import Bound
from refold.warehouse.queries.questions import to_json
from refold.warehouse.queries.readers import ReadPosition
from refold.warehouse.read_models.lag import Lag

_LOGGER = logging.getLogger("refold.serving")
_JSON = (b"content-type", b"application/json")
_NO_CACHE = (b"cache-control", b"no-cache")
_KNOWN = re.compile(rb"\"[^\"]*\"|\*")


@dataclass(frozen=True, slots=True)
class _Route:
    """Where one endpoint is asked: ``path`` is its template, ``declared`` a digest of its declaration."""

    path: str
    pattern: re.Pattern[str]
    parameters: Parameters
    declared: str


class Reading:
    """ASGI middleware that answers for the endpoints, and hands on everything else.

    Args:
        app: takes what is not asked of an endpoint.
        serving: gives the server that runs.
        endpoints: what is answered.
    """

    def __init__(self, app: ASGIApp, *, serving: Callable[[], Serving], endpoints: Iterable[Bound]) -> None:
        self._app = app
        self._serving = serving
        self._routes = [_route(bound) for bound in endpoints]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] == "http":
            for route in self._routes:
                if (found := route.pattern.fullmatch(scope["path"])) is not None:
                    scope["route"] = route
                    await self._answer(route, found.groupdict(), scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _answer(self, route: _Route, given: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            refusal = problem(405, detail="Ask with GET.", headers={"allow": "GET"})
            await refusal(scope, receive, send)
            return
        serving = self._serving()
        try:
            asked = route.parameters.read(given, scope["query_string"])
            if asked.min_position:
                await serving.waiting.until(asked.min_position, min(asked.wait, serving.settings.max_wait))
            known = _known_tags(scope)
            shown = serving.source.standing() if known else None
            if shown is not None and shown.position >= asked.min_position and _tag(route, shown)[2:] in known:
                await _send_unchanged(_tag(route, shown), send)
                return
            answered = await serving.asker.ask(asked.question, at_least=asked.min_position)
        except RequestValidationError as error:
            await malformed(error)(scope, receive, send)
        except RefoldError as error:
            await problem_of(error)(scope, receive, send)
        except duckdb.InterruptException:
            refusal = problem(503, detail="The report took too long. Ask for less: a shorter range.", code="too_slow")
            await refusal(scope, receive, send)
        except Exception:
            _LOGGER.exception("%s could not be answered", route.path)
            await failed()(scope, receive, send)
        else:
            lag = serving.watch.lag(answered.standing.position)
            if asked.question.bound.one and not answered.found and answered.standing.position >= asked.min_position:
                await _nothing(answered.standing, lag)(scope, receive, send)
            else:
                await _send(route, asked, answered, lag, scope, send, known=known)


def _route(bound: Bound) -> _Route:
    path = bound.endpoint.path
    parts = re.split(r"\{(\w+)\}", path)
    pattern = "".join(f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    declared = hashlib.sha256(repr((bound.endpoint, bound.columns)).encode()).hexdigest()[:8]
    return _Route(path, re.compile(pattern, re.DOTALL), Parameters(bound), declared)


def _nothing(standing: ReadPosition, lag: Lag) -> Response:
    return problem(
        404,
        detail="There is no such row, at the position that the read models show.",
        code="not_found",
        position=standing.position,
        last_updated=standing.last_updated,
        lag={"events": lag.events, "seconds": lag.seconds},
    )


async def _send(
    route: _Route,
    asked: Asked,
    answered: Answered,
    lag: Lag,
    scope: Scope,
    send: Send,
    *,
    known: frozenset[bytes],
) -> None:
    standing = answered.standing
    processing = standing.position < asked.min_position
    if not processing and b"*" in known:
        await _send_unchanged(_tag(route, standing), send)
        return
    rest = to_json(
        {
            "position": standing.position,
            "last_updated": standing.last_updated,
            "lag": {"events": lag.events, "seconds": lag.seconds},
            "status": "processing" if processing else "current",
            "next": _next(asked, answered, scope),
        }
    )
    body = b'{"data":' + answered.data + b"," + rest[1:]
    headers = [_JSON, _NO_CACHE, (b"content-length", str(len(body)).encode())]
    if not processing:
        headers.append((b"etag", _tag(route, standing)))
    await send({"type": "http.response.start", "status": 202 if processing else 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _tag(route: _Route, standing: ReadPosition) -> bytes:
    """Name what is shown: where it stands, what the read models hold, and how the endpoint is declared."""
    return f'W/"{standing.position}-{standing.digest}-{route.declared}"'.encode()


def _known_tags(scope: Scope) -> frozenset[bytes]:
    """Give the tags of ``If-None-Match``, compared as RFC 9110 has it: weak or not makes no difference."""
    values = [value for name, value in scope["headers"] if name == b"if-none-match"]
    return frozenset(_KNOWN.findall(b", ".join(values))) if values else frozenset()


async def _send_unchanged(tag: bytes, send: Send) -> None:
    await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", tag), _NO_CACHE]})
    await send({"type": "http.response.body", "body": b""})


def _next(asked: Asked, answered: Answered, scope: Scope) -> str | None:
    if not answered.after:
        return None
    query = urlencode({"limit": asked.question.limit, "after": answered.after}, quote_via=quote_plus)
    return f"{scope['raw_path'].decode()}?{query}"
