"""Plans of replays, kept in a store: for the workers, and for a later run that resumes a killed one.

A plan lies in its own folder, beside all that is staged for it. A pointer, whose name says what the replay does, leads
to the folder.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
from apache_beam.options.pipeline_options import PipelineOptions

from refold import __version__
from refold.event_schemas import EmptyLogError, ObjectNotFoundError, RefoldError
from refold.pipelines.beam.runners import workers_of
from refold.pipelines.seal import seal
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.erasures import count_erasures
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.records import decode_record, encode_record

_PLAN = "plan.json"
_PLANS = "staging/plans"


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """All that a worker needs to know.

    Attributes:
        plan_id: names the folder of what is staged, so two plans never mix.
        log_url: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        models: names of the read models to rebuild.
        workers: how many workers the buckets are divided for; a run that resumes may have others.
        manifest: number of the manifest to replay.
        up_to: the last position to replay; all that is sealed by default.
        keys_url: the key store of the log's personal data.
        erasures: the number of the log's erasures when the plan was made.
    """

    plan_id: str
    log_url: str
    domain_ref: str
    models: tuple[str, ...]
    workers: int
    manifest: int
    up_to: int | None = None
    keys_url: str = ""
    erasures: int = 0

    @property
    def sealed(self) -> Manifest:
        """The manifest to replay, as the log has it."""
        return _manifest(self.plan_id, self.log_url, self.manifest)

    def staging(self, store: ObjectStore) -> ObjectStore:
        """Return the folder of what is staged."""
        return store.child(f"staging/rebuild-{self.plan_id}")


@functools.lru_cache(maxsize=4)
def _manifest(_plan_id: str, log_url: str, number: int) -> Manifest:
    """Load the manifest of a plan once in a process, for all its units."""
    return open_log(log_url).manifest(number)


def plan_identity(log: EventLog, domain: Domain, models: Sequence[ReadModel], up_to: int | None) -> str:
    """Name a replay by what it does and which code does it: a run of the same name may use what another one staged."""
    made_by = {m.name: fingerprint(fingerprint_parts(m, domain)) for m in models}
    bound = {} if up_to is None else {"up_to": str(up_to)}
    if erasures := count_erasures(log, domain.registry):
        bound["erasures"] = str(erasures)  # what was staged before an erasure may hold what was erased
    return fingerprint({"log": log.log_id, "refold": __version__, "duckdb": duckdb.__version__, **bound, **made_by})


def find_or_make_plan(
    store: ObjectStore,
    identity: str,
    log: EventLog,
    domain: Domain,
    domain_ref: str,
    models: Sequence[ReadModel],
    options: PipelineOptions,
    up_to: int | None,
) -> ReplayPlan:
    """Return the plan of a killed run, or of one that is under way and shares its work; else seal the log and plan.

    Raises:
        EmptyLogError: there is nothing to replay.
    """
    found = find_plan(store, identity)
    if found is not None and _is_of(found, log, domain_ref, models, up_to):
        return found
    if found is not None:
        delete_plan(store, identity, found)
    log.personal_data.forget_keys()  # this plan's erasures are those whose keys this process cannot have any more
    erasures = count_erasures(log, domain.registry)
    sealed = log.manifest()
    if up_to is None or sealed.sealed_position < up_to:
        seal(log, domain_ref, options)
        sealed = log.manifest()
    if sealed.sealed_position == 0:
        raise EmptyLogError(
            f"The log {log.url} holds no events, so there is nothing to build read models from. Append some, or import "
            "a history with `refold ingest`."
        )
    names = tuple(m.name for m in models)
    plan = ReplayPlan(
        str(uuid.uuid4()), log.url, domain_ref, names, workers_of(options), sealed.number, up_to, log.keys_url, erasures
    )
    return save_plan(store, identity, plan)


def save_plan(store: ObjectStore, identity: str, plan: ReplayPlan) -> ReplayPlan:
    """Save a plan; if another run saved one first, return that."""
    plan.staging(store).put(_PLAN, encode_record(plan))
    if store.put_if_absent(_pointer(identity), plan.plan_id.encode()):
        return plan
    plan.staging(store).delete(_PLAN)
    return find_plan(store, identity) or save_plan(store, identity, plan)


def find_plan(store: ObjectStore, identity: str) -> ReplayPlan | None:
    """Find the plan of an earlier run, or of one that is under way; one that is damaged is forgotten."""
    try:
        plan_id = str(uuid.UUID(store.get(_pointer(identity)).decode()))
        return read_plan(store.child(f"staging/rebuild-{plan_id}"))
    except (ObjectNotFoundError, ValueError):
        store.delete(_pointer(identity))
        return None


def _is_of(plan: ReplayPlan, log: EventLog, domain_ref: str, models: Sequence[ReadModel], up_to: int | None) -> bool:
    """Check that a plan that was found says what the log says: anyone may have put it there."""
    try:
        log.manifest(plan.manifest)
    except ObjectNotFoundError:  # removed since then
        return False
    wanted = (log.url, log.keys_url, domain_ref, tuple(m.name for m in models), up_to)
    return (plan.log_url, plan.keys_url, plan.domain_ref, plan.models, plan.up_to) == wanted


def read_plan(staging: ObjectStore) -> ReplayPlan:
    """Read the plan in its own folder."""
    return decode_record(staging.get(_PLAN), ReplayPlan)


def delete_plan(store: ObjectStore, identity: str, plan: ReplayPlan) -> None:
    """Delete a plan, and all that is staged for it."""
    if store.exists(_pointer(identity)) and store.get(_pointer(identity)).decode() == plan.plan_id:
        store.delete(_pointer(identity))
    store.delete_prefix(f"staging/rebuild-{plan.plan_id}")


def is_staged(staging: ObjectStore) -> bool:
    """Check whether a plan's folder is still there."""
    return staging.exists(_PLAN)


def staging_lost(staging: ObjectStore) -> RefoldError:
    """Describe that staged objects are gone."""
    return RefoldError(
        f"What this rebuild staged in {staging.url} is gone: another rebuild of the same read models shared it and "
        "has ended. This one published nothing. See `refold generations list`, and run it again if need be."
    )


def _pointer(identity: str) -> str:
    return f"{_PLANS}/{identity}"


def delete_outdated_plans(store: ObjectStore, log: EventLog, *, erasures: int) -> None:
    """Delete the plans that were made before an erasure, and what is staged for them.

    A rebuild that is under way with such a plan then ends with an error, and can be run again.
    """
    for identity, plan in list(outdated_plans(store, log, erasures=erasures)):
        delete_plan(store, identity, plan)


def outdated_plans(store: ObjectStore, log: EventLog, *, erasures: int) -> Iterator[tuple[str, ReplayPlan]]:
    """Yield the plans of a log that were made before an erasure, each with its identity."""
    for key in store.list_from(_PLANS):
        try:
            plan_id = str(uuid.UUID(store.get(key).decode()))
            plan = read_plan(store.child(f"staging/rebuild-{plan_id}"))
        except (ObjectNotFoundError, ValueError):
            continue
        if plan.erasures < erasures and plan.log_url == log.url:
            yield key.rsplit("/", 1)[-1], plan
