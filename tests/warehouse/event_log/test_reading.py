"""Reading events from sealed, untyped and imported segments, and from unsealed commits."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.event_schemas import DamagedLogError, RecordedEvent, UsageError
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    NewEvent,
    create_log,
    read_category,
    read_correlation,
    read_positions,
    read_stream,
    tail,
)
from refold.warehouse.event_log.layout import bucket_of, commit_key
from refold.warehouse.event_log.reads import scan as scanning
from refold.warehouse.event_log.reads.scan import live_segments
from tests.warehouse.event_log.shop import (
    REGISTRY,
    YOUNGER,
    Closed,
    Placed,
    added,
    payload_of,
    seal,
    write_commit,
)

PLACED = Placed(customer="c1", currency="EUR")


def positions(events: Iterator[RecordedEvent]) -> list[int]:
    """Return the positions of events."""
    return [e.position for e in events]


@pytest.mark.parametrize("sealed", [False, True], ids=["tail", "sealed"])
def test_payloads_come_back_as_python_values(log: EventLog, appender: Appender, *, sealed: bool) -> None:
    """Decimals, times, dates, UUIDs, floats, lists and nested values are what was appended, sealed or not."""
    given_events = [PLACED, added(), added(None, quantity=-(2**63)), Closed()]
    appender.append("order-1", given_events)
    if sealed:
        seal(log)
    found = list(read_stream(log, REGISTRY, "order-1"))
    assert [e.payload for e in found] == [payload_of(value) for value in given_events]
    assert isinstance(found[1].payload["lines"][0]["price"], Decimal)
    assert list(found[1].payload) == list(payload_of(added()))


@pytest.mark.parametrize("sealed", [False, True], ids=["tail", "sealed"])
def test_the_envelope_comes_back(log: EventLog, appender: Appender, *, sealed: bool) -> None:
    """The envelope has what the caller set and what the appender added."""
    occurred_at = added().at
    event = NewEvent(
        payload=PLACED, event_id="e-1", occurred_at=occurred_at, correlation_id="corr", causation_id="cause"
    )
    appended = appender.append("order-1", [event])
    [info] = log.head().tail
    if sealed:
        seal(log)
    assert list(read_stream(log, REGISTRY, "order-1")) == [
        RecordedEvent(
            position=appended.first_position,
            commit_number=appended.commit_number,
            stream_id="order-1",
            stream_version=1,
            event_id="e-1",
            event_type="Placed",
            schema_version=2,
            occurred_at=occurred_at,
            recorded_at=info.recorded_at,
            correlation_id="corr",
            causation_id="cause",
            payload={"customer": "c1", "currency": "EUR"},
        )
    ]


def test_a_stream_is_read_in_order_wherever_it_lies(mixed: EventLog) -> None:
    """Sealed and unsealed events of one stream have no gap between them."""
    found = list(read_stream(mixed, REGISTRY, "order-1"))
    assert [(e.stream_version, e.position) for e in found] == [(1, 1), (2, 2), (3, 11), (4, 12)]


def test_a_stream_that_began_in_a_bulk_import_goes_on(mixed: EventLog) -> None:
    """Imported events have the positions of their commit, before and after it is sealed."""
    before = list(read_stream(mixed, REGISTRY, "order-8"))
    assert [(e.stream_version, e.position, e.commit_number) for e in before] == [(1, 7, 4), (2, 9, 4), (3, 14, 7)]
    seal(mixed)
    assert list(read_stream(mixed, REGISTRY, "order-8")) == before


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"from_version": 3}, [3, 4]),
        ({"to_version": 2}, [1, 2]),
        ({"from_version": 2, "to_version": 3}, [2, 3]),
        ({"from_version": 5}, []),
    ],
)
def test_part_of_a_stream(mixed: EventLog, bounds: dict[str, Any], expected: list[int]) -> None:
    """Both bounds are inclusive."""
    assert [e.stream_version for e in read_stream(mixed, REGISTRY, "order-1", **bounds)] == expected


def test_an_unknown_stream_is_empty(mixed: EventLog) -> None:
    """An unknown stream yields nothing."""
    assert list(read_stream(mixed, REGISTRY, "order-404")) == []
    assert list(read_stream(mixed, REGISTRY, "it's; --")) == []


def test_an_empty_log_is_empty(log: EventLog) -> None:
    """Every read of an empty log yields nothing."""
    assert list(read_positions(log, REGISTRY, 0)) == list(tail(log, REGISTRY, 5)) == []
    assert list(read_category(log, REGISTRY, "order")) == list(read_correlation(log, REGISTRY, "visit")) == []


def test_a_category_is_what_comes_before_the_dash(mixed: EventLog) -> None:
    """Longer names and a stream without a dash do not belong to it; events are in position order."""
    assert positions(read_category(mixed, REGISTRY, "order")) == [1, 2, 3, 4, 7, 8, 9, 11, 12, 13, 14]
    assert positions(read_category(mixed, REGISTRY, "orders")) == [5, 6]
    assert positions(read_category(mixed, REGISTRY, "z")) == []


def test_a_correlation_crosses_streams(mixed: EventLog) -> None:
    """Sealed, imported and unsealed events of one correlation id are in position order."""
    assert positions(read_correlation(mixed, REGISTRY, "visit")) == [3, 7, 8, 9, 10, 13]


@pytest.mark.parametrize("after", range(15))
def test_every_range_of_positions(mixed: EventLog, after: int) -> None:
    """A range may start and end anywhere, also within a commit or an import."""
    for up_to in (after, after + 1, after + 4, 14, 99):
        expected = list(range(after + 1, min(up_to, 14) + 1))
        assert positions(read_positions(mixed, REGISTRY, after, up_to)) == expected


@pytest.mark.parametrize("count", [0, 1, 3, 5, 9, 14, 99])
def test_the_last_events(mixed: EventLog, count: int) -> None:
    """The tail may include imports and sealed history."""
    assert positions(tail(mixed, REGISTRY, count)) == list(range(15 - min(count, 14), 15))


def test_a_given_head_bounds_what_is_read(mixed: EventLog) -> None:
    """Events after the caller's head are not read."""
    head = mixed.head()
    Appender(mixed, REGISTRY).append("order-1", [Closed()])
    assert positions(read_positions(mixed, REGISTRY, 12, head=head)) == [13, 14]
    assert positions(read_stream(mixed, REGISTRY, "order-1", from_version=4, head=head)) == [12]


