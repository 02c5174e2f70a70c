"""Appending: atomic, in one order for all writers, whatever the store responds."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from refold.event_schemas import (
    ConcurrencyError,
    PayloadError,
    StoreError,
    UnknownEventTypeError,
    UsageError,
)
from refold.event_schemas import UnknownSchemaVersionError as UnknownVersionError
from refold.warehouse.event_log import (
    Appended,
    Appender,
    EventLog,
    NewEvent,
    read_positions,
    read_stream,
    verify,
)
from refold.warehouse.event_log.clocks import NEVER, next_recorded_at
from refold.warehouse.object_store.local import LocalStore
from tests.warehouse.event_log.shop import REGISTRY, Closed, Placed, added, bulk_import, seal, write_commit

PLACED = Placed(customer="c1", currency="EUR")


def appended_ids(log: EventLog) -> list[str]:
    """Return the event ids of all events, in order."""
    return [e.event_id for e in read_positions(log, REGISTRY, 0)]


# --- expected versions ------------------------------------------------------------------------------------------------


def test_the_answer_tells_where_events_went(appender: Appender) -> None:
    """Commits, positions and stream versions count from 1."""
    assert appender.append("order-1", [PLACED, added()]) == Appended(1, 1, 2, 2)
    assert appender.append("order-2", [PLACED]) == Appended(2, 3, 3, 1)
    assert appender.append("order-1", [Closed()], expected_version=2) == Appended(3, 4, 4, 3)
    assert (appender.version("order-1"), appender.version("order-2"), appender.version("order-3")) == (3, 1, 0)


def test_a_version_that_another_appender_wrote_is_expected(log: EventLog, appender: Appender) -> None:
    """An appender that has not read it yet does so before it refuses, and a conflict says what the version is now."""
    assert appender.version("order-1") == 0
    other = Appender(log, REGISTRY)
    other.append("order-1", [PLACED])
    assert appender.append("order-1", [Closed()], expected_version=1).stream_version == 2
    other.append("order-1", [Closed(), Closed()])
    with pytest.raises(ConcurrencyError) as conflict:
        appender.append("order-1", [Closed()], expected_version=3)
    assert conflict.value.actual_version == 4


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_another_version_than_expected_is_a_conflict(log: EventLog, appender: Appender, expected: int) -> None:
    """The error names stream and versions, and nothing is appended."""
    appender.append("order-1", [PLACED, added()], expected_version=0)
    with pytest.raises(ConcurrencyError) as caught:
        appender.append("order-1", [Closed()], expected_version=expected)
    assert (caught.value.stream_id, caught.value.expected_version, caught.value.actual_version) == (
        "order-1",
        expected,
        2,
    )
    assert log.head().position == 2


def test_a_conflict_with_another_appender(log: EventLog, appender: Appender) -> None:
    """An appender that has not read another's commit reads it after it loses the race for the number."""
    other = Appender(log, REGISTRY)
    appender.append("order-1", [PLACED])
    assert other.version("order-1") == 1
    appender.append("order-1", [added()])
    with pytest.raises(ConcurrencyError, match="is at version 2"):
        other.append("order-1", [Closed()], expected_version=1)
    assert other.append("order-2", [PLACED], expected_version=0) == Appended(3, 3, 3, 1)


def test_versions_are_found_in_sealed_history(log: EventLog, appender: Appender) -> None:
    """An appender that starts after a seal, and one that started before, have each stream's version."""
    appender.append("order-1", [PLACED, added()])
    seal(log)
    assert appender.append("order-1", [Closed()], expected_version=2).stream_version == 3
    seal(log)
    young = Appender(log, REGISTRY)
    assert young.version("order-1") == 3
    with pytest.raises(ConcurrencyError):
        young.append("order-1", [Closed()], expected_version=0)


