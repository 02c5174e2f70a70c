"""Tests of a domain in given/when/then form: given these events, when this command is handled, then this happens.

It needs no test runner: a failed check raises ``AssertionError``. Read models are tested with the engine itself, on a
log in a temporary folder.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from refold.event_schemas import (
    RecordedEvent,
    UsageError,
    event_type_of,
    schema_version_of,
)
from refold.event_schemas.decider import Decision, Rejected
from refold.event_schemas.payload import from_json, to_json
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.engine.sql import columns, quote
from refold.warehouse.event_log.append import Appender
from refold.warehouse.event_log.new_events import NewEvent, StreamAppend
from refold.warehouse.event_log.opening import create_log
from refold.warehouse.read_models import database
from refold.warehouse.read_models.increments.catch_up import ModelsAtCheckpoint, catch_up
from refold.warehouse.replay.newest_version import newest_events

FIRST_OCCURRED_AT = datetime(2026, 1, 1, tzinfo=UTC)
"""The default ``occurred_at`` of the first given event; each later event occurs one second after the one before."""

_DEFAULT_STREAM = "stream-1"


def scenarios(domain: Domain) -> Callable[..., Given]:
    """Return the function ``given`` for the tests of a domain.

    Args:
        domain: the domain, whose deciders and read models are tested.

    Returns:
        A function of the events recorded before, in order, and of ``stream_id``, their stream. Each event is an event
        instance, a :class:`~refold.warehouse.event_log.append.NewEvent`, or a
        :class:`~refold.warehouse.event_log.append.StreamAppend` for another stream, whose events are one commit.

    Example:
        >>> from refold.event_schemas.orders import OrderPlaced, PlaceOrder
        >>> from refold.warehouse.orders.domain import ORDERS
        >>> given = scenarios(ORDERS)
        >>> placed = OrderPlaced(order_id="order-1", customer_id="c1", currency="EUR", deliver_on=None)
        >>> place = PlaceOrder(order_id="order-1", customer_id="c1", currency="EUR")
        >>> given([]).when(place).then([placed])
        >>> given([placed]).when(place).then_rejected("already_placed")
        >>> given([placed], stream_id="order-1").then_rows(
        ...     "order_summary", [{"order_id": "order-1", "status": "placed"}]
        ... )
    """

    def given(events: Iterable[object] = (), *, stream_id: str | None = None) -> Given:
        return Given(domain, _appends(events, stream_id or _DEFAULT_STREAM), stream_id)

    return given


@dataclass(frozen=True, slots=True)
class Given:
    """The events that were recorded before; made by the function that :func:`scenarios` returns.

    Attributes:
        domain: the domain under test.
        appends: the events, one commit each.
        stream_id: the default stream of the events; None: the stream that a command goes to.
    """

    domain: Domain
    appends: tuple[StreamAppend, ...]
    stream_id: str | None

    def when(self, command: object) -> Outcome:
        """Decide on a command.

        Raises:
            UsageError: the domain has no such command.
        """
        name = type(command).__name__
        if name not in self.domain.commands:
            known = ", ".join(sorted(self.domain.commands)) or "none"
            raise UsageError(f"Domain {self.domain.name} has no command {name}; it has: {known}.")
        decider, _ = self.domain.commands[name]
        mine = {decider.stream_id(command), *([_DEFAULT_STREAM] if self.stream_id is None else [])}
        recorded = _recorded(self.domain, [a for a in self.appends if a.stream_id in mine])
        state = decider.initial_state()
        for event in newest_events(self.domain, recorded):
            state = decider.evolve(state, event)
        return Outcome(command, decider.decide(command, state))

    def then_rows(self, read_model: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Check the rows of a read model, with the events applied one by one and then all at once.

        Args:
            read_model: the name of the read model.
            rows: the expected rows, in any order; each has its key and the columns to compare.

        Raises:
            AssertionError: the rows differ, or depend on how the events are divided.
            InvalidEventsError: an event cannot be applied.
            UsageError: the domain has no such read model.
        """
        model = self.domain.read_model(read_model)
        stepwise = _rows(self.domain, model, [[one] for one in self.appends])
        together = _rows(self.domain, model, [list(self.appends)])
        if stepwise != together:
            raise AssertionError(
                f"Read model {read_model} depends on how events are divided into increments.\n"
                f"One by one: {stepwise}\nAll at once: {together}"
            )
        expected = _by_key(model, rows)
        found = {key: row for key, row in stepwise.items() if key not in expected}
        for key, row in expected.items():
            if (actual := stepwise.get(key)) is not None:
                found[key] = {name: actual[name] for name in row if name in actual}
        if found != expected:
            raise AssertionError(
                f"The rows of read model {read_model} differ.\nExpected: {list(expected.values())}\n"
                f"Found: {list(found.values())}"
            )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The decision on a command.

    Attributes:
        command: the command.
        decision: its events, or why it was rejected.
    """

    command: object
    decision: Decision

    def then(self, events: Sequence[object]) -> None:
        """Check that the command leads to these events, in this order; none if it has nothing to do.

        Raises:
            AssertionError: it leads to other events, or is rejected.
        """
        if isinstance(self.decision, Rejected) or list(self.decision) != list(events):
            raise AssertionError(f"{self.command}\nExpected: {list(events)}\nFound: {self.decision}")

    def then_rejected(self, code: str) -> None:
        """Check that the command is rejected with this code.

        Raises:
            AssertionError: it is accepted, or is rejected with another code.
        """
        if not isinstance(self.decision, Rejected) or self.decision.code != code:
            raise AssertionError(f"{self.command}\nExpected: a rejection with code {code}\nFound: {self.decision}")


def _appends(events: Iterable[object], stream_id: str) -> tuple[StreamAppend, ...]:
    """Return the events as appends, with the stream, event id and time that each has however they are divided."""
    appends: list[StreamAppend] = []
    count = 0
    for given in events:
        one = given if isinstance(given, StreamAppend) else StreamAppend(stream_id, [given])
        new_events = []
        for event in one.events:
            count += 1
            new = event if isinstance(event, NewEvent) else NewEvent(payload=event)
            at = new.occurred_at or FIRST_OCCURRED_AT + timedelta(seconds=count - 1)
            new_events.append(dataclasses.replace(new, event_id=new.event_id or f"given-{count}", occurred_at=at))
        appends.append(StreamAppend(one.stream_id, new_events))
    return tuple(appends)


def _recorded(domain: Domain, appends: Sequence[StreamAppend]) -> list[RecordedEvent]:
    recorded: list[RecordedEvent] = []
    for number, append in enumerate(appends, start=1):
        for new in append.events:
            assert isinstance(new, NewEvent)
            key = _schema_key(new)
            schema = domain.registry.schema(*key)
            version = len(recorded) + 1
            recorded.append(
                RecordedEvent(
                    position=version,
                    commit_number=number,
                    stream_id=appends[0].stream_id,
                    stream_version=version,
                    event_id=str(new.event_id),
                    event_type=key[0],
                    schema_version=key[1],
                    occurred_at=new.occurred_at or FIRST_OCCURRED_AT,
                    recorded_at=new.occurred_at or FIRST_OCCURRED_AT,
                    correlation_id=new.correlation_id,
                    causation_id=new.causation_id,
                    payload=from_json(orjson.loads(orjson.dumps(to_json(new.payload, schema))), schema),
                )
            )
    return recorded


def _schema_key(new: NewEvent) -> SchemaKey:
    if new.event_type is not None and new.schema_version is not None:
        return new.event_type, new.schema_version
    return event_type_of(type(new.payload)), schema_version_of(type(new.payload))


def _rows(domain: Domain, model: ReadModel, commits: Sequence[Sequence[StreamAppend]]) -> dict[Any, dict[str, Any]]:
    """Apply commits one after the other, each as an increment, and return the rows of the table by key."""
    alone = dataclasses.replace(domain, read_models=(model,), views=(), endpoints=())
    with tempfile.TemporaryDirectory(prefix="refold-given-") as folder:
        log = create_log(f"{folder}/log", domain_name=domain.name, bucket_count=1)
        appender = Appender(log, domain.registry)
        with database.open_database(Path(folder) / "given.duckdb", threads=1) as connection:
            database.create_table(connection, model, [])
            at = database.Checkpoint(0, 0, "")
            for commit in commits:
                if not commit:
                    continue
                appender.append_many(commit)
                catch_up(connection, log, alone, [ModelsAtCheckpoint([model], at)])
                at = database.get_checkpoint(connection)
            query = f"SELECT {columns(model.table)} FROM {quote(model.name)}"
            return _by_key(model, connection.sql(query).to_arrow_table().to_pylist())


def _by_key(model: ReadModel, rows: Iterable[Mapping[str, Any]]) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        if missing := [name for name in model.key if name not in row]:
            raise UsageError(
                f"Read model {model.name}: the row {dict(row)} has no key column {missing[0]!r}. Add it to the row."
            )
        found[tuple(row[name] for name in model.key)] = dict(row)
    return dict(sorted(found.items(), key=lambda item: repr(item[0])))
