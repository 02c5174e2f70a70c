"""``refold rebuild``: read models anew from the log, in parallel, published at once.

seal the tail -> plan units from the manifest -> Beam: each unit stages what its bucket contributes, groups are merged
-> one loader fills a new database -> catch up from the sealed position to the head -> publish.

Readers are served the old generation until the new one is published. A killed rebuild finds its plan and what it staged,
and goes on from there.
"""

from __future__ import annotations

import functools
import pickle
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import orjson
from apache_beam.options.pipeline_options import PipelineOptions

from event_schemas import EmptyLogError, GenerationError, UsageError
from pipelines.runners import for_python, workers_of
from pipelines.seal import seal
from pipelines.staged import Named, StagedCount, Work, run_staged
from warehouse.broken import apply_unbroken, refuse
from warehouse.contributions import compile_model
from warehouse.domain import Domain, load_domain
from warehouse.duck import connect
from warehouse.event_log import manifest as manifests
from warehouse.event_log.log import EventLog, open_log
from warehouse.event_log.manifest import Manifest
from warehouse.fingerprint import fingerprint, fingerprint_parts
from warehouse.object_store import ObjectStore, open_store
from warehouse.parsing import BrokenEvent
from warehouse.projection import Fold, ReadModel
from warehouse.read_models import database, units
from warehouse.read_models.catch_up import Standing, catch_up
from warehouse.read_models.cost import replay_cost
from warehouse.read_models.database import Checkpoint
from warehouse.read_models.events import typed_segments
from warehouse.read_models.generations import Generation, Generations, PublishedTable, now, open_generations
from warehouse.replay import sources_of

_EVENTS_A_UNIT = 250_000
_FOLDED_EVENTS_APART = 2_000_000
_UNITS_A_WORKER = 2
_PUBLISH_ATTEMPTS = 10
_LOADER_MEMORY = "2GB"


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
class Rebuilt:
    """What a rebuild did.

    Attributes:
        generation: what was published.
        events: how many events were replayed, each counted once a read model that reads it.
        bytes_read: compressed bytes of the columns that were read for it.
        bytes_stored: bytes of all segments.
        seconds: from start to publish.
        resumed: how many staged objects an earlier, killed run had left.
        dead_letters: how many events could not be applied.
    """

    generation: Generation
    events: int
    bytes_read: int
    bytes_stored: int
    seconds: float
    resumed: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a worker needs to know; staged under ``plan.pickle``.

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


def rebuild(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    options: PipelineOptions,
    *,
    only: Sequence[str] = (),
    dead_letter: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
) -> Rebuilt:
    """Rebuild read models and publish a generation in which all stand at the head of the log.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        options: Beam's options.
        only: names of the read models to rebuild; those that the newest generation holds beside them are taken over
            and caught up. All by default.
        dead_letter: collect events that cannot be applied in ``refold.dead_letters``, in place of stopping.
        report: called with the progress, a few times a second.

    Raises:
        EmptyLogError: there is nothing to replay.
        BrokenEventsError: events cannot be applied; nothing was published.
        DamagedLogError: the log misses an object; nothing was published.
        GenerationError: others published all the time.
    """
    started = time.perf_counter()
    domain = load_domain(domain_ref)
    names = tuple(only) or tuple(m.name for m in domain.read_models)
    models = [domain.read_model(name) for name in names]
    generations = open_generations(read_models_url, domain.name)
    _kept(domain, log, names, generations.newest())
    report(Progress("seal"))
    staging, plan = _plan(log, domain_ref, domain, names, generations.store, options)
    replayed = _replay(staging, plan, domain, models, options, report)
    if replayed.broken and not dead_letter:
        staging.delete_prefix("staged")
        raise refuse([b for found in replayed.broken.values() for b in found], doing="The rebuild")
    published = _load_and_publish(
        log, domain, models, generations, staging, plan, replayed, dead_letter, options, report
    )
    generations.store.delete_prefix(_folder(staging, generations.store))
    costs = [replay_cost(compile_model(m, domain), domain, plan.sealed.segments) for m in models]
    return Rebuilt(
        generation=published,
        events=replayed.events,
        bytes_read=sum(c.bytes_read for c in costs),
        bytes_stored=costs[0].bytes_stored,
        seconds=time.perf_counter() - started,
        resumed=replayed.resumed,
        dead_letters=sum(map(len, replayed.broken.values())),
    )


