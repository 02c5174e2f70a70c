"""Checks of sealed history: segments against manifest and contracts, streams and their heads, positions, event ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote as url_quote

import duckdb
import numpy as np
import pyarrow as pa

from refold.event_schemas import (
    ENVELOPE,
    DamagedLogError,
    ObjectNotFoundError,
    Registry,
)
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.sql import duckdb_type, first_line, quote
from refold.warehouse.event_log.heads import files_literal, heads_path
from refold.warehouse.event_log.layout import segment_key
from refold.warehouse.event_log.log import EventLog, Head
from refold.warehouse.event_log.manifest import HeadsRun, Segment
from refold.warehouse.event_log.reads.scan import live_segments, overlaps
from refold.warehouse.event_log.segments import SEGMENT_ENVELOPE, file_checksum
from refold.warehouse.event_log.verification.findings import Findings

_SPAN = 1 << 26
_EXAMPLES = 20

Column = tuple[str, str]
"""Name and DuckDB type."""


@dataclass(slots=True)
class SegmentCheck:
    """Checks sealed history, and what is not sealed together with it.

    Attributes:
        connection: has the tables ``_tail`` and ``_commits``.
        log: the log.
        registry: the contracts.
        head: what belongs to the log.
        found: where findings go.
        readable: segments that were found whole so far, with their paths.
        events: how many events were seen.
        streams: how many streams were seen.
    """

    connection: duckdb.DuckDBPyConnection
    log: EventLog
    registry: Registry
    head: Head
    found: Findings
    readable: list[tuple[Segment, Path]] = field(default_factory=list)
    events: int = 0
    streams: int = 0
    damaged: bool = False
    _expected: dict[tuple[SchemaKey, bool], list[Column]] = field(default_factory=dict)

    def bucket(self, bucket: int) -> None:
        """Check the segments, streams and stream heads of one bucket."""
        segments = [s for s in live_segments(self.head) if s.bucket == bucket]
        whole = [(s, path) for s in segments if (path := self._whole(s)) is not None]
        self.readable += whole
        if len(whole) < len(segments):
            self.damaged = True
            self.found.skip(f"streams and stream heads of bucket {bucket}, since a segment of it is damaged")
            return
        self._load(bucket, whole)
        self._check_streams(bucket)
        self._check_commit_numbers(bucket)
        self._check_heads("the manifest", bucket, self.head.sealed.heads, "source = 0")
        for info in (i for i in self.head.tail if i.import_id is not None):
            self._check_heads(f"commit {info.number}", bucket, info.heads_runs, f"source = {info.number}")

    def _whole(self, segment: Segment) -> Path | None:
        """Check one segment; None if its rows cannot be trusted."""
        where = f"{self.log.url}/{segment.key}"
        told = (
            f"{segment.rows} events of {segment.event_type} v{segment.schema_version}, positions "
            f"{segment.first_position + segment.position_base} to {segment.last_position + segment.position_base}"
        )
        try:
            path = self.log.store.local_path(segment.key)
        except ObjectNotFoundError:
            self.found.add("segment", where, f"missing, though the manifest names it ({told})")
            return None
        if (size := path.stat().st_size) != segment.bytes:
            self.found.add(
                "segment", where, f"{size} bytes, expected {segment.bytes}: truncated or overwritten ({told})"
            )
            return None
        if segment.checksum and file_checksum(path) != segment.checksum:
            self.found.add("segment", where, f"its content is not what was written: SHA-256 differs ({told})")
            return None
        try:
            self._check_content(segment, path, where)
        except duckdb.Error as error:
            self.found.add("segment", where, f"it cannot be read: {first_line(error)} ({told})")
            return None
        return path

    def _check_content(self, segment: Segment, path: Path, where: str) -> None:
        name = segment.key.rsplit("/", 1)[-1].removesuffix(".parquet")
        key = segment_key(url_quote(segment.event_type, safe=""), segment.schema_version, segment.bucket, name)
        if key != segment.key:
            self.found.add("manifest", where, f"the manifest puts it where {key} would be")
        relation = self.connection.sql(f"FROM read_parquet({files_literal([path])}, hive_partitioning = false)")
        [real] = relation.aggregate("count(*), min(position), max(position)").fetchall()
        if real != (expected := (segment.rows, segment.first_position, segment.last_position)):
            self.found.add("segment", where, f"rows, first and last position are {real}, the manifest says {expected}")
        self._check_schema(segment, _columns(relation), where)

    def _check_schema(self, segment: Segment, real: list[Column], where: str) -> None:
        if not segment.untyped and not self.registry.knows(segment.schema_key):
            self.found.add(
                "schema",
                where,
                f"it holds events of {segment.event_type} v{segment.schema_version}, which the domain does not know",
                "Declare the event or its upcaster again, or run the code that does.",
            )
            return
        expected = self._expected_columns(segment.schema_key, untyped=segment.untyped)
        if real != expected:
            differing = sorted({name for name, _ in set(real) ^ set(expected)})
            self.found.add(
                "schema",
                where,
                f"its columns are not those of {segment.event_type} v{segment.schema_version} (look at {differing})",
                "A contract must not change under its schema version: raise schema_version and add an upcaster.",
            )

    def _expected_columns(self, schema_key: SchemaKey, *, untyped: bool) -> list[Column]:
        if (schema_key, untyped) not in self._expected:
            payload = pa.schema([("payload", pa.string())]) if untyped else self.registry.schema(*schema_key)
            fields = [*(ENVELOPE.field(n) for n in SEGMENT_ENVELOPE), *payload]
            relation = self.connection.sql(
                "SELECT " + ", ".join(f"NULL::{duckdb_type(f.type)} AS {quote(f.name)}" for f in fields)
            )
            self._expected[(schema_key, untyped)] = _columns(relation)
        return self._expected[(schema_key, untyped)]

    def _load(self, bucket: int, whole: Sequence[tuple[Segment, Path]]) -> None:
        """Gather a bucket's rows in ``_rows``; ``source`` is 0 if sealed, a commit's number if not."""
        scans = [
            f"SELECT stream_id, stream_version, position + {s.position_base}, commit_number + {s.commit_base}, "
            f"{s.commit_base if s.commit_base > self.head.sealed.sealed_commit else 0} "
            f"FROM read_parquet({files_literal([path])}, hive_partitioning = false)"
            for s, path in whole
        ]
        scans.append(
            "SELECT stream_id, stream_version, position, commit_number, commit_number "
            f"FROM _tail WHERE bucket = {bucket}"
        )
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE _rows(stream_id, stream_version, position, commit_number, source) AS "
            + " UNION ALL ".join(scans)
        )
        events, streams = self._one("SELECT count(*), count(DISTINCT stream_id) FROM _rows")
        self.events += events
        self.streams += streams

    def _one(self, query: str) -> tuple[int, ...]:
        [row] = self.connection.execute(query).fetchall()
        return row

    def _check_streams(self, bucket: int) -> None:
        count = self.log.bucket_count
        for stream_id, home, position in self.connection.execute(
            f"SELECT stream_id, md5_number_lower(stream_id) % {count} AS home, min(position) FROM _rows "
            f"GROUP BY stream_id HAVING home <> {bucket} ORDER BY ALL LIMIT {_EXAMPLES}"
        ).fetchall():
            self.found.add(
                "stream", f"stream {stream_id!r}", f"in bucket {bucket}, expected {home} (position {position})"
            )
        # One sorted pass finds gaps, doubles, a wrong beginning, and versions that run against positions.
        rows = self.connection.execute(f"""
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
            LIMIT {_EXAMPLES}
        """).fetchall()
        for stream_id, version, before, position, position_before in rows:
            if version == before:
                what = f"version {version} is there twice, at positions {position_before} and {position}"
            elif version != before + 1:
                what = f"version {before + 1} is missing before version {version} at position {position}"
            else:
                what = f"version {version} is at position {position}, before version {before} at {position_before}"
            self.found.add("stream", f"stream {stream_id!r}", what)

    def _check_commit_numbers(self, bucket: int) -> None:
        rows = self.connection.execute(f"""
            SELECT r.commit_number, min(r.position), any_value(c.first), any_value(c.last)
            FROM _rows r JOIN _commits c ON r.commit_number = c.number
            WHERE r.position NOT BETWEEN c.first AND c.last
            GROUP BY ALL
            ORDER BY ALL
            LIMIT {_EXAMPLES}
        """).fetchall()
        for number, position, first, last in rows:
            what = f"it is told to be of commit {number}, which holds positions {first} to {last}"
            self.found.add("position", f"position {position}, bucket {bucket}", what)

    def _check_heads(self, whose: str, bucket: int, runs: Iterable[HeadsRun], source: str) -> None:
        mine = [r for r in runs if r.bucket == bucket]
        paths = [path for run in mine if (path := self._run_path(run)) is not None]
        if len(paths) < len(mine):
            self.found.skip(f"stream heads of bucket {bucket} in {whose}")
            return
        told = f"SELECT stream_id, stream_version FROM read_parquet({files_literal(paths)})" if paths else ""
        told = told or "SELECT stream_id, stream_version FROM _rows WHERE false"
        rows = self.connection.execute(f"""
            SELECT stream_id, t.version, r.version
            FROM (SELECT stream_id, max(stream_version) AS version FROM ({told}) GROUP BY 1) t
            FULL JOIN (SELECT stream_id, max(stream_version) AS version FROM _rows WHERE {source} GROUP BY 1) r
            USING (stream_id)
            WHERE t.version IS DISTINCT FROM r.version
            ORDER BY ALL
            LIMIT {_EXAMPLES}
        """).fetchall()
        for stream_id, version, real in rows:
            self.found.add(
                "heads",
                f"stream {stream_id!r}",
                f"the stream heads of {whose} say version {version}, its events say {real} (bucket {bucket})",
                "Restore the runs of stream heads of this bucket from a backup of the store.",
            )

    def _run_path(self, run: HeadsRun) -> Path | None:
        where = f"{self.log.url}/{run.key}"
        try:
            path = heads_path(self.log, run)
            size = path.stat().st_size
            (rows,) = self._one(f"SELECT count(stream_version) FROM read_parquet({files_literal([path])})")
        except DamagedLogError:
            self.found.add("heads", where, "missing, though the manifest names it")
        except duckdb.Error as error:
            self.found.add("heads", where, f"it cannot be read: {first_line(error)}")
        else:
            if (rows, size) == (run.rows, run.bytes):
                return path
            self.found.add("heads", where, f"rows and bytes are {(rows, size)}, expected {(run.rows, run.bytes)}")
        return None

    def positions(self) -> None:
        """Check that every position from 1 to the end is there once; a span of positions at a time."""
        if self.damaged:
            self.found.skip("gaps between positions, since a segment is damaged")
        end = self.head.position
        for low in range(0, end, _SPAN):
            self._check_span(low, min(low + _SPAN, end))
        (beyond,) = self._one(f"SELECT count(*) FROM ({self._scan('position', end, 1 << 62)})")
        if beyond:
            self.found.add("position", f"position {end + 1}", f"{beyond} events behind the end of the log")

    def _check_span(self, low: int, high: int) -> None:
        seen = np.zeros(high - low, dtype=bool)
        rows = 0
        query = self._scan("position", low, high)
        for batch in self.connection.sql(query).to_arrow_reader(1 << 16):
            seen[batch.column(0).to_numpy() - low - 1] = True
            rows += batch.num_rows
        if rows > np.count_nonzero(seen):
            for position, count in self.connection.execute(
                f"SELECT position, count(*) AS n FROM ({query}) GROUP BY 1 HAVING n > 1 ORDER BY 1 LIMIT {_EXAMPLES}"
            ).fetchall():
                self.found.add("position", f"position {position}", f"{count} events have it, expected one")
        if not self.damaged:
            for first, last in _holes(seen):
                self.found.add(
                    "position",
                    f"position {first + low + 1}",
                    f"no event up to position {last + low + 1}, expected one each",
                )

    def event_ids(self) -> None:
        """Look for identities that two events have; by their hashes first, which take less room than the text."""
        ids = self._scan("event_id, position", 0, 1 << 62)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE _twice AS SELECT h FROM (SELECT hash(event_id) AS h FROM ({ids})) "
            f"GROUP BY h HAVING count(*) > 1 LIMIT {_EXAMPLES * 50}"
        )
        if not self._one("SELECT count(*) FROM _twice")[0]:
            return
        for event_id, positions in self.connection.execute(
            f"SELECT event_id, list(position ORDER BY position) AS p FROM ({ids}) "
            f"WHERE hash(event_id) IN (FROM _twice) GROUP BY event_id HAVING len(p) > 1 ORDER BY p LIMIT {_EXAMPLES}"
        ).fetchall():
            told = ", ".join(map(str, positions[:5]))
            self.found.add(
                "event_id",
                f"event {event_id!r}",
                f"{len(positions)} events have this identity, at positions {told}",
                "The log itself is sound: whoever recorded it told it twice. Append an event that makes up for it.",
            )

    def _scan(self, selected: str, after: int, up_to: int) -> str:
        """Write the positions (and more) of all readable events in a range."""
        by_base: dict[int, list[Path]] = {}
        for segment, path in self.readable:
            if overlaps(segment, after, up_to):
                by_base.setdefault(segment.position_base, []).append(path)
        parts = [f"SELECT {selected} FROM _tail WHERE position > {after} AND position <= {up_to}"]
        for base, paths in by_base.items():
            based = selected.replace("position", f"position + {base} AS position")
            parts.append(
                f"SELECT {based} FROM read_parquet({files_literal(paths)}, hive_partitioning = false) "
                f"WHERE position > {after - base} AND position <= {up_to - base}"
            )
        return " UNION ALL ".join(parts)


def _columns(relation: duckdb.DuckDBPyRelation) -> list[Column]:
    return [(name, str(dtype)) for name, dtype in zip(relation.columns, relation.types, strict=True)]


def _holes(seen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[tuple[int, int]]:
    """Give first and last index of each run of False."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], seen, [True])).astype(np.int8)))
    for first, behind in edges.reshape(-1, 2)[:_EXAMPLES]:
        yield int(first), int(behind) - 1
