"""The command handler: loads a stream, decides, and appends what was decided, once for each command id.

A decision is made on the stream as this process last saw it, and appended with that version as ``expected_version``: if
another writer was there first, the append fails, the stream is read on, and the decision is made anew. So an append
needs no look at the log before it. An answer that appends nothing has no such check, and is given only after a look.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from refold.event_schemas import (
    ConcurrencyError,
    InvalidEventsError,
    RecordedEvent,
    UsageError,
)
from refold.event_schemas.decider import Decider, Rejected
from refold.warehouse.commands.snapshots import Applied, Loaded, Snapshots
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.engine.sql import first_line
from refold.warehouse.event_log.append import Appended, Appender
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.new_events import NewEvent, StreamAppend
from refold.warehouse.event_log.reads.read import read_stream
from refold.warehouse.replay.newest_version import newest_events

_STRIPES = 256


@dataclass(frozen=True, slots=True)
class Handled:
    """What a command did.

    Attributes:
        position: of its last event; of the stream's last one if it made none.
        stream_id: the stream it went to.
        stream_version: the stream's version after it.
        events: how many events it made.
        repeated: whether a command of this id was handled before; all else is then what was answered at first.
    """

    position: int
    stream_id: str
    stream_version: int
    events: int
    repeated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRequest:
    """A command with what surrounds it.

    Attributes:
        command: an instance of one of the domain's command classes.
        command_id: its identity; a stream takes each once. It becomes the ``causation_id`` of the events.
        expected_version: refuse it if the stream stands at another version; None: decide on whatever there is.
        correlation_id: what it belongs to, across streams; handed on to the events.
    """

    command: object
    command_id: str
    expected_version: int | None = None
    correlation_id: str | None = None


Answer = Handled | Rejected | ConcurrencyError


@dataclass(slots=True)
class _Task:
    """A request on its way through the rounds; ``settled`` when its answer will not be looked for again."""

    request: CommandRequest
    decider: Decider[Any]
    stream_id: str
    answer: Answer | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class _Made:
    """What a command made, in terms of the events of its turn: how many, and how many there are up to its last one."""

    events: int
    up_to: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class _MicroBatch:
    """One stream's part in a round: what it was, what it will be, the events between, and who is answered what."""

    stream_id: str
    decider: Decider[Any]
    before: Loaded
    state: Any
    events: list[NewEvent]
    outcomes: list[tuple[_Task, Answer | _Made]]

    @property
    def is_unproven(self) -> bool:
        """Whether an answer rests on the stream's version, and no append will prove that."""
        return not self.events and not all(isinstance(o, Handled) for _, o in self.outcomes)