def _kept(domain: Domain, log: EventLog, names: Sequence[str], parent: Generation | None) -> list[ReadModel]:
    """Pick the read models to take over from the newest generation: those published and not rebuilt now."""
    if parent is None:
        return []
    if parent.log_id != log.log_id and set(names) < {m.name for m in domain.read_models}:
        raise GenerationError(
            f"Generation {parent.number} was built from another log than {log.url}, so none of its read models can be "
            "kept. Rebuild all of them, or give another --read-models."
        )
    kept = [m for m in domain.read_models if m.name not in names and m.name in parent.tables]
    for model in kept:
        if fingerprint(fingerprint_parts(model, domain)) != parent.tables[model.name].fingerprint:
            raise UsageError(
                f"Read model {model.name} was declared otherwise when generation {parent.number} was built, so it cannot "
                "be taken over as it is. Rebuild it too."
            )
    return kept


def _plan(
    log: EventLog,
    domain_ref: str,
    domain: Domain,
    names: tuple[str, ...],
    store: ObjectStore,
    options: PipelineOptions,
) -> tuple[ObjectStore, Plan]:
    """Find the plan of a killed rebuild of the same read models, or seal the tail and make one."""
    made_by = [fingerprint(fingerprint_parts(domain.read_model(n), domain)) for n in names]
    identity = fingerprint({"log": log.log_id, **dict(zip(names, made_by, strict=True))})
    staging = store.child(f"staging/rebuild-{identity}")
    if staging.exists("plan.pickle"):
        return staging, pickle.loads(staging.get("plan.pickle"))
    seal(log, domain_ref, options)
    sealed = log.manifest()
    if sealed.sealed_position == 0:
        raise EmptyLogError(
            f"The log {log.url} holds no events, so there is nothing to build read models from. Append some, or import a "
            "history with `refold ingest`."
        )
    plan = Plan(str(uuid.uuid4()), log.url, domain_ref, names, sealed)
    staging.put("plan.pickle", pickle.dumps(plan))
    return staging, plan


@dataclass(frozen=True, slots=True)
class _Replayed:
    """What the pipeline left in staging."""

    rows: dict[str, list[Path]]
    broken: dict[str, list[BrokenEvent]]
    events: int
    resumed: int


def _replay(
    staging: ObjectStore,
    plan: Plan,
    domain: Domain,
    models: Sequence[ReadModel],
    options: PipelineOptions,
    report: Callable[[Progress], None],
) -> _Replayed:
    compiled = [compile_model(m, domain) for m in models]
    waves = list(_waves(staging, plan, domain, models, options))
    planned = sum(len(w.units) for w in waves) + sum(len(units.groups_of(c)) for c in compiled)
    events = sum(s.rows for m in models for s in _segments(plan, domain, [m]))
    resumed = sum(1 for _ in staging.list_from("staged/done"))
    with StagedCount(staging, "staged/done", lambda n: report(Progress("replay", n, planned, events))):
        for wave in waves:
            merge = functools.partial(_merge_group, staging.url, plan.plan_id)
            run_staged(Work(staging.url, wave.units, stage=_stage_unit, merge=merge), wave.options)
    rows = {c.model.name: _paths(staging, f"staged/rows/{c.model.name}") for c in compiled}
    broken: dict[str, list[BrokenEvent]] = {}
    for key in staging.list_from("staged/broken"):
        for name, found in pickle.loads(staging.get(key)).items():
            broken.setdefault(name, []).extend(found)
    return _Replayed(rows, broken, events, resumed)


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
    """Pick the segments that some read models need: their event types' shapes, and whatever is raw."""
    shapes = sources_of(domain, [t for m in models for t in m.event_types])
    return [s for s in plan.sealed.segments if s.shape in shapes or s.raw]


def _paths(staging: ObjectStore, prefix: str) -> list[Path]:
    return [staging.local_path(key) for key in staging.list_from(prefix)]


@functools.lru_cache(maxsize=8)
def _load_plan(staging_url: str, plan_id: str) -> Plan:
    """Load the plan once a process; ``plan_id`` keeps apart the plans of one folder."""
    plan: Plan = pickle.loads(open_store(staging_url).get("plan.pickle"))
    return plan


