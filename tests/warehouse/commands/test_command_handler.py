"""The command handler: each command has its effect once, on the stream as it is, and snapshots only save reading."""

from __future__ import annotations

import dataclasses
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from refold.event_schemas import (
    ConcurrencyError,
    InvalidEventsError,
    PayloadError,
    UsageError,
)
from refold.event_schemas.decider import Rejected
from refold.event_schemas.orders import (
    STOCK,
    AddItem,
    AdjustStock,
    CancelOrder,
    PayOrder,
    PlaceOrder,
    ReceiveStock,
    StockReceived,
)
from refold.warehouse.commands.decisions import CommandRequest, Handled
from refold.warehouse.commands.handler import CommandHandler
from refold.warehouse.commands.snapshots import SNAPSHOTS
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    NewEvent,
    create_log,
    read_positions,
    read_stream,
)
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.orders.domain import ORDERS
from tests.properties.engine import seal

PAIRS = int(os.environ.get("REFOLD_TEST_RACING_PAIRS", "200"))
PLACE = PlaceOrder(order_id="order-1", customer_id="c1", currency="EUR")
ADD = AddItem(order_id="order-1", sku="cup", quantity=2, unit_price=Decimal("0.10"))
CUPS = StockReceived(sku="cup", quantity=1, unit_cost=Decimal(1), best_before=None)
RECEIVE = ReceiveStock(sku="cup", quantity=1, unit_cost=Decimal(1))


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """An empty log."""
    return create_log(str(tmp_path / "log"), domain_name="orders", bucket_count=4)


@pytest.fixture
def handler(log: EventLog) -> CommandHandler:
    """A handler on it."""
    return CommandHandler(log, ORDERS)


def receive(quantity: int = 1, sku: str = "cup") -> ReceiveStock:
    """Take in pieces."""
    return ReceiveStock(sku=sku, quantity=quantity, unit_cost=Decimal(1))


def snapshots(log: EventLog) -> list[str]:
    """Name the snapshots beside a log."""
    return list(log.store.list_from(SNAPSHOTS))


