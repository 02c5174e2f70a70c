"""Hostile values in seeds: a read model that starts from another one's rows has their values."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.event_log import Appender, NewEvent, StreamAppend, create_log
from tests.values.hostile import NOT_WRITABLE
from tests.values.logs import same
from tests.values.shapes import SAMPLE, Field, class_of, seen

pytestmark = pytest.mark.slow

HERE = "tests.values.test_seeds"


def seeded(field: Field) -> Projection:
    """Return a read model with the rows of :func:`seen`."""
    return dataclasses.replace(
        seen(field), name=f"seeded_{field.event_type}", seed=f'SELECT stream, x FROM "{field.event_type}"'
    )


_EVENTS = tuple(class_of(field, 1) for field in SAMPLE)
BEFORE = Domain(name="values", events=_EVENTS, read_models=tuple(map(seen, SAMPLE)))
AFTER = Domain(name="values", events=_EVENTS, read_models=(*map(seen, SAMPLE), *map(seeded, SAMPLE)))


def test_a_seed_keeps_each_value(tmp_path: Path) -> None:
    """The published rows of the seeded read models are those of the first ones, which are what was appended."""
    log = create_log(str(tmp_path / "log"), domain_name="values", bucket_count=1)
    expected = {}
    appends = []
    for field in SAMPLE:
        for value in (field.type.plain, *field.type.values):
            if value.python is NOT_WRITABLE or value.is_refused or value.bulky:
                continue
            stream, x = f"{field.event_type}-{value.name}", field.shape.wrap(value.python)
            event = NewEvent(payload={"x": x}, event_type=field.event_type, schema_version=1)
            appends.append(StreamAppend(stream, [event]))
            expected[stream] = field.shape.wrap(value.stored)
    Appender(log, BEFORE.registry).append_many(appends)
    url = str(tmp_path / "read-models")
    options = beam_options(None, ["--direct_num_workers=1"])
    for domain in ("BEFORE", "AFTER"):
        rebuild(log, f"{HERE}:{domain}", url, options)
    with closing(duckdb.connect(str(tmp_path / "read-models" / "values" / "current.duckdb"), read_only=True)) as tables:
        tables.execute("SET TimeZone = 'UTC'; SET arrow_lossless_conversion = true")
        for field in SAMPLE:
            for name in (field.event_type, f"seeded_{field.event_type}"):
                found = tables.sql(f'SELECT stream, x FROM "{name}"').to_arrow_table().to_pylist()
                wanted = {s: x for s, x in expected.items() if s.startswith(f"{field.event_type}-")}
                assert {row["stream"] for row in found} == wanted.keys()
                for row in found:
                    assert same(row["x"], wanted[row["stream"]]), (name, row)