def _stage_unit(unit: _Unit) -> Iterator[Named]:
    """Stage a unit for every read model of the plan, unless an earlier run did."""
    staging = open_store(unit.staging_url)
    done = f"staged/done/unit-{unit.name}"
    if not staging.exists(done):
        staging.put(done, orjson.dumps(_stage_models(staging, unit)))
    for group, key in orjson.loads(staging.get(done)):
        yield group, key


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
    done = f"staged/done/merge-{name}-{part}"
    if staging.exists(done):
        return
    domain = load_domain(plan.domain_ref)
    with _worker() as (connection, folder):
        path = folder / "merged.parquet"
        compiled = compile_model(domain.read_model(name), domain)
        units.merge(connection, compiled, int(part), [staging.local_path(k) for k in staged], path)
        staging.put_file(f"staged/rows/{name}/{int(part):04d}.parquet", path)
    staging.put(done, b"")


@contextmanager
def _worker() -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Give one worker's connection, on one thread, and a folder for its files."""
    with tempfile.TemporaryDirectory(prefix="refold-") as folder:
        connection = connect(threads=1, temp_directory=folder)
        try:
            yield connection, Path(folder)
        finally:
            connection.close()


def _load_and_publish(
    log: EventLog,
    domain: Domain,
    models: Sequence[ReadModel],
    generations: Generations,
    staging: ObjectStore,
    plan: Plan,
    replayed: _Replayed,
    dead_letter: bool,
    options: PipelineOptions,
    report: Callable[[Progress], None],
) -> Generation:
    for _ in range(_PUBLISH_ATTEMPTS):
        parent = generations.newest()
        with _scratch(generations.store) as folder:
            report(Progress("load"))
            path = folder / "working.duckdb"
            kept = _kept(domain, log, plan.models, parent)
            if kept and parent is not None:
                path = generations.working_copy(parent, folder)
            connection = database.open_database(path, threads=workers_of(options), memory_limit=_LOADER_MEMORY)
            standing = [Standing(kept, database.get_checkpoint(connection))]
            standing.append(Standing(models, _load(connection, domain, models, plan, replayed, log)))
            report(Progress("catch up"))
            catch_up(connection, log, domain, standing, dead_letter=dead_letter)
            report(Progress("publish"))
            generation = _publish(connection, path, log, domain, generations, parent)
        if generation is not None:
            return generation
    raise GenerationError(f"Others published to {generations.store.url} all the time; gave up. Run the rebuild again.")


def _load(
    connection: duckdb.DuckDBPyConnection,
    domain: Domain,
    models: Sequence[ReadModel],
    plan: Plan,
    replayed: _Replayed,
    log: EventLog,
) -> Checkpoint:
    """Fill the tables of the rebuilt models with staged rows, and tell where in the log they stand then."""
    sealed = plan.sealed
    connection.execute("BEGIN")
    database.drop_views(connection, domain)
    connection.execute("DELETE FROM refold.dead_letters WHERE read_model = ''")
    for model in models:
        database.create_table(connection, model, replayed.rows[model.name])
        database.set_fingerprint(connection, model, domain, sealed.sealed_position)
        connection.execute("DELETE FROM refold.dead_letters WHERE read_model = ?", [model.name])
    database.add_dead_letters(connection, replayed.broken)
    at = Checkpoint(sealed.sealed_position, sealed.sealed_commit, sealed.recorded_at)
    database.set_checkpoint(connection, at, domain_name=domain.name, log_id=log.log_id)
    connection.execute("COMMIT")
    return at


def _publish(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    log: EventLog,
    domain: Domain,
    generations: Generations,
    parent: Generation | None,
) -> Generation | None:
    """Finish the database, close it, and publish it; None if another was first."""
    database.create_views(connection, domain)
    at = database.get_checkpoint(connection)
    tables = {
        t.name: PublishedTable(
            fingerprint=t.fingerprint,
            parts=fingerprint_parts(domain.read_model(t.name), domain),
            rows=t.rows,
            checksum=t.checksum,
        )
        for t in database.finish(connection, domain)
    }
    connection.close()
    file, size = generations.upload(path)
    generation = Generation(
        number=(parent.number if parent else 0) + 1,
        file=file,
        bytes=size,
        position=at.position,
        commit_number=at.commit_number,
        recorded_at=at.recorded_at,
        published_at=now(),
        parent=parent.number if parent else 0,
        log_id=log.log_id,
        tables=tables,
    )
    return generation if generations.publish(generation) else None


@contextmanager
def _scratch(store: ObjectStore) -> Iterator[Path]:
    """Give a folder for the working database: on a local store beside the published files, so that no byte is copied."""
    parent = Path(store.url) / "work" if store.is_local else None
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="refold-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(staging: ObjectStore, store: ObjectStore) -> str:
    return staging.url.removeprefix(store.url).strip("/")
