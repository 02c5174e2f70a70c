"""Appending: optimistic concurrency by put-if-absent, and group commit within a process.

An appender knows the end of the log as it last read it, and creates the next commit number. If that number is taken, it
reads the winning commit. If that has the appender's UUID, the write had succeeded and only the response was lost.
Otherwise the appender adds the winner's streams to its index, checks ``expected_version`` again, and tries the number
after that.

A conflict is an answer, too: it says what the version is. So the appender refuses an append only after it has read the
end of the log, and only together with the commit that it leaves out.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from refold.event_schemas import ConcurrencyError, Registry
from refold.warehouse.event_log import commit
from refold.warehouse.event_log.clocks import next_recorded_at
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.new_events import Row, StreamAppend, encode_rows
from refold.warehouse.event_log.reads.read import read_positions
from refold.warehouse.event_log.same_log import SameLog
from refold.warehouse.event_log.stream_index import IDLE, StreamIndex, clock


@dataclass(frozen=True, slots=True)
class Appended:
    """Where events were appended.

    Attributes:
        commit_number: the commit that holds them.
        first_position: position of the first event.
        last_position: position of the last event.
        stream_version: version of the stream after them.
    """

    commit_number: int
    first_position: int
    last_position: int
    stream_version: int


@dataclass(slots=True)
class _Request:
    """One append that waits to be part of a commit.

    A caller waits for the last of its requests, until that is answered or the caller is woken to write the next commit.
    """

    stream_id: str
    rows: list[Row]
    expected_version: int | None
    woken: threading.Event = field(default_factory=threading.Event)
    is_awaited: bool = False
    result: Appended | None = None
    error: BaseException | None = None

    @property
    def is_answered(self) -> bool:
        return self.result is not None or self.error is not None


_Placed = tuple[_Request, int]
"""A request, and the version of its stream before it."""


class Appender:
    """Appends events to a log. Threads may share it; their concurrent appends then share a commit.

    Args:
        log: the log.
        registry: the contracts of the events.

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
        self._index = StreamIndex(log)
        self._same = SameLog(log)
        self._commit_lock = threading.Lock()
        self._queue: list[_Request] = []
        self._queue_lock = threading.Lock()
        self._has_leader = False

    def append(self, stream_id: str, events: Iterable[object], *, expected_version: int | None = None) -> Appended:
        """Append events to one stream atomically.

        Args:
            stream_id: the stream; its first event creates it.
            events: event instances, or :class:`NewEvent` to set the envelope.
            expected_version: the version that the stream must have (0: it must be new); None: any.

        Raises:
            ConcurrencyError: the stream has another version; nothing was appended.
            PayloadError: a payload does not match its contract; nothing was appended.
            UnknownEventTypeError: the domain does not have an event's type; nothing was appended.
        """
        request = self._request(StreamAppend(stream_id, tuple(events), expected_version))
        self._commit_together([request])
        if request.error is not None:
            raise request.error
        assert request.result is not None
        return request.result

    def append_many(self, appends: Iterable[StreamAppend]) -> list[Appended | ConcurrencyError]:
        """Append to many streams in one commit; each append succeeds or fails separately.

        Args:
            appends: the events of each stream, in position order.

        Returns:
            For each append, in order, where its events are, or the conflict that kept them out.

        Raises:
            PayloadError: a payload does not match its contract; nothing was appended.
            UnknownEventTypeError: the domain does not have an event's type; nothing was appended.
        """
        requests = [self._request(append) for append in appends]
        self._commit_together(requests)
        results: list[Appended | ConcurrencyError] = []
        for request in requests:
            if request.error is not None and not isinstance(request.error, ConcurrencyError):
                raise request.error
            results.append(request.error or request.result)  # type: ignore[arg-type]
        return results

    def version(self, stream_id: str) -> int:
        """Return a stream's last version, 0 if it has no events, after reading new commits."""
        with self._commit_lock:
            self._index.catch_up()
            return self._index.version(stream_id)

    def version_seen(self, stream_id: str) -> int:
        """Return a stream's last version as of the commits read so far, without reading new ones.

        It does not wait for a commit that is being written, so it may be stale: pass it as ``expected_version``, and a
        stale version is a conflict.
        """
        if not self._index.is_loaded:
            return self.version(stream_id)
        return self._index.version(stream_id)

    def stream_head(self, stream_id: str) -> Head:
        """Return the end of the log with only the commits that hold events of one stream.

        Args:
            stream_id: the stream.

        Returns:
            A head for :func:`~refold.warehouse.event_log.reads.read.read_stream` only: its tail has gaps.
        """
        with self._commit_lock:
            self._index.catch_up()
            return self._index.head_of(stream_id)

    def _request(self, append: StreamAppend) -> _Request:
        return _Request(
            append.stream_id, encode_rows(append, self._registry, self._log.personal_data), append.expected_version
        )

    # Group commit: the first caller leads. It commits all waiting requests, then wakes one of those who came meanwhile.

    def _commit_together(self, requests: Sequence[_Request]) -> None:
        if not requests:
            return
        last = requests[-1]
        with self._queue_lock:
            last.is_awaited = True
            self._queue += requests
            leads, self._has_leader = not self._has_leader, True
        if not leads:
            self._await(last)
            leads = not last.is_answered
        if leads:
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
                self._has_leader = False
            else:
                following.woken.set()

    def _commit_waiting(self) -> None:
        with self._queue_lock:
            requests, self._queue = self._queue, []
        try:
            self._commit(requests)
        except BaseException as error:
            for request in requests:
                if not request.is_answered:
                    request.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            for request in requests:
                request.woken.set()

    # Optimistic concurrency: one commit, under the next number that is free.

    def _commit(self, requests: Sequence[_Request]) -> None:
        own_uuid, began = str(uuid.uuid4()), clock()
        self._index.load()
        while True:
            self._same.check()
            if clock() - self._index.synced_at > IDLE:
                self._index.catch_up()
            accepted, refused = self._accept(requests)
            if refused and self._index.synced_at < began:
                self._index.catch_up()
                continue
            if not accepted:
                _refuse(refused)
                return
            info, data = self._build(own_uuid, accepted)
            if not self._log.store.put_if_absent(commit_key(info.number), data):
                winner = self._log.commit_info(info.number)
                if winner is None:
                    continue
                if winner.uuid != own_uuid:
                    self._index.add(winner)
                    self._index.catch_up()
                    continue
            if not self._is_appended(info, accepted[0][0].rows[0][0]):
                continue
            _answer(info, accepted)
            _refuse(refused)
            self._index.add(info)
            self._index.synced_at = clock()
            return

    def _is_appended(self, info: CommitInfo, event_id: str) -> bool:
        """Check that a commit was written behind the last one, and remove it if not.

        The log may have been replaced just now. Or this process slept, and the number was that of a commit that was
        sealed and removed: then the log has another event at that position. If neither can be found out, the commit
        stays, since others may have appended behind it.
        """
        try:
            self._same.check()
            late = clock() - self._index.synced_at > IDLE and self._index.was_passed(info.number - 1)
            if not late or self._has(info.first_position, event_id):
                return True
        except Exception:
            if self._same.is_replaced:
                self._log.store.delete(commit_key(info.number))
            else:
                self._index.is_loaded = False  # whether the commit counts is read again
            raise
        self._log.store.delete(commit_key(info.number))
        self._index.is_loaded = False
        self._index.load()
        return False

    def _has(self, position: int, event_id: str) -> bool:
        return any(e.event_id == event_id for e in read_positions(self._log, self._registry, position - 1, position))

    def _accept(self, requests: Sequence[_Request]) -> tuple[list[_Placed], list[_Placed]]:
        """Select the requests whose expected_version holds, each with the version of its stream before it.

        The others come with that version, too.
        """
        accepted: list[_Placed] = []
        refused: list[_Placed] = []
        versions: dict[str, int] = {}
        for request in requests:
            actual = versions.get(request.stream_id)
            actual = self._index.version(request.stream_id) if actual is None else actual
            if request.expected_version not in (None, actual):
                refused.append((request, actual))
                continue
            versions[request.stream_id] = actual + len(request.rows)
            accepted.append((request, actual))
        return accepted, refused

    def _build(self, own_uuid: str, accepted: Sequence[_Placed]) -> tuple[CommitInfo, bytes]:
        end = self._index.end
        number, position = end.commit_number + 1, end.position
        recorded_at = next_recorded_at(self._log.store, end.commit_number, self._index.recorded_at)
        rows, heads = [], {}
        for request, version in accepted:
            for row in request.rows:
                position, version = position + 1, version + 1
                rows.append((position, number, request.stream_id, version, *row[:4], recorded_at, *row[4:]))
            heads[request.stream_id] = version
        info = CommitInfo(
            number=number,
            uuid=own_uuid,
            first_position=end.position + 1,
            last_position=position,
            recorded_at=recorded_at,
            previous=end.digest,
            heads=heads,
        )
        return commit.encode(info, list(zip(*rows, strict=True)))


def _answer(info: CommitInfo, accepted: Sequence[_Placed]) -> None:
    position = info.first_position
    for request, version in accepted:
        count = len(request.rows)
        request.result = Appended(info.number, position, position + count - 1, version + count)
        position += count


def _refuse(refused: Sequence[_Placed]) -> None:
    for request, version in refused:
        assert request.expected_version is not None
        request.error = ConcurrencyError(
            request.stream_id, expected_version=request.expected_version, actual_version=version
        )
