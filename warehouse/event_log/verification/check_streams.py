"""Checks of one bucket's rows: streams without gaps, in their bucket, in the right commit, and at their heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from refold.event_schemas import DamagedLogError
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.sql import first_line
from refold.warehouse.event_log.layout import bucket_sql
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import HeadsRun, Segment
from refold.warehouse.event_log.verification.findings import MAX_EXAMPLES, Findings

# One sorted pass finds gaps, duplicates, a wrong first version, and versions that run against positions. It names them;
# that there are none, ``_versions_are_right`` sees in half the time.
_WRONG_VERSIONS = f"""
SELECT stream_id, stream_version, version_before, position, position_before
FROM (
    SELECT
        stream_id, stream_version, position,
        lag(stream_version, 1, 0) OVER stream AS version_before,
        lag(position, 1, 0) OVER stream AS position_before
    FROM _rows
    WINDOW stream AS (PARTITION BY stream_id ORDER BY stream_version, position)
)
WHERE stream_version <> version_before + 1 OR position <= position_before
ORDER BY ALL
LIMIT {MAX_EXAMPLES}
"""
_WRONG_COMMITS = f"""
SELECT r.commit_number, min(r.position), any_value(c.first), any_value(c.last)
FROM _rows r JOIN _commits c ON r.commit_number = c.number
WHERE r.position NOT BETWEEN c.first AND c.last
GROUP BY ALL
ORDER BY ALL
LIMIT {MAX_EXAMPLES}
"""

# Grouping by stream is the dearest part of a check, so it is done once.
_STREAMS = """
CREATE OR REPLACE TEMP TABLE _streams AS
SELECT
    stream_id,
    count(*) AS events,
    min(position) AS first_position,
    max(CASE WHEN source = 0 THEN stream_version END) AS sealed_version
