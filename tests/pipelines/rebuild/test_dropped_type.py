"""Events whose type the domain has dropped since they were sealed are reported, never skipped in silence."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from refold import (
    Appender,
    Domain,
    EventLog,
    Projection,
    count,
    create_log,
)
from refold.event_schemas import InvalidEventsError, event
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.seal import seal


@event(schema_version=1)
class DoorOpened:
    """A door was opened."""

    door: str


@event(schema_version=1)
class DoorPainted:
    """A door got another colour; dropped from the domain later."""

    door: str
    colour: str


OPENINGS = Projection(
    name="openings",
    key={"door": "VARCHAR"},
    columns={"openings": count()},
    on={DoorOpened: "SELECT door, 1 AS openings"},
)
BEFORE = Domain(name="doors", events=(DoorOpened, DoorPainted), read_models=(OPENINGS,))
AFTER = Domain(name="doors", events=(DoorOpened,), read_models=(OPENINGS,))


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """A sealed log that holds an event of the dropped type."""
    log = create_log(str(tmp_path / "log"), domain_name="doors", bucket_count=2)
    appender = Appender(log, BEFORE.registry)
    appender.append("door-1", [DoorOpened(door="front"), DoorPainted(door="front", colour="red")])
    seal(log, f"{__name__}:BEFORE", beam_options(None))
    return log


def test_a_sealed_event_of_a_dropped_type_stops_a_rebuild(log: EventLog, tmp_path: Path) -> None:
    """The old domain rebuilds; the new one reports the type and the number of events."""
    models = str(tmp_path / "models")
    assert rebuild(log, f"{__name__}:BEFORE", models, beam_options(None)).generation.number == 1
    with pytest.raises(
        InvalidEventsError, match=r"cannot apply some events: 1\. .* Unknown event type 'DoorPainted'.* position 2"
    ):
        rebuild(log, f"{__name__}:AFTER", str(tmp_path / "others"), beam_options(None))
    assert not (tmp_path / "others" / "doors" / "current.duckdb").exists()


def test_it_can_be_kept_as_a_dead_letter(log: EventLog, tmp_path: Path) -> None:
    """The dead letter has the payload, and all other events are applied."""
    rebuilt = rebuild(log, f"{__name__}:AFTER", str(tmp_path / "models"), beam_options(None), dead_letter=True)
    assert rebuilt.dead_letters == 1
    with duckdb.connect(str(tmp_path / "models" / "doors" / "current.duckdb"), read_only=True) as connection:
        letters = connection.execute("SELECT position, event_type, payload FROM refold.dead_letters").fetchall()
        assert letters == [(2, "DoorPainted", '{"door":"front","colour":"red"}')]
        assert connection.execute("SELECT * FROM openings").fetchall() == [("front", 1)]
