"""Replaying a log for some read models: what Beam's workers do in a rebuild.

Each unit reads some buckets and stages, for every read model, finished rows or what is still to be merged. A unit
that finds its result staged skips the work.
"""

from __future__ import annotations

import functools
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import orjson
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import failed_folds
from pipelines.runners import for_python, workers_of
from pipelines.staged import Named, StagedCount, Work, run_staged
from warehouse.broken import apply_unbroken
from warehouse.contributions import compile_model
from warehouse.domain import Domain, load_domain
from warehouse.duck import connect
from warehouse.event_log import manifest as manifests
from warehouse.event_log.log import open_log
from warehouse.event_log.manifest import Manifest
from warehouse.object_store import ObjectStore, open_store
from warehouse.parsing import BrokenEvent
from warehouse.projection import Fold, ReadModel
from warehouse.read_models import units
from warehouse.read_models.events import typed_segments
from warehouse.replay import sources_of

_EVENTS_A_UNIT = 600_000
_UNITS_A_WORKER = 4
_FOLDED_EVENTS_APART = 2_000_000
_DONE = "staged/done"
_PLAN = "plan.json"
_WORKER_MEMORY = "1GB"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is.

    Attributes:
        phase: ``seal``, ``replay``, ``load``, ``catch up`` or ``publish``.
        done: staged objects so far.
        planned: staged objects in all.
        events: events to replay in all.
    """

    phase: str
    done: int = 0
    planned: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a worker needs to know.

    Attributes:
        plan_id: its own identity: another plan may come to lie in the same folder.
        log_url: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        models: names of the read models to rebuild.
        sealed: the manifest that is replayed.
    """

    plan_id: str
    log_url: str
    domain_ref: str
    models: tuple[str, ...]
    sealed: Manifest


def save_plan(staging: ObjectStore, plan: Plan) -> None:
    """Stage a plan, for workers and for a later run that resumes."""
    told = {
        "plan_id": plan.plan_id,
        "log_url": plan.log_url,
        "domain_ref": plan.domain_ref,
        "models": plan.models,
        "sealed": manifests.encode(plan.sealed).decode(),
    }
    staging.put(_PLAN, orjson.dumps(told))


def find_plan(staging: ObjectStore) -> Plan | None:
    """Find the plan that an earlier run staged."""
    if not staging.exists(_PLAN):
        return None
    told = orjson.loads(staging.get(_PLAN))
    sealed = manifests.decode(told.pop("sealed").encode(), where=f"{staging.url}/{_PLAN}")
    return Plan(**{**told, "models": tuple(told["models"])}, sealed=sealed)


@dataclass(frozen=True, slots=True)
class _Unit:
    """Some buckets, for some read models of the plan."""

    staging_url: str
    plan_id: str
    models: tuple[str, ...]
    buckets: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name it by what it covers, so that a resumed run never takes it for one that covers less."""
        return f"{self.models[0]}-{self.buckets[0]:04d}-{self.buckets[-1]:04d}"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay left in staging.

    Attributes:
        rows: read model to the files of its finished rows.
        broken: read model to the events it had to go without; the empty name has those that fit no contract.
        events: how many were replayed, each counted once a read model that reads it.
        resumed: how many staged objects an earlier, killed run had left.
    """

    rows: dict[str, list[Path]]
    broken: dict[str, list[BrokenEvent]]
    events: int
    resumed: int


