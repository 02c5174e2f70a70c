"""Parameters: what a question is asked with, read from the path and the query of a request, and checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from pydantic import Field, TypeAdapter, ValidationError

from refold.pipelines.serving.reads.openapi_schemas import MAX_LETTERS, POSITION, check_of
from refold.warehouse.declarations.endpoints import Bound, Lookup
from refold.warehouse.queries.questions import Question

_MAX_IN_PAGE = 1_000
_IN_PAGE = 50
_WAIT = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)(ms|s)?")
_REQUIRED = object()

_LIMIT = Annotated[int, Field(ge=1, le=_MAX_IN_PAGE)]
_AFTER = Annotated[str, Field(max_length=4 * MAX_LETTERS, pattern=r"^[A-Za-z0-9_-]*$")]
_WAIT_TEXT = Annotated[str, Field(pattern=rf"^{_WAIT.pattern}$")]


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One of them: how its text is checked, and what it is if it is not there."""

    name: str
    place: str
    text: str
    adapter: TypeAdapter[Any]
    default: Any = _REQUIRED
    value: Callable[[Any], Any] = lambda value: value

    def document(self) -> dict[str, Any]:
        schema = self.adapter.json_schema()
        required = self.default is _REQUIRED
        if not required and self.default is not None:
            schema = {**schema, "default": self.default}
        found = {"name": self.name, "in": self.place, "required": required, "schema": schema}
        return {**found, "description": self.text} if self.text else found


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks.

    Attributes:
        question: of its endpoint.
        min_position: which position must be shown; 0 for any.
        wait: how many seconds it is worth to wait for that.
    """

    question: Question
    min_position: int
    wait: float


class Parameters:
    """The parameters of one endpoint.

    Args:
        bound: the endpoint.

    Example:
        >>> from refold import load_domain
        >>> parameters = Parameters(load_domain("orders").bound_endpoints[0])
        >>> parameters.read({"order_id": "order-1"}, b"wait=500ms&min_position=7").wait
        0.5
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._values = _values_of(bound)
        paged = isinstance(bound.endpoint, Lookup) and not bound.one
        self._page = _PAGE if paged else ()
        self._plain = {p.name: p.default for p in (*self._page, *_WAITING)}

    def read(self, given: Mapping[str, str], query: bytes) -> Asked:
        """Read and check them.

        Args:
            given: what stands in the path.
            query: the query string, which is valid UTF-8.

        Raises:
            RequestValidationError: some are malformed.
        """
        texts = {**dict(parse_qsl(query.decode(), keep_blank_values=True)), **given} if query else given
        wrong: list[dict[str, Any]] = []
        values = tuple([_checked(parameter, texts, wrong) for parameter in self._values])
        plain = self._plain
        if query:
            plain = {p.name: _checked(p, texts, wrong) for p in (*self._page, *_WAITING)}
        if wrong:
            raise RequestValidationError(wrong)
        question = Question(self._bound, values, plain.get("limit", 1), plain.get("after", ""))
        return Asked(question, plain["min_position"], _seconds(plain["wait"]))

    def document(self) -> list[dict[str, Any]]:
        """Describe them for the API's document."""
        return [parameter.document() for parameter in (*self._values, *self._page, *_WAITING)]


_PAGE = (
    _Parameter("limit", "query", "How many rows a page has.", TypeAdapter(_LIMIT), _IN_PAGE),
    _Parameter("after", "query", "Where the page before ended: take `next`.", TypeAdapter(_AFTER), ""),
)
_WAITING = (
    _Parameter(
        "min_position",
        "query",
        "Answer 200 only if the rows show this position, which a command's answer gave; else 202.",
        TypeAdapter(POSITION),
        0,
    ),
    _Parameter(
        "wait",
        "query",
        "How long to wait for it, such as 2s or 500ms; the server has a bound of its own.",
        TypeAdapter(_WAIT_TEXT),
        None,
    ),
)


def _values_of(bound: Bound) -> tuple[_Parameter, ...]:
    endpoint = bound.endpoint
    found = []
    if isinstance(endpoint, Lookup):
        for name in endpoint.given:
            check = check_of(bound.columns[name])
            found.append(_Parameter(name, "path", "", TypeAdapter(check.annotation), value=check.value))
        return tuple(found)
    for name, declared in endpoint.parameters.items():
        check = check_of(declared.type, declared)
        place, default = ("path", _REQUIRED) if name in endpoint.given else ("query", declared.default)
        found.append(_Parameter(name, place, declared.text, TypeAdapter(check.annotation), default, check.value))
    return tuple(found)


def _checked(parameter: _Parameter, texts: Mapping[str, str], wrong: list[dict[str, Any]]) -> Any:
    text = texts.get(parameter.name)
    if text is None:
        return parameter.default
    try:
        return parameter.value(parameter.adapter.validate_python(text))
    except ValidationError as error:
        wrong += [{"loc": (parameter.place, parameter.name), "msg": e["msg"]} for e in error.errors()]
        return None


def _seconds(wait: str | None) -> float:
    if wait is None:
        return 0.0
    found = _WAIT.fullmatch(wait)
    assert found is not None
    return float(found[1]) / (1000 if found[2] == "ms" else 1)
