"""Events whose payload is one hostile value: as a field, as an optional one, in a list, in a struct, in both."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from functools import cache
from typing import Annotated, Any

from refold.event_schemas import event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import latest
from tests.values.hostile import TYPES, FieldType

Wrap = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """Where in a payload a value is.

    Attributes:
        name: a part of event types' names.
        annotation: the field's annotation, from that of the value.
        sql: the field's DuckDB type, from that of the value.
        wrap: the field's value, from the value.
        json: the field's JSON text, from that of the value.
        expression: the field's SQL expression, from that of the value.
        path: the path of the value in messages.
    """

    name: str
    annotation: Wrap
    sql: str
    wrap: Wrap
    json: str
    expression: str
    path: str


def _struct(annotation: Any) -> Any:
    return make_dataclass("Holder", [("v", annotation)], frozen=True, slots=True, kw_only=True)


SHAPES = (
    Shape(name="plain", annotation=lambda a: a, sql="{}", wrap=lambda v: v, json="{}", expression="{}", path="x"),
    Shape(
        name="optional",
        annotation=lambda a: a | None,
        sql="{}",
        wrap=lambda v: v,
        json="{}",
        expression="{}",
        path="x",
    ),
    Shape(
        name="list",
        annotation=lambda a: list[a | None],  # type: ignore[valid-type]
        sql="{}[]",
        wrap=lambda v: [None, v],
        json="[null,{}]",
        expression="[NULL, {}]",
        path="x[1]",
    ),
    Shape(
        name="struct",
        annotation=_struct,
        sql="STRUCT(v {})",
        wrap=lambda v: {"v": v},
        json='{{"v":{}}}',
        expression="{{'v': {}}}",
        path="x.v",
    ),
    Shape(
        name="nested",
        annotation=lambda a: list[_struct(list[a])],  # type: ignore[misc, valid-type]
        sql="STRUCT(v {}[])[]",
        wrap=lambda v: [{"v": []}, {"v": [v, v]}],
        json='[{{"v":[]}},{{"v":[{0},{0}]}}]',
        expression="[{{'v': []}}, {{'v': [{0}, {0}]}}]",
        path="x[1].v[0]",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """A field type in a shape: the payload ``{"x": ...}`` of one event type."""

    type: FieldType
    shape: Shape

    @property
    def event_type(self) -> str:
        """The name of the event type."""
        return f"{self.shape.name}_{self.type.name}"

    @property
    def sql(self) -> str:
        """The DuckDB type of the field."""
        return self.shape.sql.format(self.type.sql)

    @property
    def annotation(self) -> Any:
        """The annotation of the field."""
        return self.shape.annotation(Annotated[self.type.annotation, self.type.arrow])


FULL = os.environ.get("REFOLD_HOSTILE_VALUES") == "all"
"""Whether all values, shapes and sizes are tried, not a sample."""

FIELDS = tuple(Field(type=t, shape=s) for t in TYPES for s in SHAPES)
SAMPLE = tuple(f for i, f in enumerate(FIELDS) if FULL or i % 6 == 0)
"""Fields for tests that take long."""


@cache
def class_of(field: Field, version: int) -> type:
    """Return the event class with this field."""
    return event(schema_version=version)(type(field.event_type, (), {"__annotations__": {"x": field.annotation}}))


def seen(field: Field, version: int = 1) -> Projection:
    """Return a read model that shows the field of the last event of each stream."""
    return Projection(
        name=field.event_type,
        key={"stream": "VARCHAR"},
        columns={"x": latest(field.sql)},
        on={class_of(field, version): "SELECT stream_id AS stream, x"},
    )


@cache
def domain_of(field: Field) -> Domain:
    """Return a domain with one event type and its read model."""
    return Domain(name="values", events=(class_of(field, 1),), read_models=(seen(field),))


IMPORTED = Domain(name="values", events=tuple(class_of(field, 1) for field in FIELDS))
"""A domain with all these event types, for imports, whose workers load it by its name."""