def test_streams_of_every_bulk_import_are_known(log: EventLog, appender: Appender) -> None:
    """With two unsealed imports, the streams of both have their versions, also in a new appender."""
    assert appender.version("order-1") == 0
    bulk_import(log, "first", [("order-1", PLACED), ("order-1", added())])
    bulk_import(log, "second", [("order-2", PLACED)])
    for writer in (appender, Appender(log, REGISTRY)):
        assert (writer.version("order-1"), writer.version("order-2")) == (2, 1)
    with pytest.raises(ConcurrencyError):
        appender.append("order-1", [PLACED], expected_version=0)
    assert appender.append("order-1", [Closed()]).stream_version == 3
    seal(log)
    bulk_import(log, "third", [("order-3", PLACED)])
    assert [appender.version(f"order-{n}") for n in (1, 2, 3)] == [3, 1, 1]
    assert verify(log, REGISTRY).findings == ()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "error", "message"),
    [
        ([PLACED, NewEvent(payload={"customer": 7}, event_type="Placed", schema_version=1)], PayloadError, "customer"),
        ([NewEvent(payload={}, event_type="Placed", schema_version=1)], PayloadError, "missing"),
        ([NewEvent(payload={"a": 1}, event_type="Closed", schema_version=1)], PayloadError, "unknown field a"),
        ([NewEvent(payload={}, event_type="Opened", schema_version=1)], UnknownEventTypeError, "Opened"),
        ([NewEvent(payload={}, event_type="Placed", schema_version=9)], UnknownVersionError, "9"),
        ([NewEvent(payload={})], UsageError, "event_type"),
        ([], UsageError, "empty"),
        ([NewEvent(payload=PLACED, occurred_at=datetime(2024, 1, 1))], PayloadError, "time zone"),
        ([NewEvent(payload=PLACED, occurred_at="2024-01-01")], PayloadError, "occurred_at"),  # type: ignore[arg-type]
        ([NewEvent(payload=PLACED, event_id=uuid.UUID(int=1))], UsageError, "event_id"),  # type: ignore[arg-type]
        ([NewEvent(payload=PLACED, correlation_id="\ud800")], UsageError, "correlation_id"),
        ([NewEvent(payload=PLACED, causation_id=7)], UsageError, "causation_id"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_appends_nothing(
    log: EventLog, appender: Appender, events: list[object], error: type[Exception], message: str
) -> None:
    """One invalid event rejects the whole append."""
    with pytest.raises(error, match=message):
        appender.append("order-1", events)
    assert log.head().commit == 0


@pytest.mark.parametrize("stream_id", ["", "\udfff", 7])
def test_a_stream_needs_a_name(log: EventLog, appender: Appender, stream_id: Any) -> None:
    """A stream id that is empty or not text is rejected."""
    with pytest.raises(UsageError, match="stream_id"):
        appender.append(stream_id, [PLACED])
    assert log.head().commit == 0


# --- order and time ---------------------------------------------------------------------------------------------------


def test_times_are_recorded_in_utc(log: EventLog, appender: Appender) -> None:
    """A time in another zone is stored as the same time in UTC."""
    when = datetime(2024, 1, 1, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    appender.append("order-1", [NewEvent(payload=PLACED, occurred_at=when)])
    [found] = read_stream(log, REGISTRY, "order-1")
    assert found.occurred_at == when
    assert found.occurred_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), "in UTC it is outside the years 1 to 9999"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=5))), "in UTC it is outside the years 1 to 9999"),
        (datetime(2024, 1, 1), "it has no time zone"),
    ],
)
def test_a_time_that_utc_does_not_have_is_refused(
    log: EventLog, appender: Appender, when: datetime, reason: str
) -> None:
    """The bounds are those of an import and of a payload; the message names the event."""
    with pytest.raises(PayloadError, match=f"Event Placed v2: occurred_at is .*, and {reason}"):
        appender.append("order-1", [NewEvent(payload=PLACED, occurred_at=when)])
    assert log.head().commit == 0


