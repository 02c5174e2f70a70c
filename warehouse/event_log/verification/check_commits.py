"""Checks of the manifest and of the commits: no gap in their numbers, and rows that match their footers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields

import duckdb
import pyarrow as pa

from refold.event_schemas import DamagedLogError, ObjectNotFoundError
from refold.warehouse.engine.parquet_files import open_parquet
from refold.warehouse.event_log.clocks import WrongClock, wrong_clocks
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import (
    COMMITS,
    MANIFESTS,
    bucket_sql,
    commit_key,
    manifest_key,
    number_of,
    numbered,
)
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.verification.findings import Findings

_BATCH = 1_000
"""Commits read into memory together."""

_READERS = 8
_TIMED = ("number", "uuid", "first_position", "last_position", "recorded_at")
"""What is kept in memory of every commit."""


def check_manifest(log: EventLog, findings: Findings) -> Manifest | None:
    """Load all manifests and check the consistency of the newest; return None if that cannot be read."""
    _name_strays(log, MANIFESTS, "manifest", findings)
    numbers = [number_of(key) for key in numbered(log.store.list_from(MANIFESTS))]
    for before, after in itertools.pairwise(numbers):
        if after != before + 1:
            findings.add("manifest", f"{log.url}/{manifest_key(before + 1)}", f"missing, but {after} exists")
    if not numbers:
        return log.manifest(0)
    for number in numbers[:-1]:
        with suppress(ObjectNotFoundError):  # removed since the listing
            _load_manifest(log, number, findings, is_newest=False)
    sealed = _load_manifest(log, numbers[-1], findings, is_newest=True)
    if sealed is None:
        return None
    where = f"{log.url}/{manifest_key(sealed.number)}"
    keys = [s.key for s in sealed.segments]
    for key in sorted({k for k in keys if keys.count(k) > 1} if len(set(keys)) < len(keys) else ()):
        findings.add("manifest", where, f"it names the segment {key} twice")
    if (events := sum(s.rows for s in sealed.segments)) != sealed.sealed_position:
        findings.add(
            "manifest",
            where,
            f"sealed up to position {sealed.sealed_position}, but its segments hold {events} events",
        )
    return sealed


def _load_manifest(log: EventLog, number: int, findings: Findings, *, is_newest: bool) -> Manifest | None:
    """Load a manifest and its parts; older ones serve those who began before the newest."""
    try:
        found = log.manifest(number)
        list(found.segments)  # which reads the parts
    except DamagedLogError as error:
        is_removed = isinstance(error.__cause__, ObjectNotFoundError) and not is_newest
        if not is_removed:  # meanwhile, with the manifest
            findings.add("manifest", f"{log.url}/{manifest_key(number)}", f"it cannot be read ({error})")
        return None
    return found


@dataclass(frozen=True, slots=True)
class Commits:
    """The commits of the log.

    Attributes:
        ranges: number, first and last position of every commit whose footer can be read.
        tail: the unsealed commits, up to the first that is missing or damaged.
        wrong_clocks: the commits whose writers' clocks were wrong, which damages nothing.
    """

    ranges: pa.Table
    tail: tuple[CommitInfo, ...]
    wrong_clocks: tuple[WrongClock, ...]


def check_commits(
    connection: duckdb.DuckDBPyConnection, log: EventLog, sealed: Manifest, findings: Findings, *, rows: bool = True
) -> Commits:
    """Check all footers, and the rows of unsealed commits, and load these into the table ``_tail``."""
    _name_strays(log, COMMITS, "commit", findings)
    numbers = log.commit_numbers()
    _check_numbers(log, numbers, sealed, findings)
    ranges: list[tuple[int, int, int]] = []
    timed: list[CommitInfo] = []
    tail: list[CommitInfo] = []
    before: CommitInfo | None = None
    for number, info in _footers(log, numbers, findings):
        if info is not None:
            _check_footer(log, number, info, before, findings)
            _check_manifest_end(log, number, info, sealed, findings)
            ranges.append((number, info.first_position, info.last_position))
            timed.append(CommitInfo(**{f.name: getattr(info, f.name) for f in fields(info) if f.name in _TIMED}))
            if number == sealed.sealed_commit + 1 + len(tail):
                tail.append(info)
        before = info
    table = pa.table(dict(zip(("number", "first", "last"), _transposed(ranges), strict=True)))
    loaded = _load_tail(connection, log, tail, sealed.bucket_count, findings) if rows else tail
    if rest := len(tail) - len(loaded):
        findings.skip(f"the {rest} commits from {tail[len(loaded)].number} on, since the first of them is damaged")
    return Commits(table, tuple(loaded), tuple(wrong_clocks(timed)))


def _transposed(ranges: list[tuple[int, int, int]]) -> list[pa.Array]:
    return [pa.array([r[i] for r in ranges], pa.int64()) for i in range(3)]


def _check_numbers(log: EventLog, numbers: Sequence[int], sealed: Manifest, findings: Findings) -> None:
    # Sealed commits may have been deleted, so any first number up to the seal is valid.
    expected = min(numbers[0], sealed.sealed_commit + 1) if numbers else 0
    for number in numbers:
        if number > max(expected, sealed.removed_before):
            consequence = "its events are sealed" if number - 1 <= sealed.sealed_commit else "readers stop before it"
            findings.add(
                "commit",
                f"{log.url}/{commit_key(expected)}",
                f"missing ({number - expected} commits up to {number - 1}), but commit {number} exists; {consequence}",
                "Append nothing until it is restored from a backup of the store.",
            )
        expected = number + 1
    if numbers and numbers[-1] < sealed.sealed_commit and sealed.removed_before <= sealed.sealed_commit:
        findings.add(
            "manifest",
            f"{log.url}/{manifest_key(sealed.number)}",
            f"it is sealed up to commit {sealed.sealed_commit}, but the last commit is {numbers[-1]}",
        )


def _footers(log: EventLog, numbers: Sequence[int], findings: Findings) -> Iterator[tuple[int, CommitInfo | None]]:
    def footer(number: int) -> CommitInfo | DamagedLogError | None:
        try:
            return log.commit_info(number)
        except DamagedLogError as error:
            return error

    with ThreadPoolExecutor(_READERS) as pool:
        for i in range(0, len(numbers), _BATCH):
            part = numbers[i : i + _BATCH]
            for number, info in zip(part, pool.map(footer, part), strict=True):
                if isinstance(info, DamagedLogError):
                    findings.add("commit", f"{log.url}/{commit_key(number)}", _damage(info))
                yield number, info if isinstance(info, CommitInfo) else None


def check_known(log: EventLog, sealed: Manifest, number: int, digest: str, findings: Findings) -> None:
    """Check that a log still has a commit whose digest was known earlier."""
    where = f"{log.url}/{commit_key(number)}"
    try:
        info, following = log.commit_info(number), log.commit_info(number + 1)
    except DamagedLogError:
        findings.skip(f"the digest of commit {number}, since it or the commit after it is damaged")
        return
    sealed_digest = sealed.sealed_digest if sealed.sealed_commit == number else ""
    found = info.digest if info else following.previous if following else sealed_digest
    if found and found != digest:
        findings.add(
            "chain",
            where,
            f"its digest is {found[:16]}…, but it was {digest[:16]}…: it or a commit before it was changed",
            "Restore the log from a backup that has the earlier digest.",
        )
    elif not found and number <= sealed.sealed_commit:
        findings.skip(f"the digest of commit {number}, which was removed after it was sealed")
    elif not found:
        findings.add("chain", where, "the log has no such commit: it ends before it", "Restore it from a newer backup.")


def _damage(error: DamagedLogError) -> str:
    return f"damaged, or not a commit ({error.__cause__})" if error.__cause__ else str(error).split(". ")[0]


def _name_strays(log: EventLog, folder: str, kind: str, findings: Findings) -> None:
    """Name the objects of a folder that are none of the log's; readers pass over them."""
    keys = set(log.store.list_from(folder))
    for key in sorted(keys - set(numbered(keys))):
        findings.add(
            kind, f"{log.url}/{key}", f"it is no {kind}; readers pass over it", "Delete it, if nobody needs it."
        )


