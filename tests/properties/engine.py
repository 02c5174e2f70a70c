"""The engine below Beam: a history written to a log, and the steps of a rebuild run one after the other.

What ``pipelines/`` does in parallel is done here in a loop, with the same functions of ``warehouse/``, so that an
example takes a fraction of a second.
"""

from __future__ import annotations

import functools
import itertools
import json
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from refold.event_schemas import Registry
from refold.event_schemas.payload import to_json
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import columns, quote
from refold.warehouse.event_log import commit as commits
from refold.warehouse.event_log.bulk_import.bulk_segments import build_bucket, publish_import
from refold.warehouse.event_log.bulk_import.spool import SPOOLED, Spool, read_spool
from refold.warehouse.event_log.commit import COMMIT_SCHEMA, CommitInfo
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.opening import create_log
from refold.warehouse.event_log.payload_parsing import InvalidEvent, typed_events
from refold.warehouse.event_log.seal import (
    next_manifest,
    publish,
    repartition,
    seal_buckets,
)
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import Checkpoint, checkpoint_at
from refold.warehouse.read_models.generations.build import StagedModels, load
from refold.warehouse.read_models.increments.catch_up import ModelsAtCheckpoint, apply_staged, catch_up
from refold.warehouse.read_models.increments.increment import Staged, stage
from refold.warehouse.read_models.increments.spans import Step
from refold.warehouse.read_models.live.indexes import NO_INDEXES, Indexes, create_indexes
from refold.warehouse.read_models.rebuild import units
from refold.warehouse.replay.contributions import Compiled, compile_model
from refold.warehouse.replay.event_ranges import typed_segments
from refold.warehouse.replay.invalid_events import apply_valid
from refold.warehouse.sequential_fold import NO_CONTRACT, fold_log
from tests.properties.domain import REFERENCES, STEPS
from tests.properties.histories import Commit, Given, Import
from tests.properties.reference import Folded, Stored, fold_history
from tests.properties.reference import Step as Upcast

