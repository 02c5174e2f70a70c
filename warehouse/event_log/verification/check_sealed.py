"""Comparison of segments with the commits that were sealed into them, as long as these are kept.

The chain of digests proves commits; a segment is proved by the manifest alone. Whoever changed both would go unnoticed
without this comparison. Imports are left out: their commits hold no events, but the segments themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from refold.event_schemas import DamagedLogError, Registry
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.sql import columns
from refold.warehouse.event_log.commit import COMMIT_SCHEMA, CommitInfo
from refold.warehouse.event_log.layout import bucket_sql
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest, Segment
from refold.warehouse.event_log.payload_parsing import typed_events
from refold.warehouse.event_log.segments import SEGMENT_ENVELOPE, segment_relations, untyped_relation
from refold.warehouse.event_log.verification.findings import Findings

_BATCH_EVENTS = 500_000
"""Events of commits that are parsed together: some hundred megabytes."""

_Group = tuple[SchemaKey, int]
"""A schema and a bucket."""


@dataclass(slots=True)
class _Digests:
    """What events hold together: for each group their number, and the exclusive-or of the hashes of their values.

    Events that match no contract are in groups of their own, with the payload as text.
    """

    found: dict[tuple[bool, _Group], tuple[int, int]] = field(default_factory=lambda: defaultdict(lambda: (0, 0)))

    def add(self, typed: bool, group: _Group, count: int, digest: int) -> None:
        """Add events of a group."""
        before = self.found[typed, group]
        self.found[typed, group] = (before[0] + count, before[1] ^ digest)


@dataclass(frozen=True, slots=True)
class SealedCheck:
    """Compares the segments of a log with its sealed commits.

    Attributes:
        open: opens a database in memory; events are parsed in temporary tables, which end with it.
        log: the log.
        registry: the contracts.
        sealed: the manifest.
        findings: collects what is wrong.
    """

    open: Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]
    log: EventLog
    registry: Registry
    sealed: Manifest
    findings: Findings

    def check(self, readable: Sequence[Segment], suspect: Collection[tuple[SchemaKey, int]]) -> None:
        """Compare them.

        Args:
            readable: the segments that can be read.
            suspect: schemas and buckets with a segment in which something is wrong; they are not compared.
        """
        # Earlier ones may have been removed, except those of imports.
        number = max(self.log.first_commit(), self.sealed.removed_before)
        first = self.log.commit_info(number) if 0 < number <= self.sealed.sealed_commit else None
        if first is None:
            return
        segments = [s for s in readable if not s.commit_base and (s.schema_key, s.bucket) not in suspect]
        try:
            in_segments = self._of_segments(segments, first.first_position)
            in_commits = self._of_commits(number)
        except DamagedLogError:
            self.findings.skip("whether segments hold the events of their commits, since one of these is damaged")
            return
        for typed, group in sorted({*in_segments.found, *in_commits.found}):
            real, expected = in_segments.found[typed, group], in_commits.found[typed, group]
            if real != expected and group not in suspect:
                (event_type, version), bucket = group
                what = (
                    f"its segments have {real[0]} events since commit {number}, its commits {expected[0]}"
                    if real[0] != expected[0]
                    else f"a value in its segments differs from the one in its commits, since commit {number}"
                )
                self.findings.add(
                    "segment",
                    f"{self.log.url}, {event_type} v{version}, bucket {bucket}{'' if typed else ', untyped'}",
                    f"{what}; the commits are proved by their digests",
                    "Somebody changed segments and manifest. Restore both from a backup of the store.",
                )

    def _of_segments(self, segments: Sequence[Segment], first_position: int) -> _Digests:
        digests = _Digests()
        since = f"position >= {first_position}{self._without_imports()}"
        known = [s for s in segments if self.registry.knows(s.schema_key)]
        with self.open() as connection:
            for schema_key, relation in segment_relations(self.log, known, self.registry).items():
                self._add_typed(connection, digests, schema_key, f"(FROM {relation} WHERE {since})")
            untyped = untyped_relation(self.log, [s for s in segments if s.untyped], self.registry)
            if untyped is not None:
                self._add(connection, digests, f"(FROM {untyped} WHERE {since})")
        return digests

    def _without_imports(self) -> str:
        """Return conditions that leave out the events of imports, which may have been merged with others."""
        infos = [info for number in self.sealed.imports.values() if (info := self.log.commit_info(number))]
        return "".join(f" AND position NOT BETWEEN {i.first_position} AND {i.last_position}" for i in infos)

    def _of_commits(self, first: int) -> _Digests:
        digests = _Digests()
        for infos in self._batches(first):
            rows = f"SELECT {columns(COMMIT_SCHEMA.names)} FROM {parquet_relation(self.log.commit_paths(infos))}"
            with self.open() as connection:
                connection.execute(f"CREATE TEMP TABLE _sealed AS {rows}")
                self._add(connection, digests, "_sealed")
        return digests

    def _batches(self, first: int) -> Iterator[list[CommitInfo]]:
        batch: list[CommitInfo] = []
        events = 0
        for number in range(first, self.sealed.sealed_commit + 1):
            info = self.log.commit_info(number)
            if info is None:
                raise DamagedLogError(f"Commit {number} is missing.")
            if info.import_id is not None:
                continue
            batch.append(info)
            events += info.events
            if events >= _BATCH_EVENTS:
                yield batch
                batch, events = [], 0
        if batch:
            yield batch

    def _add(self, connection: duckdb.DuckDBPyConnection, digests: _Digests, relation: str) -> None:
        """Add commit rows, typed where they match a contract."""
        typed = typed_events(connection, relation, self.registry)
        for schema_key, parsed in typed.relations.items():
            self._add_typed(connection, digests, schema_key, parsed)
        if typed.invalid_events:
            positions = pa.table({"position": [event.position for event in typed.invalid_events]})
            connection.register("_invalid", positions)
            source = f"(FROM {relation} SEMI JOIN _invalid USING (position))"
            sums = self._sums(connection, source, ("event_type", "schema_version"), ["payload"])
            for event_type, version, bucket, count, digest in sums:
                digests.add(False, ((event_type, version), bucket), count, digest)

    def _add_typed(
        self, connection: duckdb.DuckDBPyConnection, digests: _Digests, schema_key: SchemaKey, relation: str
    ) -> None:
        names = self.registry.stored_schema(*schema_key).names
        for bucket, count, digest in self._sums(connection, relation, (), names):
            digests.add(True, (schema_key, bucket), count, digest)

    def _sums(
        self, connection: duckdb.DuckDBPyConnection, relation: str, keys: Sequence[str], payload: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        """Return keys, bucket, count and digest of the events of a relation, by keys and bucket."""
        bucket = bucket_sql(self.sealed.bucket_count)
        return connection.execute(
            f"SELECT {columns([*keys, '_bucket'])}, count(*), bit_xor(hash({columns([*SEGMENT_ENVELOPE, *payload])})) "
            f"FROM (SELECT *, {bucket} AS _bucket FROM {relation}) GROUP BY ALL"
        ).fetchall()
