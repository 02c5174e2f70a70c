"""Whether a stream rebuilds before it follows the log: because it must, or because that is faster."""

from __future__ import annotations

from dataclasses import dataclass

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.generations.generations import Generation
from refold.warehouse.read_models.live.live_database import check_followable, stale_models
from refold.warehouse.read_models.planning.rate import rate_of
from refold.warehouse.replay.history import sources_of

INCREMENTAL_RATE = 200_000
"""Events per second, measured for the order read models; the rate of rebuilds comes from the newest generation."""

_WORTH_A_REBUILD = 3.0
"""Seconds of catching up below which a stream never rebuilds."""


@dataclass(frozen=True, slots=True)
class FirstRebuild:
    """A rebuild before a stream follows the log.

    Attributes:
        reason: the reason, as a sentence.
        names: names of the read models; empty means all.
    """

    reason: str
    names: tuple[str, ...] = ()


def rebuild_first(
    log: EventLog, domain: Domain, newest: Generation | None, *, workers: int, if_cheaper: bool
) -> FirstRebuild | None:
    """Decide what to rebuild before following the log from the newest generation.

    Args:
        log: the log.
        domain: contracts and read models.
        newest: the newest generation.
        workers: number of workers of a rebuild.
        if_cheaper: rebuild everything if the backlog is so large that this is faster.

    Raises:
        GenerationError: the generation was built from another log.
    """
    if newest is None:
        return FirstRebuild("Nothing is published yet: rebuilding first.")
    if newest.log_id != log.log_id:
        check_followable(log, domain, newest)
    if stale := stale_models(domain, newest):
        reason = f"New or changed since generation {newest.number}: {', '.join(stale)}. Rebuilding."
        return FirstRebuild(reason, () if len(stale) == len(domain.read_models) else tuple(stale))
    return _cheaper(log, domain, newest, workers) if if_cheaper else None


def _cheaper(log: EventLog, domain: Domain, newest: Generation, workers: int) -> FirstRebuild | None:
    end = log.last_commit(newest.commit_number)
    backlog = end.last_position - newest.position if end else 0
    catching_up = backlog / INCREMENTAL_RATE
    if catching_up < _WORTH_A_REBUILD:
        return None
    rebuilding = rate_of(newest).seconds(_replayed_events(log, domain, newest.position + backlog), workers)
    if catching_up < rebuilding:
        return None
    return FirstRebuild(
        f"{backlog:,} events behind: catching up would take about {catching_up:.0f} s, a rebuild of all about "
        f"{rebuilding:.0f} s. Rebuilding."
    )


def _replayed_events(log: EventLog, domain: Domain, position: int) -> int:
    """Estimate the events that a rebuild replays, once for each read model, from the types of the sealed ones."""
    sealed = log.manifest()
    if not sealed.sealed_position:
        return position * len(domain.read_models)
    schema_keys = [sources_of(domain, m.event_types) for m in domain.read_models]
    replayed = sum(s.rows for wanted in schema_keys for s in sealed.segments_of(wanted))
    return replayed * position // sealed.sealed_position
