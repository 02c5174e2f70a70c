"""Retrying dead letters: which read models a rebuild must replay for them, how much that is, and what came of it."""

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
from refold.warehouse.read_models.planning.cost import replay_cost
from refold.warehouse.replay.contributions import compile_model
from refold.warehouse.replay.history import sources_of


@dataclass(frozen=True, slots=True)
class Retry:
    """What retrying some dead letters takes.

    Attributes:
        letters: the open letters.
        read_models: names of those to rebuild; none if no read model of the domain could take any of the events.
        events: how many events that replays at most, each counted once a read model that reads it: of those that are
            not sealed yet it is not known who reads them.
    """

    letters: tuple[DeadLetter, ...]
    read_models: tuple[str, ...]
    events: int


@dataclass(frozen=True, slots=True)
class Retried:
    """What came of a retry.

    Attributes:
        gone: letters whose events are applied now, or that no read model asks for any more.
        remaining: letters that are as they were.
        new: letters that were not there before.
    """

    gone: tuple[DeadLetter, ...]
    remaining: tuple[DeadLetter, ...]
    new: tuple[DeadLetter, ...]


def plan_retry(log: EventLog, domain: Domain, newest: Generation, letters: Iterable[DeadLetter]) -> Retry:
    """Decide what to rebuild for the open letters of a generation.

    That is every read model that has a letter; for an event that fitted no contract, those that today's contracts
    would give it to; and what was declared otherwise when the generation was built, since it cannot be taken over.

    Args:
        log: the log.
        domain: contracts and read models as they are today.
        newest: the generation.
        letters: its dead letters.
    """
    undecided = tuple(letter for letter in letters if letter.discarded_at is None)
    models = _concerned(domain, newest, undecided)
    sealed, unsealed = log.manifest().segments, find_end(log).unsealed
    events = sum(replay_cost(compile_model(m, domain), domain, sealed).events + unsealed for m in models)
    return Retry(undecided, tuple(m.name for m in models), events)


def _concerned(domain: Domain, newest: Generation, letters: Sequence[DeadLetter]) -> list[ReadModel]:
    published = [m for m in domain.read_models if m.name in newest.tables]
    named = {letter.read_model for letter in letters}
    schema_keys = {(n.event_type, n.schema_version) for n in letters if not n.read_model}
    wanted = {m.name for m in published if m.name in named or schema_keys & sources_of(domain, m.event_types)}
    if not wanted and any(map(domain.registry.knows, schema_keys)):
        wanted = {m.name for m in published[:1]}  # no read model asks for it, but any rebuild finds that it fits now
    if wanted and newest.tables.keys() - {m.name for m in published}:
        return published  # a read model that the domain has lost cannot be taken over
    return [m for m in published if m.name in wanted or (wanted and _changed(m, domain, newest))]


def _changed(model: ReadModel, domain: Domain, newest: Generation) -> bool:
    return fingerprint(fingerprint_parts(model, domain)) != newest.tables[model.name].fingerprint


def compare_letters(before: Iterable[DeadLetter], after: Iterable[DeadLetter]) -> Retried:
    """Tell which open letters a rebuild has resolved, which remain, and which are new."""
    was: dict[Key, DeadLetter] = {n.key: n for n in before if n.discarded_at is None}
    now: dict[Key, DeadLetter] = {n.key: n for n in after if n.discarded_at is None}
    return Retried(
        gone=tuple(letter for key, letter in was.items() if key not in now),
        remaining=tuple(letter for key, letter in now.items() if key in was),
        new=tuple(letter for key, letter in now.items() if key not in was),
    )