@pytest.mark.parametrize("when", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_the_first_and_the_last_time_are_kept(log: EventLog, appender: Appender, when: datetime) -> None:
    """Sealed or not."""
    appender.append("order-1", [NewEvent(payload=PLACED, occurred_at=when)])
    assert [e.occurred_at for e in read_stream(log, REGISTRY, "order-1")] == [when]
    seal(log)
    assert [e.occurred_at for e in read_stream(log, REGISTRY, "order-1")] == [when]


def test_recorded_at_does_not_go_back_by_a_little(log: EventLog, appender: Appender) -> None:
    """A writer whose clock is a little behind the last commit uses that commit's time."""
    ahead = datetime.now(UTC) + timedelta(seconds=50)
    write_commit(log, [("order-1", "Closed", 1, "{}")], recorded_at=ahead)
    appender.append("order-1", [Closed()])
    appender.append("order-1", [Closed()])
    assert [e.recorded_at for e in read_positions(log, REGISTRY, 0)] == [ahead] * 3


def test_a_clock_far_ahead_is_not_passed_on(log: EventLog, appender: Appender) -> None:
    """A commit of the year 2099 does not date those that follow it, of any kind of writer."""
    started = datetime.now(UTC)
    write_commit(log, [("order-1", "Closed", 1, "{}")], recorded_at=datetime(2099, 1, 1, tzinfo=UTC))
    appender.append("order-1", [Closed()])
    write_commit(log, [("order-1", "Closed", 1, "{}")], recorded_at=datetime(2099, 1, 1, tzinfo=UTC))
    bulk_import(log, "old", [("order-8", PLACED)])
    write_commit(log, [("order-1", "Closed", 1, "{}")], recorded_at=datetime(2099, 1, 1, tzinfo=UTC))
    Appender(log, REGISTRY).append("order-1", [Closed()])
    recorded = [e.recorded_at for e in read_positions(log, REGISTRY, 0)]
    assert [r.year for r in recorded[::2]] == [2099] * 3
    assert all(started <= r <= datetime.now(UTC) for r in recorded[1::2])


NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("previous", "now", "expected"),
    [
        (NOON, NOON + timedelta(seconds=1), NOON + timedelta(seconds=1)),
        (NOON, NOON - timedelta(seconds=60), NOON),
        (NOON, NOON - timedelta(seconds=61), NOON - timedelta(seconds=61)),
        (NOON, datetime(1970, 1, 1, tzinfo=UTC), NOON),  # a machine that never set its clock
        (datetime(2099, 1, 1, tzinfo=UTC), NOON, NOON),
        (NEVER, NOON, NOON),
        (NEVER, datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC)),
    ],
)
def test_which_clock_is_believed(log: EventLog, previous: datetime, now: datetime, expected: datetime) -> None:
    """Both, if they differ by a minute at most; else the writer's, unless it was never set."""
    assert next_recorded_at(log.store, 1, previous, now=now) == expected


def test_threads_share_commits(log: EventLog, appender: Appender) -> None:
    """Appends that wait for one another share one commit, each with its own result; positions have no gap."""
    together = threading.Barrier(8)

    def work(worker: int) -> list[tuple[str, Appended]]:
        together.wait()
        answers = []
        for turn in range(25):
            events = [NewEvent(payload=Closed(), event_id=f"{worker}-{turn}-{i}") for i in range(2)]
            answers.append((f"{worker}-{turn}", appender.append(f"order-{worker % 3}", events)))
        return answers

    with ThreadPoolExecutor(8) as pool:
        answers = [a for part in pool.map(work, range(8)) for a in part]
    events = {e.event_id: e for e in read_positions(log, REGISTRY, 0)}
    assert [e.position for e in events.values()] == list(range(1, 401))
    for name, answer in answers:
        first, second = events[f"{name}-0"], events[f"{name}-1"]
        assert (first.position, second.position) == (answer.first_position, answer.last_position)
        assert (first.commit_number, second.stream_version) == (answer.commit_number, answer.stream_version)
    assert log.head().commit < 200
    assert verify(log, REGISTRY).findings == ()


def test_threads_that_expect_a_version_conflict_alone(log: EventLog, appender: Appender) -> None:
    """Of all appends that expect a stream to be new exactly one succeeds; only the others fail."""
    together = threading.Barrier(8)

    def work(worker: int) -> bool:
        together.wait()
        appender.append(f"own-{worker}", [PLACED])
        try:
            appender.append("order-1", [PLACED], expected_version=0)
        except ConcurrencyError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(work, range(8)))
    assert won.count(True) == 1
    assert log.head().position == 9