RECORDED = datetime(2024, 3, 1, tzinfo=UTC)
SHARED_MEMORY = Path("/dev/shm")


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Yield a temporary folder, in memory if possible, where fsync costs nothing."""
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    return tempfile.TemporaryDirectory(prefix="refold-test-", dir=parent)


class Writer:
    """Writes a history to a new log, commit by commit.

    Args:
        folder: of the log.
        registry: the contracts.
        bucket_count: of the log.
    """

    def __init__(self, folder: Path, registry: Registry, *, bucket_count: int) -> None:
        self.log = create_log(str(folder / "log"), domain_name="depot", bucket_count=bucket_count)
        self._folder = folder
        self._registry = registry
        self._imports = itertools.count()

    def write(self, step: Commit | Import) -> None:
        """Append the events of one step."""
        if isinstance(step, Import):
            self._import(step)
            return
        head = self.log.head()
        rows = [
            self._row(g, position=head.position + i, number=head.commit + 1) for i, g in enumerate(step.events, start=1)
        ]
        self._number(rows)
        info = CommitInfo(
            number=head.commit + 1,
            uuid=f"commit-{head.commit + 1}",
            first_position=head.position + 1,
            last_position=head.position + len(rows),
            recorded_at=RECORDED,
            previous=head.end.digest,
            heads={row["stream_id"]: row["stream_version"] for row in rows},
        )
        _, data = commits.encode(info, [[row[name] for row in rows] for name in COMMIT_SCHEMA.names])
        assert self.log.store.put_if_absent(commit_key(info.number), data)

    def _row(self, given: Given, *, position: int, number: int) -> dict[str, Any]:
        return {
            "position": position,
            "commit_number": number,
            "stream_id": given.stream_id,
            "event_id": f"e{position}",
            "event_type": given.schema_key[0],
            "schema_version": given.schema_key[1],
            "occurred_at": given.occurred_at,
            "recorded_at": RECORDED,
            "correlation_id": None,
            "causation_id": None,
            "payload": payload_text(given, self._registry) if given.text is None else given.text,
        }

    def _number(self, rows: list[dict[str, Any]]) -> None:
        """Give each event the next version of its stream."""
        versions: dict[str, int] = {}
        for info in self.log.commits_after(self.log.start):
            versions.update(info.heads)
        for row in rows:
            versions[row["stream_id"]] = row["stream_version"] = versions.get(row["stream_id"], 0) + 1

    def _import(self, step: Import) -> None:
        name = f"import-{next(self._imports)}"
        rows = [self._row(g, position=i, number=1) | {"stream_version": i} for i, g in enumerate(step.events, start=1)]
        spool = Spool(self._folder / name, bucket_count=self.log.bucket_count)
        with connect(threads=1) as connection:
            connection.register("given", pa.Table.from_pylist(rows, schema=COMMIT_SCHEMA))
            typed = typed_events(connection, "given", self._registry)
            assert not typed.invalid_events
            payloads = {schema_key: self._registry.schema(*schema_key).names for schema_key in typed.relations}
            selected = {
                schema_key: f"(SELECT {columns([*SPOOLED, *payloads[schema_key]])} FROM {relation})"
                for schema_key, relation in typed.relations.items()
            }
            spool.add(connection, selected, payloads, source={})
        recorded = spool.journal.recorded_at
        buckets = read_spool(self._folder / name).buckets()
        built = [build_bucket(self.log, self._registry, self._folder / name, b, recorded) for b in buckets]
        publish_import(self.log, name, spool.journal.events, built, bucket_count=self.log.bucket_count)


def payload_text(given: Given, registry: Registry) -> str:
    """Write a payload as JSON text, canonical or without its empty optional fields; what fits no contract, as it is."""
    try:
        values = to_json(given.payload, registry.schema(*given.schema_key))
    except Exception:
        values = dict(given.payload)
    if given.terse:
        values = {name: value for name, value in values.items() if value is not None}
    return json.dumps(values, ensure_ascii=given.terse)


def seal(log: EventLog, registry: Registry) -> None:
    """Seal the tail of a log, as ``pipelines/seal.py`` does in parallel."""
    head = log.head()
    if not head.tail:
        return
    staging = log.store.child("staging/test")
    infos = [info for info in head.tail if info.import_id is None]
    gathered: dict[int, list[Path]] = {}
    for start in range(0, len(infos), 3):
        key, buckets = repartition(
            log, infos[start : start + 3], staging, f"gathered/{start:05d}", bucket_count=head.sealed.bucket_count
        )
        for bucket in buckets:
            gathered.setdefault(bucket, []).append(staging.local_path(key))
    sealed = [
        seal_buckets(log, registry, range(bucket, bucket + 1), paths, head.sealed)
        for bucket, paths in sorted(gathered.items())
    ]
    assert publish(log, next_manifest(head.sealed, head.tail, sealed))
    log.store.delete_prefix("staging")


class Tables:
    """A working database of read models, in a folder of its own.

    Args:
        folder: parent folder of its file.
        domain: contracts, upcasters and read models.
        threads: number of DuckDB threads.
        dead_letter: collect invalid events instead of stopping.
        indexes: which columns have an index, as in a live database.
    """

    def __init__(
        self,
        folder: Path,
        domain: Domain,
        *,
        threads: int = 1,
        dead_letter: bool = False,
        indexes: Indexes = NO_INDEXES,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.domain = domain
        self.connection = database.open_database(folder / "working.duckdb", threads=threads)
        self.dead_letter = dead_letter
        self.indexes = indexes
        self._folder = folder
        self._at = Checkpoint(0, 0, "")
        for model in domain.read_models:
            database.create_table(self.connection, model, [])
            database.set_fingerprint(self.connection, model, domain, 0)
        create_indexes(self.connection, indexes)

    def close(self) -> None:
        """Close the database."""
        self.connection.close()

    @property
    def path(self) -> Path:
        """Its file."""
        return self._folder / "working.duckdb"

    def start(self, log: EventLog, staged: StagedModels) -> None:
        """Start from the rows of a seed."""
        load(self.connection, log, self.domain, staged)
        self._at = staged.at

    def catch_up(self, log: EventLog) -> None:
        """Catch up to the head of the log."""
        catch_up(
            self.connection,
            log,
            self.domain,
            [ModelsAtCheckpoint(self.domain.read_models, self._at)],
            dead_letter=self.dead_letter,
        )
        self._at = database.get_checkpoint(self.connection)

    def go_forward(self, log: EventLog, step: Step) -> None:
        """Take one step as the stream does: staged in parts, elsewhere, and then applied here."""
        compiled = [compile_model(model, self.domain) for model in self.domain.read_models]
        staged: list[Staged] = []
        for part in step.parts:
            with connect(threads=1) as worker:
                events = part.events(worker, log, self.domain, self.domain.read_models)
                staged.append(pickle.loads(pickle.dumps(stage(worker, self.domain, compiled, events))))
        apply_staged(
            self.connection,
            log,
            self.domain,
            compiled,
            staged,
            step.span,
            dead_letter=self.dead_letter,
            indexes=self.indexes,
        )
        self._at = step.span.to

    @property
    def at(self) -> Checkpoint:
        """The position of the tables."""
        return self._at

    def rebuild(self, log: EventLog, models: Sequence[ReadModel] = ()) -> None:
        """Make tables again from all that is sealed, as a rebuild does; others stay as they are."""
        sealed = log.manifest()
        invalid: dict[str, list[InvalidEvent]] = {}
        rows: dict[str, list[Path]] = {}
        models = models or self.domain.read_models
        for model in models:
            rows[model.name], found = self._replay(log, sealed, model)
            invalid |= {name: events for name, events in found.items() if events}
        self._at = checkpoint_at(sealed)
        load(self.connection, log, self.domain, StagedModels(models, self._at, rows, invalid))

    def _replay(
        self, log: EventLog, sealed: Manifest, model: ReadModel
    ) -> tuple[list[Path], dict[str, list[InvalidEvent]]]:
        compiled = compile_model(model, self.domain)
        schema_keys = {s for t in model.event_types for s in self.domain.registry.sources(t)}
        staged: list[Path] = []
        invalid: dict[str, list[InvalidEvent]] = {"": [], model.name: []}
        parts = len(units.groups_of(compiled))
        merged = [self._folder / f"{model.name}-part-{part}.parquet" for part in range(parts)]
        with connect(threads=1) as worker:
            for bucket in range(log.bucket_count):
                segments = [
                    s for s in sealed.segments if s.bucket == bucket and (s.schema_key in schema_keys or s.untyped)
                ]
                path = self._folder / f"{model.name}-{bucket}.parquet"
                typed = typed_segments(worker, log, self.domain.registry, segments)
                write = functools.partial(units.stage, worker, compiled, path=path)
                wrote, found = apply_valid(worker, self.domain, compiled, typed.relations, write)
                invalid[""] += typed.invalid_events
                invalid[model.name] += found
                staged += [path] if wrote else []
            if not merged or not staged:
                return staged, invalid
            failed: set[int] = set()
            while more := _merged(worker, compiled, staged, merged, failed):
                failed |= more
        invalid[model.name] += [InvalidEvent(p, "", "", 0, "the fold failed", "") for p in failed]
        return merged, invalid

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Read a table, sorted by key."""
        return table_rows(self.connection, self.domain.read_model(name))

    def checksum(self, name: str) -> tuple[int, str]:
        """Count and checksum a table."""
        model = self.domain.read_model(name)
        return database.table_checksum(self.connection, quote(name), list(model.table))

    def checksum_of(self, name: str, rows: Sequence[dict[str, Any]]) -> tuple[int, str]:
        """Count and checksum rows that no engine made, as if they were in a table."""
        return table_checksum(self.connection, self.domain.read_model(name), rows)

    def dead_letters(self) -> set[tuple[str, int]]:
        """Give the read model and position of every event that was left out; fail if one is reported twice."""
        found = self.connection.execute("SELECT read_model, position FROM refold.dead_letters").fetchall()
        assert len(found) == len(set(found))
        return set(found)


