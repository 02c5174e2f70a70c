"""Events that cannot be applied are described as they are stored, whichever step of their chain failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from refold.event_schemas import RecordedEvent, event, upcaster
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import total
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log import Appender, NewEvent, create_log
from refold.warehouse.replay.contributions import compile_model, contributions
from refold.warehouse.replay.event_ranges import typed_range
from refold.warehouse.replay.history import Replay
from refold.warehouse.replay.invalid_events import apply_valid


@event(schema_version=3)
class Weighed:
    """A parcel was weighed."""

    parcel: str
    grams: int


def schema(weight: str) -> pa.Schema:
    """Return an older schema, in which the weight was a text."""
    return pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("parcel", weight)])


@upcaster(Weighed, from_version=1, schema=schema("weight"))
def weighed_1() -> str:
    """The weight was a text; version 2 has it under another name."""
    return "SELECT * EXCLUDE (weight), weight AS printed FROM event"


@upcaster(Weighed, from_version=2, schema=schema("printed"))
def weighed_2(old: RecordedEvent) -> list[Weighed]:
    """Version 3 has a number."""
    return [Weighed(parcel=old.payload["parcel"], grams=int(old.payload["printed"]))]


WEIGHTS = Projection(
    name="weights",
    key={"parcel": "VARCHAR"},
    columns={"grams": total("BIGINT")},
    on={Weighed: "SELECT parcel, grams"},
)
DOMAIN = Domain(name="scales", events=(Weighed,), upcasters=(weighed_1, weighed_2), read_models=(WEIGHTS,))


def test_a_failure_in_a_later_step_has_the_stored_version(tmp_path: Path) -> None:
    """The version and the payload are those of the log, not of the step in between."""
    log = create_log(str(tmp_path / "log"), domain_name="scales")
    given = [{"parcel": "a", "weight": "5"}, {"parcel": "b", "weight": "heavy"}]
    events = [NewEvent(payload=payload, event_type="Weighed", schema_version=1) for payload in given]
    Appender(log, DOMAIN.registry).append("scale-1", events)
    compiled = compile_model(WEIGHTS, DOMAIN)
    with connect() as connection:

        def grams(replay: Replay) -> list[Any]:
            return connection.sql(f"SELECT parcel, grams FROM ({contributions(compiled, replay.events)})").fetchall()

        typed = typed_range(connection, log, DOMAIN.registry, log.head(), schema_keys=None, after=0, up_to=2)
        rows, [invalid] = apply_valid(connection, DOMAIN, compiled, typed.relations, grams)
    assert rows == [("a", 5)]
    assert (invalid.position, invalid.event_type, invalid.schema_version) == (2, "Weighed", 1)
    assert invalid.payload == '{"parcel":"b","weight":"heavy"}'
    assert "heavy" in invalid.reason
