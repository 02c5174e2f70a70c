"""Stream heads: the last version of every sealed stream, in sorted runs beside the segments."""

from __future__ import annotations

import functools
import threading

import duckdb

from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.event_log.layout import bucket_of
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest


class SealedHeads:
    """Looks up streams in the runs of one manifest; statistics of row groups limit what is read."""

    def __init__(self, log: EventLog, manifest: Manifest) -> None:
        self._log = log
        self._manifest = manifest
        self._lock = threading.Lock()

    def version(self, stream_id: str) -> int:
        """Return a stream's last sealed version; 0 if it has none."""
        runs = self._manifest.heads_of(bucket_of(stream_id, self._manifest.bucket_count))
        if not runs:
            return 0
        runs_read = parquet_relation([self._log.heads_path(run) for run in runs])
        with self._lock:
            row = (
                self._connection.execute(
                    f"SELECT max(stream_version) FROM {runs_read} WHERE stream_id = ?", [stream_id]
                )
            ).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    @functools.cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        connection = connect(threads=1)
        connection.execute("SET parquet_metadata_cache = true")
        return connection
