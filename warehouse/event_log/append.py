"""Appending: optimistic concurrency by put-if-absent, and group commit within a process.

An appender knows the end of the log as it last saw it and tries the next commit number. If that number is taken, it
reads the winner: its own UUID means that the PUT had succeeded after all and only the answer was lost; otherwise it
learns the winner's streams, checks ``expected_version`` again, and tries the number after.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from refold.event_schemas import (
    ConcurrencyError,
    PayloadError,
    Registry,
    UsageError,
    event_type_of,
    schema_version_of,
)
from refold.event_schemas.payload import to_json
from refold.warehouse.event_log import commit
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.heads import SealedHeads
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.log import EventLog, Head
from refold.warehouse.event_log.manifest import Manifest

_PRUNE_TAIL_ABOVE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to append.

    Attributes:
        payload: an event instance; or a mapping, with ``event_type`` and ``schema_version`` told beside it.
        event_type: needed for a mapping only.
        schema_version: needed for a mapping only.
        event_id: its identity; a random UUID by default.
        occurred_at: when it happened; now by default.
        correlation_id: what it belongs to, across streams.
        causation_id: the command or event that led to it.
    """

    payload: Any
    event_type: str | None = None
    schema_version: int | None = None
    event_id: str | None = None
    occurred_at: datetime | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where events went.

    Attributes:
        commit_number: the commit that holds them.
        first_position: of the first of them.
        last_position: of the last of them.
        stream_version: the stream's version after them.
    """

    commit_number: int
    first_position: int
    last_position: int
    stream_version: int


@dataclass(frozen=True, slots=True)
class StreamAppend:
    """Events for one stream, among others that go into the same commit.

    Attributes:
        stream_id: the stream.
        events: event instances, or :class:`NewEvent`.
        expected_version: the version the stream must stand at (0: it must be new); None: any.
    """

    stream_id: str
    events: Sequence[object]
    expected_version: int | None = None


@dataclass(slots=True)
class _Request:
    """One append, waiting to be part of a commit.

    Its caller waits for the last of its requests: until that is answered, or is woken to make the next commit.
    """

    stream_id: str
    rows: list[list[Any]]
    expected_version: int | None
    woken: threading.Event = field(default_factory=threading.Event)
    is_awaited: bool = False
    result: Appended | None = None
    error: BaseException | None = None

    @property
    def is_answered(self) -> bool:
        return self.result is not None or self.error is not None


class Appender:
    """Appends events to a log; safe to share between threads, whose concurrent appends share a commit.

    Args:
        log: the log.
        registry: the contracts that payloads must fit.

    Example:
        >>> import tempfile
        >>> from refold.event_schemas import event
        >>> from refold.warehouse.event_log import create_log
        >>> @event(schema_version=1)
        ... class DoorOpened:
        ...     door: str
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = create_log(folder, domain_name="doors")
        ...     appender = Appender(log, Registry(events=[DoorOpened]))
        ...     appender.append("door-1", [DoorOpened(door="front")], expected_version=0).last_position
        1
    """

    def __init__(self, log: EventLog, registry: Registry) -> None:
        self._log = log
        self._registry = registry
        self._queue: list[_Request] = []
        self._queue_lock = threading.Lock()
        self._is_led = False
        self._commit_lock = threading.Lock()
        self._tail: dict[str, tuple[int, int]] = {}
        self._touching: dict[str, list[CommitInfo]] = {}
        self._imports: list[CommitInfo] = []
        self._prune_above = _PRUNE_TAIL_ABOVE
        self._loaded = False

    def append(self, stream_id: str, events: Iterable[object], *, expected_version: int | None = None) -> Appended:
        """Append events to one stream, all or none.

        Args:
            stream_id: the stream; it comes to be with its first event.
            events: event instances, or :class:`NewEvent` for control of the envelope.
            expected_version: the version the stream must stand at (0: it must be new); None: any.

        Raises:
            ConcurrencyError: the stream stands elsewhere; nothing was appended.
            PayloadError: a payload does not fit its contract; nothing was appended.
            UnknownEventTypeError: the domain does not know an event's type; nothing was appended.
        """
        request = self._request(StreamAppend(stream_id, tuple(events), expected_version))
        self._commit_together([request])
        if request.error is not None:
            raise request.error
        assert request.result is not None
        return request.result

    def append_many(self, appends: Iterable[StreamAppend]) -> list[Appended | ConcurrencyError]:
        """Append to many streams in one commit; each append is all or none by itself.

        Args:
            appends: what to append, in the order of their positions.

        Returns:
            For each, in order, where its events went; or why they went nowhere.

        Raises:
            PayloadError: a payload does not fit its contract; nothing was appended.
            UnknownEventTypeError: the domain does not know an event's type; nothing was appended.
        """
        requests = [self._request(one) for one in appends]
        self._commit_together(requests)
        results: list[Appended | ConcurrencyError] = []
        for request in requests:
            if request.error is not None and not isinstance(request.error, ConcurrencyError):
                raise request.error
            results.append(request.error or request.result)  # type: ignore[arg-type]
        return results

    def _request(self, given: StreamAppend) -> _Request:
        if not given.stream_id:
            raise UsageError("stream_id is empty; name the stream, such as 'order-1001'.")
        _check_text("stream_id", given.stream_id)
        rows = [self._row(e if isinstance(e, NewEvent) else NewEvent(payload=e)) for e in given.events]
        if not rows:
            raise UsageError(f"Nothing to append to stream {given.stream_id!r}: the list of events is empty.")
        return _Request(given.stream_id, rows, given.expected_version)

    def _commit_together(self, requests: Sequence[_Request]) -> None:
        if not requests:
            return
        last = requests[-1]
        with self._queue_lock:
            last.is_awaited = True
            self._queue += requests
            leads, self._is_led = not self._is_led, True
        if not leads:
            self._await(last)
            leads = not last.is_answered
        if leads:  # it commits for all that wait, and then has one of those who came meanwhile do so
            try:
                with self._commit_lock:
                    self._commit_waiting()
            finally:
                self._pass_lead()

    def _await(self, request: _Request) -> None:
        try:
            request.woken.wait()
        except BaseException:
            with self._queue_lock:
                request.is_awaited = False
                leads = request.woken.is_set() and not request.is_answered
            if leads:
                self._pass_lead()
            raise

    def _pass_lead(self) -> None:
        with self._queue_lock:
            following = next((r for r in self._queue if r.is_awaited), None)
            if following is None:
                self._is_led = False
            else:
                following.woken.set()

    def version(self, stream_id: str) -> int:
        """Tell a stream's last version, 0 if it has no events, as of the commits seen so far."""
        with self._commit_lock:
            self._catch_up()
            return self._version(stream_id)

    def version_seen(self, stream_id: str) -> int:
        """Tell a stream's last version as of the commits seen so far, without a look for newer ones.

        It waits for no commit that is being written, so it may be behind by that one: append with it as
        ``expected_version``, and a conflict tells.
        """
        if not self._loaded:
            return self.version(stream_id)
        return self._version(stream_id)

    def stream_head(self, stream_id: str) -> Head:
        """Give the end of the log as far as it holds events of one stream, without reading the other commits' footers.

        Args:
            stream_id: the stream.

        Returns:
            A head for :func:`~refold.warehouse.event_log.reads.read.read_stream` alone: its tail has gaps.
        """
        with self._commit_lock:
            self._catch_up()
            sealed = self._log.manifest()
            tail = [*self._imports, *self._touching.get(stream_id, ())]
        return Head(sealed, tuple(sorted((i for i in tail if i.number > sealed.sealed_commit), key=lambda i: i.number)))

    def _row(self, given: NewEvent) -> list[Any]:
        if isinstance(given.payload, Mapping):
            if given.event_type is None or given.schema_version is None:
                raise UsageError("A payload that is a mapping needs event_type and schema_version beside it.")
            schema_key = (given.event_type, given.schema_version)
        else:
            schema_key = (event_type_of(type(given.payload)), schema_version_of(type(given.payload)))
        try:
            payload = to_json(given.payload, self._registry.schema(*schema_key))
        except PayloadError as error:
            raise PayloadError(f"Event {schema_key[0]} v{schema_key[1]}: {error}. Nothing was appended.") from error
        event_id = given.event_id or str(uuid.uuid4())
        _check_text("event_id", event_id)
        _check_text("correlation_id", given.correlation_id or "")
        _check_text("causation_id", given.causation_id or "")
        occurred_at = given.occurred_at or datetime.now(UTC)
        if not isinstance(occurred_at, datetime):
            raise PayloadError(
                f"Event {schema_key[0]} v{schema_key[1]}: occurred_at is {occurred_at!r}, expected a datetime. Nothing "
                "was appended."
            )
        if occurred_at.tzinfo is None:
            raise PayloadError(
                f"Event {schema_key[0]} v{schema_key[1]}: occurred_at has no time zone. Nothing was appended."
            )
        return [
            event_id,
            *schema_key,
            occurred_at,
            given.correlation_id,
            given.causation_id,
            orjson.dumps(payload).decode(),
        ]

    def _commit_waiting(self) -> None:
        with self._queue_lock:
            requests, self._queue = self._queue, []
        try:
            self._commit(requests)
        except BaseException as error:
            for request in requests:
                if request.result is None and request.error is None:
                    request.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            for request in requests:
                request.woken.set()

    def _commit(self, requests: Sequence[_Request]) -> None:
        if not self._loaded:
            self._load()
        mine = str(uuid.uuid4())
        while accepted := self._accept(requests):
            info, data = self._build(mine, accepted)
            if not self._log.store.put_if_absent(commit_key(info.number), data):
                winner = self._log.commit_info(info.number)
                if winner is None:
                    continue
                if winner.uuid != mine:
                    self._learn(winner)
                    self._catch_up()
                    continue
            self._answer(info, accepted)
            self._learn(info)
            return

    def _accept(self, requests: Sequence[_Request]) -> list[tuple[_Request, int]]:
        """Pick the requests whose expected_version holds, each with the version its stream stands at before it."""
        accepted: list[tuple[_Request, int]] = []
        versions: dict[str, int] = {}
        for request in requests:
            if request.error is not None:
                continue
            actual = versions.get(request.stream_id)
            actual = self._version(request.stream_id) if actual is None else actual
            if request.expected_version not in (None, actual):
                assert request.expected_version is not None
                request.error = ConcurrencyError(
                    request.stream_id, expected_version=request.expected_version, actual_version=actual
                )
                continue
            versions[request.stream_id] = actual + len(request.rows)
            accepted.append((request, actual))
        return accepted

    def _build(self, mine: str, accepted: Sequence[tuple[_Request, int]]) -> tuple[CommitInfo, bytes]:
        number, position = self._number + 1, self._position
        recorded_at = max(datetime.now(UTC), self._recorded_at)
        rows, heads = [], {}
        for request, version in accepted:
            for row in request.rows:
                position, version = position + 1, version + 1
                rows.append((position, number, request.stream_id, version, *row[:4], recorded_at, *row[4:]))
            heads[request.stream_id] = version
        info = CommitInfo(
            number=number,
            uuid=mine,
            first_position=self._position + 1,
            last_position=position,
            recorded_at=recorded_at,
            heads=heads,
        )
        return info, commit.encode(info, list(zip(*rows, strict=True)))

    def _answer(self, info: CommitInfo, accepted: Sequence[tuple[_Request, int]]) -> None:
        position = info.first_position
        for request, version in accepted:
            count = len(request.rows)
            request.result = Appended(info.number, position, position + count - 1, version + count)
            position += count

    def _load(self) -> None:
        head = self._log.head()
        self._log.check_end(head)
        self._sealed = SealedHeads(self._log, head.sealed)
        self._number, self._position = head.sealed.sealed_commit, head.sealed.sealed_position
        self._recorded_at = datetime.fromisoformat(head.sealed.recorded_at or "1970-01-01T00:00:00+00:00")
        self._tail.clear()
        self._touching.clear()
        self._imports.clear()
        for info in head.tail:
            self._learn(info)
        self._loaded = True

    def _catch_up(self) -> None:
        if not self._loaded:
            self._load()
        for info in self._log.commits_after(self._number):
            self._learn(info)

    def _learn(self, info: CommitInfo) -> None:
        """Take in a commit; last of all its number, so that what fails on the way is done again."""
        if info.import_id is not None or len(self._tail) > self._prune_above:
            self._prune([*self._imports, info] if info.import_id is not None else self._imports)
        for stream_id, version in info.heads.items():
            self._tail[stream_id] = (version, info.number)
            self._touching.setdefault(stream_id, []).append(info)
        self._number, self._position, self._recorded_at = info.number, info.last_position, info.recorded_at

    def _prune(self, imports: list[CommitInfo]) -> None:
        """Drop what a newer manifest knows; heads of bulk imports are read like sealed ones until they are sealed."""
        manifest = self._log.manifest()
        sealed = manifest.sealed_commit
        self._imports = [info for info in imports if info.number > sealed]
        runs = (*manifest.heads, *(run for info in self._imports for run in info.heads_runs))
        self._sealed = SealedHeads(self._log, Manifest(heads=runs))
        self._tail = {s: (v, n) for s, (v, n) in self._tail.items() if n > sealed}
        kept = {s: [info for info in infos if info.number > sealed] for s, infos in self._touching.items()}
        self._touching = {s: infos for s, infos in kept.items() if infos}
        self._prune_above = max(_PRUNE_TAIL_ABOVE, 2 * len(self._tail))

    def _version(self, stream_id: str) -> int:
        known = self._tail.get(stream_id)
        return known[0] if known else self._sealed.version(stream_id)


def _check_text(name: str, text: str) -> None:
    """Refuse here what would fail while a commit is written, and take other callers' events with it."""
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise UsageError(f"{name} is {text!r}; expected text that is valid Unicode. Nothing was appended.") from None
