"""Catching up: from where each table stands to the head of the log, increment by increment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb

from warehouse.broken import refuse
from warehouse.contributions import compile_model
from warehouse.domain import Domain
from warehouse.event_log.log import EventLog, Head
from warehouse.parsing import BrokenEvent
from warehouse.projection import ReadModel
from warehouse.read_models.database import Checkpoint, add_dead_letters, get_checkpoint, set_checkpoint
from warehouse.read_models.events import typed_range
from warehouse.read_models.increment import apply_increment
from warehouse.replay import sources_of

_EVENTS_AN_INCREMENT = 250_000


def catch_up(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    domain: Domain,
    *,
    kept: Sequence[ReadModel] = (),
    kept_since: Checkpoint | None = None,
    dead_letter: bool = False,
) -> None:
    """Bring every table of a working database to the head of the log.

    Args:
        connection: the working database; its checkpoint says where the tables stand.
        log: the log.
        domain: contracts, upcasters and read models.
        kept: read models that stand elsewhere, at ``kept_since``: they are brought to the checkpoint first.
        kept_since: where they stand.
        dead_letter: keep events that cannot be applied, in place of stopping.

    Raises:
        BrokenEventsError: an event cannot be applied.
    """
    at = get_checkpoint(connection)
    head = log.head()
    if kept and kept_since is not None and kept_since.position < at.position:
        advance(connection, log, domain, kept, head, after=kept_since.position, to=at, dead_letter=dead_letter)
    while True:
        for target in _steps(head, at):
            models = domain.read_models
            advance(connection, log, domain, models, head, after=at.position, to=target, dead_letter=dead_letter)
            at = target
        head = log.head()
        if head.position == at.position:
            return


def _steps(head: Head, at: Checkpoint) -> Iterator[Checkpoint]:
    """Cut the way to the head between commits, into increments of bounded size."""
    if head.sealed.sealed_position > at.position:
        sealed = head.sealed
        at = Checkpoint(sealed.sealed_position, sealed.sealed_commit, sealed.recorded_at)
        yield at
    before = at.position
    for index, info in enumerate(head.tail):
        if info.last_position <= at.position:
            continue
        last = index == len(head.tail) - 1
        if last or info.last_position - before >= _EVENTS_AN_INCREMENT:
            before = info.last_position
            yield Checkpoint(info.last_position, info.number, info.recorded_at.isoformat())


def advance(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    domain: Domain,
    models: Sequence[ReadModel],
    head: Head,
    *,
    after: int,
    to: Checkpoint,
    dead_letter: bool,
) -> None:
    """Apply the events of ``after < position <= to.position`` and the new checkpoint in one transaction."""
    shapes = sources_of(domain, [t for m in models for t in m.event_types])
    compiled = [compile_model(m, domain) for m in models]
    typed = typed_range(connection, log, domain.registry, head, shapes=shapes, after=after, up_to=to.position)
    connection.execute("BEGIN")
    try:
        broken: dict[str, Sequence[BrokenEvent]] = dict(apply_increment(connection, domain, compiled, typed))
        if typed.broken:
            broken[""] = typed.broken
        if broken and not dead_letter:
            raise refuse([b for found in broken.values() for b in found], doing="Catching up")
        add_dead_letters(connection, broken)
        set_checkpoint(connection, to, domain_name=domain.name, log_id=log.log_id)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
