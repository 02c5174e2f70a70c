"""Retrying dead letters: the read models to rebuild for them, the size of that rebuild, and its outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.dead_letters.dead_letters import DeadLetter, Key
from refold.warehouse.read_models.generations.generations import Generation
from refold.warehouse.read_models.lag import find_end
from refold.warehouse.read_models.planning.cost import CostEstimator
from refold.warehouse.replay.history import sources_of


@dataclass(frozen=True, slots=True)
class Retry:
    """The rebuild that retries some dead letters.

    Attributes:
        letters: the open dead letters.
        read_models: names of the read models to rebuild; empty if none of the domain can apply any of the events.
        events: maximum number of events to replay, counted once for each read model that reads them. The types of
            unsealed events are unknown, so all of them count.
    """

    letters: tuple[DeadLetter, ...]
    read_models: tuple[str, ...]
    events: int


@dataclass(frozen=True, slots=True)
class Retried:
    """The outcome of a retry.

    Attributes:
        gone: dead letters whose events are applied now, or that no read model reads any more.
        remaining: dead letters that remain.
        new: dead letters that were not there before.
    """

    gone: tuple[DeadLetter, ...]
    remaining: tuple[DeadLetter, ...]
    new: tuple[DeadLetter, ...]


def plan_retry(log: EventLog, domain: Domain, newest: Generation, letters: Iterable[DeadLetter]) -> Retry:
    """Decide what to rebuild for the open dead letters of a generation.

    These are the read models with dead letters; for an event that matched no contract, the read models that read it by
    the current contracts; and redeclared read models, since a rebuild cannot keep their rows.

    Args:
        log: the log.
        domain: the current contracts and read models.
        newest: the generation.
        letters: its dead letters.
    """
    undecided = tuple(letter for letter in letters if letter.discarded_at is None)
    models = _concerned(domain, newest, undecided)
    sealed, unsealed = log.manifest().segments, find_end(log).unsealed
    with CostEstimator(domain) as estimator:
        events = sum(estimator.cost(m, sealed).events + unsealed for m in models)
    return Retry(undecided, tuple(m.name for m in models), events)


def _concerned(domain: Domain, newest: Generation, letters: Sequence[DeadLetter]) -> list[ReadModel]:
    published = [m for m in domain.read_models if m.name in newest.tables]
    named = {letter.read_model for letter in letters}
    schema_keys = {(n.event_type, n.schema_version) for n in letters if not n.read_model}
    wanted = {m.name for m in published if m.name in named or schema_keys & sources_of(domain, m.event_types)}
    if not wanted and any(map(domain.registry.knows, schema_keys)):
        wanted = {m.name for m in published[:1]}  # no read model reads it, but any rebuild finds that it matches now
    if wanted and newest.tables.keys() - {m.name for m in published}:
        return published  # a rebuild cannot keep a read model that is no longer declared
    return [m for m in published if m.name in wanted or (wanted and _changed(m, domain, newest))]


def _changed(model: ReadModel, domain: Domain, newest: Generation) -> bool:
    return fingerprint(fingerprint_parts(model, domain)) != newest.tables[model.name].fingerprint


def compare_dead_letters(before: Iterable[DeadLetter], after: Iterable[DeadLetter]) -> Retried:
    """Compare the open dead letters before and after a rebuild."""
    was: dict[Key, DeadLetter] = {n.key: n for n in before if n.discarded_at is None}
    now: dict[Key, DeadLetter] = {n.key: n for n in after if n.discarded_at is None}
    return Retried(
        gone=tuple(letter for key, letter in was.items() if key not in now),
        remaining=tuple(letter for key, letter in now.items() if key in was),
        new=tuple(letter for key, letter in now.items() if key not in was),
    )