def _check_footer(log: EventLog, number: int, info: CommitInfo, before: CommitInfo | None, findings: Findings) -> None:
    where = f"{log.url}/{commit_key(number)}"
    start = log.start
    if number == start.commit_number + 1 and info.previous != start.digest:
        findings.add(
            "chain",
            where,
            f"it follows {info.previous[:16] or 'nothing'}…, but the chain begins at {start.digest[:16]}…",
        )
    if number == 1 and info.first_position != 1:
        findings.add("position", where, f"the first commit begins at position {info.first_position}, expected 1")
    if before is None or before.number != number - 1:
        return
    if info.first_position != before.last_position + 1:
        findings.add(
            "position",
            where,
            f"it begins at position {info.first_position}, expected {before.last_position + 1}",
        )
    if before.digest and info.previous != before.digest:
        findings.add(
            "chain",
            where,
            f"it follows a commit {before.number} with the digest {info.previous[:16] or 'none'}…, but that has "
            f"{before.digest[:16]}…",
            "One of the two was replaced. Restore both from a backup of the store.",
        )


def _check_manifest_end(log: EventLog, number: int, info: CommitInfo, sealed: Manifest, findings: Findings) -> None:
    """Check that the manifest ends at the end of a commit."""
    where = f"{log.url}/{manifest_key(sealed.number)}"
    if number == sealed.sealed_commit:
        if info.last_position != sealed.sealed_position:
            findings.add(
                "manifest",
                where,
                f"sealed up to commit {number} and position {sealed.sealed_position}, but that commit ends at position "
                f"{info.last_position}",
            )
        if info.digest and info.digest != sealed.sealed_digest:
            expected = sealed.sealed_digest[:16]
            what = f"sealed up to a commit {number} with the digest {expected}…, but that has {info.digest[:16]}…"
            findings.add("chain", where, what)
        if info.recorded_at.isoformat() != sealed.recorded_at:
            findings.add(
                "manifest", where, f"recorded_at is {sealed.recorded_at}, expected {info.recorded_at.isoformat()}"
            )
    if number == sealed.sealed_commit + 1 and info.first_position != sealed.sealed_position + 1:
        findings.add(
            "manifest",
            where,
            f"sealed up to position {sealed.sealed_position}, but the next commit {number} begins at position "
            f"{info.first_position}",
        )
    if info.import_id is not None and number <= sealed.sealed_commit and sealed.imports.get(info.import_id) != number:
        findings.add("manifest", where, f"it lacks the bulk import {info.import_id} of commit {number}")


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
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    tail: Sequence[CommitInfo],
    bucket_count: int,
    findings: Findings,
) -> list[CommitInfo]:
    """Load the rows of the tail into ``_tail``, and return the commits up to the first damaged one."""
    connection.register("_empty", _TAIL.empty_table())
    connection.execute(f"CREATE TABLE _tail AS SELECT *, {bucket_sql(bucket_count)} AS bucket FROM _empty")
    loaded: list[CommitInfo] = []
    for i in range(0, len(tail), _BATCH):
        part = tail[i : i + _BATCH]
        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(pool.map(lambda info: _rows(log, info), part))
        readable = next((n for n, t in enumerate(tables) if isinstance(t, Exception)), len(part))
        whole = [t for t in tables[:readable] if isinstance(t, pa.Table)]
        _insert(connection, log, part[:readable], whole, bucket_count, findings)
        loaded += part[:readable]
        if readable < len(part):
            where = f"{log.url}/{commit_key(part[readable].number)}"
            findings.add("commit", where, f"its rows cannot be read ({tables[readable]})")
            break
    return loaded