def reads(handler: CommandHandler, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the events that a handler reads from now on, one number a read."""
    counts: list[int] = []
    read = handler._read

    def counting(stream_id: str, *, from_version: int) -> Any:
        events = list(read(stream_id, from_version=from_version))
        counts.append(len(events))
        return iter(events)

    monkeypatch.setattr(handler, "_read", counting)
    return counts


# --- one command ------------------------------------------------------------------------------------------------------


def test_events_carry_what_led_to_them(log: EventLog, handler: CommandHandler) -> None:
    """Events have the command's id as causation, and its correlation id."""
    assert handler.handle(PLACE, command_id="a", correlation_id="visit") == Handled(1, "order-1", 1, 1, False)
    [event] = read_positions(log, ORDERS.registry, 0)
    assert (event.event_type, event.causation_id, event.correlation_id) == ("OrderPlaced", "a", "visit")


def test_a_rejection_changes_nothing(log: EventLog, handler: CommandHandler) -> None:
    """A rejection is a value, and a repeated command is decided again."""
    answer = handler.handle(ADD, command_id="a")
    assert isinstance(answer, Rejected)
    assert answer.code == "no_such_order"
    assert log.head().position == 0
    handler.handle(PLACE, command_id="b")
    assert handler.handle(ADD, command_id="a") == Handled(2, "order-1", 2, 1, False)


def test_a_command_without_events_is_handled(log: EventLog, handler: CommandHandler) -> None:
    """The result has the stream's version and no events."""
    handler.handle(RECEIVE, command_id="a")
    counted = AdjustStock(sku="cup", quantity=0, reason="counted")
    assert handler.handle(counted, command_id="b") == Handled(1, "stock-cup", 1, 0, False)
    assert log.head().position == 1


def test_a_repeat_gets_the_first_answer(log: EventLog, handler: CommandHandler) -> None:
    """Both this handler and a new one return it, after any other events and with any expected version."""
    handler.handle(PLACE, command_id="a")
    first = handler.handle(ADD, command_id="b", expected_version=1)
    handler.handle(ADD, command_id="c")
    assert isinstance(first, Handled)
    for again in (handler, CommandHandler(log, ORDERS)):
        repeat = again.handle(ADD, command_id="b", expected_version=1)
        assert repeat == dataclasses.replace(first, repeated=True)
    assert log.head().position == 3


def test_another_version_than_expected_is_a_conflict(log: EventLog, handler: CommandHandler) -> None:
    """This includes a stream that another process appended to."""
    handler.handle(PLACE, command_id="a", expected_version=0)
    other = CommandHandler(log, ORDERS)
    other.handle(ADD, command_id="b", expected_version=1)
    with pytest.raises(ConcurrencyError) as caught:
        handler.handle(CancelOrder(order_id="order-1", reason=""), command_id="c", expected_version=1)
    assert (caught.value.expected_version, caught.value.actual_version) == (1, 2)
    assert log.head().position == 2


def test_a_decision_is_made_on_what_others_appended(log: EventLog, handler: CommandHandler) -> None:
    """Neither events nor rejections result from a stale state."""
    handler.handle(PLACE, command_id="a")
    other = CommandHandler(log, ORDERS)
    other.handle(ADD, command_id="b")
    pay = PayOrder(order_id="order-1", payment_id=UUID(int=1), amount=Decimal("0.20"), method="card")
    assert handler.handle(pay, command_id="c") == Handled(3, "order-1", 3, 1, False)
    answer = other.handle(ADD, command_id="d")
    assert isinstance(answer, Rejected)
    assert answer.code == "already_paid"


DEAR: Any = "dear"


@pytest.mark.parametrize(
    ("command", "command_id", "error", "message"),
    [
        (RECEIVE, "", UsageError, "command_id"),
        (CUPS, "a", UsageError, "no command StockReceived"),
        (dataclasses.replace(RECEIVE, unit_cost=DEAR), "a", (PayloadError, TypeError), "dear|str"),
    ],
)
def test_what_cannot_be_handled_appends_nothing(
    log: EventLog, handler: CommandHandler, command: Any, command_id: str, error: type[Exception], message: str
) -> None:
    """The caller gets the error, and nothing is appended."""
    with pytest.raises(error, match=message):
        handler.handle(command, command_id=command_id)
    assert log.head().position == 0


def test_old_events_are_decided_on_in_their_newest_form(log: EventLog, handler: CommandHandler) -> None:
    """SQL upcasters, Python upcasters and mergers apply to one stream."""
    old = [
        ("OrderPlaced", 1, {"order_id": "order-1", "customer": "c1", "deliver_on": "", "note": None}),
        ("ItemAdded", 1, {"sku": "cup", "quantity": 2, "price_cents": 10}),
        ("StreetChanged", 1, {"street": "Hafen 1"}),
        ("CityChanged", 1, {"city": "Ulm", "postal_code": None}),
    ]
    given = [NewEvent(payload=p, event_type=t, schema_version=v) for t, v, p in old]
    Appender(log, ORDERS.registry).append("order-1", given)
    handler.handle(CancelOrder(order_id="order-1", reason="late"), command_id="a")
    *_, event = read_stream(log, ORDERS.registry, "order-1")
    assert event.payload["customer_id"] == "c1"
    assert event.payload["currency"] == "EUR"
    assert event.payload["items"] == [{"sku": "cup", "quantity": 2}]


def test_a_stream_with_an_invalid_event_handles_no_command(log: EventLog, handler: CommandHandler) -> None:
    """The error has the event's position; half of a moved address is invalid."""
    half = NewEvent(payload={"street": "Hafen 1"}, event_type="StreetChanged", schema_version=1)
    Appender(log, ORDERS.registry).append("order-1", [half])
    with pytest.raises(InvalidEventsError, match="position 1"):
        handler.handle(PLACE, command_id="a")


# --- many commands ----------------------------------------------------------------------------------------------------


def test_a_batch_shares_a_commit(log: EventLog, handler: CommandHandler) -> None:
    """Commands of one stream see each other's events; each has its own answer."""
    requests = [
        CommandRequest(command=PLACE, command_id="a"),
        CommandRequest(command=RECEIVE, command_id="b"),
        CommandRequest(command=ADD, command_id="c", expected_version=1),
        CommandRequest(command=ADD, command_id="d", expected_version=1),
        CommandRequest(command=PLACE, command_id="e"),
        CommandRequest(command=ADD, command_id="c"),
    ]
    first, stock, added, late, double, again = handler.handle_many(requests)
    assert (first, added) == (Handled(1, "order-1", 1, 1, False), Handled(2, "order-1", 2, 1, False))
    assert stock == Handled(3, "stock-cup", 1, 1, False)
    assert isinstance(late, ConcurrencyError)
    assert isinstance(double, Rejected)
    assert again == Handled(2, "order-1", 2, 1, True)
    assert (log.head().commit, log.head().position) == (1, 3)
    assert handler.handle(ADD, command_id="c") == again
    assert handler.handle_many([]) == []


def test_of_racing_commands_with_one_expected_version_one_succeeds(log: EventLog) -> None:
    """Of each pair, sent by two handlers as two processes would, one succeeds."""
    handlers = [CommandHandler(log, ORDERS), CommandHandler(log, ORDERS)]
    outcomes: list[list[object]] = [[], []]
    start = threading.Barrier(2)

    def race(side: int) -> None:
        for version in range(PAIRS):
            start.wait()
            request = CommandRequest(command=RECEIVE, command_id=f"{side}-{version}", expected_version=version)
            outcomes[side] += handlers[side].handle_many([request])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(race, range(2)))
    for pair in zip(*outcomes, strict=True):
        assert sorted(type(answer).__name__ for answer in pair) == ["ConcurrencyError", "Handled"]
    assert log.head().position == PAIRS