# --- what the store answers -------------------------------------------------------------------------------------------


class FaultyStore(LocalStore):
    """A folder whose next put-if-absent fails as ``fault`` does (which gets the real one), or that cannot list."""

    fault: Callable[[Callable[[], bool]], bool] | None = None
    lists = True

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Call the fault once."""
        fault, self.fault = self.fault, None
        honest = super().put_if_absent
        return fault(lambda: honest(key, data)) if fault else honest(key, data)

    def list_from(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Fail while ``lists`` is False."""
        if not self.lists:
            raise StoreError("connection lost")
        return super().list_from(prefix, start_after=start_after)


@pytest.fixture
def faulty(log: EventLog) -> EventLog:
    """A log in such a store."""
    return dataclasses.replace(log, store=FaultyStore(log.store.url))


def fails_after(put: Callable[[], bool]) -> bool:
    """Write, then lose the connection."""
    put()
    raise StoreError("connection lost")


def fails_before(_put: Callable[[], bool]) -> bool:
    """Lose the connection before anything is written."""
    raise StoreError("connection lost")


def set_fault(log: EventLog, fault: Callable[[Callable[[], bool]], bool]) -> None:
    """Make the next put-if-absent fail."""
    assert isinstance(log.store, FaultyStore)
    log.store.fault = fault


def test_a_lost_answer_is_no_conflict(faulty: EventLog) -> None:
    """If the store writes the commit, retries and finds its own object, the appender recognizes it."""
    appender = Appender(faulty, REGISTRY)
    set_fault(faulty, lambda put: put() and False)
    assert appender.append("order-1", [PLACED], expected_version=0) == Appended(1, 1, 1, 1)
    assert appender.append("order-1", [Closed()], expected_version=1) == Appended(2, 2, 2, 2)
    assert len(appended_ids(faulty)) == 2


@pytest.mark.parametrize(("fault", "there"), [(fails_after, 1), (fails_before, 0)], ids=["written", "not written"])
def test_a_failure_of_the_store_reaches_the_caller(
    faulty: EventLog, fault: Callable[[Callable[[], bool]], bool], there: int
) -> None:
    """The caller cannot know whether its events were appended; a retry with expected_version shows it."""
    appender = Appender(faulty, REGISTRY)
    set_fault(faulty, fault)
    with pytest.raises(StoreError, match="connection lost"):
        appender.append("order-1", [PLACED], expected_version=0)
    if there:
        with pytest.raises(ConcurrencyError):
            appender.append("order-1", [PLACED], expected_version=0)
    else:
        appender.append("order-1", [PLACED], expected_version=0)
    assert appender.append("order-1", [Closed()], expected_version=1).first_position == 2
    assert len(appended_ids(faulty)) == 2


def test_a_failure_reaches_all_who_shared_the_commit(faulty: EventLog) -> None:
    """Every waiting append fails with the error of the commit."""
    appender = Appender(faulty, REGISTRY)
    entered, go_on = threading.Event(), threading.Event()

    def held(put: Callable[[], bool]) -> bool:
        entered.set()
        go_on.wait(10)
        return fails_before(put)

    set_fault(faulty, held)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(appender.append, "order-1", [PLACED])
        assert entered.wait(10)
        second = pool.submit(appender.append, "order-2", [PLACED])
        go_on.set()
        assert isinstance(first.exception(10), StoreError)
        assert second.result(10).stream_version == 1
    assert len(appended_ids(faulty)) == 1


def test_a_failure_while_learning_of_an_import_is_made_good(faulty: EventLog) -> None:
    """If reading the manifest fails, the appender reads the import again, and its streams are not new."""
    assert isinstance(faulty.store, FaultyStore)
    appender = Appender(faulty, REGISTRY)
    appender.append("order-1", [PLACED])
    bulk_import(faulty, "first", [("order-2", PLACED), ("order-2", added())])
    faulty.store.lists = False
    with pytest.raises(StoreError):
        appender.append("order-3", [PLACED])
    faulty.store.lists = True
    assert appender.append("order-2", [Closed()]).stream_version == 3
    assert verify(faulty, REGISTRY).findings == ()
