"""What a rebuild reads from the archive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from refold.event_schemas import UsageError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.replay.history import sources_of


def archived_segments(domain: Domain, model: ReadModel, segments: Iterable[Segment], after: int = 0) -> list[Segment]:
    """Return the archived segments that a rebuild of a read model reads; each is read as a whole.

    Args:
        domain: its domain.
        model: the read model.
        segments: the live segments of the log.
        after: the position of its seed; 0 without one.
    """
    schema_keys = sources_of(domain, model.event_types)
    return [
        s
        for s in segments
        if s.archive
        and s.last_position + s.position_base > after
        and (s.schema_key in schema_keys or s.untyped or not domain.registry.knows(s.schema_key))
    ]


def refuse_archived(
    domain: Domain, models: Iterable[ReadModel], segments: Iterable[Segment], seeds: Mapping[str, int]
) -> None:
    """Refuse a rebuild that would read the archive.

    Args:
        domain: the domain.
        models: the read models to be rebuilt.
        segments: the live segments of the log.
        seeds: read model to the position of its seed.

    Raises:
        UsageError: it would.
    """
    live = list(segments)
    for model in models:
        if found := archived_segments(domain, model, live, seeds.get(model.name, 0)):
            last = max(s.last_position + s.position_base for s in found)
            raise UsageError(
                f"Read model {model.name} needs {sum(s.rows for s in found):,} events from the archive "
                f"{found[0].archive}, up to position {last:,}. Declare a seed= for it that starts there or later, "
                "restore them with `refold archive restore`, or leave out --hot-only."
            )
