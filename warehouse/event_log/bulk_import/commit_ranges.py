"""Where an import through ordinary commits is cut: never inside a run that a merger joins.

A merger joins consecutive events of one stream, if one commit has them. An import as segments is one commit; so an
import as several commits means the same only if each run is in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from refold.event_schemas import Registry, UsageError
from refold.warehouse.event_log.bulk_import.spool import Spooled

Integers = np.ndarray[Any, np.dtype[np.int64]]

MAX_EVENTS = 1_000_000
"""Events of a commit, which a reader holds in memory; a longer run cannot be imported through commits."""


def commit_ranges(spooled: Spooled, registry: Registry, size: int) -> Iterator[tuple[int, int]]:
    """Return the positions of each commit, the last one included.

    Args:
        spooled: the import.
        registry: the contracts.
        size: events of a commit, if no run is cut by that.

    Raises:
        UsageError: a commit would be too large.
    """
    starts, ends = _runs(spooled, registry)
    after = 0
    while after < spooled.events:
        up_to = _cut(starts, ends, after, min(after + size, spooled.events))
        if up_to - after > max(MAX_EVENTS, size):
            raise UsageError(
                f"A merger joins events of this import from position {after + 1:,} to {up_to:,}, more than one commit "
                f"may have ({MAX_EVENTS:,}). Import the history into a new log, or as files that end between such runs."
            )
        yield after + 1, up_to
        after = up_to


def _cut(starts: Integers, ends: Integers, after: int, wanted: int) -> int:
    """Return the last place for a cut up to the wanted one; if there is none, the first behind it."""
    inside = np.searchsorted(starts, wanted, side="right") - 1  # the last run that begins at or before the cut
    if inside < 0 or ends[inside] <= wanted:
        return wanted
    before = int(starts[inside]) - 1
    return before if before > after else int(ends[inside])


def _runs(spooled: Spooled, registry: Registry) -> tuple[Integers, Integers]:
    """Return first and last positions between which there must be no cut: sorted, and no two of them touch."""
    merged = registry.merged_schemas()
    if not merged:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    pairs = [_pairs(spooled, bucket, merged) for bucket in spooled.buckets()]
    starts, ends = (np.concatenate(column) for column in zip(*pairs, strict=True))
    order = np.argsort(starts)
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    begins = np.concatenate([[True], starts[1:] > ends[:-1]]) if len(starts) else np.empty(0, bool)
    return starts[begins], np.maximum.reduceat(ends, np.flatnonzero(begins)) if len(starts) else ends


def _pairs(spooled: Spooled, bucket: int, merged: frozenset[tuple[str, int]]) -> tuple[Integers, Integers]:
    """Return the positions of consecutive events of one stream that a merger may join."""
    batches = [(key in merged, b) for key, of_schema in spooled.read_bucket(bucket).items() for b in of_schema]
    if not batches:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    position = np.concatenate([b.rows["position"].to_numpy() + b.base for _, b in batches])
    joins = np.concatenate([np.full(b.rows.num_rows, is_merged) for is_merged, b in batches])
    streams = pa.chunked_array([b.rows["stream_id"] for _, b in batches]).dictionary_encode().combine_chunks()
    stream = streams.indices.to_numpy()
    order = np.lexsort((position, stream))
    position, joins, stream = position[order], joins[order], stream[order]
    linked = joins[:-1] & joins[1:] & (stream[:-1] == stream[1:])
    return position[:-1][linked], position[1:][linked]
