"""Parameters of a read: taken from the path and the query string of a request, and validated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from pydantic import Field, TypeAdapter, ValidationError

from refold.pipelines.serving.reads.openapi_schemas import MAX_CHARACTERS, POSITION, parameter_type
from refold.warehouse.declarations.endpoints import BoundEndpoint, Lookup
from refold.warehouse.queries.endpoint_queries import EndpointQuery

_MAX_LIMIT = 1_000
_DEFAULT_LIMIT = 50
_WAIT = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)(ms|s)?")
_REQUIRED = object()

_LIMIT = Annotated[int, Field(ge=1, le=_MAX_LIMIT)]
_AFTER = Annotated[str, Field(max_length=4 * MAX_CHARACTERS, pattern=r"^[A-Za-z0-9_-]*$")]
_WAIT_TEXT = Annotated[str, Field(pattern=rf"^{_WAIT.pattern}$")]


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One parameter: its type, and its default."""

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
class ReadRequest:
    """A validated read.

    Attributes:
        query: for the read models.
        min_position: the position that the rows must show; 0 for any.
        wait: how many seconds to wait for it.
    """

    query: EndpointQuery
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

    def __init__(self, bound: BoundEndpoint) -> None:
        self._bound = bound
        self._values = _values_of(bound)
        paged = isinstance(bound.endpoint, Lookup) and not bound.single_row
        self._page = _PAGE_PARAMETERS if paged else ()
        self._defaults = {p.name: p.default for p in (*self._page, *_WAIT_PARAMETERS)}

    def read(self, path: Mapping[str, str], query: bytes) -> ReadRequest:
        """Read and validate the parameters of a request.

        Args:
            path: the parameters in the path.
            query: the query string, which is valid UTF-8.

        Raises:
            RequestValidationError: parameters are invalid.
        """
        texts = {**dict(parse_qsl(query.decode(), keep_blank_values=True)), **path} if query else path
        errors: list[dict[str, Any]] = []
        values = tuple([_validate(parameter, texts, errors) for parameter in self._values])
        common = self._defaults
        if query:
            common = {p.name: _validate(p, texts, errors) for p in (*self._page, *_WAIT_PARAMETERS)}
        if errors:
            raise RequestValidationError(errors)
        endpoint_query = EndpointQuery(self._bound, values, common.get("limit", 1), common.get("after", ""))
        return ReadRequest(endpoint_query, common["min_position"], _seconds(common["wait"]))

    def document(self) -> list[dict[str, Any]]:
        """Describe the parameters for the OpenAPI document."""
        return [parameter.document() for parameter in (*self._values, *self._page, *_WAIT_PARAMETERS)]


_PAGE_PARAMETERS = (
    _Parameter("limit", "query", "The number of rows of a page.", TypeAdapter(_LIMIT), _DEFAULT_LIMIT),
    _Parameter("after", "query", "The end of the page before; use the link in `next`.", TypeAdapter(_AFTER), ""),
)
_WAIT_PARAMETERS = (
    _Parameter(
        "min_position",
        "query",
        "Respond 200 if the rows show this position, else 202; the response to a command has its position.",
        TypeAdapter(POSITION),
        0,
    ),
    _Parameter(
        "wait",
        "query",
        "How long to wait for it, such as 2s or 500ms; the server has its own limit.",
        TypeAdapter(_WAIT_TEXT),
        None,
    ),
)


def _values_of(bound: BoundEndpoint) -> tuple[_Parameter, ...]:
    endpoint = bound.endpoint
    found = []
    if isinstance(endpoint, Lookup):
        for name in endpoint.path_names:
            dtype = parameter_type(bound.columns[name])
            found.append(_Parameter(name, "path", "", TypeAdapter(dtype.annotation), value=dtype.value))
        return tuple(found)
    for name, declared in endpoint.parameters.items():
        dtype = parameter_type(declared.type, declared)
        place, default = ("path", _REQUIRED) if name in endpoint.path_names else ("query", declared.default)
        found.append(_Parameter(name, place, declared.text, TypeAdapter(dtype.annotation), default, dtype.value))
    return tuple(found)


def _validate(parameter: _Parameter, texts: Mapping[str, str], errors: list[dict[str, Any]]) -> Any:
    text = texts.get(parameter.name)
    if text is None:
        return parameter.default
    try:
        return parameter.value(parameter.adapter.validate_python(text))
    except ValidationError as error:
        errors += [{"loc": (parameter.place, parameter.name), "msg": e["msg"]} for e in error.errors()]
        return None


def _seconds(wait: str | None) -> float:
    if wait is None:
        return 0.0
    found = _WAIT.fullmatch(wait)
    assert found is not None
    return float(found[1]) / (1000 if found[2] == "ms" else 1)
