"""The identity of an event: the same event twice is a repeat, another one of the same identity is a conflict."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from refold.event_schemas import EventConflictError
from refold.pipelines.ingest.ingest import ColumnMapping, ImportLimits, Ingested, ingest
from refold.pipelines.ingest.mapping import OWN, ValueSource
from refold.pipelines.seal import seal
from refold.warehouse.event_log import Appender, EventLog, NewEvent, create_log, verify
from tests.pipelines.ingest.imports import history, lines, row
from tests.pipelines.ingest.parcels import PARCELS, REF, Described, Lost

SMALL = ImportLimits(chunk_rows=10, commit_events=8)
FULL = {"name": "ü", "ratio": 0.1, "price": "1.50", "tags": ["a"], "at": "2024-05-01T12:00:00.5Z", "day": "2024-05-01"}


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """An empty log."""
    return create_log(str(tmp_path / "log"), domain_name="parcels", bucket_count=4)


def imported(log: EventLog, path: Path, *rows: Any, **options: Any) -> Ingested:
    """Import rows as JSON lines."""
    path.write_text(lines(*rows))
    return ingest(log, REF, [str(path)], limits=SMALL, **options)


def ids(log: EventLog) -> list[str]:
    """Return the ids of a log's events, in order."""
    return [e["event_id"] for e in history(log)]


