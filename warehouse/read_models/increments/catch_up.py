"""Catching up: from the checkpoint of each table to the head of the log, increment by increment."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.engine.connections import forget_temporaries
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.read_models import withheld
from refold.warehouse.read_models.database import (
    NOTHING_DISCARDED,
    Checkpoint,
    add_dead_letters,
    checkpoint_at,
    set_checkpoint,
)
from refold.warehouse.read_models.increments.exact_merge import BEFORE
from refold.warehouse.read_models.increments.increment import (
    NO_READ_MODEL,
    Staged,
    TotalBeyondColumn,
    apply_changes,
    prepare_changes,
    stage,
    stage_fold,
)
from refold.warehouse.read_models.increments.spans import Span
from refold.warehouse.read_models.live.indexes import NO_INDEXES, Indexes
from refold.warehouse.read_models.withheld_positions import report_withheld
from refold.warehouse.replay.contributions import Compiled, compile_model
from refold.warehouse.replay.invalid_events import not_discarded, refuse

_EVENTS_PER_INCREMENT = 250_000
"""Unsealed events beyond which an increment ends, so that its contributions fit into memory."""

_ROUNDS = 5
"""Looks for what was appended meanwhile. Each round has less to do than the one before, unless writers are faster."""


@dataclass(frozen=True, slots=True)
class ModelsAtCheckpoint:
    """Read models with the same checkpoint.

    Attributes:
        models: the read models.
        at: their checkpoint.
    """

    models: Sequence[ReadModel]
    at: Checkpoint


def catch_up(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    domain: Domain,
    groups: Sequence[ModelsAtCheckpoint],
    *,
    dead_letter: bool = False,
    discarded: Mapping[tuple[str, int], datetime] = NOTHING_DISCARDED,
) -> None:
    """Advance tables of a working database from their checkpoints to the head of the log.

    Args:
        connection: the working database.
        log: the log.
        domain: contracts and upcasters.
        groups: the read models, by checkpoint.
        dead_letter: keep events that cannot be applied as dead letters, instead of raising.
        discarded: read model and position of discarded dead letters, and when they were discarded; they never raise.

    Raises:
        InvalidEventsError: an event cannot be applied.
    """
    step = functools.partial(advance, connection, log, domain, dead_letter=dead_letter, discarded=discarded)
    head = log.head()
    at = max((g.at for g in groups), key=lambda at: at.position)
    for group in groups:
        if group.models and group.at.position < at.position:
            step(group.models, head, after=group.at.position, to=at)
    models = [m for group in groups for m in group.models]
    for _ in range(_ROUNDS):
        for target in _steps(head, at):
            step(models, head, after=at.position, to=target)
            at = target
        head = log.head()
        if head.position == at.position:
            return


def _steps(head: Head, at: Checkpoint) -> Iterator[Checkpoint]:
    """Yield the checkpoints of increments of bounded size up to the head, each at the end of a commit."""
    if head.sealed.sealed_position > at.position:
        sealed = head.sealed
        at = checkpoint_at(sealed)
        yield at
    before = at.position
    for index, info in enumerate(head.tail):
        if info.last_position <= at.position:
            continue
        last = index == len(head.tail) - 1
        if last or info.last_position - before >= _EVENTS_PER_INCREMENT:
            before = info.last_position
            yield checkpoint_at(info)


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
    discarded: Mapping[tuple[str, int], datetime] = NOTHING_DISCARDED,
) -> None:
    """Apply the events with ``after < position <= to.position`` and the new checkpoint in one transaction."""
    compiled = [compile_model(m, domain) for m in models]
    span = Span(head, after, to)
    try:
        staged = stage(connection, domain, compiled, span.events(connection, log, domain, models))
        apply_staged(connection, log, domain, compiled, [staged], span, dead_letter=dead_letter, discarded=discarded)
    finally:
        forget_temporaries(connection)


def apply_staged(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    domain: Domain,
    models: Sequence[Compiled],
    staged: Sequence[Staged],
    span: Span,
    *,
    dead_letter: bool,
    discarded: Mapping[tuple[str, int], datetime] = NOTHING_DISCARDED,
    indexes: Indexes = NO_INDEXES,
) -> int:
    """Apply the staged contributions of a span, and the new checkpoint, in one transaction.

    Args:
        connection: connection to the database, whose tables are at ``span.after``.
        log: the log.
        domain: contracts and upcasters.
        models: the read models to advance.
        staged: contributions of all events of the span, in any order.
        span: the events.
        dead_letter: keep events that cannot be applied as dead letters, instead of raising.
        discarded: read model and position of discarded dead letters, and when they were discarded.
        indexes: read model to its indexed columns.

    Returns:
        The number of events that could not be applied, counted once for each read model.

    Raises:
        InvalidEventsError: an event cannot be applied; nothing was written.
    """

    def stage_valid(compiled: Compiled) -> tuple[pa.Table | None, list[InvalidEvent]]:
        return stage_fold(connection, domain, compiled, span.events(connection, log, domain, [compiled.model]))

    changes, invalid_events = prepare_changes(connection, models, staged, stage_valid)
    if not dead_letter and (undecided := not_discarded(invalid_events, discarded)):
        raise refuse(undecided, doing="Catching up")
    report = functools.partial(_report_withheld, connection, log, domain, span, invalid_events, discarded)
    exactly = withheld.models_with_withheld(connection)
    while True:
        letters: Counter[str] = Counter()
        connection.execute("BEGIN")
        try:
            apply_changes(connection, changes, indexes, exactly=exactly, report=functools.partial(report, letters))
            add_dead_letters(connection, invalid_events, discarded=discarded)
            set_checkpoint(connection, span.to, domain_name=domain.name, log_id=log.log_id)
            connection.execute("COMMIT")
            return sum(map(len, invalid_events.values())) + letters.total()
        except TotalBeyondColumn as beyond:
            connection.execute("ROLLBACK")
            exactly.add(beyond.read_model)
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _report_withheld(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    domain: Domain,
    span: Span,
    invalid_events: Mapping[str, Sequence[InvalidEvent]],
    discarded: Mapping[tuple[str, int], datetime],
    letters: Counter[str],
    compiled: Compiled,
) -> None:
    """Report the rows that an exact merge withheld, and count the new dead letters."""
    model = compiled.model
    without = {event.position for name in (NO_READ_MODEL, model.name) for event in invalid_events.get(name, ())}
    typed = span.events(connection, log, domain, [model])
    found = report_withheld(connection, domain, compiled, typed, before=BEFORE, without=without)
    withheld.delete_obsolete_letters(connection, model)
    withheld.drop_if_empty(connection, model)
    add_dead_letters(connection, {model.name: found}, discarded=discarded)
    letters[model.name] += len(found)
