"""The command handler: loads a stream, decides, and appends the new events, once for each command id.

A decision is made on the stream as this process last saw it, and its events are appended with that version as
``expected_version``. If another writer appended first, the append fails, the handler reads the new events and decides
again; so it need not read the log before an append. A decision that appends nothing has no such check: the handler
reads the log before it answers.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from refold.event_schemas import (
    CommandConflictError,
    ConcurrencyError,
    RecordedEvent,
    UsageError,
)
from refold.event_schemas.decider import Decider, Rejected
from refold.event_schemas.erasure import ERASURES
from refold.warehouse.commands.command_identity import command_digest, digest_in
from refold.warehouse.commands.decisions import (
    Answer,
    CommandRequest,
    Handled,
    NewEvents,
    StreamDecisions,
    Task,
    decide_stream,
    settle,
)
from refold.warehouse.commands.snapshots import Applied, Loaded, Snapshots
from refold.warehouse.commands.stream_cache import StreamCache
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log.append import Appended, Appender
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.new_events import StreamAppend
from refold.warehouse.event_log.reads.read import read_stream
from refold.warehouse.replay.newest_version import newest_events

_STRIPES = 256  # locks, which all streams share: more than threads, so that two streams seldom wait for one lock


class CommandHandler:
    """Handles the commands of a domain. A process needs one; threads may share it, and then share commits.

    Args:
        log: the log.
        domain: the domain, with its deciders.
        snapshot_every: write a stream's snapshot after this many events; 0: never.
        attempts: how often to decide when another process keeps appending to the same stream first.
        streams_kept: the number of streams to keep in memory.

    Raises:
        UsageError: a number is out of range.

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
                f"snapshot_every is {snapshot_every}, attempts is {attempts}, streams_kept is {streams_kept}; expected "
                "at least 0, 1 and 0."
            )
        self._log = log
        self._domain = domain
        self._appender = Appender(log, domain.registry)
        self._snapshots = {d.name: Snapshots(log, d, domain) for d in domain.deciders}
        self._snapshot_every = snapshot_every
        self._attempts = attempts
        self._streams = StreamCache(streams_kept)
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._erasures = 0

    def handle(
        self,
        command: object,
        *,
        command_id: str,
        expected_version: int | None = None,
        correlation_id: str | None = None,
    ) -> Handled | Rejected:
        """Handle one command. The append of its events is atomic.

        Args:
            command: an instance of one of the domain's command classes.
            command_id: its identity. A command that is sent again has no effect and gets the first answer, unless it
                was rejected or led to no event: nothing is stored of such a command, and it is decided again.
            expected_version: the version that the stream must have; None: any.
            correlation_id: the process or request that the command belongs to; copied to its events.

        Raises:
            ConcurrencyError: the stream is not at ``expected_version``; or, without one, other writers appended first
                in every attempt.
            CommandConflictError: the stream has applied this command id for another command, or with other values.
            UsageError: the domain has no such command, or the command id is empty.
            PayloadError: a value does not fit the command, or its events.
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
        if isinstance(answer, ConcurrencyError | CommandConflictError):
            raise answer
        return answer

    def handle_many(self, requests: Iterable[CommandRequest]) -> list[Answer]:
        """Handle commands that share commits, those of one stream in the order given. Each command is atomic.

        Returns:
            One answer each, in order; a ``ConcurrencyError`` or ``CommandConflictError`` where :meth:`handle` would
            raise it.

        Raises:
            UsageError: the domain has no such command, or a command id is empty. No command was handled.
            PayloadError: a value does not fit its command, and no command was handled; or it does not fit the events,
                and the commands after it were not handled.
            InvalidEventsError: a stream cannot be loaded. The commands after it were not handled.
        """
        tasks = [self._task(request) for request in requests]
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(multiplier=0.005, max=0.25),
            retry=retry_if_result(bool),
            retry_error_callback=lambda _state: None,
        )
        with self._locked({task.stream_id for task in tasks}):
            retrying(self._round, tasks)
        return [task.answer for task in tasks if task.answer is not None]

    def _task(self, request: CommandRequest) -> Task:
        name = type(request.command).__name__
        decider, cls = self._domain.commands.get(name, (None, None))
        if decider is None or cls is not type(request.command):
            known = ", ".join(sorted(self._domain.commands)) or "none"
            raise UsageError(f"Domain {self._domain.name} has no command {name}; it has: {known}.")
        if not request.command_id:
            raise UsageError(f"The command_id of {name} is empty. Give each command one, such as a UUID.")
        return Task(request, decider, decider.stream_id(request.command), command_digest(request.command))

    @contextmanager
    def _locked(self, stream_ids: Iterable[str]) -> Iterator[None]:
        """Lock these streams against other threads. Locks are taken in order, which excludes a deadlock."""
        with ExitStack() as held:
            for stripe in sorted({zlib.crc32(s.encode(errors="replace")) % _STRIPES for s in stream_ids}):
                held.enter_context(self._locks[stripe])
            yield

    def _round(self, tasks: Sequence[Task]) -> bool:
        """Decide and append what is not settled yet. Return whether another process appended first to some stream."""
        erasures = self._note_erasures()
        by_stream: dict[str, list[Task]] = {}
        for task in tasks:
            if not task.settled:
                by_stream.setdefault(task.stream_id, []).append(task)
        batches = [self._decide(stream_id, mine, erasures) for stream_id, mine in by_stream.items()]
        appending = [batch for batch in batches if batch.events]
        results = self._appender.append_many(
            StreamAppend(batch.stream_id, batch.events, batch.before.stream_version) for batch in appending
        )
        for batch in batches:
            if not batch.events:
                settle(batch, batch.before.position)
        for batch, result in zip(appending, results, strict=True):
            if isinstance(result, Appended):
                settle(batch, result.first_position - 1)
                self._keep(batch, result, erasures)
            else:
                for task, _ in batch.outcomes:
                    task.answer = result
        return not all(task.settled for task in tasks)

    def _note_erasures(self) -> int:
        """Forget the states of streams if personal data was erased since they were loaded; return the erasures so far.

        This process learns of an erasure when it reads its commit, at the latest when it next appends.
        """
        if not self._domain.registry.personal_keys:
            return 0
        known = self._appender.version_seen(ERASURES)
        if known != self._erasures:
            self._log.personal_data.forget_keys()
            self._streams.clear()
            self._erasures = known
        return known

    def _decide(self, stream_id: str, tasks: Sequence[Task], erasures: int) -> StreamDecisions:
        decider = tasks[0].decider
        before = self._load(stream_id, decider, erasures, refresh=False)
        batch = decide_stream(stream_id, before, tasks)
        if batch.is_unchecked and (now := self._load(stream_id, decider, erasures, refresh=True)) is not before:
            batch = decide_stream(stream_id, now, tasks)
        return batch

    def _keep(self, batch: StreamDecisions, appended: Appended, erasures: int) -> None:
        if self._note_erasures() != erasures:
            return  # the state was loaded before an erasure
        applied = batch.before.applied  # changed in place: a copy for each command would make long streams slow
        for task, outcome in batch.outcomes:
            if isinstance(outcome, NewEvents) and outcome.events and isinstance(task.answer, Handled):
                answer = task.answer
                effect = Applied(answer.position, answer.stream_version, answer.events, task.digest)
                applied[task.request.command_id] = effect
        now = Loaded(batch.state, appended.stream_version, appended.last_position, applied)
        self._streams.put(batch.stream_id, now)
        every = self._snapshot_every
        if every and now.stream_version // every > batch.before.stream_version // every:
            self._snapshots[batch.decider.name].save(batch.stream_id, now, erasures=erasures)

    def _load(self, stream_id: str, decider: Decider[Any], erasures: int, *, refresh: bool) -> Loaded:
        """Return a stream as this process last saw it, or refreshed with the events of other writers."""
        known = self._appender.version(stream_id) if refresh else self._appender.version_seen(stream_id)
        kept = self._streams.get(stream_id)
        if kept is not None and kept.stream_version >= known:
            return kept
        start = kept
        if start is None and known:
            start = self._snapshots[decider.name].load(stream_id, up_to=known, erasures=erasures)
        if start is None:
            start = Loaded(decider.initial_state(), 0, 0, {})
        loaded = self._catch_up(stream_id, decider, start, erasures) if known > start.stream_version else start
        self._streams.put(stream_id, loaded)
        return loaded

    def _catch_up(self, stream_id: str, decider: Decider[Any], start: Loaded, erasures: int) -> Loaded:
        recorded = list(self._read(stream_id, from_version=start.stream_version + 1))
        state, applied = start.state, dict(start.applied)
        for event in recorded:
            self._note_command(event, applied)
        for event in newest_events(self._domain, recorded):
            state = decider.evolve(state, event)
        if not recorded:
            return start
        loaded = Loaded(state, recorded[-1].stream_version, recorded[-1].position, applied)
        if self._snapshot_every and len(recorded) >= self._snapshot_every:
            self._snapshots[decider.name].save(stream_id, loaded, erasures=erasures)
        return loaded

    def _note_command(self, event: RecordedEvent, applied: dict[str, Applied]) -> None:
        """Note the command that an event belongs to, if a command handler wrote the event."""
        command_id = event.causation_id
        if command_id is None:
            return
        before = applied.get(command_id)
        count = before.events if before else 0
        digest = digest_in(event.event_id, event.stream_id, command_id, count)
        if digest is not None or not self._log.has_command_digests:
            known = digest if before is None or digest is not None else before.digest
            applied[command_id] = Applied(event.position, event.stream_version, count + 1, known)

    def _read(self, stream_id: str, *, from_version: int) -> Iterator[RecordedEvent]:
        head = self._appender.stream_head(stream_id)
        return read_stream(self._log, self._domain.registry, stream_id, from_version=from_version, head=head)
