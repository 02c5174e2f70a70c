"""Reading: a route for each endpoint of the domain."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import quote_plus, urlencode

import duckdb
from fastapi import APIRouter, Path, Query, Request, Response

from pipelines.serving.asking import Answered
from pipelines.serving.problems import problem
from pipelines.serving.serving import Serving
from pipelines.serving.shapes import MOST_LETTERS, POSITION, Checked, JsonSchema, check_of, row_schema
from warehouse.endpoints import Bound, Lookup
from warehouse.queries import Standing
from warehouse.questions import Question, to_json
from warehouse.read_models.lag import Lag

_NO_CACHE = {"cache-control": "no-cache"}
_MOST_IN_PAGE = 1_000
_IN_PAGE = 50
_TAG = re.compile(r"\"[^\"]*\"|\*")
_WAIT = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)(ms|s)?")

_MIN_POSITION = Query(
    description="Answer 200 only if the rows show this position, which a command's answer gave; else 202."
)
_WAIT_TEXT = Query(
    pattern=rf"^{_WAIT.pattern}$",
    description="How long to wait for it, such as 2s or 500ms; the server has a bound of its own.",
)


def reading_router(serving: Callable[[], Serving], endpoints: tuple[Bound, ...]) -> APIRouter:
    """Make the routes.

    Args:
        serving: gives the server that runs.
        endpoints: what it answers.
    """
    router = APIRouter(tags=["read models"])
    for bound in endpoints:
        router.add_api_route(
            bound.endpoint.path,
            _route(serving, bound),
            methods=["GET"],
            response_class=Response,
            summary=bound.endpoint.text,
            operation_id=re.sub(r"\W+", "_", bound.endpoint.path).strip("_"),
            responses=_responses(bound),
        )
    return router


def _route(serving: Callable[[], Serving], bound: Bound) -> Callable[..., Any]:
    """Make a route's function, with the signature that FastAPI reads."""
    checks = _checks(bound)
    paged = isinstance(bound.endpoint, Lookup) and not bound.one
    declared = hashlib.sha256(repr((bound.endpoint, bound.columns)).encode()).hexdigest()[:8]

    async def read(request: Request, **given: Any) -> Response:
        values = tuple(
            given[f"p_{name}"] if given[f"p_{name}"] is None else check.value(given[f"p_{name}"])
            for name, check in checks.items()
        )
        question = Question(bound, values, given.get("limit", 1), given.get("after", ""))
        known = _known_tags(request)
        answer = await _answer(serving(), request, question, given["min_position"], given["wait"], known, declared)
        if "*" in known and answer.status_code == 200:
            return _unchanged(answer.headers["etag"])
        return answer

    read.__signature__ = _signature(bound, checks, paged=paged)  # type: ignore[attr-defined]
    return read


async def _answer(
    serving: Serving,
    request: Request,
    question: Question,
    min_position: int,
    wait: str | None,
    known: frozenset[str],
    declared: str,
) -> Response:
    if min_position:
        await serving.waiting.until(min_position, min(_seconds(wait), serving.settings.max_wait))
    shown = serving.source.standing()
    if known and shown is not None and shown.position >= min_position:
        tag = _tag(shown, declared)
        if tag.removeprefix("W/") in known:
            return _unchanged(tag)
    try:
        answered = await serving.asker.ask(question, at_least=min_position)
    except duckdb.InterruptException:
        return problem(503, detail="The report took too long. Ask for less: a shorter range.", code="too_slow")
    standing = answered.standing
    lag = serving.watch.lag(standing.position)
    processing = standing.position < min_position
    if question.bound.one and not answered.found and not processing:
        return problem(
            404,
            detail="There is no such row, at the position that the read models show.",
            code="not_found",
            position=standing.position,
            last_updated=standing.last_updated,
            lag={"events": lag.events, "seconds": lag.seconds},
        )
    body = _document(answered, lag, processing=processing, following=_next(request, question, answered))
    if processing:
        return Response(body, 202, _NO_CACHE, "application/json")
    return Response(body, 200, {"etag": _tag(standing, declared), **_NO_CACHE}, "application/json")


