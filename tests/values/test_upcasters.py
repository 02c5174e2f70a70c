"""Hostile values as results of upcasters: the same value as appended, or an invalid event with a position."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from refold.event_schemas import InvalidEventsError, Upcaster, merger, upcaster
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log import Appender, NewEvent, StreamAppend, create_log
from refold.warehouse.event_log.reads.read import read_stream
from refold.warehouse.replay.newest_version import newest_events
from tests.properties.engine import seal
from tests.values.hostile import NOT_WRITABLE, Hostile
from tests.values.logs import dead_letters, same, shown, tables
from tests.values.shapes import FIELDS, SAMPLE, Field, class_of, seen

OLD = pa.schema([pa.field("code", pa.string(), nullable=False)])

Step = tuple[Upcaster, Sequence[Hostile]]


def by_python(field: Field, *, as_mapping: bool) -> Step:
    """Return an upcaster that looks a value up, and the values that it knows."""
    values = {v.name: v for v in (field.type.plain, *field.type.values) if v.python is not NOT_WRITABLE}
    cls = class_of(field, 2)

    def look_up(old: Any) -> list[Any]:
        x = field.shape.wrap(values[old.payload["code"]].python)
        return [{"x": x} if as_mapping else cls(x=x)]

    return upcaster(field.event_type, from_version=1, schema=OLD)(look_up), list(values.values())


def by_merger(field: Field) -> Step:
    """Return a merger of single events."""
    values = {v.name: v for v in (field.type.plain, *field.type.values) if v.python is not NOT_WRITABLE}
    cls = class_of(field, 2)

    def merge(old: list[Any]) -> list[Any]:
        return [cls(x=field.shape.wrap(values[one.payload["code"]].python)) for one in old]

    return merger([(field.event_type, 1, OLD)], into=cls)(merge), list(values.values())


def by_sql(field: Field) -> Step:
    """Return an upcaster in SQL, with one branch for each value of the field's own SQL type."""
    values = [v for v in (field.type.plain, *field.type.values) if _is_branch(field, v)]
    branches = " ".join(f"WHEN '{v.name}' THEN {field.shape.expression.format(v.sql)}" for v in values)

    def look_up() -> str:
        return f"SELECT CASE code {branches} END AS x FROM event"

    return upcaster(field.event_type, from_version=1, schema=OLD)(look_up), values


def _is_branch(field: Field, value: Hostile) -> bool:
    """Check whether an expression has the type of the other branches; DuckDB would widen them to a common type."""
    other = {"DECIMAL(18,2)": "::DECIMAL(18,2)", "DOUBLE": " AS DOUBLE)"}.get(field.type.sql, "")
    return bool(value.sql) and not value.bulky and value.sql.endswith(other)


STEPS: dict[str, Callable[[Field], Step]] = {
    "python": functools.partial(by_python, as_mapping=False),
    "python_mapping": functools.partial(by_python, as_mapping=True),
    "merger": by_merger,
    "sql": by_sql,
}


CASES = [
    pytest.param(field, way, id=f"{field.event_type}-{way}", marks=() if i % len(STEPS) == j else pytest.mark.slow)
    for i, field in enumerate(SAMPLE)
    for j, way in enumerate(STEPS)
]
"""Every sampled field with every way; the tests that are not slow have each field in one way."""


@pytest.mark.parametrize(("field", "way"), CASES)
def test_a_result_is_a_value_of_its_field_or_an_invalid_event(field: Field, way: str, tmp_path: Path) -> None:
    """Before and after sealing, in a stream, a rebuild, and the stream that a command loads."""
    step, values = STEPS[way](field)
    if not values:
        return
    domain = Domain(name="values", events=(class_of(field, 2),), upcasters=(step,), read_models=(seen(field, 2),))
    log = create_log(str(tmp_path / "log"), domain_name="values", bucket_count=2)
    appends = [
        StreamAppend(v.name, [NewEvent(payload={"code": v.name}, event_type=field.event_type, schema_version=1)])
        for v in values
    ]
    Appender(log, domain.registry).append_many(appends)
    expected = {v.name: field.shape.wrap(v.stored) for v in values if not v.is_refused}
    refused = {position: v.name for position, v in enumerate(values, start=1) if v.is_refused}
    for sealed in (False, True):
        if sealed:
            seal(log, domain.registry)
        with tables(tmp_path / f"tables-{sealed}", domain) as made:
            made.catch_up(log)
            for rebuilt in (False, True) if sealed else (False,):
                if rebuilt:
                    made.rebuild(log)
                found = shown(made, field.event_type)
                assert found.keys() == expected.keys()
                assert all(same(found[s], x) for s, x in expected.items())
                reasons = dead_letters(made)
                assert reasons.keys() == refused.keys()
                assert all("upcaster" in r and "x" in r for r in reasons.values()), reasons
    if refused:
        position, stream = min(refused.items())
        with (
            tables(tmp_path / "strict", domain, dead_letter=False) as strict,
            pytest.raises(InvalidEventsError, match=f"position {position}, stream {re.escape(stream)}, "),
        ):
            strict.catch_up(log)
        with pytest.raises(InvalidEventsError, match=f"position {position} is invalid"):
            newest_events(domain, list(read_stream(log, domain.registry, stream)))


OPTIONAL = [f for f in FIELDS if f.shape.name == "optional"]


@pytest.mark.parametrize("field", OPTIONAL, ids=[f.event_type for f in OPTIONAL])
def test_a_bare_null_is_the_null_of_every_optional_field(field: Field, tmp_path: Path) -> None:
    """It has no type of its own in SQL."""

    def forget() -> str:
        return "SELECT NULL AS x FROM event"

    step = upcaster(field.event_type, from_version=1, schema=OLD)(forget)
    domain = Domain(name="values", events=(class_of(field, 2),), upcasters=(step,))
    log = create_log(str(tmp_path / "log"), domain_name="values")
    event = NewEvent(payload={"code": "a"}, event_type=field.event_type, schema_version=1)
    Appender(log, domain.registry).append("s", [event])
    [newest] = newest_events(domain, list(read_stream(log, domain.registry, "s")))
    assert newest.x is None