def _rows(log: EventLog, info: CommitInfo) -> pa.Table | Exception:
    try:
        [path] = log.commit_paths([info])
        with open_parquet(path) as file:
            table = file.read()
        number = pa.array([info.number] * len(table), pa.int64())
        return table.select(_TAIL.names[:-1]).append_column("_number", number)
    except (pa.ArrowException, OSError, DamagedLogError, KeyError) as error:
        return error


def _insert(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    infos: Sequence[CommitInfo],
    tables: Sequence[pa.Table],
    bucket_count: int,
    findings: Findings,
) -> None:
    if not infos:
        return
    connection.register("_part", pa.concat_tables([t.cast(_TAIL) for t in tables]))
    connection.execute(f"INSERT INTO _tail SELECT *, {bucket_sql(bucket_count)} FROM _part")
    rows = connection.execute(
        "SELECT _number, count(*), count(DISTINCT position), min(position), max(position), "
        "bool_and(commit_number = _number) FROM _part GROUP BY 1"
    ).fetchall()
    counted = {row[0]: row[1:] for row in rows}
    for info in infos:
        expected = (info.events, info.events, info.first_position, info.last_position, True)
        if info.import_id is None and (real := counted.get(info.number)) != expected:
            findings.add(
                "commit",
                f"{log.url}/{commit_key(info.number)}",
                f"its footer has positions {info.first_position} to {info.last_position}, its rows differ (events, "
                f"positions, first, last: {real[:4] if real else 'none'})",
            )
    _check_heads(connection, log, infos, findings)


def _check_heads(
    connection: duckdb.DuckDBPyConnection, log: EventLog, infos: Sequence[CommitInfo], findings: Findings
) -> None:
    heads = [(info.number, stream_id, version) for info in infos for stream_id, version in info.heads.items()]
    columns = [pa.array([h[0] for h in heads], pa.int64()), pa.array([h[1] for h in heads], pa.string())]
    columns.append(pa.array([h[2] for h in heads], pa.int64()))
    connection.register("_footers", pa.table(columns, names=["_number", "stream_id", "version"]))
    rows = connection.execute(
        "SELECT _number, stream_id, f.version, r.version FROM _footers f FULL JOIN "
        "(SELECT _number, stream_id, max(stream_version) AS version FROM _part GROUP BY ALL) r "
        "USING (_number, stream_id) WHERE f.version IS DISTINCT FROM r.version ORDER BY ALL"
    ).fetchall()
    for number, stream_id, version, real in rows:
        where = f"{log.url}/{commit_key(number)}"
        findings.add("heads", where, f"stream {stream_id!r} has version {version} in its footer and {real} in its rows")