class CommandHandler:
    """Handles a domain's commands; one in a process, safe to share between threads, which then share commits.

    Args:
        log: the log.
        domain: its deciders say what a command leads to.
        snapshot_every: write a stream's snapshot whenever that many events have come; 0: never.
        attempts: how often to decide anew when another process appends to the same stream first.
        streams_kept: how many streams to keep in memory.

    Raises:
        UsageError: a number makes no sense.

    Example:
        >>> import tempfile
        >>> from refold.event_schemas.orders import PlaceOrder
        >>> from refold import create_log, load_domain
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     handler = CommandHandler(create_log(folder, domain_name="orders"), load_domain("orders"))
        ...     place = PlaceOrder(order_id="order-1", customer_id="c1", currency="EUR")
        ...     first = handler.handle(place, command_id="a")
        ...     first, handler.handle(place, command_id="a").repeated, handler.handle(place, command_id="b").code
        (Handled(position=1, stream_id='order-1', stream_version=1, events=1, repeated=False), True, 'already_placed')
    """

    def __init__(
        self,
        log: EventLog,
        domain: Domain,
        *,
        snapshot_every: int = 100,
        attempts: int = 20,
        streams_kept: int = 10_000,
    ) -> None:
        if snapshot_every < 0 or attempts < 1 or streams_kept < 0:
            raise UsageError(
                f"snapshot_every is {snapshot_every}, attempts {attempts}, streams_kept {streams_kept}: expected 0 or "
                "more, 1 or more, 0 or more."
            )
        self._log = log
        self._domain = domain
        self._appender = Appender(log, domain.registry)
        self._snapshots = {d.name: Snapshots(log, d) for d in domain.deciders}
        self._snapshot_every = snapshot_every
        self._attempts = attempts
        self._streams = _Streams(streams_kept)
        self._locks = [threading.Lock() for _ in range(_STRIPES)]

    def handle(
        self,
        command: object,
        *,
        command_id: str,
        expected_version: int | None = None,
        correlation_id: str | None = None,
    ) -> Handled | Rejected:
        """Handle one command: all of its events are appended, or none.

        Args:
            command: an instance of one of the domain's command classes.
            command_id: its identity; sent again, it gets the first answer and does nothing. Nothing is kept of a
                command that was rejected or made no event: that one is decided anew.
            expected_version: refuse it if the stream stands at another version; None: decide on whatever there is.
            correlation_id: what it belongs to, across streams; handed on to the events.

        Raises:
            ConcurrencyError: the stream does not stand at ``expected_version``; or, without one, others appended to
                it first in every attempt.
            UsageError: the domain has no such command, or the command id is empty.
            PayloadError: a value of the command does not fit into its events.
            InvalidEventsError: the stream cannot be loaded.
        """
        [answer] = self.handle_many(
            [
                CommandRequest(
                    command=command,
                    command_id=command_id,
                    expected_version=expected_version,
                    correlation_id=correlation_id,
                )
            ]
        )
        if isinstance(answer, ConcurrencyError):
            raise answer
        return answer

    def handle_many(self, requests: Iterable[CommandRequest]) -> list[Answer]:
        """Handle commands that share commits; each is all or none by itself, those of a stream in the order given.

        Returns:
            One answer each, in order; a ``ConcurrencyError`` where :meth:`handle` would raise it.

        Raises:
            UsageError: the domain has no such command, or a command id is empty; nothing was done.
            PayloadError: a value of a command does not fit into its events; nothing more was done.
            InvalidEventsError: a stream cannot be loaded; nothing more was done.
        """
        tasks = [self._task(request) for request in requests]
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(multiplier=0.005, max=0.25),
            retry=retry_if_result(bool),
            retry_error_callback=lambda _state: None,
        )
        with self._held({task.stream_id for task in tasks}):
            retrying(self._round, tasks)
        return [task.answer for task in tasks if task.answer is not None]

    def _task(self, request: CommandRequest) -> _Task:
        name = type(request.command).__name__
        decider, cls = self._domain.commands.get(name, (None, None))
        if decider is None or cls is not type(request.command):
            known = ", ".join(sorted(self._domain.commands)) or "none"
            raise UsageError(f"Domain {self._domain.name} has no command {name}; it has: {known}.")
        if not request.command_id:
            raise UsageError(f"The command_id of {name} is empty; give each command one, such as a UUID.")
        return _Task(request, decider, decider.stream_id(request.command))

    @contextmanager
    def _held(self, stream_ids: Iterable[str]) -> Iterator[None]:
        """Keep other threads from these streams; locks are taken in order, so that none waits for ever."""
        with ExitStack() as held:
            for stripe in sorted({zlib.crc32(s.encode(errors="replace")) % _STRIPES for s in stream_ids}):
                held.enter_context(self._locks[stripe])
            yield

    def _round(self, tasks: Sequence[_Task]) -> bool:
        """Decide and append what is not settled yet; tell whether another process was first anywhere."""
        by_stream: dict[str, list[_Task]] = {}
        for task in tasks:
            if not task.settled:
                by_stream.setdefault(task.stream_id, []).append(task)
        turns = [self._turn(stream_id, mine) for stream_id, mine in by_stream.items()]
        appending = [turn for turn in turns if turn.events]
        results = self._appender.append_many(
            StreamAppend(turn.stream_id, turn.events, turn.before.stream_version) for turn in appending
        )
        for turn in turns:
            if not turn.events:
                _settle(turn, turn.before.position)
        for turn, result in zip(appending, results, strict=True):
            if isinstance(result, Appended):
                _settle(turn, result.first_position - 1)
                self._keep(turn, result)
            else:
                for task, _ in turn.outcomes:
                    task.answer = result
        return not all(task.settled for task in tasks)

    def _turn(self, stream_id: str, tasks: Sequence[_Task]) -> _MicroBatch:
        decider = tasks[0].decider
        before = self._load(stream_id, decider, look=False)
        turn = _decided(stream_id, before, tasks)
        if turn.is_unproven and (now := self._load(stream_id, decider, look=True)) is not before:
            turn = _decided(stream_id, now, tasks)
        return turn

    def _keep(self, turn: _MicroBatch, appended: Appended) -> None:
        applied = turn.before.applied  # grows in place: a copy for each command would make long streams slow
        for task, outcome in turn.outcomes:
            if isinstance(outcome, _Made) and outcome.events and isinstance(task.answer, Handled):
                answer = task.answer
                applied[task.request.command_id] = Applied(answer.position, answer.stream_version, answer.events)
        now = Loaded(turn.state, appended.stream_version, appended.last_position, applied)
        self._streams.put(turn.stream_id, now)
        every = self._snapshot_every
        if every and now.stream_version // every > turn.before.stream_version // every:
            self._snapshots[turn.decider.name].save(turn.stream_id, now)

    def _load(self, stream_id: str, decider: Decider[Any], *, look: bool) -> Loaded:
        """Give a stream as it was last seen, or with a look at what others appended meanwhile."""
        known = self._appender.version(stream_id) if look else self._appender.version_seen(stream_id)
        kept = self._streams.get(stream_id)
        if kept is not None and kept.stream_version >= known:
            return kept
        start = kept
        if start is None and known:
            start = self._snapshots[decider.name].load(stream_id, up_to=known)
        if start is None:
            start = Loaded(decider.initial_state(), 0, 0, {})
        loaded = self._read_on(stream_id, decider, start) if known > start.stream_version else start
        self._streams.put(stream_id, loaded)
        return loaded

    def _read_on(self, stream_id: str, decider: Decider[Any], start: Loaded) -> Loaded:
        recorded = list(self._read(stream_id, from_version=start.stream_version + 1))
        state, applied = start.state, dict(start.applied)
        for event in recorded:
            if event.causation_id is not None:
                before = applied.get(event.causation_id)
                count = before.events + 1 if before else 1
                applied[event.causation_id] = Applied(event.position, event.stream_version, count)
        try:
            for event in newest_events(self._domain, recorded):
                state = decider.evolve(state, event)
        except duckdb.Error as error:
            raise InvalidEventsError(
                f"Stream {stream_id!r} cannot be loaded: {first_line(error)} Nothing was appended. Run "
                "`refold schemas dry-run` to find the events that fail."
            ) from error
        if not recorded:
            return start
        loaded = Loaded(state, recorded[-1].stream_version, recorded[-1].position, applied)
        if self._snapshot_every and len(recorded) >= self._snapshot_every:
            self._snapshots[decider.name].save(stream_id, loaded)
        return loaded

    def _read(self, stream_id: str, *, from_version: int) -> Iterator[RecordedEvent]:
        head = self._appender.stream_head(stream_id)
        return read_stream(self._log, self._domain.registry, stream_id, from_version=from_version, head=head)


