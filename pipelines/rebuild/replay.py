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

from refold.event_schemas import ObjectNotFoundError, RefoldError
from refold.pipelines.beam.runners import for_python
from refold.pipelines.beam.staged import (
    Named,
    StagedCount,
    Work,
    run_staged,
)
from refold.pipelines.beam.worker_connections import close_idle_connections, worker_connection
from refold.pipelines.rebuild import failed_folds
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts
from refold.warehouse.declarations.projection import Fold, ReadModel
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.log import EventLog, open_log
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.read_models.rebuild import units
from refold.warehouse.replay.contributions import Compiled, compile_model
from refold.warehouse.replay.event_ranges import typed_segments
from refold.warehouse.replay.history import sources_of
from refold.warehouse.replay.invalid_events import apply_valid

_EVENTS_PER_UNIT = 600_000
_UNITS_PER_WORKER = 4
_FOLDED_EVENTS_APART = 2_000_000
_DONE = "staged/done"
_PLAN = "plan.json"
_FINISHED = "finished/"
"""The group, so to say, of rows that need no merging."""


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """How far a rebuild is.

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
class Plan:
    """All that a worker needs to know.

    Attributes:
        plan_id: its own identity, which names the folder of what it stages: so two plans never mix.
        log_url: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        models: names of the read models to rebuild.
        workers: how many the buckets are divided for; a later run that resumes may have others.
        sealed: the manifest that is replayed.
        up_to: the last position to replay; all that is sealed by default.
    """

    plan_id: str
    log_url: str
    domain_ref: str
    models: tuple[str, ...]
    workers: int
    sealed: Manifest
    up_to: int | None = None

    def staging(self, store: ObjectStore) -> ObjectStore:
        """Give the folder of what it stages."""
        return store.child(f"staging/rebuild-{self.plan_id}")


def identity_of(log: EventLog, domain: Domain, models: Sequence[ReadModel], *, up_to: int | None = None) -> str:
    """Name a rebuild by what it does, so that a later run of the same finds what a killed one staged."""
    made_by = {m.name: fingerprint(fingerprint_parts(m, domain)) for m in models}
    bound = {} if up_to is None else {"up_to": str(up_to)}
    return fingerprint({"log": log.log_id, "duckdb": duckdb.__version__, **bound, **made_by})


def save_plan(store: ObjectStore, identity: str, plan: Plan) -> Plan:
    """Keep a plan, for workers and for a later run that resumes; if another run was first, give that one's."""
    told = {
        "plan_id": plan.plan_id,
        "log_url": plan.log_url,
        "domain_ref": plan.domain_ref,
        "models": plan.models,
        "workers": plan.workers,
        "up_to": plan.up_to,
        "sealed": manifests.encode(plan.sealed).decode(),
    }
    plan.staging(store).put(_PLAN, orjson.dumps(told))
    if store.put_if_absent(_pointer(identity), plan.plan_id.encode()):
        return plan
    plan.staging(store).delete(_PLAN)
    return find_plan(store, identity) or save_plan(store, identity, plan)


def find_plan(store: ObjectStore, identity: str) -> Plan | None:
    """Find the plan of an earlier run, or of one that is under way and shares its work."""
    try:
        plan_id = store.get(_pointer(identity)).decode()
        return _read_plan(store.child(f"staging/rebuild-{plan_id}"))
    except ObjectNotFoundError:
        store.delete(_pointer(identity))
        return None


def forget_plan(store: ObjectStore, identity: str, plan: Plan) -> None:
    """Remove a plan, and all that was staged for it."""
    if store.exists(_pointer(identity)) and store.get(_pointer(identity)).decode() == plan.plan_id:
        store.delete(_pointer(identity))
    store.delete_prefix(f"staging/rebuild-{plan.plan_id}")


def is_staged(staging: ObjectStore) -> bool:
    """Tell whether a plan's folder is still there."""
    return staging.exists(_PLAN)


def _pointer(identity: str) -> str:
    return f"staging/plans/{identity}"


def _read_plan(staging: ObjectStore) -> Plan:
    told = orjson.loads(staging.get(_PLAN))
    sealed = manifests.decode(told.pop("sealed").encode(), where=f"{staging.url}/{_PLAN}")
    return Plan(**{**told, "models": tuple(told["models"])}, sealed=sealed)


