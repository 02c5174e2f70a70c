"""Checks of the manifest and of the commits: numbered without a gap, and each what its footer says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from refold.event_schemas import DamagedLogError, ObjectNotFoundError
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import (
    COMMITS,
    MANIFESTS,
    commit_key,
    manifest_key,
    number_of,
)
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.verification.findings import Findings

_AT_ONCE = 1_000
_READERS = 8


def check_manifest(log: EventLog, found: Findings) -> Manifest | None:
    """Load the newest manifest and check it against itself; None if it cannot be read."""
    numbers = [number_of(key) for key in log.store.list_from(MANIFESTS)]
    for before, after in itertools.pairwise(numbers):
        if after != before + 1:
            found.add("manifest", f"{log.url}/{manifest_key(before + 1)}", f"missing, though {after} is there")
    if not numbers:
        return Manifest()
    where = f"{log.url}/{manifest_key(numbers[-1])}"
    try:
        sealed = manifests.decode(log.store.get(manifest_key(numbers[-1])), where=where)
    except DamagedLogError as error:
        found.add("manifest", where, f"it cannot be read ({error.__cause__})")
        return None
    if sealed.number != numbers[-1]:
        found.add("manifest", where, f"it says that it is number {sealed.number}")
    keys = [s.key for s in sealed.segments]
    for key in sorted({k for k in keys if keys.count(k) > 1} if len(set(keys)) < len(keys) else ()):
        found.add("manifest", where, f"it names the segment {key} twice")
    if (events := sum(s.rows for s in sealed.segments)) != sealed.sealed_position:
        found.add(
            "manifest", where, f"it is sealed up to position {sealed.sealed_position}, but its segments hold {events}"
        )
    return sealed


@dataclass(frozen=True, slots=True)
class Commits:
    """The commits that are there.

    Attributes:
        ranges: number, first and last position of every commit whose footer can be read.
        tail: the commits that are not sealed, up to the first that is missing or damaged.
    """

    ranges: pa.Table
    tail: tuple[CommitInfo, ...]


def check_commits(connection: duckdb.DuckDBPyConnection, log: EventLog, sealed: Manifest, found: Findings) -> Commits:
    """Check all footers, and the rows of the commits that are not sealed, which end up in the table ``_tail``."""
    numbers = sorted(number_of(key) for key in log.store.list_from(COMMITS))
    _check_numbers(log, numbers, sealed, found)
    ranges: list[tuple[int, int, int]] = []
    tail: list[CommitInfo] = []
    before: CommitInfo | None = None
    for number, info in _footers(log, numbers, found):
        if info is not None:
            _check_footer(log, number, info, before, found)
            _check_seam(log, number, info, sealed, found)
            ranges.append((number, info.first_position, info.last_position))
            if number == sealed.sealed_commit + 1 + len(tail):
                tail.append(info)
        before = info
    table = pa.table(dict(zip(("number", "first", "last"), _transposed(ranges), strict=True)))
    whole = _load_tail(connection, log, tail, found)
    if readable := len(tail) - len(whole):
        found.skip(f"the {readable} commits from {tail[len(whole)].number} on, since they follow a damaged one")
    return Commits(table, tuple(whole))


def _transposed(ranges: list[tuple[int, int, int]]) -> list[pa.Array]:
    return [pa.array([r[i] for r in ranges], pa.int64()) for i in range(3)]


def _check_numbers(log: EventLog, numbers: Sequence[int], sealed: Manifest, found: Findings) -> None:
    # Commits that were sealed long ago may be gone for good: so the first number is free up to the seal.
    expected = min(numbers[0], sealed.sealed_commit + 1) if numbers else 0
    for number in numbers:
        if number > expected:
            known = "its events are sealed" if number - 1 <= sealed.sealed_commit else "readers stop before it"
            found.add(
                "commit",
                f"{log.url}/{commit_key(expected)}",
                f"missing ({number - expected} commits up to {number - 1}), though commit {number} is there; {known}",
                "Append nothing until it is restored from a backup of the store.",
            )
        expected = number + 1
    if numbers and numbers[-1] < sealed.sealed_commit:
        found.add(
            "manifest",
            f"{log.url}/{manifest_key(sealed.number)}",
            f"it is sealed up to commit {sealed.sealed_commit}, but the last commit is {numbers[-1]}",
        )


def _footers(log: EventLog, numbers: Sequence[int], found: Findings) -> Iterator[tuple[int, CommitInfo | None]]:
    def footer(number: int) -> CommitInfo | DamagedLogError | None:
        try:
            return log.commit_info(number)
        except DamagedLogError as error:
            return error

    with ThreadPoolExecutor(_READERS) as pool:
        for i in range(0, len(numbers), _AT_ONCE):
            part = numbers[i : i + _AT_ONCE]
            for number, info in zip(part, pool.map(footer, part), strict=True):
                if isinstance(info, DamagedLogError):
                    found.add("commit", f"{log.url}/{commit_key(number)}", f"truncated or no commit ({info.__cause__})")
                yield number, info if isinstance(info, CommitInfo) else None


def _check_footer(log: EventLog, number: int, info: CommitInfo, before: CommitInfo | None, found: Findings) -> None:
    where = f"{log.url}/{commit_key(number)}"
    if info.number != number:
        found.add("commit", where, f"its footer says that it is commit {info.number}")
    if number == 1 and info.first_position != 1:
        found.add("position", where, f"the first commit begins at position {info.first_position}, expected 1")
    if before is None or before.number != number - 1:
        return
    if info.first_position != before.last_position + 1:
        found.add(
            "position",
            where,
            f"it begins at position {info.first_position}, expected {before.last_position + 1}",
        )
    if info.recorded_at < before.recorded_at:
        found.add("commit", where, f"recorded at {info.recorded_at}, before its predecessor ({before.recorded_at})")


def _check_seam(log: EventLog, number: int, info: CommitInfo, sealed: Manifest, found: Findings) -> None:
    """Check that the manifest ends where a commit ends."""
    where = f"{log.url}/{manifest_key(sealed.number)}"
    if number == sealed.sealed_commit:
        if info.last_position != sealed.sealed_position:
            found.add(
                "manifest",
                where,
                f"sealed up to commit {number} and position {sealed.sealed_position}, but that commit ends at position "
                f"{info.last_position}",
            )
        if info.recorded_at.isoformat() != sealed.recorded_at:
            found.add(
                "manifest", where, f"recorded_at is {sealed.recorded_at}, expected {info.recorded_at.isoformat()}"
            )
    if number == sealed.sealed_commit + 1 and info.first_position != sealed.sealed_position + 1:
        found.add(
            "manifest",
            where,
            f"sealed up to position {sealed.sealed_position}, but commit {number} behind it begins at position "
            f"{info.first_position}",
        )
    if info.import_id is not None and number <= sealed.sealed_commit and sealed.imports.get(info.import_id) != number:
        found.add("manifest", where, f"it does not know the bulk import {info.import_id} of commit {number}")


_TAIL = pa.schema(
    [
        ("commit_number", pa.int64()),
        ("position", pa.int64()),
        ("stream_id", pa.string()),
        ("stream_version", pa.int64()),
        ("event_id", pa.string()),
        ("_number", pa.int64()),
    ]
)


def _load_tail(
    connection: duckdb.DuckDBPyConnection, log: EventLog, tail: Sequence[CommitInfo], found: Findings
) -> list[CommitInfo]:
    """Read the rows of the tail into ``_tail``, up to the first commit that is damaged."""
    connection.register("_empty", _TAIL.empty_table())
    connection.execute(
        f"CREATE TEMP TABLE _tail AS SELECT *, md5_number_lower(stream_id) % {log.bucket_count} AS bucket FROM _empty"
    )
    whole: list[CommitInfo] = []
    for i in range(0, len(tail), _AT_ONCE):
        part = tail[i : i + _AT_ONCE]
        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(pool.map(lambda info: _rows(log, info), part))
        readable = next((n for n, t in enumerate(tables) if isinstance(t, Exception)), len(part))
        _insert(connection, log, part[:readable], [t for t in tables[:readable] if isinstance(t, pa.Table)], found)
        whole += part[:readable]
        if readable < len(part):
            where = f"{log.url}/{commit_key(part[readable].number)}"
            found.add("commit", where, f"its rows cannot be read ({tables[readable]})")
            break
    return whole


def _rows(log: EventLog, info: CommitInfo) -> pa.Table | Exception:
    try:
        path = log.store.local_path(commit_key(info.number))
        table = pq.read_table(path, page_checksum_verification=True, partitioning=None)
        number = pa.array([info.number] * len(table), pa.int64())
        return table.select(_TAIL.names[:-1]).append_column("_number", number)
    except (pa.ArrowException, OSError, ObjectNotFoundError, KeyError) as error:
        return error


def _insert(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    infos: Sequence[CommitInfo],
    tables: Sequence[pa.Table],
    found: Findings,
) -> None:
    if not infos:
        return
    connection.register("_part", pa.concat_tables([t.cast(_TAIL) for t in tables]))
    connection.execute(f"INSERT INTO _tail SELECT *, md5_number_lower(stream_id) % {log.bucket_count} FROM _part")
    rows = connection.execute(
        "SELECT _number, count(*), count(DISTINCT position), min(position), max(position), "
        "bool_and(commit_number = _number) FROM _part GROUP BY 1"
    ).fetchall()
    counted = {row[0]: row[1:] for row in rows}
    for info in infos:
        told = (info.events, info.events, info.first_position, info.last_position, True)
        if info.import_id is None and (real := counted.get(info.number)) != told:
            found.add(
                "commit",
                f"{log.url}/{commit_key(info.number)}",
                f"its footer tells of positions {info.first_position} to {info.last_position}, its rows are others "
                f"(events, positions, first, last: {real[:4] if real else 'none'})",
            )
    _check_heads(connection, log, infos, found)


def _check_heads(
    connection: duckdb.DuckDBPyConnection, log: EventLog, infos: Sequence[CommitInfo], found: Findings
) -> None:
    told = [(info.number, stream_id, version) for info in infos for stream_id, version in info.heads.items()]
    columns = [pa.array([t[0] for t in told], pa.int64()), pa.array([t[1] for t in told], pa.string())]
    columns.append(pa.array([t[2] for t in told], pa.int64()))
    connection.register("_told", pa.table(columns, names=["_number", "stream_id", "version"]))
    rows = connection.execute(
        "SELECT _number, stream_id, t.version, r.version FROM _told t FULL JOIN "
        "(SELECT _number, stream_id, max(stream_version) AS version FROM _part GROUP BY ALL) r "
        "USING (_number, stream_id) WHERE t.version IS DISTINCT FROM r.version ORDER BY ALL"
    ).fetchall()
    for number, stream_id, version, real in rows:
        where = f"{log.url}/{commit_key(number)}"
        found.add("heads", where, f"its footer puts stream {stream_id!r} at version {version}, its rows at {real}")