def replay(
    staging: ObjectStore,
    plan: Plan,
    domain: Domain,
    models: Sequence[ReadModel],
    options: PipelineOptions,
    report: Callable[[Progress], None],
) -> Replayed:
    """Replay the planned history through Beam, and give what it left in staging.

    Args:
        staging: where the plan is, and results go.
        plan: what to replay.
        domain: contracts and upcasters.
        models: the planned read models.
        options: Beam's options.
        report: called with the progress, a few times a second.
    """
    compiled = [compile_model(m, domain) for m in models]
    waves = list(_waves(staging, plan, domain, models, options))
    planned = sum(len(w.units) for w in waves) + sum(len(units.groups_of(c)) for c in compiled)
    events = sum(s.rows for m in models for s in _segments(plan, domain, [m]))
    resumed = sum(1 for _ in staging.list_from(_DONE))
    with StagedCount(staging, _DONE, lambda n: report(Progress("replay", n, planned, events))):
        _run(staging, plan, waves)
        while names := failed_folds.note(staging):
            _drop_merged(staging, names)
            failed_folds.forget(staging)
            _run(staging, plan, waves)
    rows = {c.model.name: _paths(staging, f"staged/rows/{c.model.name}") for c in compiled}
    broken: dict[str, list[BrokenEvent]] = {}
    for key in staging.list_from("staged/broken"):
        for name, found in pickle.loads(staging.get(key)).items():
            broken.setdefault(name, []).extend(found)
    for model in models:
        if failed := failed_folds.left_out(staging, model.name):
            segments = _segments(plan, domain, [model])
            broken[model.name] = [
                *broken.get(model.name, []),
                *failed_folds.broken_events(open_log(plan.log_url), domain, segments, failed),
            ]
    if "" in broken:  # every wave of units meets them
        broken[""] = list({b.position: b for b in broken[""]}.values())
    return Replayed(rows, broken, events, resumed)


def _run(staging: ObjectStore, plan: Plan, waves: Sequence[_Wave]) -> None:
    merge = functools.partial(_merge_group, staging.url, plan.plan_id)
    for wave in waves:
        run_staged(Work(staging.url, wave.units, stage=_stage_unit, merge=merge), wave.options)


def _drop_merged(staging: ObjectStore, names: set[str]) -> None:
    """Have the groups of some read models merged anew."""
    for name in names:
        for part in range(units.PARTS):
            staging.delete(_merged_key(name, str(part)))
        staging.delete_prefix(f"staged/rows/{name}")


def _merged_key(name: str, part: str) -> str:
    return f"{_DONE}/merge-{name}-{part}"


@dataclass(frozen=True, slots=True)
class _Wave:
    """Units that run in one pipeline."""

    units: list[_Unit]
    options: PipelineOptions


def _waves(
    staging: ObjectStore, plan: Plan, domain: Domain, models: Sequence[ReadModel], options: PipelineOptions
) -> Iterator[_Wave]:
    """Run all read models together; but large folds apart from SQL, in processes, since they hold Python's lock."""
    folds = [m for m in models if isinstance(m, Fold)]
    apart = sum(s.rows for s in _segments(plan, domain, folds)) >= _FOLDED_EVENTS_APART
    others = [m for m in models if m not in folds]
    groups: list[tuple[Sequence[ReadModel], PipelineOptions]] = [(models, options)]
    if apart:
        groups = [(others, options), (folds, for_python(options))]
    for group, how in groups:
        if group:
            yield _Wave(list(_units(staging, plan, domain, group, workers_of(options))), how)


