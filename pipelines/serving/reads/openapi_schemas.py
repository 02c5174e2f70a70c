"""The engine's types as JSON Schema, for the OpenAPI document, and as validators of request parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pyarrow as pa
import pyarrow.types as pt
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from refold.warehouse.declarations.endpoints import Parameter
from refold.warehouse.engine.parameters import check_value
from refold.warehouse.engine.types import resolved_type
from refold.warehouse.queries.endpoint_queries import WIDE

JsonSchema = dict[str, Any]

MAX_CHARACTERS = 500
"""The longest text of a parameter; a longer one is malformed (400)."""

POSITION = Annotated[int, Field(ge=0, le=2**63 - 1)]

_BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
_UNSIGNED_BITS = {"UTINYINT": 8, "USMALLINT": 16, "UINTEGER": 32, "UBIGINT": 64}
_TEXTS: dict[str, JsonSchema] = {
    "DATE": {"type": "string", "format": "date"},
    "UUID": {"type": "string", "format": "uuid"},
    "TIMESTAMP": {"type": "string"},
    "TIMESTAMP WITH TIME ZONE": {"type": "string", "format": "date-time"},
}


def row_schema(columns: Mapping[str, str]) -> JsonSchema:
    """Return the schema of the rows of a response.

    Args:
        columns: column to DuckDB type.

    Example:
        >>> row_schema({"day": "DATE"})["properties"]["day"]
        {'type': ['string', 'null'], 'format': 'date'}
    """
    properties = {name: _nullable(_duckdb_schema(dtype)) for name, dtype in columns.items()}
    return {"type": "object", "properties": properties, "required": list(columns), "additionalProperties": False}


def _duckdb_schema(dtype: str) -> JsonSchema:
    if dtype in _BITS or dtype in _UNSIGNED_BITS:
        return {"type": "integer"}
    if dtype in ("FLOAT", "DOUBLE"):
        return {"type": "number"}
    if dtype == "BOOLEAN":
        return {"type": "boolean"}
    if dtype.startswith("DECIMAL") or dtype in WIDE:
        return {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}
    if dtype.endswith("]"):
        return {"type": "array"}
    if dtype.startswith(("STRUCT", "MAP")):
        return {"type": "object"}
    return _TEXTS.get(dtype, {"type": "string"})


def _nullable(schema: JsonSchema) -> JsonSchema:
    return {**schema, "type": [schema["type"], "null"]}


def fields_schema(schema: pa.Schema) -> JsonSchema:
    """Return the schema of a command's JSON object.

    Example:
        >>> fields_schema(pa.schema([pa.field("sku", pa.string(), nullable=False)]))["required"]
        ['sku']
    """
    return _struct_schema(list(schema))


def _struct_schema(fields: list[pa.Field]) -> JsonSchema:
    properties = {f.name: _nullable(_arrow_schema(f.type)) if f.nullable else _arrow_schema(f.type) for f in fields}
    required = [f.name for f in fields if not f.nullable]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _arrow_schema(dtype: pa.DataType) -> JsonSchema:
    if pt.is_signed_integer(dtype):
        return {"type": "integer", "minimum": -(2 ** (dtype.bit_width - 1)), "maximum": 2 ** (dtype.bit_width - 1) - 1}
    if pt.is_unsigned_integer(dtype):
        return {"type": "integer", "minimum": 0, "maximum": 2**dtype.bit_width - 1}
    if pt.is_floating(dtype):
        return {"type": "number"}
    if pt.is_boolean(dtype):
        return {"type": "boolean"}
    if pt.is_decimal(dtype):
        digits, places = dtype.precision - dtype.scale, dtype.scale
        return {"type": "string", "pattern": rf"^-?[0-9]{{1,{digits}}}(\.[0-9]{{1,{places}}})?$"}
    if pt.is_struct(dtype):
        return _struct_schema([dtype.field(i) for i in range(dtype.num_fields)])
    if pt.is_list(dtype) or pt.is_large_list(dtype):
        item = _arrow_schema(dtype.value_type)
        return {"type": "array", "items": _nullable(item) if dtype.value_field.nullable else item}
    if pt.is_date(dtype):
        return {"type": "string", "format": "date"}
    if pt.is_timestamp(dtype):
        return {"type": "string", "format": "date-time"}
    return {"type": "string", "format": "uuid"} if str(dtype) == "extension<arrow.uuid>" else {"type": "string"}


@dataclass(frozen=True, slots=True)
class ParameterType:
    """How the text of a parameter is validated and converted.

    Attributes:
        annotation: for pydantic.
        value: converts the validated value before it is bound.
    """

    annotation: Any
    value: Callable[[Any], Any] = lambda value: value


def _matching(pattern: str, *, what: str) -> BeforeValidator:
    """Accept only text that matches: pydantic accepts far more, such as seconds for a date."""
    form = re.compile(pattern)

    def check(value: Any) -> Any:
        if isinstance(value, str) and not form.fullmatch(value):
            raise ValueError(f"expected {what}")
        return value

    return BeforeValidator(check)


_PLAIN = r"^[^\x00-\x1f\x7f-\x9f/\\]*$"
"""No control characters and no slashes: the guard refuses them in a path."""


def _fitting(dtype: str) -> AfterValidator:
    """Accept only a value that can be bound as a type."""

    def check(value: Any) -> Any:
        check_value(value, dtype)
        return value

    return AfterValidator(check)


_NUMBER = _matching(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", what="a number")
_TEXT = ParameterType(Annotated[str, StringConstraints(max_length=MAX_CHARACTERS, pattern=_PLAIN)])
_INTEGER = _matching(r"-?[0-9]{1,40}", what="a whole number")
_PARAMETER_TYPES: dict[str, ParameterType] = {
    "DATE": ParameterType(Annotated[date, _matching(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", what="a date such as 2025-03-01")]),
    "TIMESTAMP WITH TIME ZONE": ParameterType(
        Annotated[datetime, _matching(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].+([Zz]|[+-].+)", what="an RFC 3339 time")]
    ),
    "UUID": ParameterType(Annotated[UUID, _matching(r"[0-9a-fA-F-]{36}", what="a UUID")]),
    "BOOLEAN": ParameterType(Literal["true", "false"], lambda text: text == "true"),
}


def parameter_type(dtype: str, parameter: Parameter | None = None) -> ParameterType:
    """Return how a parameter of a DuckDB type is validated; other types are validated as text.

    Args:
        dtype: as declared, or as DuckDB names it.
        parameter: its bounds and choices.
    """
    dtype = resolved_type(dtype)
    if parameter is not None and parameter.choices:
        return ParameterType(Literal[parameter.choices])
    if dtype in _BITS or dtype in _UNSIGNED_BITS:
        bits = _BITS.get(dtype, 0)
        minimum, maximum = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if bits else (0, 2 ** _UNSIGNED_BITS[dtype] - 1)
        if parameter is not None:
            minimum = minimum if parameter.minimum is None else parameter.minimum
            maximum = maximum if parameter.maximum is None else parameter.maximum
        return ParameterType(Annotated[int, Field(ge=minimum, le=maximum), _INTEGER])
    if dtype.startswith("DECIMAL"):
        form = _matching(r"-?[0-9]{1,38}(\.[0-9]{1,38})?", what="a decimal number")
        return ParameterType(Annotated[Decimal, form, _fitting(dtype)])
    if dtype in ("FLOAT", "DOUBLE"):
        return ParameterType(Annotated[float, _NUMBER, _fitting(dtype)])
    if dtype in _PARAMETER_TYPES or dtype == "VARCHAR":
        return _PARAMETER_TYPES.get(dtype, _TEXT)
    return ParameterType(Annotated[_TEXT.annotation, _fitting(dtype)])