def _document(answered: Answered, lag: Lag, *, processing: bool, following: str | None) -> bytes:
    """Write an answer around rows that are JSON already."""
    rest = to_json(
        {
            "position": answered.standing.position,
            "last_updated": answered.standing.last_updated,
            "lag": {"events": lag.events, "seconds": lag.seconds},
            "status": "processing" if processing else "current",
            "next": following,
        }
    )
    return b'{"data":' + answered.data + b"," + rest[1:]


def _tag(standing: Standing, declared: str) -> str:
    """Name what is shown: where it stands, what the read models hold, and how the endpoint is declared."""
    return f'W/"{standing.position}-{standing.digest}-{declared}"'


def _known_tags(request: Request) -> frozenset[str]:
    """Give the tags of ``If-None-Match``, compared as RFC 9110 has it: weak or not makes no difference."""
    return frozenset(_TAG.findall(", ".join(request.headers.getlist("if-none-match"))))


def _unchanged(tag: str) -> Response:
    return Response(status_code=304, headers={"etag": tag, **_NO_CACHE})


def _next(request: Request, question: Question, answered: Answered) -> str | None:
    if not answered.after:
        return None
    query = urlencode({"limit": question.limit, "after": answered.after}, quote_via=quote_plus)
    return f"{request.scope['raw_path'].decode()}?{query}"


def _seconds(wait: str | None) -> float:
    if wait is None:
        return 0.0
    found = _WAIT.fullmatch(wait)
    assert found is not None
    return float(found[1]) / (1000 if found[2] == "ms" else 1)


def _checks(bound: Bound) -> dict[str, Checked]:
    """Tell how each value of a question is checked, in their order."""
    if isinstance(bound.endpoint, Lookup):
        return {name: check_of(bound.columns[name]) for name in bound.endpoint.given}
    return {name: check_of(parameter.type, parameter) for name, parameter in bound.endpoint.parameters.items()}


def _signature(bound: Bound, checks: Mapping[str, Checked], *, paged: bool) -> inspect.Signature:
    endpoint = bound.endpoint
    found = [_parameter("request", Request)]
    for name, check in checks.items():
        if name in endpoint.given:
            found.append(_parameter(f"p_{name}", Annotated[check.annotation, Path(alias=name)]))
        else:
            assert not isinstance(endpoint, Lookup)
            declared = endpoint.parameters[name]
            annotation = check.annotation if declared.default is not None else check.annotation | None
            query = Query(alias=name, description=declared.text)
            found.append(_parameter(f"p_{name}", Annotated[annotation, query], declared.default))
    if paged:
        limit = Annotated[int, Query(ge=1, le=_MOST_IN_PAGE, description="How many rows a page has.")]
        text = "Where the page before ended: take `next`."
        after = Annotated[str, Query(max_length=4 * MOST_LETTERS, pattern=r"^[A-Za-z0-9_-]*$", description=text)]
        found += [_parameter("limit", limit, _IN_PAGE), _parameter("after", after, "")]
    found.append(_parameter("min_position", Annotated[POSITION, _MIN_POSITION], 0))
    found.append(_parameter("wait", Annotated[str | None, _WAIT_TEXT], None))
    return inspect.Signature(found)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _responses(bound: Bound) -> dict[int | str, dict[str, Any]]:
    row = row_schema(bound.columns)
    data = {"anyOf": [row, {"type": "null"}]} if bound.one else {"type": "array", "items": row}
    found: dict[int | str, dict[str, Any]] = {
        200: _document_schema("What the read models show.", data, "current"),
        202: _document_schema("What is known so far: `min_position` is not shown yet.", data, "processing"),
        304: {"description": "Nothing has changed since the ETag."},
    }
    return found


def _document_schema(text: str, data: JsonSchema, status: str) -> dict[str, Any]:
    lag = {
        "type": "object",
        "description": "Events that the rows do not show yet, and the age of the oldest of them.",
        "properties": {"events": {"type": "integer"}, "seconds": {"type": ["number", "null"]}},
        "required": ["events", "seconds"],
    }
    properties = {
        "data": data,
        "position": {"type": "integer", "description": "Of the last event that the rows show."},
        "last_updated": {"type": "string", "format": "date-time", "description": "When they were brought there."},
        "lag": lag,
        "status": {"const": status},
        "next": {"type": ["string", "null"], "description": "Where the next page is."},
    }
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