def _units(
    staging: ObjectStore, plan: Plan, domain: Domain, models: Sequence[ReadModel], workers: int
) -> Iterator[_Unit]:
    """Pack buckets into units: small enough for a cache and for even work, large enough to be worth their start."""
    names = tuple(m.name for m in models)
    rows: dict[int, int] = {}
    for segment in _segments(plan, domain, models):
        rows[segment.bucket] = rows.get(segment.bucket, 0) + segment.rows
    enough = min(_EVENTS_A_UNIT, sum(rows.values()) // (workers * _UNITS_A_WORKER) + 1)
    packed: list[int] = []
    held = 0
    for bucket in sorted(rows):
        packed.append(bucket)
        held += rows[bucket]
        if held >= enough:
            yield _Unit(staging.url, plan.plan_id, names, tuple(packed))
            packed, held = [], 0
    if packed:
        yield _Unit(staging.url, plan.plan_id, names, tuple(packed))


def _segments(plan: Plan, domain: Domain, models: Sequence[ReadModel]) -> list[manifests.Segment]:
    """Pick the segments that some read models need: their event types' shapes, and what fits no contract."""
    shapes = sources_of(domain, [t for m in models for t in m.event_types])
    return [s for s in plan.sealed.segments if s.shape in shapes or s.raw or not domain.registry.knows(s.shape)]


def _paths(staging: ObjectStore, prefix: str) -> list[Path]:
    return [staging.local_path(key) for key in staging.list_from(prefix)]


@functools.lru_cache(maxsize=8)
def _load_plan(staging_url: str, plan_id: str) -> Plan:
    """Load the plan once a process; ``plan_id`` keeps apart the plans of one folder."""
    plan = find_plan(open_store(staging_url))
    assert plan is not None, f"no plan {plan_id} in {staging_url}"
    return plan


def _stage_unit(unit: _Unit) -> Iterator[Named]:
    """Stage a unit for every read model of the plan, unless an earlier run did."""
    staging = open_store(unit.staging_url)
    done = f"{_DONE}/unit-{unit.name}"
    if not staging.exists(done):
        staging.put(done, orjson.dumps(_stage_models(staging, unit)))
    yield from (tuple(pair) for pair in orjson.loads(staging.get(done)))


def _stage_models(staging: ObjectStore, unit: _Unit) -> list[Named]:
    plan = _load_plan(unit.staging_url, unit.plan_id)
    domain, log = load_domain(plan.domain_ref), open_log(plan.log_url)
    named: list[Named] = []
    broken: dict[str, list[BrokenEvent]] = {}
    with _worker() as (connection, folder):
        for name in unit.models:
            compiled = compile_model(domain.read_model(name), domain)
            segments = [s for s in _segments(plan, domain, [compiled.model]) if s.bucket in unit.buckets]
            typed = typed_segments(connection, log, domain.registry, segments)
            path = folder / f"{name}.parquet"
            write = functools.partial(units.stage, connection, compiled, path=path)
            staged, found = apply_unbroken(connection, domain, compiled, typed.relations, write)
            if found:
                broken[name] = found
            if typed.broken:
                broken[""] = list(typed.broken)
            if staged:
                groups = units.groups_of(compiled)
                key = f"staged/{'partials' if groups else 'rows'}/{name}/{unit.name}.parquet"
                staging.put_file(key, path)
                named += [(group, key) for group in groups]
    if broken:
        staging.put(f"staged/broken/{unit.name}", pickle.dumps(broken))
    return named


def _merge_group(staging_url: str, plan_id: str, group: str, staged: list[str]) -> None:
    """Merge what all buckets staged for one group of keys, unless an earlier run did."""
    staging = open_store(staging_url)
    plan = _load_plan(staging_url, plan_id)
    name, part = group.split("/")
    done = _merged_key(name, part)
    if staging.exists(done):
        return
    domain = load_domain(plan.domain_ref)
    with _worker() as (connection, folder):
        path = folder / "merged.parquet"
        compiled = compile_model(domain.read_model(name), domain)
        without = failed_folds.left_out(staging, name)
        paths = [staging.local_path(k) for k in staged]
        if failed := units.merge(connection, compiled, int(part), paths, path, without=without):
            failed_folds.tell(staging, name, part, failed)
        staging.put_file(f"staged/rows/{name}/{int(part):04d}.parquet", path)
    staging.put(done, b"")


@contextmanager
def _worker() -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Give one worker's connection, on one thread, and a folder for its files."""
    with tempfile.TemporaryDirectory(prefix="refold-") as folder:
        connection = connect(threads=1, memory_limit=_WORKER_MEMORY, temp_directory=folder)
        try:
            yield connection, Path(folder)
        finally:
            connection.close()
