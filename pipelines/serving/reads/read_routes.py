"""Read routes: responses for the endpoints of the domain.

They are handled before the framework's routing, which takes as long as the rest of a response.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
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
from refold.pipelines.serving.reads.parameters import Parameters, ReadRequest
from refold.pipelines.serving.reads.query_batcher import Answer
from refold.pipelines.serving.server_state import ServerState
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import BoundEndpoint
from refold.warehouse.declarations.reports import OtherColumnsError
from refold.warehouse.engine.sql import first_line
from refold.warehouse.queries.endpoint_queries import WithheldRow, to_json
from refold.warehouse.queries.endpoint_sources import sources_of
from refold.warehouse.queries.read_source import ReadPosition
from refold.warehouse.read_models.lag import Lag

_LOGGER = logging.getLogger("refold.serving")
_JSON = (b"content-type", b"application/json")
_NO_CACHE = (b"cache-control", b"no-cache")
_RETRY_AFTER_REBUILD = "5"
_ETAG = re.compile(rb"\"[^\"]*\"|\*")


@dataclass(frozen=True, slots=True)
class _Route:
    """The route of one endpoint.

    Attributes:
        path: its template.
        pattern: matches paths.
        parameters: of its requests.
        digest: identifies its declaration.
        reads: the read models and views that it reads.
    """

    path: str
    pattern: re.Pattern[str]
    parameters: Parameters
    digest: str
    reads: frozenset[str]


class ReadRoutes:
    """ASGI middleware that responds for the endpoints, and passes on every other request.

    Args:
        app: handles the other requests.
        state: returns the state of the running server.
        domain: declares the endpoints.
    """

    def __init__(self, app: ASGIApp, *, state: Callable[[], ServerState], domain: Domain) -> None:
        self._app = app
        self._state = state
        self._routes = [_route(bound, domain) for bound in domain.bound_endpoints]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond, or pass the request on."""
        if scope["type"] == "http":
            for route in self._routes:
                if (match := route.pattern.fullmatch(scope["path"])) is not None:
                    scope["route"] = route
                    await self._respond(route, match.groupdict(), scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _respond(self, route: _Route, path: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            refusal = problem(405, detail="Use GET or HEAD.", headers={"allow": "GET, HEAD"})
            await refusal(scope, receive, send)
            return
        state = self._state()
        try:
            request = route.parameters.read(path, scope["query_string"])
            if request.min_position:
                await state.position_wait.until(request.min_position, min(request.wait, state.settings.max_wait))
            etags = _etags(scope)
            shown = state.source.read_position() if etags else None
            if shown is not None and shown.position >= request.min_position and _etag(route, shown)[2:] in etags:
                await _send_not_modified(_etag(route, shown), send)
                return
            answer = await state.batcher.ask(request.query, min_position=request.min_position)
        except RequestValidationError as error:
            await malformed(error)(scope, receive, send)
        except (duckdb.CatalogException, duckdb.BinderException, OtherColumnsError) as error:
            await _unbound(route, state, error)(scope, receive, send)
        except RefoldError as error:
            await problem_of(error)(scope, receive, send)
        except duckdb.InterruptException:
            detail = "The report took too long. Ask for less, such as a shorter range."
            await problem(503, detail=detail, code="too_slow")(scope, receive, send)
        except Exception:
            _LOGGER.exception("The request for %s failed", route.path)
            await failed()(scope, receive, send)
        else:
            lag = state.tail.lag(answer.shown.position)
            if request.query.bound.single_row and not answer.found and answer.shown.position >= request.min_position:
                refusal = _not_found(answer.shown, lag) if answer.withheld is None else _withheld(answer.withheld)
                await refusal(scope, receive, send)
            else:
                await _send(route, request, answer, lag, scope, send, etags=etags)


def _route(bound: BoundEndpoint, domain: Domain) -> _Route:
    path = bound.endpoint.path
    parts = re.split(r"\{(\w+)\}", path)
    pattern = "".join(f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    digest = hashlib.sha256(repr((bound.endpoint, bound.columns)).encode()).hexdigest()[:8]
    return _Route(path, re.compile(pattern, re.DOTALL), Parameters(bound), digest, sources_of(bound.endpoint, domain))


def _unbound(route: _Route, state: ServerState, error: Exception) -> Response:
    """Return the response if the rows that are shown lack a table or a column that the endpoint reads."""
    shown = state.source.read_position()
    if shown is None or not route.reads & shown.outdated:
        _LOGGER.error("The request for %s failed: %s", route.path, first_line(error))
        return failed()
    detail = "The read models were built by other code, which lacks what this path reads. Try again after a rebuild."
    return problem(503, detail=detail, code="not_built", headers={"retry-after": _RETRY_AFTER_REBUILD})


def _withheld(row: WithheldRow) -> Response:
    key = ", ".join(f"{name} = {value}" for name, value in row.key.items())
    return problem(
        409,
        "The row is withheld",
        f"Read model {row.read_model} withholds the row {key}, because its total {row.columns[0]} does not fit its "
        f"column since the event at position {row.since}. The row returns once its total fits.",
        code="withheld",
        read_model=row.read_model,
        key=row.key,
        columns=row.columns,
        since=row.since,
    )


def _not_found(shown: ReadPosition, lag: Lag) -> Response:
    return problem(
        404,
        detail="There is no such row at the position that the read models show.",
        code="not_found",
        position=shown.position,
        last_updated=shown.last_updated,
        lag={"events": lag.events, "seconds": lag.seconds},
    )


async def _send(
    route: _Route,
    request: ReadRequest,
    answer: Answer,
    lag: Lag,
    scope: Scope,
    send: Send,
    *,
    etags: frozenset[bytes],
) -> None:
    shown = answer.shown
    processing = shown.position < request.min_position
    if not processing and b"*" in etags:
        await _send_not_modified(_etag(route, shown), send)
        return
    rest = to_json(
        {
            "position": shown.position,
            "last_updated": shown.last_updated,
            "lag": {"events": lag.events, "seconds": lag.seconds},
            "status": "processing" if processing else "outdated" if route.reads & shown.outdated else "current",
            "next": _next(request, answer, scope),
        }
    )
    body = b'{"data":' + answer.data + b"," + rest[1:]
    headers = [_JSON, _NO_CACHE, (b"content-length", str(len(body)).encode())]
    if not processing:
        headers.append((b"etag", _etag(route, shown)))
    await send({"type": "http.response.start", "status": 202 if processing else 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _etag(route: _Route, shown: ReadPosition) -> bytes:
    """Identify a response by the position, the content of the read models and the endpoint's declaration."""
    outdated = "-outdated" if route.reads & shown.outdated else ""
    return f'W/"{shown.position}-{shown.digest}-{route.digest}{outdated}"'.encode()


def _etags(scope: Scope) -> frozenset[bytes]:
    """Return the tags of ``If-None-Match`` without ``W/``: RFC 9110 compares weak and strong tags alike here."""
    values = [value for name, value in scope["headers"] if name == b"if-none-match"]
    return frozenset(_ETAG.findall(b", ".join(values))) if values else frozenset()


async def _send_not_modified(etag: bytes, send: Send) -> None:
    await send({"type": "http.response.start", "status": 304, "headers": [(b"etag", etag), _NO_CACHE]})
    await send({"type": "http.response.body", "body": b""})


def _next(request: ReadRequest, answer: Answer, scope: Scope) -> str | None:
    if not answer.after:
        return None
    query = urlencode({"limit": request.query.limit, "after": answer.after}, quote_via=quote_plus)
    return f"{scope['raw_path'].decode()}?{query}"
