"""Checks of the whole log at once: every position has one event, and no two events have the same identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.event_log.reads.scan import overlaps
from refold.warehouse.event_log.verification.findings import MAX_EXAMPLES, Findings

_SPAN = 1 << 26
"""Positions that one pass checks: they take 64 MB of memory."""

_HASHES = 1 << 25
"""Event ids that one pass checks: their hashes take 512 MB of memory while they are collected."""

_MAX_REPEATED = 50 * MAX_EXAMPLES
_EVERYTHING = 1 << 62


@dataclass(frozen=True, slots=True)
class PositionCheck:
    """Checks positions and event ids.

    Attributes:
        connection: DuckDB connection with the table ``_tail``.
        end: last position of the log.
        segments: the readable segments, with their paths.
        complete: whether these are all segments; a gap is expected otherwise.
        findings: collects what is wrong.
    """

    connection: duckdb.DuckDBPyConnection
    end: int
    segments: Sequence[tuple[Segment, Path]]
    complete: bool
    findings: Findings

    def check_positions(self) -> None:
        """Check that every position from 1 to the end has one event, a span of positions at a time."""
        if not self.complete:
            self.findings.skip("gaps between positions, since a segment is damaged")
        for low in range(0, self.end, _SPAN):
            self._check_span(low, min(low + _SPAN, self.end))
        beyond = self._count(self._scan("position", self.end, _EVERYTHING))
        if beyond:
            self.findings.add("position", f"position {self.end + 1}", f"{beyond} events after the end of the log")

    def check_event_ids(self) -> None:
        """Check that event ids are unique; by their hashes, which take less memory than text."""
        ids = self._scan("event_id, position", 0, _EVERYTHING)
        repeated = self._repeated_hashes(f"SELECT h FROM (SELECT hash(event_id) AS h FROM ({ids}))")
        if not len(repeated):
            return
        self.connection.register("_repeated", pa.table({"h": repeated}))
        for event_id, positions in self.connection.execute(
            f"SELECT event_id, list(position ORDER BY position) AS p FROM ({ids}) WHERE hash(event_id) IN "
            f"(FROM _repeated) GROUP BY event_id HAVING len(p) > 1 ORDER BY p LIMIT {MAX_EXAMPLES}"
        ).fetchall():
            self.findings.add(
                "event_id",
                f"event {event_id!r}",
                f"{len(positions)} events have this identity, at positions {', '.join(map(str, positions[:5]))}",
                "The log itself is sound: a writer recorded the event twice. Append an event that compensates for it.",
            )

    def _repeated_hashes(self, query: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Return hashes that occur more than once. Sorting them takes a seventh of the time of grouping them."""
        passes = max(1, -(-self.end // _HASHES))
        found: list[np.ndarray[Any, np.dtype[np.uint64]]] = []
        for number in range(passes):
            part = f"{query} WHERE h % {passes} = {number}" if passes > 1 else query
            batches = self.connection.sql(part).to_arrow_reader(1 << 16)
            hashes = np.concatenate([np.empty(0, np.uint64), *(batch.column(0).to_numpy() for batch in batches)])
            hashes.sort()
            found.append(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))
        return np.concatenate(found)[:_MAX_REPEATED]

    def _check_span(self, low: int, high: int) -> None:
        seen = np.zeros(high - low, dtype=bool)
        rows = 0
        query = self._scan("position", low, high)
        for batch in self.connection.sql(query).to_arrow_reader(1 << 16):
            seen[batch.column(0).to_numpy() - low - 1] = True
            rows += batch.num_rows
        if rows > np.count_nonzero(seen):
            for position, count in self.connection.execute(
                f"SELECT position, count(*) AS n FROM ({query}) GROUP BY 1 HAVING n > 1 ORDER BY 1 LIMIT {MAX_EXAMPLES}"
            ).fetchall():
                self.findings.add("position", f"position {position}", f"{count} events have it, expected one")
        if self.complete:
            for first, last in _gaps(seen):
                self.findings.add(
                    "position",
                    f"position {first + low + 1}",
                    f"no event up to position {last + low + 1}, expected one each",
                )

    def _count(self, query: str) -> int:
        [(count,)] = self.connection.execute(f"SELECT count(*) FROM ({query})").fetchall()
        return int(count)

    def _scan(self, selected: str, after: int, up_to: int) -> str:
        """Return a query for columns of all readable events in a range of positions."""
        by_base: dict[int, list[Path]] = {}
        for segment, path in self.segments:
            if overlaps(segment, after, up_to):
                by_base.setdefault(segment.position_base, []).append(path)
        parts = [f"SELECT {selected} FROM _tail WHERE position > {after} AND position <= {up_to}"]
        for base, paths in by_base.items():
            based = selected.replace("position", f"position + {base} AS position")
            parts.append(
                f"SELECT {based} FROM {parquet_relation(paths)} "
                f"WHERE position > {after - base} AND position <= {up_to - base}"
            )
        return " UNION ALL ".join(parts)


def _gaps(seen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[tuple[int, int]]:
    """Yield first and last index of each run of False."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], seen, [True])).astype(np.int8)))
    for first, after in edges.reshape(-1, 2)[:MAX_EXAMPLES]:
        yield int(first), int(after) - 1