@dataclass(frozen=True, slots=True)
class _Unit:
    """Some buckets, for some read models of the plan."""

    staging_url: str
    models: tuple[str, ...]
    buckets: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name it by what it covers."""
        return f"{self.models[0]}-{self.buckets[0]:04d}-{self.buckets[-1]:04d}"

    @property
    def done(self) -> str:
        """Name the object that tells what it staged."""
        return f"{_DONE}/unit-{self.name}"


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
    broken: dict[str, list[InvalidEvent]]
    events: int
    resumed: int


def replay(
    staging: ObjectStore,
    plan: Plan,
    domain: Domain,
    models: Sequence[ReadModel],
    options: PipelineOptions,
    report: Callable[[RebuildProgress], None],
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
    with StagedCount(staging, _DONE, lambda n: report(RebuildProgress("replay", n, planned, events))):
        _run(staging, plan, waves)
        while names := failed_folds.note(staging):
            _drop_merged(staging, names)
            failed_folds.forget(staging)
            _run(staging, plan, waves)
    try:
        rows = _finished_rows(staging, compiled, [unit for wave in waves for unit in wave.units])
    except ObjectNotFoundError as error:
        raise staging_lost(staging) from error
    broken: dict[str, list[InvalidEvent]] = {}
    for key in staging.list_from("staged/broken"):
        for name, found in pickle.loads(staging.get(key)).items():
            broken.setdefault(name, []).extend(found)
    for model in models:
        if failed := failed_folds.left_out(staging, model.name):
            segments = _segments(plan, domain, [model])
            broken[model.name] = [
                *broken.get(model.name, []),
                *failed_folds.invalid_events(open_log(plan.log_url), domain, segments, failed),
            ]
    if "" in broken:  # every wave of units meets them
        broken[""] = list({b.position: b for b in broken[""]}.values())
    return Replayed(rows, broken, events, resumed)


def _finished_rows(
    staging: ObjectStore, compiled: Sequence[Compiled], planned: Sequence[_Unit]
) -> dict[str, list[Path]]:
    """Collect the finished rows of every planned unit and group; one that is missing is an error, not a gap."""
    rows: dict[str, list[Path]] = {c.model.name: [] for c in compiled}
    staged = [pair for unit in planned for pair in orjson.loads(staging.get(unit.done))]
    for group in sorted({group for group, _ in staged if not group.startswith(_FINISHED)}):
        name, part = group.split("/")
        staging.get(_merged_key(name, part))
        rows[name].append(staging.local_path(_merged_rows(name, part)))
    for group, key in staged:
        if group.startswith(_FINISHED):
            rows[group.removeprefix(_FINISHED)].append(staging.local_path(key))
    return rows


def staging_lost(staging: ObjectStore) -> RefoldError:
    """Write the error for staged objects that are gone."""
    return RefoldError(
        f"What this rebuild had staged in {staging.url} is gone: another rebuild of the same read models, which shared "
        "it, has ended. This one published nothing. See `refold generations list`, and run it again if need be."
    )


def _run(staging: ObjectStore, plan: Plan, waves: Sequence[_Wave]) -> None:
    merge = functools.partial(_merge_group, staging.url)
    try:
        for wave in waves:
            run_staged(Work(staging.url, wave.units, stage=_stage_unit, merge=merge), wave.options)
    finally:
        close_idle_connections()


def _drop_merged(staging: ObjectStore, names: set[str]) -> None:
    """Have the groups of some read models merged anew."""
    for name in names:
        for part in range(units.PARTS):
            staging.delete(_merged_key(name, str(part)))


def _merged_key(name: str, part: str) -> str:
    return f"{_DONE}/merge-{name}-{part}"


def _merged_rows(name: str, part: str) -> str:
    return f"staged/rows/{name}/{int(part):04d}.parquet"


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
            yield _Wave(list(_units(staging, plan, domain, group)), how)


def _units(staging: ObjectStore, plan: Plan, domain: Domain, models: Sequence[ReadModel]) -> Iterator[_Unit]:
    """Pack buckets into units: small enough for a cache and for even work, large enough to be worth their start."""
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


def _segments(plan: Plan, domain: Domain, models: Sequence[ReadModel]) -> list[manifests.Segment]:
    """Pick the segments that some read models need: their event types' shapes, and what fits no contract."""
    schema_keys = sources_of(domain, [t for m in models for t in m.event_types])
    needed = [
        s
        for s in plan.sealed.segments
        if s.schema_key in schema_keys or s.untyped or not domain.registry.knows(s.schema_key)
    ]
    return [s for s in needed if plan.up_to is None or s.first_position + s.position_base <= plan.up_to]


@functools.lru_cache(maxsize=8)
def _load_plan(staging_url: str) -> Plan:
    """Load the plan once a process."""
    return _read_plan(open_store(staging_url))


def _stage_unit(unit: _Unit) -> Iterator[Named]:
    """Stage a unit for every read model of the plan, unless an earlier run did."""
    staging = open_store(unit.staging_url)
    if not staging.exists(unit.done):
        staging.put(unit.done, orjson.dumps(_stage_models(staging, unit)))
    yield from ((group, key) for group, key in orjson.loads(staging.get(unit.done)) if not group.startswith(_FINISHED))


def _stage_models(staging: ObjectStore, unit: _Unit) -> list[Named]:
    plan = _load_plan(unit.staging_url)
    domain, log = load_domain(plan.domain_ref), open_log(plan.log_url)
    named: list[Named] = []
    broken: dict[str, list[InvalidEvent]] = {}
    with _worker(plan.workers) as (connection, folder):
        for name in unit.models:
            compiled = compile_model(domain.read_model(name), domain)
            segments = [s for s in _segments(plan, domain, [compiled.model]) if s.bucket in unit.buckets]
            typed = typed_segments(connection, log, domain.registry, segments, up_to=plan.up_to)
            path = folder / f"{name}.parquet"
            write = functools.partial(units.stage, connection, compiled, path=path)
            staged, found = apply_valid(connection, domain, compiled, typed.relations, write)
            if found:
                broken[name] = found
            if typed.invalid_events:
                broken[""] = list(typed.invalid_events)
            if staged:
                groups = units.groups_of(compiled) or [f"{_FINISHED}{name}"]
                key = f"staged/{name}/{unit.name}.parquet"
                staging.put_file(key, path)
                named += [(group, key) for group in groups]
    if broken:
        staging.put(f"staged/broken/{unit.name}", pickle.dumps(broken))
    return named


def _merge_group(staging_url: str, group: str, staged: list[str]) -> None:
    """Merge what all buckets staged for one group of keys, unless an earlier run did."""
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
        paths = [staging.local_path(k) for k in staged]
        if failed := units.merge(connection, compiled, int(part), paths, path, without=without):
            failed_folds.tell(staging, name, part, failed)
        staging.put_file(_merged_rows(name, part), path)
    staging.put(done, b"")


@contextmanager
def _worker(workers: int) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Give one worker's connection, and a folder for its files."""
    with tempfile.TemporaryDirectory(prefix="refold-") as folder, worker_connection(workers) as connection:
        yield connection, Path(folder)
