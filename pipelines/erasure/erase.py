"""``refold erase``: the personal data of a subject, unreadable from now on.

destroy the keys -> append the event that says so -> remove snapshots and staged rows from before it -> rebuild the read
models that may hold the data -> remove old generations, at once or later with ``refold generations gc``.

Each step finds what is left to do, so an erasure that was killed is completed by the next run, and one that is complete
changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import ConcurrencyError, GenerationError, RefoldError, Registry, UsageError
from refold.event_schemas.erasure import ERASURES, SubjectErased
from refold.pipelines.rebuild.rebuild import RebuildProgress, rebuild
from refold.pipelines.rebuild.replay_plan import delete_outdated_plans
from refold.warehouse.commands.snapshots import outdated_snapshots
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.event_log.append import Appender
from refold.warehouse.event_log.erasures import count_erasures
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.new_events import NewEvent
from refold.warehouse.event_log.reads.read import read_stream
from refold.warehouse.personal.key_store import Subject
from refold.warehouse.read_models.generations.build import may_hold_erased
from refold.warehouse.read_models.generations.garbage_collection import collect, plan_collection
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations

_IDS = uuid.UUID("5f1c1f0e-6a0b-4d1e-9f68-0c1f6f4a7d53")
_NEVER = timedelta(days=36500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure did.

    Attributes:
        subjects: each subject that had a key, as field and value.
        key_ids: the keys that are destroyed now, of all of them.
        appended: how many events it appended; 0 if an earlier run did.
        snapshots: snapshots that it removed.
        rebuilt: the read models that it rebuilt.
        generation: the newest generation, which holds nothing of the subject; None if nothing is published.
        dead_letters: open dead letters of the rebuilt read models.
        holding: older generations that may still hold the data, until ``refold generations gc`` removes them.
    """

    subjects: tuple[Subject, ...]
    key_ids: tuple[str, ...]
    appended: int
    snapshots: int
    rebuilt: tuple[str, ...]
    generation: int | None
    dead_letters: int
    holding: tuple[int, ...]


def erase(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    ids: Sequence[str],
    options: PipelineOptions | None = None,
    *,
    reason: str,
    field: str | None = None,
    now: bool = False,
    report: Callable[[RebuildProgress], None] = lambda _: None,
) -> Erased:
    """Erase the personal data of subjects.

    Positions, counts, the chain of digests and all other data stay as they are. Killed at any moment, it is completed
    by another call.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        ids: the values that name the subjects in events, such as ids of customers.
        options: Beam's options for the rebuild; the local runner by default.
        reason: why; it becomes part of the log.
        field: the field that names the subjects, if the domain has several; all by default.
        now: also remove older generations, except those that a reader has open.
        report: called with the progress of the rebuild.

    Raises:
        UsageError: the domain has no personal fields, or a subject has no data; nothing was changed.
        KeyStoreError: the key store is missing, or belongs to another log.
        GenerationError: the read models are gone since the erasure began; run it again.

    Example:
        See ``docs/how-to/privacy.md``.
    """
    domain = load_domain(domain_ref)
    keys, generations = log.personal_data.keys, open_generations(read_models_url, domain.name)
    subjects = [s for subject in ids for s in subjects_of(domain.registry, subject, field)]
    if not reason.strip():
        raise UsageError("The reason is empty. Give the reason of the erasure, such as a request's number.")
    known = [s for s in subjects if keys.key_ids(s)]
    if unknown := sorted({*ids} - {s.value for s in known}):
        raise UsageError(
            f"No personal data of {', '.join(map(repr, unknown))} was ever written: the key store {keys.url} has no "
            f"key of such a {' or '.join(sorted({s.field for s in subjects}))}. Check the id. Nothing was changed."
        )
    published = generations.newest()
    destroyed = {s: tuple(keys.destroy(s)) for s in known}
    log.personal_data.forget_keys()
    appended = _append(log, domain.registry, destroyed, reason)
    erasures = count_erasures(log, domain.registry)
    outdated = list(outdated_snapshots(log, erasures=erasures))
    for key in outdated:
        log.store.delete(key)
    delete_outdated_plans(generations.store, log, erasures=erasures)
    rebuilt, letters = _rebuild(log, domain, domain_ref, read_models_url, generations, options, erasures, report)
    if now:
        collect(generations, plan_collection(generations, keep=1, min_age=timedelta(0), leftover_age=_NEVER))
    newest = generations.newest()
    if published is not None and newest is None:
        raise GenerationError(
            f"The read models at {generations.store.url} are gone: they were moved or removed, or their disk is no "
            "longer mounted. The keys are destroyed, but generations may hold the data. Bring them back; run it again."
        )
    return Erased(
        subjects=tuple(destroyed),
        key_ids=tuple(key_id for found in destroyed.values() for key_id in found),
        appended=appended,
        snapshots=len(outdated),
        rebuilt=rebuilt,
        generation=newest.number if newest else None,
        dead_letters=letters,
        holding=tuple(g.number for g in generations.all() if holding_models(domain, log, g, erasures)),
    )


