"""Sealing: commits become segments, and reads return the same events."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection

from refold.event_schemas import ENVELOPE
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import copy_partitioned
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    NewEvent,
    read_positions,
    read_stream,
    segments,
    verify,
)
from refold.warehouse.event_log.heads import SealedHeads
from refold.warehouse.event_log.layout import bucket_of
from refold.warehouse.event_log.seal import publish
from refold.warehouse.event_log.written_segments import WrittenSegmentError, check_written
from refold.warehouse.replay.event_ranges import typed_segments
from tests.warehouse.event_log.shop import (
    REGISTRY,
    YOUNGER,
    Closed,
    Placed,
    added,
    bulk_import,
    nullify,
    payload_of,
    prepare_seal,
    seal,
    write_commit,
)

PLACED = Placed(customer="c1", currency="EUR")
OLD = NewEvent(payload={"customer": "c0"}, event_type="Placed", schema_version=1)


def everything(log: EventLog) -> list[object]:
    """Read the whole log."""
    return list(read_positions(log, REGISTRY, 0))


def test_sealed_events_read_as_before(log: EventLog, appender: Appender) -> None:
    """A seal moves events, and reads return the same."""
    for turn in range(3):
        for stream in ("order-1", "order-2", f"own-{turn}"):
            appender.append(stream, [PLACED, added(f"sku-{turn}", quantity=turn), OLD, Closed()])
        before = everything(log)
        seal(log)
        assert log.head().tail == ()
        assert everything(log) == before
        assert len(list(read_stream(log, REGISTRY, "order-1"))) == 4 * (turn + 1)
    assert verify(log, REGISTRY).findings == ()


def test_a_segment_holds_one_shape_and_bucket(log: EventLog, appender: Appender) -> None:
    """The head has both."""
    for i in range(6):
        appender.append(f"order-{i}", [PLACED, OLD])
    for segment in seal(log).segments:
        assert segment.schema_key in {("Placed", 1), ("Placed", 2)}
        assert f"schema_version={segment.schema_version}/bucket={segment.bucket:02d}/" in segment.key
    buckets = {s.bucket for s in log.manifest().segments}
    assert buckets == {bucket_of(f"order-{i}", 4) for i in range(6)}


def test_small_files_merge(log: EventLog, appender: Appender) -> None:
    """After many seals, few segments and runs of heads are live, and they hold all events."""
    segments, heads = [], []
    for turn in range(12):
        appender.append("order-1", [PLACED])
        if turn == 2:
            appender.append("order-2", [PLACED])
        manifest = seal(log)
        segments.append(len([s for s in manifest.segments if s.bucket == bucket_of("order-1", 4)]))
        heads.append(len([h for h in manifest.heads if h.bucket == bucket_of("order-1", 4)]))
    assert max(segments) <= 3
    assert max(heads) <= 8
    assert sum(s.rows for s in log.manifest().segments) == 13
    assert [e.stream_version for e in read_stream(log, REGISTRY, "order-1")] == list(range(1, 13))
    sealed = SealedHeads(log, log.manifest())
    assert [sealed.version(s) for s in ("order-1", "order-2", "order-3")] == [12, 1, 0]


def test_events_that_no_contract_knows_stay_json(log: EventLog, appender: Appender) -> None:
    """Older code seals events of newer code to untyped segments; newer code reads them typed and complete."""
    appender.append("order-1", [PLACED, added(), Closed(), added("pot")])
    before = everything(log)
    untyped = [s for s in seal(log, YOUNGER).segments if s.untyped]
    assert [(s.schema_key, s.rows) for s in untyped] == [(("Added", 1), 2)]
    assert everything(log) == before
    with connect() as connection:
        typed = typed_segments(connection, log, REGISTRY, log.manifest().segments)
        [(count,)] = connection.execute(f"SELECT count(*) FROM {typed.relations[('Added', 1)]}").fetchall()
    assert (count, typed.invalid_events) == (2, ())


def test_an_invalid_payload_is_kept(log: EventLog) -> None:
    """It is sealed to a separate untyped segment, and other events of its schema are typed."""
    valid, invalid = '{"customer": "c", "currency": "EUR"}', '{"customer": 7}'
    write_commit(
        log, [("order-1", "Placed", 2, valid), ("order-1", "Placed", 2, invalid), ("order-1", "Placed", 2, valid)]
    )
    segments = seal(log).segments
    assert sorted((s.untyped, s.rows) for s in segments) == [(False, 2), (True, 1)]
    assert [e.payload for e in read_stream(log, REGISTRY, "order-1")] == [
        payload_of(Placed(customer="c", currency="EUR")),
        {"customer": 7},
        payload_of(Placed(customer="c", currency="EUR")),
    ]


@pytest.mark.parametrize("change", ["quantity = quantity + 1", "sku = NULL", "token = NULL"])
def test_a_segment_that_differs_from_its_events_is_not_sealed(
    log: EventLog, appender: Appender, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written is read again: a changed value, a NULL, also in an optional field."""
    appender.append("order-1", [added(), added()])
    copy = copy_partitioned
    name, value = change.split(" = ")

    def damaged(connection: DuckDBPyConnection, select: str, folder: Path, options: str, *, by: str) -> dict[int, Path]:
        return copy(connection, f"SELECT * REPLACE ({value} AS {name}) FROM ({select})", folder, options, by=by)

    monkeypatch.setattr(segments, "copy_partitioned", damaged)
    with pytest.raises(WrittenSegmentError, match=r"Added v1, bucket \d: the file that was written has 2 rows"):
        seal(log)
    assert not log.manifest().segments