def _decided(stream_id: str, before: Loaded, tasks: Sequence[_Task]) -> _MicroBatch:
    """Decide on a stream's commands, one after the other."""
    decider, state = tasks[0].decider, before.state
    events: list[NewEvent] = []
    outcomes: list[tuple[_Task, Answer | _Made]] = []
    made: dict[str, _Made] = {}
    for task in tasks:
        request = task.request
        if (done := before.applied.get(request.command_id)) is not None:
            first = Handled(done.position, stream_id, done.stream_version, done.events, repeated=True)
            outcomes.append((task, first))
            continue
        if (twin := made.get(request.command_id)) is not None:
            outcomes.append((task, _Made(twin.events, twin.up_to, repeated=True)))
            continue
        version = before.stream_version + len(events)
        if request.expected_version not in (None, version):
            assert request.expected_version is not None
            error = ConcurrencyError(stream_id, expected_version=request.expected_version, actual_version=version)
            outcomes.append((task, error))
            continue
        decision = decider.decide(request.command, state)
        if isinstance(decision, Rejected):
            outcomes.append((task, decision))
            continue
        for event in decision:
            state = decider.evolve(state, event)
            events.append(_new_event(event, request))
        outcomes.append((task, _Made(len(decision), len(events))))
        if decision:
            made[request.command_id] = _Made(len(decision), len(events))
    return _MicroBatch(stream_id, decider, before, state, events, outcomes)


def _new_event(event: object, request: CommandRequest) -> NewEvent:
    return NewEvent(payload=event, causation_id=request.command_id, correlation_id=request.correlation_id)


def _settle(turn: _MicroBatch, position: int) -> None:
    """Give the answers of a turn whose events follow a position."""
    for task, outcome in turn.outcomes:
        if isinstance(outcome, _Made):
            task.answer = Handled(
                position=position + outcome.up_to if outcome.up_to else turn.before.position,
                stream_id=turn.stream_id,
                stream_version=turn.before.stream_version + outcome.up_to,
                events=outcome.events,
                repeated=outcome.repeated,
            )
        else:
            task.answer = outcome
        task.settled = True


class _Streams:
    """The streams last used, at most so many; safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, stream_id: str) -> Loaded | None:
        with self._lock:
            if (found := self._kept.get(stream_id)) is not None:
                self._kept.move_to_end(stream_id)
            return found

    def put(self, stream_id: str, loaded: Loaded) -> None:
        with self._lock:
            self._kept[stream_id] = loaded
            self._kept.move_to_end(stream_id)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
