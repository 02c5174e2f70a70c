"""Replay a log for some read models: what Beam's workers do in a rebuild.

Each unit reads some buckets. For every read model it stages finished rows, or contributions that are then merged by
groups of keys. A unit or group that finds its result staged skips the work.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import ObjectNotFoundError
from refold.pipelines.beam.runners import for_python
from refold.pipelines.beam.staged_pipeline import (
    Named,
    StagedCount,
    Work,
    damaged_staging,
    run_staged,
)
from refold.pipelines.beam.worker_connections import close_idle_connections, worker_connection
from refold.pipelines.rebuild import failed_folds
from refold.pipelines.rebuild.replay_plan import ReplayPlan, is_staged, read_plan, staging_lost
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.declarations.projection import Fold, ReadModel
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.checked_files import checked_path, put_checked_file
from refold.warehouse.object_store.digests import DigestError
from refold.warehouse.object_store.records import RecordError, decode_record, encode_record
from refold.warehouse.read_models.rebuild import units
from refold.warehouse.replay.contributions import Compiled, compile_model
from refold.warehouse.replay.event_ranges import typed_segments
from refold.warehouse.replay.history import sources_of
from refold.warehouse.replay.invalid_events import apply_valid

_EVENTS_PER_UNIT = 600_000
"""The most events of a unit: its groups then mostly stay in the CPU's cache."""
_UNITS_PER_WORKER = 4
"""At least so many, since Beam deals them out at the start: the last ones even out the work."""
_FOLDED_EVENTS_APART = 2_000_000
"""From here on, folds are worth the start of worker processes (docs/adr/0007)."""
_DONE = "staged/done"
_INVALID = "staged/invalid"
_FINISHED = "finished/"
"""In place of a group: rows that need no merging."""


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """The progress of a rebuild.

    Attributes:
        phase: ``seal``, ``replay``, ``load``, ``catch up``, ``verify`` or ``publish``; ``compare`` in a reconciliation.
        done: staged objects so far.
        planned: staged objects in all.
        events: events to replay in all.
    """

    phase: str
    done: int = 0
    planned: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class _Unit:
    """Some buckets, for some read models of the plan."""

    staging_url: str
    models: tuple[str, ...]
    buckets: tuple[int, ...]

    @property
    def name(self) -> str:
        """A name by what it covers."""
        return f"{self.models[0]}-{self.buckets[0]:04d}-{self.buckets[-1]:04d}"

    @property
    def done(self) -> str:
        """The object that lists what it staged."""
        return f"{_DONE}/unit-{self.name}"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class _Done:
    """What a unit or the merge of a group has staged: the key of this record, groups, and keys of files."""

    key: str
    staged: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class _Invalid:
    """The invalid events of a unit, by read model."""

    events: dict[str, list[InvalidEvent]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """The staged result of a replay.

    Attributes:
        rows: read model to the files of its finished rows.
        invalid_events: read model to the events that it leaves out; the empty name has those that fit no contract.
        events: how many were replayed, each counted once a read model that reads it.
        resumed: how many staged objects an earlier, killed run had left.
        seconds: how long this run took.
    """

    rows: dict[str, list[Path]]
    invalid_events: dict[str, list[InvalidEvent]]
    events: int
    resumed: int
    seconds: float


def replay(
    staging: ObjectStore,
    plan: ReplayPlan,
    domain: Domain,
    models: Sequence[ReadModel],
    options: PipelineOptions,
    report: Callable[[RebuildProgress], None],
) -> Replayed:
    """Replay the planned history through Beam.

    Args:
        staging: where the plan is, and where results go.
        plan: what to replay.
        domain: contracts and upcasters.
        models: the planned read models.
        options: Beam's options.
        report: called with the progress, a few times a second.

    Raises:
        RefoldError: a worker failed, or another run deleted what is staged.
    """
    started = time.perf_counter()
    compiled = [compile_model(m, domain) for m in models]
    waves = list(_waves(staging, plan, domain, models, options))
    planned = sum(len(w.units) for w in waves) + sum(len(units.groups_of(c)) for c in compiled)
    events = sum(s.rows for m in models for s in _segments(plan, domain, [m]))
    resumed = sum(1 for _ in staging.list_from(_DONE))
    try:
        with StagedCount(staging, _DONE, lambda n: report(RebuildProgress("replay", n, planned, events))):
            _run(staging, waves)
            while names := failed_folds.collect(staging):
                _drop_merged(staging, names)
                failed_folds.clear_reports(staging)
                _run(staging, waves)
        rows = _finished_rows(staging, compiled, [unit for wave in waves for unit in wave.units])
        invalid = _invalid_events(staging, plan, domain, models)
    except ObjectNotFoundError as error:
        if is_staged(staging):  # so no other run has ended and deleted it: an object was lost, and is made again
            raise damaged_staging(error, doing=f"what was staged in {staging.url}") from error
        raise staging_lost(staging) from error
    except (DigestError, RecordError) as error:
        raise damaged_staging(error, doing=f"what was staged in {staging.url}") from error
    return Replayed(rows, invalid, events, resumed, time.perf_counter() - started)


def _invalid_events(
    staging: ObjectStore, plan: ReplayPlan, domain: Domain, models: Sequence[ReadModel]
) -> dict[str, list[InvalidEvent]]:
    """Collect the invalid events that units staged, and those on which folds failed."""
    invalid: dict[str, list[InvalidEvent]] = {}
    for key in staging.list_from(_INVALID):
        for name, found in decode_record(staging.get(key), _Invalid).events.items():
            invalid.setdefault(name, []).extend(found)
    for model in models:
        if failed := failed_folds.left_out(staging, model.name):
            segments = _segments(plan, domain, [model])
            invalid.setdefault(model.name, []).extend(
                failed_folds.invalid_events(open_log(plan.log_url, keys_url=plan.keys_url), domain, segments, failed)
            )
    if "" in invalid:  # every wave of units finds them
        invalid[""] = list({event.position: event for event in invalid[""]}.values())
    return invalid


def _finished_rows(
    staging: ObjectStore, compiled: Sequence[Compiled], planned: Sequence[_Unit]
) -> dict[str, list[Path]]:
    """List the finished rows of every planned unit and group; one that is missing is an error."""
    rows: dict[str, list[Path]] = {c.model.name: [] for c in compiled}
    staged = [pair for unit in planned for pair in _staged(staging, unit.done)]
    for group in sorted({group for group, _ in staged if not group.startswith(_FINISHED)}):
        name, part = group.split("/")
        [(_, key)] = _staged(staging, _merged_key(name, part))
        rows[name].append(checked_path(staging, key))
    for group, key in staged:
        if group.startswith(_FINISHED):
            rows[group.removeprefix(_FINISHED)].append(checked_path(staging, key))
    return rows


def _run(staging: ObjectStore, waves: Sequence[_Wave]) -> None:
    merge = functools.partial(_merge_group, staging.url)
    try:
        for wave in waves:
            run_staged(Work(staging.url, wave.units, stage=_stage_unit, merge=merge, name="rebuild"), wave.options)
    finally:
        close_idle_connections()


def _drop_merged(staging: ObjectStore, names: set[str]) -> None:
    """Delete the merged groups of some read models, so that they are merged again."""
    for name in names:
        for part in range(units.PARTS):
            staging.delete(_merged_key(name, str(part)))


def _merged_key(name: str, part: str) -> str:
    return f"{_DONE}/merge-{name}-{part}"


@dataclass(frozen=True, slots=True)
class _Wave:
    """Units that run in one pipeline."""

    units: list[_Unit]
    options: PipelineOptions


def _waves(
    staging: ObjectStore, plan: ReplayPlan, domain: Domain, models: Sequence[ReadModel], options: PipelineOptions
) -> Iterator[_Wave]:
    """Run all read models together, but large folds apart and in processes, since they hold Python's lock."""
    folds = [m for m in models if isinstance(m, Fold)]
    apart = sum(s.rows for s in _segments(plan, domain, folds)) >= _FOLDED_EVENTS_APART
    others = [m for m in models if m not in folds]
    groups: list[tuple[Sequence[ReadModel], PipelineOptions]] = [(models, options)]
    if apart:
        groups = [(others, options), (folds, for_python(options))]
    for group, how in groups:
        if group:
            yield _Wave(list(_units(staging, plan, domain, group)), how)


def _units(staging: ObjectStore, plan: ReplayPlan, domain: Domain, models: Sequence[ReadModel]) -> Iterator[_Unit]:
    """Pack buckets into units: small enough for even work, large enough to be worth their start."""
    names = tuple(m.name for m in models)
    rows: dict[int, int] = {}
    for segment in _segments(plan, domain, models):
        rows[segment.bucket] = rows.get(segment.bucket, 0) + segment.rows
    enough = min(_EVENTS_PER_UNIT, sum(rows.values()) // (plan.workers * _UNITS_PER_WORKER) + 1)
    packed: list[int] = []
    held = 0
    for bucket in sorted(rows):
        packed.append(bucket)
        held += rows[bucket]
        if held >= enough:
            yield _Unit(staging.url, names, tuple(packed))
            packed, held = [], 0
    if packed:
        yield _Unit(staging.url, names, tuple(packed))


def _segments(plan: ReplayPlan, domain: Domain, models: Sequence[ReadModel]) -> list[manifests.Segment]:
    """Pick the segments that some read models need: those of their event types, and of events that fit no contract."""
    schema_keys = sources_of(domain, [t for m in models for t in m.event_types])
    needed = [
        s
        for s in plan.sealed.segments
        if s.schema_key in schema_keys or s.untyped or not domain.registry.knows(s.schema_key)
    ]
    return [s for s in needed if plan.up_to is None or s.first_position + s.position_base <= plan.up_to]


@functools.lru_cache(maxsize=8)
def _load_plan(staging_url: str) -> ReplayPlan:
    """Load a plan once in a process; it never changes, and its URL is its own.

    The process may have worked on an earlier plan, and must not use a key that was destroyed since.
    """
    plan = read_plan(open_store(staging_url))
    open_log(plan.log_url, keys_url=plan.keys_url).personal_data.forget_keys()
    return plan


def _staged(staging: ObjectStore, key: str) -> tuple[Named, ...]:
    """Return what a unit or a merge says that it has staged.

    Raises:
        RecordError: it was changed, or is that of another unit.
    """
    done = decode_record(staging.get(key), _Done)
    if done.key != key:
        raise RecordError(f"{key} is the record of {done.key}")
    return done.staged


def _stage_unit(unit: _Unit) -> Iterator[Named]:
    """Stage a unit for every read model of the plan, unless an earlier run did."""
    staging = open_store(unit.staging_url)
    if not staging.exists(unit.done):
        staging.put(unit.done, encode_record(_Done(unit.done, tuple(_stage_models(staging, unit)))))
    yield from ((group, key) for group, key in _staged(staging, unit.done) if not group.startswith(_FINISHED))


def _stage_models(staging: ObjectStore, unit: _Unit) -> list[Named]:
    plan = _load_plan(unit.staging_url)
    domain, log = load_domain(plan.domain_ref), open_log(plan.log_url, keys_url=plan.keys_url)
    named: list[Named] = []
    invalid: dict[str, list[InvalidEvent]] = {}
    with _worker(plan.workers) as (connection, folder):
        for name in unit.models:
            compiled = compile_model(domain.read_model(name), domain)
            segments = [s for s in _segments(plan, domain, [compiled.model]) if s.bucket in unit.buckets]
            typed = typed_segments(connection, log, domain.registry, segments, up_to=plan.up_to)
            path = folder / f"{name}.parquet"
            write = functools.partial(units.stage, connection, compiled, path=path)
            staged, found = apply_valid(connection, domain, compiled, typed.relations, write)
            if found:
                invalid[name] = found
            if typed.invalid_events:
                invalid[""] = list(typed.invalid_events)
            if staged:
                groups = units.groups_of(compiled) or [f"{_FINISHED}{name}"]
                key = put_checked_file(staging, f"staged/{name}/{unit.name}", path)
                named += [(group, key) for group in groups]
    if invalid:
        staging.put(f"{_INVALID}/{unit.name}", encode_record(_Invalid(invalid)))
    return named


def _merge_group(staging_url: str, group: str, staged: list[str]) -> None:
    """Merge one group of keys over all buckets, unless an earlier run did."""
    staging = open_store(staging_url)
    plan = _load_plan(staging_url)
    name, part = group.split("/")
    done = _merged_key(name, part)
    if staging.exists(done):
        return
    domain = load_domain(plan.domain_ref)
    with _worker(plan.workers) as (connection, folder):
        path = folder / "merged.parquet"
        compiled = compile_model(domain.read_model(name), domain)
        without = failed_folds.left_out(staging, name)
        paths = [checked_path(staging, key) for key in staged]
        if failed := units.merge(connection, compiled, int(part), paths, path, without=without):
            failed_folds.report(staging, name, part, failed)
        key = put_checked_file(staging, f"staged/rows/{name}/{int(part):04d}", path)
    staging.put(done, encode_record(_Done(done, ((group, key),))))


@contextmanager
def _worker(workers: int) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Borrow a connection, and make a folder for files."""
    with tempfile.TemporaryDirectory(prefix="refold-") as folder, worker_connection(workers) as connection:
        yield connection, Path(folder)