def test_one_stream_opens_only_its_bucket(mixed: EventLog) -> None:
    """Segments of other buckets and commits without the stream may be missing: they are not opened."""
    head = mixed.head()
    expected = list(read_stream(mixed, REGISTRY, "order-1"))
    for segment in live_segments(head):
        if segment.bucket != bucket_of("order-1", 2):
            mixed.store.delete(segment.key)
    for info in head.tail:
        if "order-1" not in info.heads:
            mixed.store.delete(commit_key(info.number))
    assert list(read_stream(mixed, REGISTRY, "order-1", head=head)) == expected
    with pytest.raises(DamagedLogError, match="missing"):
        list(read_category(mixed, REGISTRY, "order", head=head))


def test_positions_open_only_segments_that_hold_them(log: EventLog, appender: Appender) -> None:
    """Old segments may be missing if only new events are read."""
    appender.append("order-1", [added() for _ in range(40)])
    old = seal(log).segments
    appender.append("order-1", [Closed()])
    appender.append("order-2", [PLACED])
    seal(log)
    for segment in old:
        log.store.delete(segment.key)
    assert positions(tail(log, REGISTRY, 2)) == [41, 42]


def test_an_unknown_shape_is_shown_as_json(log: EventLog, appender: Appender) -> None:
    """Older code reads events of newer code, in the tail and in the untyped segments to which it seals them."""
    appender.append("order-1", [PLACED, added()])
    before = list(read_stream(log, YOUNGER, "order-1"))
    assert before[0].payload == payload_of(PLACED)
    assert before[1].payload["price"] == "12345678901234.50"
    assert seal(log, YOUNGER).segments[0].untyped
    assert list(read_stream(log, YOUNGER, "order-1")) == before
    assert [e.payload for e in read_stream(log, REGISTRY, "order-1")] == [payload_of(PLACED), payload_of(added())]


def test_a_shape_that_was_forgotten_keeps_its_types(log: EventLog, appender: Appender) -> None:
    """A typed segment has its own columns, if its schema is no longer registered."""
    appender.append("order-1", [added(), Closed()])
    seal(log)
    [found, _] = read_stream(log, YOUNGER, "order-1")
    assert found.payload["price"] == Decimal("12345678901234.50")
    assert found.payload["lines"][1] == {"sku": "t", "price": Decimal("-3.00"), "on": None}
    assert found.payload["at"] == added().at


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"customer": 7}', {"customer": 7}),
        ("[1]", {"payload": [1]}),
        ("no json", {"payload": "no json"}),
    ],
)
def test_a_payload_that_fits_no_contract_is_shown_as_it_is(log: EventLog, text: str, shown: dict[str, Any]) -> None:
    """A read never fails because of one event's payload."""
    write_commit(log, [("order-1", "Placed", 2, text)])
    assert [e.payload for e in read_stream(log, REGISTRY, "order-1")] == [shown]
    seal(log)
    assert [e.payload for e in read_stream(log, REGISTRY, "order-1")] == [shown]


def test_event_types_may_have_any_name(log: EventLog) -> None:
    """Names of streams and types may have quotes, slashes and spaces."""
    write_commit(log, [("it's-1", "Odd 'type'/name", 1, "{}")])
    seal(log)
    [found] = read_category(log, REGISTRY, "it's")
    assert (found.stream_id, found.event_type) == ("it's-1", "Odd 'type'/name")


def test_a_large_result_comes_in_batches(log: EventLog, appender: Appender) -> None:
    """More events than a batch are complete and in order; a caller may stop early and read again."""
    for _ in range(3):
        appender.append("order-1", [Closed() for _ in range(3000)])
    seal(log)
    events = read_positions(log, REGISTRY, 0)
    assert next(events).position == 1
    del events
    assert positions(read_positions(log, REGISTRY, 0)) == list(range(1, 9001))


