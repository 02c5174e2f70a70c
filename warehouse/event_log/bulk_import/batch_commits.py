"""Ordinary commits of many streams at a time, for imports whose streams already exist in the log.

The UUID of a batch is derived from the import, so a batch that was committed before its writer died is found and not
committed twice. A commit of another writer in between only shifts positions and stream versions.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from refold.warehouse.event_log import commit
from refold.warehouse.event_log.bulk_import.existing_streams import stream_versions
from refold.warehouse.event_log.chain import Link
from refold.warehouse.event_log.clocks import next_recorded_at
from refold.warehouse.event_log.commit import COMMIT_SCHEMA, CommitInfo
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.log import EventLog

_ASSIGNED = ("position", "commit_number", "stream_version", "recorded_at")
BATCH_SCHEMA = pa.schema([f for f in COMMIT_SCHEMA if f.name not in _ASSIGNED])
"""Columns of a batch; the commit assigns the others."""


class BatchAppender:
    """Appends batches one after another, whatever the versions of their streams.

    Args:
        log: the log.
        connection: a DuckDB connection that nothing else uses.
        since: number of a commit before all of these batches.
    """

    def __init__(self, log: EventLog, connection: duckdb.DuckDBPyConnection, *, since: int) -> None:
        self._log = log
        self._connection = connection
        self._done = {info.uuid: info for info in log.commits_after(Link.after(since))}
        self._versions: dict[str, int] = {}

    def load(self, streams: set[str]) -> None:
        """Look up the versions of streams; only these may be in the next batches."""
        self._log.check_writable()
        head = self._log.head()
        found = stream_versions(self._connection, self._log, head, streams)
        self._versions = {stream: found.get(stream, 0) for stream in streams}
        self._end = head.end
        self._recorded_at = head.last_recorded_at

    def append(self, uuid: str, rows: pa.Table) -> CommitInfo:
        """Append one batch, unless the log already has it.

        Args:
            uuid: identity of the batch.
            rows: its events in order, as ``BATCH_SCHEMA``.
        """
        if (done := self._done.get(uuid)) is not None:
            return done
        while True:
            info, data = self._build(uuid, rows)
            won = self._log.store.put_if_absent(commit_key(info.number), data)
            taken = info if won else self._log.commit_info(info.number)
            if taken is not None:
                self._learn(taken)
                if taken.uuid == uuid:
                    return taken

    def _build(self, uuid: str, rows: pa.Table) -> tuple[CommitInfo, bytes]:
        count = len(rows)
        recorded_at = next_recorded_at(self._log.store, self._end.commit_number, self._recorded_at)
        heads: dict[str, int] = {}
        versions = []
        for stream in rows["stream_id"].to_pylist():
            heads[stream] = heads.get(stream, self._versions[stream]) + 1
            versions.append(heads[stream])
        info = CommitInfo(
            number=self._end.commit_number + 1,
            uuid=uuid,
            first_position=self._end.position + 1,
            last_position=self._end.position + count,
            recorded_at=recorded_at,
            previous=self._end.digest,
            heads=heads,
        )
        assigned = {
            "position": range(info.first_position, info.last_position + 1),
            "commit_number": [info.number] * count,
            "stream_version": versions,
            "recorded_at": [recorded_at] * count,
        }
        columns = [assigned.get(name) or rows[name].combine_chunks() for name in COMMIT_SCHEMA.names]
        return commit.encode(info, columns)

    def _learn(self, info: CommitInfo) -> None:
        if info.heads_runs:  # a bulk import: its stream versions are in files
            self.load(set(self._versions))
            return
        self._versions |= {s: v for s, v in info.heads.items() if s in self._versions}
        self._end, self._recorded_at = info.end, info.recorded_at