def subjects_of(registry: Registry, subject: str, field: str | None) -> list[Subject]:
    """Return whose data a value may name: one subject for each field that names subjects.

    Raises:
        UsageError: the domain has no personal fields, or none of this field.
    """
    fields = registry.subject_fields
    if not fields:
        raise UsageError(
            "The domain has no personal fields, so there is no key to destroy. Mark fields with Personal(subject=...); "
            "for events without marks, `refold log rewrite` writes a log without the values."
        )
    if field is not None and field not in fields:
        raise UsageError(f"No personal field has the subject {field!r}; the subjects are {', '.join(fields)}.")
    return [Subject(name, subject) for name in ([field] if field else fields)]


def holding_models(domain: Domain, log: EventLog, generation: Generation, erasures: int) -> list[str]:
    """Return the read models of a generation that may hold data from before an erasure."""
    if generation.log_id != log.log_id:
        return []
    return [m.name for m in domain.read_models if may_hold_erased(domain, m, generation, erasures)]


def _append(log: EventLog, registry: Registry, destroyed: Mapping[Subject, tuple[str, ...]], reason: str) -> int:
    """Append the events of erasures that the log does not have yet, and return how many; keys identify an event."""
    events = {_event_id(log, s, key_ids): _event(s, key_ids, reason) for s, key_ids in destroyed.items()}
    appender = Appender(log, registry)
    while True:
        known = [event.event_id for event in read_stream(log, registry, ERASURES)]
        new = [NewEvent(payload=event, event_id=i) for i, event in events.items() if i not in known]
        try:
            if new:
                appender.append(ERASURES, new, expected_version=len(known))
            return len(new)
        except ConcurrencyError:
            continue  # another erasure was first: it may be the same


def _event(subject: Subject, key_ids: Iterable[str], reason: str) -> SubjectErased:
    return SubjectErased(subject_field=subject.field, subject=subject.value, reason=reason, key_ids=sorted(key_ids))


def _event_id(log: EventLog, subject: Subject, key_ids: Iterable[str]) -> str:
    return str(uuid.uuid5(_IDS, "\0".join((log.log_id, subject.field, subject.value, *sorted(key_ids)))))


def _rebuild(
    log: EventLog,
    domain: Domain,
    domain_ref: str,
    read_models_url: str,
    generations: Generations,
    options: PipelineOptions | None,
    erasures: int,
    report: Callable[[RebuildProgress], None],
) -> tuple[tuple[str, ...], int]:
    """Rebuild the read models of the newest generation that may hold the data."""

    def holding() -> list[str]:
        newest = generations.newest()
        return holding_models(domain, log, newest, erasures) if newest else []

    names = holding()
    if not names:
        return (), 0
    try:
        done = rebuild(log, domain_ref, read_models_url, options, only=names, dead_letter=True, report=report)
    except RefoldError:
        if holding():
            raise
        return (), 0  # another process erased the same subject, shared the work, and was first
    return tuple(names), done.dead_letters
