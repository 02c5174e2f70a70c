"""Rebuilding a read model in units: what a worker stages for one bucket, and how staged objects are merged.

How a read model is staged depends on which streams hold the events of one key:

======================  ==========================================  ==================================
keys                    a bucket's staged object holds              merging
======================  ==========================================  ==================================
one stream              finished rows                               none: they are loaded as they are
any, no deletes         partials, one row for each key              combine partials of one key
any, otherwise          contributions (a delete or a fold needs     all contributions of a key, in
                        those of all buckets in order)              position order
======================  ==========================================  ==================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path

import duckdb

from refold.warehouse.declarations.projection import keyed_by_stream
from refold.warehouse.engine.duckdb_types import staged, unstaged
from refold.warehouse.engine.parquet_files import copy_to_parquet, parquet_relation
from refold.warehouse.replay.contributions import (
    Compiled,
    combined,
    contribution_types,
    contributions,
    is_fold,
    partial_types,
    partials,
    position_of,
    row_types,
    rows,
)
from refold.warehouse.replay.folds import FoldFailure, fold_rows
from refold.warehouse.replay.history import Replay

PARTS = 4
"""Number of groups of keys, each of which a worker merges."""

_STAGED_ROW_GROUP = 32_768


class Staging(Enum):
    """What a bucket's staged object holds."""

    ROWS = "rows"
    PARTIALS = "partials"
    CONTRIBUTIONS = "contributions"


def staging_of(compiled: Compiled) -> Staging:
    """Return how a read model is staged."""
    if keyed_by_stream(compiled.model):
        return Staging.ROWS
    return Staging.CONTRIBUTIONS if is_fold(compiled) or compiled.model.deletes else Staging.PARTIALS


def stage(connection: duckdb.DuckDBPyConnection, compiled: Compiled, replay: Replay, path: Path) -> bool:
    """Write the contributions of one bucket to a read model.

    Returns:
        Whether there are any.

    Raises:
        duckdb.Error: an event cannot be applied.
        FoldFailure: the fold raised.
    """
    source = contributions(compiled, replay.events)
    if source is None:
        return False
    how = staging_of(compiled)
    if how is Staging.CONTRIBUTIONS:
        _copy_by_part(connection, compiled, source, path)
    elif how is Staging.PARTIALS:
        _copy_by_part(connection, compiled, _partials(connection, compiled, source), path)
    elif is_fold(compiled):
        _copy_states(connection, compiled, source, path)
    else:
        _copy(connection, rows(compiled, _partials(connection, compiled, source)), row_types(compiled.model), path)
    return True


def _staged_types(compiled: Compiled) -> dict[str, str]:
    """Return the columns of staged objects that are merged, with their DuckDB types."""
    return partial_types(compiled) if staging_of(compiled) is Staging.PARTIALS else contribution_types(compiled)


def groups_of(compiled: Compiled) -> list[str]:
    """Return the names of the groups in which staged objects are merged; none if they need no merging."""
    parts = 0 if staging_of(compiled) is Staging.ROWS else PARTS
    return [f"{compiled.model.name}/{part}" for part in range(parts)]


def merge(
    connection: duckdb.DuckDBPyConnection,
    compiled: Compiled,
    part: int,
    staged: Sequence[Path],
    path: Path,
    *,
    without: Iterable[int] = (),
) -> dict[int, str]:
    """Merge the staged objects of all buckets into finished rows, for one group of keys.

    Args:
        connection: the worker's connection.
        compiled: the read model.
        part: number of the group of keys.
        staged: staged objects of the buckets.
        path: path of the file with the rows.
        without: positions of events to exclude, because a fold failed on them in another group.

    Returns:
        Position and reason of each event on which a fold failed; the rows exclude these events.
    """
    own = f"(SELECT * EXCLUDE (_part) FROM {parquet_relation(staged)} WHERE _part = {part})"
    own = f"({unstaged(own, _staged_types(compiled))})"
    if staging_of(compiled) is Staging.PARTIALS:
        _copy(connection, rows(compiled, combined(compiled, own)), row_types(compiled.model), path)
    elif is_fold(compiled):
        return _merge_fold(connection, compiled, own, path, set(without))
    else:
        _copy(connection, rows(compiled, _partials(connection, compiled, own)), row_types(compiled.model), path)
    return {}


def _merge_fold(
    connection: duckdb.DuckDBPyConnection, compiled: Compiled, source: str, path: Path, without: set[int]
) -> dict[int, str]:
    failed: dict[int, str] = {}
    while True:
        excluded = ", ".join(map(str, without | set(failed)))
        kept = f"(SELECT * FROM {source} WHERE {position_of(compiled)} NOT IN ({excluded}))" if excluded else source
        try:
            _copy_states(connection, compiled, kept, path)
        except FoldFailure as failure:
            failed[failure.position] = failure.reason
        else:
            return failed


def _partials(connection: duckdb.DuckDBPyConnection, compiled: Compiled, source: str) -> str:
    if not compiled.model.deletes:
        return partials(compiled, f"({source})")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _contributions AS {source}")
    return partials(compiled, "_contributions")


def _copy_by_part(connection: duckdb.DuckDBPyConnection, compiled: Compiled, source: str, path: Path) -> None:
    """Write rows sorted by group of keys, so that merging a group skips the row groups of others.

    DuckDB's own hash suffices, since one version of DuckDB stages and merges a rebuild.
    """
    part = f"(hash({compiled.keys}) % {PARTS})::INTEGER AS _part"
    types = {**_staged_types(compiled), "_part": "INTEGER"}
    _copy(connection, f"SELECT *, {part} FROM ({source}) ORDER BY _part", types, path)


def _copy_states(connection: duckdb.DuckDBPyConnection, compiled: Compiled, source: str, path: Path) -> None:
    connection.register("_states", fold_rows(connection, compiled, source))
    _write(connection, "FROM _states", path)
    connection.unregister("_states")


def _copy(connection: duckdb.DuckDBPyConnection, select: str, types: Mapping[str, str], path: Path) -> None:
    _write(connection, staged(f"({select})", types), path)


def _write(connection: duckdb.DuckDBPyConnection, select: str, path: Path) -> None:
    copy_to_parquet(connection, select, path, f"COMPRESSION lz4, ROW_GROUP_SIZE {_STAGED_ROW_GROUP}")
