"""Command ids: the same id with the same command is a repeat, with anything else a conflict."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pytest

from refold.event_schemas import CommandConflictError, PayloadError, event
from refold.event_schemas.decider import Decider, StateCodec, command
from refold.warehouse.commands.command_identity import command_digest
from refold.warehouse.commands.decisions import CommandRequest, Handled
from refold.warehouse.commands.handler import CommandHandler
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log import Appender, NewEvent, create_log
from refold.warehouse.event_log.layout import CONFIG_KEY
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.object_store.records import checked_content, encode_record
from tests.properties.engine import seal


@event(schema_version=1)
class Moved:
    """Money moved."""

    acc: str
    cents: int


@command
class Move:
    """Move money, in one event or more."""

    acc: str
    cents: int
    times: int | None = None
    fee: Annotated[Decimal, pa.decimal128(18, 2)] | None = None


@command
class Close:
    """Close an account, which is an event without money."""

    acc: str


def _decide(move: Any, state: int) -> Sequence[object]:
    if isinstance(move, Close):
        return [Moved(acc=move.acc, cents=0)]
    return [Moved(acc=move.acc, cents=move.cents)] * (1 if move.times is None else move.times)


ACCOUNT = Decider(
    name="account",
    commands=(Move, Close),
    stream_id=lambda move: f"acc-{move.acc}",
    initial_state=lambda: 0,
    evolve=lambda state, moved: state + moved.cents,
    decide=_decide,
    snapshot=StateCodec("cents", dump=int, load=int),
)
BANK = Domain(name="bank", events=(Moved,), deciders=(ACCOUNT,))
MOVE = Move(acc="1", cents=10, times=2)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """An empty log."""
    return create_log(str(tmp_path / "log"), domain_name="bank", bucket_count=2)


OTHERS = [Move(acc="1", cents=9999, times=2), Move(acc="1", cents=10, times=1), Move(acc="1", cents=10), Close(acc="1")]


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("another_process", [False, True])
def test_the_same_id_with_other_content_is_a_conflict(log: EventLog, sealed: bool, another_process: bool) -> None:
    """A repeat gets the first answer. Other values and another command are refused, wherever the first one is kept."""
    handler = CommandHandler(log, BANK, snapshot_every=0)
    first = handler.handle(MOVE, command_id="k")
    if sealed:
        seal(log, BANK.registry)
    if another_process:
        handler = CommandHandler(log, BANK)
    assert first == Handled(2, "acc-1", 2, 2, False)
    assert handler.handle(MOVE, command_id="k") == Handled(2, "acc-1", 2, 2, True)
    for other in OTHERS:
        with pytest.raises(CommandConflictError, match=r"'k' was used before on stream 'acc-1'"):
            handler.handle(other, command_id="k")
    assert handler.handle(Close(acc="1"), command_id="l") == Handled(3, "acc-1", 3, 1, False)


def test_a_snapshot_keeps_the_digests(log: EventLog) -> None:
    """A command whose events are before the snapshot is still compared."""
    CommandHandler(log, BANK, snapshot_every=1).handle(MOVE, command_id="k")
    handler = CommandHandler(log, BANK)
    handler._read = None  # type: ignore[assignment,method-assign]
    with pytest.raises(CommandConflictError):
        handler.handle(OTHERS[0], command_id="k")
    assert handler.handle(MOVE, command_id="k") == Handled(2, "acc-1", 2, 2, True)


def test_a_causation_id_of_other_origin_is_no_handled_command(log: EventLog) -> None:
    """An event that another writer appended says what caused it, not that a command was handled."""
    appender = Appender(log, BANK.registry)
    appender.append("acc-1", [NewEvent(payload=Moved(acc="1", cents=1), causation_id="k")])
    handler = CommandHandler(log, BANK)
    assert handler.handle(MOVE, command_id="k") == Handled(3, "acc-1", 3, 2, False)
    appender.append("acc-1", [NewEvent(payload=Moved(acc="1", cents=1), causation_id="k")])
    for same in (handler, CommandHandler(log, BANK)):
        assert same.handle(MOVE, command_id="k") == Handled(3, "acc-1", 3, 2, True)


def test_ids_within_a_batch_are_compared(log: EventLog) -> None:
    """Commands of one batch are compared with one another."""
    asked = [CommandRequest(command=c, command_id="k") for c in (MOVE, MOVE, OTHERS[0])]
    first, second, third = CommandHandler(log, BANK).handle_many(asked)
    assert (first, second) == (Handled(2, "acc-1", 2, 2, False), Handled(2, "acc-1", 2, 2, True))
    assert isinstance(third, CommandConflictError)
    assert str(pickle.loads(pickle.dumps(third))) == str(third)


def test_two_handlers_with_one_id_and_two_bodies(log: EventLog) -> None:
    """Of two processes that handle one id with different bodies at once, one succeeds and the other is refused."""
    handlers = [CommandHandler(log, BANK) for _ in range(2)]

    def run(side: int, number: int) -> Any:
        [answer] = handlers[side].handle_many(
            [CommandRequest(command=Move(acc=str(number), cents=side), command_id=f"k{number}")]
        )
        return answer

    with ThreadPoolExecutor(2) as pool:
        for number in range(30):
            answers = list(pool.map(lambda side, number=number: run(side, number), range(2)))
            assert sorted(type(answer).__name__ for answer in answers) == ["CommandConflictError", "Handled"]


def test_a_command_without_events_keeps_nothing(log: EventLog) -> None:
    """Nothing is stored of a command that leads to no event, so its id is free."""
    handler = CommandHandler(log, BANK)
    assert handler.handle(Move(acc="1", cents=1, times=0), command_id="k") == Handled(0, "acc-1", 0, 0, False)
    assert handler.handle(MOVE, command_id="k") == Handled(2, "acc-1", 2, 2, False)


def test_a_log_of_an_older_release_repeats_by_id_alone(log: EventLog, tmp_path: Path) -> None:
    """Events of older releases have no digest: there, any command with the id is a repeat, as it was."""
    path = tmp_path / "log" / CONFIG_KEY
    values = json.loads(checked_content(path.read_bytes()))
    path.write_bytes(encode_record({k: v for k, v in values.items() if k != "command_digests"}))
    old = open_log(log.url)
    Appender(old, BANK.registry).append("acc-1", [NewEvent(payload=Moved(acc="1", cents=1), causation_id="k")])
    handler = CommandHandler(old, BANK)
    assert handler.handle(OTHERS[0], command_id="k") == Handled(1, "acc-1", 1, 1, True)
    handler.handle(MOVE, command_id="l")
    with pytest.raises(CommandConflictError):
        CommandHandler(old, BANK).handle(OTHERS[0], command_id="l")


def test_what_makes_commands_the_same() -> None:
    """Values are compared as the contract stores them; a field without a value may be newer than the command."""
    one = command_digest(Move(acc="1", cents=1, fee=Decimal("2.5")))
    assert one == command_digest(Move(acc="1", cents=1, fee=Decimal("2.50")))
    assert one != command_digest(Move(acc="1", cents=1))
    shorter: Any = command(type("Move", (), {"__annotations__": {"acc": str, "cents": int}}))
    assert command_digest(shorter(acc="1", cents=1)) == command_digest(Move(acc="1", cents=1))


@pytest.mark.parametrize("fee", [Decimal("NaN"), Decimal("0.001"), "much"])
def test_a_value_that_does_not_fit_the_command_is_refused(log: EventLog, fee: Any) -> None:
    """A command's values are checked before a decision sees them."""
    with pytest.raises(PayloadError, match=r"Command Move: fee: expected decimal128\(18, 2\), found"):
        CommandHandler(log, BANK).handle(Move(acc="1", cents=1, fee=fee), command_id="k")
