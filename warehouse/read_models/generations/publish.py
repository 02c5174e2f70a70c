"""Publishing: a finished working database becomes the next generation, in one put-if-absent.

Rebuilds, streams and seeded builds all end here. A publisher that loses the race gets None, and nothing has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint_parts, view_digests
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import TableSummary
from refold.warehouse.read_models.generations.generations import (
    Generation,
    Generations,
    Measured,
    PublishedTable,
    Seed,
    now,
)


def publish(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    log: EventLog,
    domain: Domain,
    generations: Generations,
    parent: Generation | None,
    *,
    seeds: Mapping[str, Seed] | None = None,
    measure: Callable[[], Measured] | None = None,
    kind: str = "rebuild",
) -> Generation | None:
    """Finish a working database, close it, and publish it, without what the domain no longer declares.

    Args:
        connection: the working database; this closes it.
        path: its file.
        log: the log of the events.
        domain: contracts and read models.
        generations: the generations to publish to.
        parent: the generation before the new one.
        seeds: read model to the seed from which this rebuild started it.
        measure: returns the measurement of a rebuild once it is done; the parent's is kept by default.
        kind: origin of the generation, see :class:`Generation`.

    Returns:
        The new generation, or None if another publisher was first.
    """
    database.drop_views(connection)
    database.drop_undeclared(connection, domain)
    database.create_views(connection, domain)
    at = database.get_checkpoint(connection)
    tables = {t.name: _published(t, domain, parent, seeds or {}) for t in database.finish(connection, domain)}
    connection.close()
    file, size = generations.upload(path)
    generation = Generation(
        number=(parent.number if parent else 0) + 1,
        file=file,
        bytes=size,
        position=at.position,
        commit_number=at.commit_number,
        recorded_at=at.recorded_at,
        commit_digest=at.commit_digest,
        published_at=now(),
        parent=parent.number if parent else 0,
        log_id=log.log_id,
        kind=kind,
        tables=tables,
        views=view_digests(domain),
        measured=_more_reliable(measure() if measure else None, parent.measured if parent else None),
    )
    return generation if generations.publish(generation) else None


def _more_reliable(now: Measured | None, before: Measured | None) -> Measured | None:
    """Return the newer measurement, unless it has less than a tenth of the events of the older one."""
    if now is None or (before is not None and now.events * 10 < before.events):
        return before
    return now


def _published(
    table: TableSummary, domain: Domain, parent: Generation | None, seeds: Mapping[str, Seed]
) -> PublishedTable:
    """Describe a table; one whose rows were kept also keeps its seed."""
    before = parent.tables.get(table.name) if parent else None
    kept = before.seed if before and before.fingerprint == table.fingerprint else None
    return PublishedTable(
        fingerprint=table.fingerprint,
        parts=fingerprint_parts(domain.read_model(table.name), domain),
        rows=table.rows,
        checksum=table.checksum,
        seed=seeds.get(table.name, kept),
        erasures=table.erasures,
    )