@pytest.mark.slow
def test_a_result_that_memory_cannot_sort_at_once(
    log: EventLog, appender: Appender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sorted in smaller windows, and is still complete and in order."""
    generator = random.Random(1)
    for _ in range(2):
        names = [generator.randbytes(5_000).hex() for _ in range(1_000)]
        appender.append("order-1", [Placed(customer=name, currency="EUR") for name in names])
    seal(log)
    with connect(memory_limit="200MB", threads=1) as small:
        small.execute("SET GLOBAL temp_directory = ''")
        monkeypatch.setattr(scanning, "_database", lambda _process: small)
        assert positions(read_positions(log, REGISTRY, 0)) == list(range(1, 2001))
        assert [e.stream_version for e in read_stream(log, REGISTRY, "order-1")] == list(range(1, 2001))


_SPILLS_PRIVATELY = """
import os, sys, tempfile
from refold.warehouse.event_log import open_log, tail
from tests.warehouse.event_log.shop import REGISTRY
assert len(list(tail(open_log(sys.argv[1]), REGISTRY, 3))) == 3
[folder] = os.listdir(tempfile.gettempdir())
assert os.stat(os.path.join(tempfile.gettempdir(), folder)).st_mode & 0o077 == 0
"""


def test_a_reader_spills_into_a_private_folder(mixed: EventLog, tmp_path: Path) -> None:
    """Nobody else can read it or know its name, and it is removed when the process ends."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", _SPILLS_PRIVATELY, mixed.url]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[3], env=environment)
    assert list(temporary.iterdir()) == []


def test_a_gap_in_a_stream_is_an_error(log: EventLog, appender: Appender) -> None:
    """A missing event is an error."""
    for _ in range(3):
        appender.append("order-1", [Closed()])
    head = log.head()
    hidden = dataclasses.replace(head, tail=(head.tail[0], head.tail[2]))
    with pytest.raises(DamagedLogError, match="stream version 2 is missing"):
        list(read_stream(log, REGISTRY, "order-1", head=hidden))
    with pytest.raises(DamagedLogError, match="position 2 is missing"):
        list(read_positions(log, REGISTRY, 0, head=hidden))


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: bytes(len(data)), lambda data: data[:-8] + bytes(8)],
    ids=["truncated", "zeroed", "no footer"],
)
@pytest.mark.parametrize("where", ["segment", "commit"])
def test_a_damaged_object_is_named(
    log: EventLog, appender: Appender, where: str, damage: Callable[[bytes], bytes]
) -> None:
    """A damaged object is an error, never a silent gap."""
    appender.append("order-1", [added() for _ in range(50)])
    if where == "segment":
        seal(log)
    head = log.head()
    key = head.sealed.segments[0].key if where == "segment" else commit_key(1)
    log.store.put(key, damage(log.store.get(key)))
    with pytest.raises(DamagedLogError, match=r"verify|backup"):
        list(read_stream(log, REGISTRY, "order-1", head=head))


def test_invalid_arguments_raise_at_once(log: EventLog) -> None:
    """The call raises, not the first step of the iterator."""
    with pytest.raises(UsageError, match="range"):
        read_stream(log, REGISTRY, "order-1", from_version=0)
    with pytest.raises(UsageError, match="range"):
        read_stream(log, REGISTRY, "order-1", from_version=3, to_version=2)
    with pytest.raises(UsageError, match="category"):
        read_category(log, REGISTRY, "")
    with pytest.raises(UsageError, match="after is -1"):
        read_positions(log, REGISTRY, -1)
    with pytest.raises(UsageError, match="-1"):
        tail(log, REGISTRY, -1)


STEPS = st.lists(
    st.one_of(
        st.none(),
        st.tuples(
            st.sampled_from(["a-1", "a-2", "b-1", "b"]), st.lists(st.sampled_from([PLACED, added()]), min_size=1)
        ),
    ),
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(STEPS)
def test_any_history_sealed_anywhere_reads_as_it_was_appended(steps: list[tuple[str, list[Any]] | None]) -> None:
    """Wherever a history is sealed (a None), every event is read once, in order and unchanged."""
    folder = tempfile.mkdtemp()
    try:
        log = create_log(folder, domain_name="shop", bucket_count=2)
        appender = Appender(log, REGISTRY)
        appended: list[tuple[str, Any]] = []
        for step in steps:
            if step is not None:
                appender.append(*step)
                appended += [(step[0], payload_of(e)) for e in step[1]]
            elif log.head().tail:
                seal(log)
        found = list(read_positions(log, REGISTRY, 0))
        assert [(e.stream_id, e.payload) for e in found] == appended
        assert [e.position for e in found] == list(range(1, len(appended) + 1))
        for stream_id in ("a-1", "b"):
            mine = [e for e in found if e.stream_id == stream_id]
            assert list(read_stream(log, REGISTRY, stream_id)) == mine
    finally:
        shutil.rmtree(folder)