def _merged(
    worker: duckdb.DuckDBPyConnection, compiled: Compiled, staged: list[Path], paths: list[Path], without: set[int]
) -> set[int]:
    """Merge all groups of keys, and give the positions of events on which a fold failed."""
    failed: set[int] = set()
    for part, path in enumerate(paths):
        failed |= set(units.merge(worker, compiled, part, staged, path, without=without))
    return failed


def table_rows(connection: duckdb.DuckDBPyConnection, model: ReadModel) -> list[dict[str, Any]]:
    """Read a read model's table, sorted by key, in Python values."""
    found = connection.execute(f"SELECT {columns(model.table)} FROM {quote(model.name)}").fetchall()
    return in_order([dict(zip(model.table, row, strict=True)) for row in found], model)


def table_checksum(
    connection: duckdb.DuckDBPyConnection, model: ReadModel, rows: Sequence[dict[str, Any]]
) -> tuple[int, str]:
    """Count and checksum rows that no engine made, as if they were in a read model's table."""
    typed = ", ".join(f"{quote(c)} {t}" for c, t in model.table.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _expected ({typed})")
    if rows:
        slots = ", ".join("?" * len(model.table))
        values = [[row[c] for c in model.table] for row in rows]
        connection.executemany(f"INSERT INTO _expected VALUES ({slots})", values)
    return database.table_checksum(connection, "_expected", list(model.table))


@contextmanager
def read_only(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a published file as analysts do."""
    with connect(path, read_only=True) as connection:
        yield connection


def in_order(rows: list[dict[str, Any]], model: ReadModel) -> list[dict[str, Any]]:
    """Sort rows by key."""
    return sorted(rows, key=lambda row: tuple(map(repr, (row[k] for k in model.key))))


def expected_rows(domain: Domain, name: str, stored: Sequence[Stored], steps: Sequence[Upcast] = STEPS) -> Folded:
    """Fold a history with the reference, its rows in the order in which tables are read here."""
    folded = fold_history(stored, steps, REFERENCES[name])
    return Folded(in_order(folded.rows, domain.read_model(name)), folded.invalid)


def recomputed(log: EventLog, domain: Domain) -> dict[str, Folded]:
    """Fold a log with ``reconcile --independent``, the second oracle: rows in the order in which tables are read."""
    found = fold_log(log.store, domain, domain.read_models, up_to=log.head().position)
    no_contract = found.letters[NO_CONTRACT].keys()
    return {
        m.name: Folded(in_order(found.rows[m.name], m), frozenset(found.letters[m.name].keys() | no_contract))
        for m in domain.read_models
    }