def test_events_that_would_lose_a_value_stay_unsealed(log: EventLog) -> None:
    """If parsing made NULL of a value, the seal stops: it names the field and the position."""
    row = {"position": 7, "stream_id": "s", "customer": None, "currency": "EUR"}
    fields = [ENVELOPE.field("position"), ENVELOPE.field("stream_id"), *REGISTRY.schema("Placed", 2)]
    nullable = pa.schema(f.with_nullable(True) for f in fields)
    with connect() as connection:
        connection.register("_made", pa.Table.from_pylist([row], schema=nullable))
        path = Path(log.url) / "_bucket=3" / "made.parquet"
        path.parent.mkdir()
        connection.execute(f"COPY _made TO '{path}' (FORMAT parquet)")
        with pytest.raises(WrittenSegmentError, match=r"customer is NULL in 1 events, .* position 7"):
            check_written(connection, "_made", "3", {3: path}, fields, what="Placed v2")


def test_a_damaged_segment_is_not_merged(log: EventLog, appender: Appender) -> None:
    """A segment of an older release with NULL in a required field stays as it is; new events are sealed beside it."""
    appender.append("order-1", [PLACED])
    seal(log)
    nullify(log, "Placed", "customer")
    appender.append("order-1", [PLACED])
    made = seal(log)
    assert [s.rows for s in made.segments if s.event_type == "Placed"] == [1, 1]


@pytest.mark.parametrize("first", [0, 1])
def test_two_sealers_race(log: EventLog, appender: Appender, first: int) -> None:
    """Both write segments, and one publishes; those of the other are unreferenced, and the log is sound."""
    appender.append("order-1", [PLACED, added()])
    seal(log)
    appender.append("order-1", [Closed()])
    appender.append("order-2", [PLACED])
    before = everything(log)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: prepare_seal(log), range(2)))
    assert publish(log, made[first]) is True
    assert publish(log, made[1 - first]) is False
    found = log.manifest()
    assert found == dataclasses.replace(made[first], parts=found.parts)
    assert set(log.store.list_from("parts")) == {ref.key for m in (log.manifest(1), found) for ref in m.parts}
    assert everything(log) == before
    assert verify(log, REGISTRY).findings == ()


def test_appends_go_on_while_a_seal_is_made(log: EventLog, appender: Appender) -> None:
    """A commit that comes after the sealer read the head is neither lost nor sealed twice."""
    appender.append("order-1", [PLACED])
    made = prepare_seal(log)
    appender.append("order-1", [Closed()])
    assert publish(log, made) is True
    assert [info.number for info in log.head().tail] == [2]
    seal(log)
    assert [e.stream_version for e in read_stream(log, REGISTRY, "order-1")] == [1, 2]
    assert verify(log, REGISTRY).findings == ()


def test_a_bulk_import_is_sealed_as_it_is(log: EventLog, appender: Appender) -> None:
    """Its segments become live unchanged, among the commits around it, and merge with others later."""
    appender.append("order-1", [PLACED])
    info = bulk_import(log, "first", [(f"order-{i % 3 + 2}", added(quantity=i)) for i in range(9)])
    appender.append("order-2", [Closed()])
    before = everything(log)
    manifest = seal(log)
    assert {s.key for s in info.segments} <= {s.key for s in manifest.segments}
    assert manifest.imports == {"first": 2}
    assert everything(log) == before
    for stream in ("order-2", "order-3", "order-4"):
        appender.append(stream, [added() for _ in range(3)])
    before = everything(log)
    after = seal(log)
    assert not {s.key for s in info.segments} <= {s.key for s in after.segments}
    assert everything(log) == before
    assert verify(log, REGISTRY).findings == ()
