"""Statistics of a log: equal before and after it is sealed."""

from __future__ import annotations

import dataclasses

import pytest

from refold.event_schemas import DamagedLogError
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    LogStats,
    NewEvent,
    read_positions,
    stats,
)
from refold.warehouse.event_log.layout import commit_key
from tests.warehouse.event_log.shop import REGISTRY, YOUNGER, Closed, Placed, added, bulk_import, seal

PLACED = Placed(customer="c1", currency="EUR")


def test_an_empty_log_has_nothing(log: EventLog) -> None:
    """No schema, no stream, no bytes."""
    assert stats(log) == LogStats(
        schemas=(),
        events=0,
        bytes=0,
        streams=0,
        commits=0,
        segments=0,
        archived_bytes=0,
        sealed_position=0,
        unsealed_commits=0,
        unsealed_events=0,
    )


def test_each_shape_is_counted_wherever_it_lies(mixed: EventLog) -> None:
    """Statistics of a schema match the events that reads return."""
    found = stats(mixed)
    assert [s.schema_key for s in found.schemas] == [("Added", 1), ("Closed", 1), ("Placed", 2)]
    for schema_key in found.schemas:
        events = [
            e for e in read_positions(mixed, REGISTRY, 0) if (e.event_type, e.schema_version) == schema_key.schema_key
        ]
        assert (schema_key.events, schema_key.first_position, schema_key.last_position) == (
            len(events),
            events[0].position,
            events[-1].position,
        )
        assert schema_key.first_recorded_at == min(e.recorded_at for e in events)
        assert schema_key.last_recorded_at == max(e.recorded_at for e in events)
        assert schema_key.bytes > 0


def test_totals_of_unsealed_events(mixed: EventLog) -> None:
    """The bulk import is unsealed too; its streams count once, before and after a seal."""
    found = stats(mixed)
    assert (found.events, found.streams, found.commits) == (14, 7, 7)
    assert (found.sealed_position, found.unsealed_commits, found.unsealed_events) == (6, 4, 8)
    assert found.bytes == sum(s.bytes for s in found.schemas)
    seal(mixed)
    after = stats(mixed)
    assert (after.events, after.streams, after.commits) == (14, 7, 7)
    assert (after.sealed_position, after.unsealed_commits, after.unsealed_events) == (14, 0, 0)
    assert after.segments == len(mixed.manifest().segments)
    assert [s.unsealed for s in after.schemas] == [0, 0, 0]


def test_streams_in_several_runs_of_heads_count_once(log: EventLog, appender: Appender) -> None:
    """A stream that continues after a seal is in two runs, and perhaps in the tail."""
    for _ in range(3):
        appender.append("order-1", [Closed()])
        appender.append("order-2", [Closed()])
        seal(log)
    appender.append("order-1", [Closed()])
    appender.append("order-3", [Closed()])
    assert stats(log).streams == 3


def test_untyped_events_are_counted(log: EventLog, appender: Appender) -> None:
    """Events that matched no contract when they were sealed count as untyped."""
    appender.append("order-1", [PLACED, added(), added()])
    seal(log, YOUNGER)
    assert [(s.event_type, s.events, s.untyped) for s in stats(log).schemas] == [("Added", 2, 2), ("Placed", 1, 0)]


def test_schema_versions_are_apart(log: EventLog, appender: Appender) -> None:
    """Two schema versions of one event type count separately."""
    old = NewEvent(payload={"customer": "c"}, event_type="Placed", schema_version=1)
    appender.append("order-1", [old, PLACED])
    assert [s.schema_key for s in stats(log).schemas] == [("Placed", 1), ("Placed", 2)]


def test_sealed_history_is_counted_from_the_manifest_alone(log: EventLog) -> None:
    """No segment is opened, however many there are."""
    bulk_import(log, "first", [(f"order-{i}", PLACED) for i in range(20)])
    seal(log)
    expected = stats(log)
    log.store.delete_prefix("segments")
    assert stats(log) == expected
    assert (expected.events, expected.streams) == (20, 20)


def test_segments_of_an_older_release_have_no_times(log: EventLog, appender: Appender) -> None:
    """Times are None with a manifest that was written before segments had them."""
    appender.append("order-1", [PLACED])
    head = log.head()
    seal(log)
    sealed = log.manifest()
    [segment] = sealed.segments
    old = dataclasses.replace(segment, first_recorded_at="", last_recorded_at="")
    [schema_key] = stats(
        log, head=dataclasses.replace(head, sealed=dataclasses.replace(sealed, segments=(old,)))
    ).schemas
    assert (schema_key.first_recorded_at, schema_key.last_recorded_at) == (None, None)


def test_a_damaged_tail_is_an_error(log: EventLog, appender: Appender) -> None:
    """A commit whose rows cannot be read is named, not left out."""
    appender.append("order-1", [PLACED] * 50)
    head = log.head()
    log.store.put(commit_key(1), bytes(log.store.size(commit_key(1))))
    with pytest.raises(DamagedLogError, match="is damaged"):
        stats(log, head=head)