FROM _rows
GROUP BY stream_id
"""
_SEALED_VERSIONS = "SELECT stream_id, sealed_version AS version FROM _streams WHERE sealed_version IS NOT NULL"
_IMPORTED_VERSIONS = (
    "SELECT stream_id, max(stream_version) AS version FROM _rows WHERE source = {number} GROUP BY stream_id"
)


@dataclass(frozen=True, slots=True)
class StreamCheck:
    """Checks the rows of one bucket at a time.

    Attributes:
        connection: DuckDB connection that sees the tables ``_tail`` and ``_commits``; it makes two tables of its own.
        log: the log.
        head: manifest and commits of the log.
        findings: collects what is wrong.
    """

    connection: duckdb.DuckDBPyConnection
    log: EventLog
    head: Head
    findings: Findings

    def check(self, bucket: int, segments: Sequence[tuple[Segment, Path]]) -> tuple[int, int]:
        """Check streams and stream heads of a bucket.

        Args:
            bucket: the bucket.
            segments: all its segments, with their paths.

        Returns:
            The number of its events and of its streams.
        """
        self._load(bucket, segments)
        self._check_buckets(bucket)
        self._check_versions()
        self._check_commits(bucket)
        self._check_heads("the manifest", bucket, self.head.sealed.heads, _SEALED_VERSIONS)
        for info in (i for i in self.head.tail if i.import_id is not None):
            versions = _IMPORTED_VERSIONS.format(number=info.number)
            self._check_heads(f"commit {info.number}", bucket, info.heads_runs, versions)
        [counts] = self.connection.execute("SELECT coalesce(sum(events), 0)::BIGINT, count(*) FROM _streams").fetchall()
        return counts

    def _load(self, bucket: int, segments: Sequence[tuple[Segment, Path]]) -> None:
        """Load the bucket's rows into ``_rows``; ``source`` is 0 for sealed rows, else their commit number."""
        scans = [
            f"SELECT stream_id, stream_version, position + {s.position_base}, commit_number + {s.commit_base}, "
            f"{s.commit_base if s.commit_base > self.head.sealed.sealed_commit else 0} "
            f"FROM {parquet_relation([path])}"
            for s, path in segments
        ]
        scans.append(
            "SELECT stream_id, stream_version, position, commit_number, commit_number "
            f"FROM _tail WHERE bucket = {bucket}"
        )
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE _rows(stream_id, stream_version, position, commit_number, source) AS "
            + " UNION ALL ".join(scans)
        )
        self.connection.execute(_STREAMS)

    def _check_buckets(self, bucket: int) -> None:
        for stream_id, expected, position in self.connection.execute(
            f"SELECT stream_id, {bucket_sql(self.head.sealed.bucket_count)} AS expected, first_position "
            f"FROM _streams WHERE expected <> {bucket} ORDER BY ALL LIMIT {MAX_EXAMPLES}"
        ).fetchall():
            self.findings.add(
                "stream", f"stream {stream_id!r}", f"in bucket {bucket}, expected {expected} (position {position})"
            )

    def _versions_are_right(self) -> bool:
        """Check that each stream has the versions 1, 2, … in the order of its positions."""
        rows = self.connection.sql("SELECT stream_id, stream_version, position FROM _rows").to_arrow_table()
        if not len(rows):
            return True
        streams = rows["stream_id"].dictionary_encode().combine_chunks().indices.to_numpy().astype(np.int64)
        versions, positions = rows["stream_version"].to_numpy(), rows["position"].to_numpy()
        if versions.min() < 1 or int(streams.max() + 1) * int(versions.max() + 1) >= 1 << 63:
            return False
        order = np.argsort(streams * (versions.max() + 1) + versions)  # a quarter of the time of two keys
        streams, versions, positions = streams[order], versions[order], positions[order]
        starts = np.diff(streams, prepend=-1) != 0
        follows = (np.diff(versions, prepend=0) == 1) & (np.diff(positions, prepend=0) > 0)
        return bool(np.all(np.where(starts, versions == 1, follows)))

    def _check_versions(self) -> None:
        if self._versions_are_right():
            return
        for stream_id, version, before, position, position_before in self.connection.execute(
            _WRONG_VERSIONS
        ).fetchall():
            if version == before:
                what = f"two events have version {version}, at positions {position_before} and {position}"
            elif version != before + 1:
                what = f"version {before + 1} is missing before version {version} at position {position}"
            else:
                what = f"version {version} is at position {position}, before version {before} at {position_before}"
            self.findings.add("stream", f"stream {stream_id!r}", what)

    def _check_commits(self, bucket: int) -> None:
        for number, position, first, last in self.connection.execute(_WRONG_COMMITS).fetchall():
            what = f"its commit_number is {number}, but that commit holds positions {first} to {last}"
            self.findings.add("position", f"position {position}, bucket {bucket}", what)

    def _check_heads(self, owner: str, bucket: int, runs: Iterable[HeadsRun], versions: str) -> None:
        """Compare the runs of stream heads of a manifest or an import with the streams that they cover."""
        runs = [r for r in runs if r.bucket == bucket]
        paths = [path for run in runs if (path := self._run_path(run)) is not None]
        if len(paths) < len(runs):
            self.findings.skip(f"stream heads of bucket {bucket} in {owner}")
            return
        empty = "SELECT stream_id, stream_version FROM _rows WHERE false"
        listed = f"SELECT stream_id, stream_version FROM {parquet_relation(paths)}" if paths else empty
        rows = self.connection.execute(f"""
            SELECT stream_id, h.version, r.version
            FROM (SELECT stream_id, max(stream_version) AS version FROM ({listed}) GROUP BY 1) h
            FULL JOIN ({versions}) r
            USING (stream_id)
            WHERE h.version IS DISTINCT FROM r.version
            ORDER BY ALL
            LIMIT {MAX_EXAMPLES}
        """).fetchall()
        for stream_id, version, real in rows:
            self.findings.add(
                "heads",
                f"stream {stream_id!r}",
                f"the stream heads of {owner} have version {version}, its events have {real} (bucket {bucket})",
                "Restore the runs of stream heads of this bucket from a backup of the store.",
            )

    def _run_path(self, run: HeadsRun) -> Path | None:
        where = f"{self.log.url}/{run.key}"
        try:
            path = self.log.heads_path(run)
            size = path.stat().st_size
            [(rows,)] = self.connection.execute(
                f"SELECT count(stream_version) FROM {parquet_relation([path])}"
            ).fetchall()
        except DamagedLogError as error:
            self.findings.add("heads", where, f"damaged: {error.__cause__}" if error.__cause__ else str(error))
        except duckdb.Error as error:
            self.findings.add("heads", where, f"it cannot be read: {first_line(error)}")
        else:
            if (rows, size) == (run.rows, run.bytes):
                return path
            self.findings.add("heads", where, f"rows and bytes are {(rows, size)}, expected {(run.rows, run.bytes)}")
        return None