def test_others_on_the_same_stream_are_no_reason_to_fail(log: EventLog) -> None:
    """Without an expected version a command is decided again until its append succeeds."""
    handlers = [CommandHandler(log, ORDERS) for _ in range(4)]

    def work(side: int) -> list[Any]:
        return [handlers[side].handle(RECEIVE, command_id=f"{side}-{n}") for n in range(25)]

    with ThreadPoolExecutor(4) as pool:
        answers = [a for mine in pool.map(work, range(4)) for a in mine]
    assert sorted(a.stream_version for a in answers) == list(range(1, 101))


def test_attempts_are_bounded(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that loses every attempt ends with a conflict, and appends nothing."""
    handler, other = CommandHandler(log, ORDERS, attempts=2), Appender(log, ORDERS.registry)
    decide = STOCK.decide

    def outrun(command: Any, state: Any) -> Any:
        other.append("stock-cup", [CUPS])
        return decide(command, state)

    slow = dataclasses.replace(STOCK, decide=outrun)
    monkeypatch.setattr(handler, "_domain", dataclasses.replace(ORDERS, deciders=(slow,)))
    with pytest.raises(ConcurrencyError):
        handler.handle(RECEIVE, command_id="a")
    assert log.head().position == 2


# --- snapshots and the cache ------------------------------------------------------------------------------------------


@pytest.fixture
def long(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> EventLog:
    """A stream of 1,000 events with a snapshot at 950."""
    handler = CommandHandler(log, ORDERS, snapshot_every=950)
    handler.handle_many([CommandRequest(command=RECEIVE, command_id=f"c{n}") for n in range(950)])
    handler.handle_many([CommandRequest(command=RECEIVE, command_id=f"c{n}") for n in range(950, 1000)])
    assert len(snapshots(log)) == 1
    return log


def test_a_snapshot_saves_reading(long: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 events 50 are read, and a repeat from before the snapshot is known."""
    handler = CommandHandler(long, ORDERS)
    counts = reads(handler, monkeypatch)
    gone = AdjustStock(sku="cup", quantity=-1001, reason="")
    answer = handler.handle(gone, command_id="x")
    assert isinstance(answer, Rejected)
    assert "1000" in answer.reason
    assert handler.handle(RECEIVE, command_id="c7") == Handled(8, "stock-cup", 8, 1, True)
    assert counts == [50]


def _evolve_twice(state: Any, event: Any) -> Any:
    return STOCK.evolve(STOCK.evolve(state, event), event)


def _delete(log: EventLog, key: str) -> None:
    log.store.delete(key)


def _cut(log: EventLog, key: str) -> None:
    log.store.put(key, log.store.get(key)[:40])


def _stranger(log: EventLog, key: str) -> None:
    log.store.put(key, b'{"format": 9}')


@pytest.mark.parametrize("harm", [_delete, _cut, _stranger])
def test_a_lost_snapshot_costs_reading_only(
    long: EventLog, monkeypatch: pytest.MonkeyPatch, harm: Callable[[EventLog, str], None]
) -> None:
    """The handler reads the full stream, and writes the next snapshot."""
    [key] = snapshots(long)
    harm(long, key)
    handler = CommandHandler(long, ORDERS)
    counts = reads(handler, monkeypatch)
    assert handler.handle(RECEIVE, command_id="c7") == Handled(8, "stock-cup", 8, 1, True)
    assert counts == [1000]
    later = CommandHandler(long, ORDERS)
    counts = reads(later, monkeypatch)
    assert isinstance(later.handle(AdjustStock(sku="cup", quantity=-1001, reason=""), command_id="x"), Rejected)
    assert counts == []


def test_another_evolve_does_not_take_the_old_snapshot(long: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of another ``evolve`` function is computed again."""
    doubled = dataclasses.replace(STOCK, evolve=_evolve_twice)
    handler = CommandHandler(long, dataclasses.replace(ORDERS, deciders=(doubled,)))
    counts = reads(handler, monkeypatch)
    answer = handler.handle(AdjustStock(sku="cup", quantity=-2001, reason=""), command_id="x")
    assert isinstance(answer, Rejected)
    assert "2000" in answer.reason
    assert counts == [1000]
    assert len(snapshots(long)) == 2


def test_a_snapshot_ahead_of_the_log_is_not_used(long: EventLog, tmp_path: Path) -> None:
    """After a restore of an older backup, later snapshots are ignored."""
    [key] = snapshots(long)
    kept = long.store.get(key)
    shorter = create_log(str(tmp_path / "restored"), domain_name="orders", bucket_count=4)
    CommandHandler(shorter, ORDERS).handle(RECEIVE, command_id="a")
    shorter.store.put(key, kept.replace(long.log_id.encode(), shorter.log_id.encode()))
    answer = CommandHandler(shorter, ORDERS).handle(AdjustStock(sku="cup", quantity=-2, reason=""), command_id="x")
    assert isinstance(answer, Rejected)
    assert "The stock of cup is 1" in answer.reason


def test_a_snapshot_that_cannot_be_written_is_no_error(log: EventLog, tmp_path: Path) -> None:
    """The command is handled, although a file has the folder's name."""
    (tmp_path / "log" / SNAPSHOTS).write_text("in the way")
    handler = CommandHandler(log, ORDERS, snapshot_every=1)
    assert handler.handle(RECEIVE, command_id="a") == Handled(1, "stock-cup", 1, 1, False)
    assert CommandHandler(log, ORDERS).handle(RECEIVE, command_id="a") == Handled(1, "stock-cup", 1, 1, True)


def test_a_stream_that_is_known_is_not_read(
    log: EventLog, handler: CommandHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only events of other writers are read; a handler without a cache reads the stream each time."""
    counts = reads(handler, monkeypatch)
    for n in range(5):
        handler.handle(RECEIVE, command_id=f"a{n}")
    assert counts == []
    CommandHandler(log, ORDERS).handle(RECEIVE, command_id="b")
    handler.handle(RECEIVE, command_id="c")
    assert counts == [1]
    forgetful = CommandHandler(log, ORDERS, streams_kept=0)
    counts = reads(forgetful, monkeypatch)
    forgetful.handle(RECEIVE, command_id="d")
    forgetful.handle(RECEIVE, command_id="e")
    assert counts == [7, 8]


def test_sealed_history_is_read(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a handler that lived through the seal, and by one that came later."""
    old, forgetful = CommandHandler(log, ORDERS), CommandHandler(log, ORDERS, streams_kept=0)
    for n in range(3):
        old.handle(RECEIVE, command_id=f"a{n}")
    forgetful.handle(RECEIVE, command_id="b")
    seal(log, ORDERS.registry)
    for number, handler in enumerate((old, forgetful, CommandHandler(log, ORDERS)), start=5):
        counts = reads(handler, monkeypatch)
        assert handler.handle(RECEIVE, command_id="a1") == Handled(2, "stock-cup", 2, 1, True)
        answer = handler.handle(RECEIVE, command_id=f"c{number}")
        assert answer == Handled(number, "stock-cup", number, 1, False)
        assert sum(counts) <= 2 * number


def test_a_remote_store_serves_as_well() -> None:
    """Where objects are no files, a second handler loads what the first wrote, from its snapshot."""
    log = create_log("memory://commands", domain_name="orders", bucket_count=2)
    first = CommandHandler(log, ORDERS, snapshot_every=2)
    for n in range(3):
        first.handle(RECEIVE, command_id=f"a{n}")
    second = CommandHandler(open_log("memory://commands"), ORDERS)
    assert second.handle(RECEIVE, command_id="a0") == Handled(1, "stock-cup", 1, 1, True)
    assert second.handle(RECEIVE, command_id="b") == Handled(4, "stock-cup", 4, 1, False)


def test_repeats_in_random_order_have_one_effect(log: EventLog) -> None:
    """Many threads send each command twice."""
    handler = CommandHandler(log, ORDERS, snapshot_every=10, streams_kept=3)
    sent = [(f"{n}", receive(n + 1, f"sku{n % 7}")) for n in range(200)] * 2
    random.Random(1).shuffle(sent)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: (one[0], handler.handle(one[1], command_id=one[0])), sent))
    events = {e.causation_id: e for e in read_positions(log, ORDERS.registry, 0)}
    assert len(events) == log.head().position == 200
    for command_id, answer in answers:
        assert isinstance(answer, Handled)
        assert (answer.position, answer.stream_version) == (
            events[command_id].position,
            events[command_id].stream_version,
        )
    assert sum(isinstance(a, Handled) and a.repeated for _, a in answers) == 200