def some(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Make rows of three streams, with an id each."""
    return [row(stream_id=f"p-{i % 3}", event_id=f"e{i}", payload=FULL | {"count": i}) for i in range(start, count)]


def test_the_same_event_twice_in_one_file_is_one_event(tmp_path: Path, log: EventLog) -> None:
    """A repeat is left out and counted, within a chunk and over chunks; positions have no gap."""
    done = imported(log, tmp_path / "h.jsonl", *some(25), *some(25), row(event_id="last"))
    assert (done.events, done.duplicates, done.mode) == (26, 25, "segments")
    assert ids(log) == [*(f"e{i}" for i in range(25)), "last"]
    assert [e["position"] for e in history(log)] == list(range(1, 27))
    assert verify(log, PARCELS.registry).sound


@pytest.mark.slow
def test_one_file_and_two_files_have_the_same_outcome(tmp_path: Path, log: EventLog) -> None:
    """Twice in one import is as twice over two; by way of segments as by way of commits."""
    two = create_log(str(tmp_path / "two"), domain_name="parcels", bucket_count=4)
    imported(log, tmp_path / "all.jsonl", *some(20), *some(30))
    imported(two, tmp_path / "a.jsonl", *some(20))
    assert imported(two, tmp_path / "b.jsonl", *some(30)).duplicates == 20
    assert imported(two, tmp_path / "c.jsonl", *some(5), *some(32, 28), *some(32, 28)).duplicates == 5 + 2 + 4
    imported(log, tmp_path / "d.jsonl", *some(32, 30))
    assert ids(log) == ids(two)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"payload": FULL | {"count": 0, "price": "1.51"}},
        {"payload": FULL | {"count": 0, "ratio": 0.10000000000000002}},
        {"payload": {"name": "ü"}},
        {"occurred_at": "2024-05-01T12:00:00.000001Z"},
        {"event_type": "Lost", "payload": {}},
        {"correlation_id": "c"},
        {"causation_id": "c"},
    ],
)
@pytest.mark.parametrize("known", ["row", "commit", "segment"])
def test_another_event_of_the_same_id_is_a_conflict(
    tmp_path: Path, log: EventLog, change: dict[str, Any], known: str
) -> None:
    """The message names both places, and nothing is imported, wherever the first event is."""
    first, other = row(event_id="e0", payload=FULL | {"count": 0}), row(event_id="e0", payload=FULL | {"count": 0})
    rows = [row(event_id="x"), other | change]
    place = "h.jsonl, line 1"
    if known == "row":
        rows = [first, *rows]
    else:
        imported(log, tmp_path / "first.jsonl", row(event_id="before"))
        imported(log, tmp_path / "second.jsonl", first)  # through a commit, since the stream exists
        place = "at position 2 of the log"
        if known == "segment":
            seal(log, REF)
    before = ids(log)
    with pytest.raises(EventConflictError, match=rf"event_id 'e0'.*{place}, .*h\.jsonl, line {len(rows)}\. Nothing"):
        imported(log, tmp_path / "h.jsonl", *rows)
    assert ids(log) == before
    assert imported(log, tmp_path / "same.jsonl", first, row(event_id="y")).duplicates == (known != "row")


def test_equal_contents_are_equal_however_they_are_written(tmp_path: Path, log: EventLog) -> None:
    """The canonical payload counts: 1.5 and "1.50", a time in another zone, an absent field and a null one."""
    written = {"name": "ü", "ratio": 1e-1, "price": 1.5, "tags": ["a"], "at": "2024-05-01T14:00:00.500+02:00"}
    again = row(
        event_id="e0", payload=written | {"day": "2024-05-01", "count": None}, occurred_at="2024-05-01T13:00:00+01:00"
    )
    assert imported(log, tmp_path / "h.jsonl", row(event_id="e0", payload=FULL), again).duplicates == 1


def test_events_of_a_program_are_known(tmp_path: Path, log: EventLog) -> None:
    """An event that was appended is compared like one that was imported."""
    time = datetime(2024, 5, 1, 12, tzinfo=UTC)
    named = Described(**dict.fromkeys(Described.__dataclass_fields__, None) | {"name": "cup", "ratio": 2.5e-6})  # type: ignore[arg-type]
    event = NewEvent(payload=named, event_id="e0", occurred_at=time)
    Appender(log, PARCELS.registry).append("p-1", [event])
    same = row(event_id="e0", payload={"name": "cup", "ratio": 0.0000025})
    assert imported(log, tmp_path / "a.jsonl", same).duplicates == 1
    with pytest.raises(EventConflictError, match="at position 1 of the log"):
        imported(log, tmp_path / "b.jsonl", same | {"payload": {"name": "pot"}})


def test_a_stream_is_part_of_the_identity(tmp_path: Path, log: EventLog) -> None:
    """Sources number the events of each stream from 1: the same number in two streams is two events."""
    rows = [row(stream_id=f"p-{i}", event_id="1", payload={"name": f"{i}"}) for i in range(3)]
    assert imported(log, tmp_path / "h.jsonl", *rows).events == 3


def test_cloudevents_are_identified_by_source_and_id(tmp_path: Path, log: EventLog) -> None:
    """Two sources may use the same id for events of one subject; one source may not."""
    made = {"specversion": "1.0", "type": "Described", "subject": "p-1", "id": "1", "time": "2024-05-01T12:00:00Z"}
    rows = [made | {"source": f"/s{i}", "data": {"name": f"{i}"}} for i in range(2)]
    assert imported(log, tmp_path / "h.jsonl", *rows, rows[0]).events == 2
    with pytest.raises(EventConflictError, match="'/s0 1'"):
        imported(log, tmp_path / "other.jsonl", rows[0] | {"data": {"name": "other"}})


def test_the_time_of_the_import_is_no_content(tmp_path: Path, log: EventLog) -> None:
    """Events without a time of their own are the same in a later import."""
    now = ColumnMapping(envelope={**OWN.envelope, "occurred_at": ValueSource(constant="now")})
    assert imported(log, tmp_path / "a.jsonl", *some(3), mapping=now).events == 3
    done = imported(log, tmp_path / "b.jsonl", *some(4), mapping=now)
    assert (done.events, done.duplicates) == (1, 3)


def test_an_import_that_resumes_leaves_the_same_events_out(tmp_path: Path, log: EventLog) -> None:
    """Its own commits are not taken for events that were there before."""
    Appender(log, PARCELS.registry).append("p-1", [Lost()])

    class Stopped(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.phase == "commit" and progress.done >= 16:
            raise Stopped

    rows = [*some(30), *some(30)]
    with pytest.raises(Stopped):
        imported(log, tmp_path / "h.jsonl", *rows, report=stop)
    done = imported(log, tmp_path / "h.jsonl", *rows)
    assert (done.events, done.duplicates) == (30, 30)
    assert ids(log)[1:] == [f"e{i}" for i in range(30)]
