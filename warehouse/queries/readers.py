"""The read-only query side: connections to the newest generation, or to the live database of a stream.

``Reader``
    reads the newest generation, and moves to a newer one while queries run; any number of processes may have one.
``LiveReader``
    reads the live database of a stream in the same process, a fraction of a second behind the log.

Both run a query in one transaction, and return the log position of its rows. Rows of large read models are found by
indexes, which are created in a private copy: the published file has none (docs/adr/0009).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import duckdb

from refold.event_schemas import GenerationError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Lookup
from refold.warehouse.declarations.fingerprint import view_digests
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.private_folder import PrivateFolder
from refold.warehouse.read_models.generations.generations import Generation, Generations
from refold.warehouse.read_models.live.indexes import create_indexes
from refold.warehouse.read_models.live.live_database import LiveDatabase, stale_models

T = TypeVar("T")

INDEXED_ROWS = 100_000
"""A smaller read model has no index: it fits in one row group of DuckDB, which is scanned as fast."""

_MEMORY = "2GB"
_LIST_EVERY = 10  # looks; the others only check for the next number, which takes one request to the store
_PREFIX = "refold-serve-"

_CHECKPOINT = "SELECT position, commit_number, recorded_at, last_updated FROM refold.checkpoint"


@dataclass(frozen=True, slots=True)
class ReadPosition:
    """The log position of the rows of a response.

    Attributes:
        position: the position of the last event that they include.
        commit_number: the commit of that event.
        recorded_at: when that event was recorded, RFC 3339; empty if there is none.
        last_updated: when the rows were updated, RFC 3339.
        generation: the generation that the rows belong to, or that a stream has updated.
        digest: the digest of that generation. It differs for other rows at the same position, which other code made or
            which include retried dead letters.
        outdated: the read models and views that are missing, or were made by other code than this process has.
    """

    position: int
    commit_number: int
    recorded_at: str
    last_updated: str
    generation: int
    digest: str
    outdated: frozenset[str] = frozenset()


class ReadSource(Protocol):
    """A source of rows: a ``Reader`` or a ``LiveReader``."""

    def read_position(self) -> ReadPosition | None:
        """Return the current position, without a query; None if there are no rows yet."""

    def ask(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[T, ReadPosition]:
        """Run a short query, and return its result with the position of its rows."""

    def close(self) -> None:
        """Close the connections."""


def lookup_indexes(domain: Domain) -> dict[str, tuple[str, ...]]:
    """Return the columns that need an index for a domain's lookups, by read model.

    Example:
        >>> from refold import load_domain
        >>> lookup_indexes(load_domain("orders"))["order_summary"]
        ('customer_id', 'order_id')
    """
    found: dict[str, set[str]] = {}
    for endpoint in domain.endpoints:
        if isinstance(endpoint, Lookup):
            found.setdefault(endpoint.table, set()).add(endpoint.path_names[0])
    return {table: tuple(sorted(names)) for table, names in found.items()}


def digest_of(generation: Generation) -> str:
    """Return eight hexadecimal digits that identify the declarations and rows of a generation."""
    parts = [f"{name} {table.fingerprint} {table.checksum}" for name, table in sorted(generation.tables.items())]
    parts += [f"{name} {view}" for name, view in sorted((generation.views or {}).items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def outdated_names(domain: Domain, generation: Generation) -> frozenset[str]:
    """Return the read models and views that a generation lacks, or has from other code than a domain's."""
    published = generation.views or {}
    views = {name for name, digest in view_digests(domain).items() if published.get(name) != digest}
    return frozenset({*stale_models(domain, generation), *views})


class Cursors:
    """Connections to one database, each used by one thread at a time. The last user of a retired database closes it."""

    def __init__(self, make: Callable[[], duckdb.DuckDBPyConnection], close: Callable[[], None]) -> None:
        self._make = make
        self._close = close
        self._free: list[duckdb.DuckDBPyConnection] = []
        self._lock = threading.Lock()
        self._used = 0
        self._retired = False

    def take(self) -> duckdb.DuckDBPyConnection | None:
        """Return a connection; None if the database is retired."""
        with self._lock:
            if self._retired:
                return None
            self._used += 1
            if self._free:
                return self._free.pop()
        try:
            return self._make()
        except BaseException:
            self.give(None)
            raise

    def give(self, cursor: duckdb.DuckDBPyConnection | None) -> None:
        """Return a connection to the pool."""
        with self._lock:
            self._used -= 1
            if cursor is not None:
                self._free.append(cursor)
            last = self._retired and not self._used
        if last:
            self._end()

    def retire(self) -> None:
        """Lend no more connections, and close the database once none is in use."""
        with self._lock:
            if self._retired:
                return
            self._retired = True
            last = not self._used
        if last:
            self._end()

    def _end(self) -> None:
        for cursor in self._free:
            with suppress(duckdb.Error):
                cursor.close()
        self._free.clear()
        self._close()


@dataclass(frozen=True, slots=True)
class _Opened:
    """One generation, open for reading."""

    generation: Generation
    position: ReadPosition
    cursors: Cursors


class Reader:
    """Reads the newest published generation.

    Args:
        generations: the published generations.
        domain: the domain, whose lookups need indexes.
        threads: the number of threads of a query.

    Example:
        >>> import tempfile
        >>> from refold import load_domain, open_generations
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     reader = Reader(open_generations(folder, "orders"), load_domain("orders"))
        ...     reader.adopt(), reader.read_position()
        (False, None)
    """

    def __init__(self, generations: Generations, domain: Domain, *, threads: int = 1) -> None:
        self._generations = generations
        self._domain = domain
        self._indexes = lookup_indexes(domain)
        self._threads = threads
        self._opened: _Opened | None = None
        self._looks = 0

    def adopt(self) -> bool:
        """Look for a newer generation and read from it from now on. Return whether there was one.

        Queries that run finish on the generation that they started with.

        Raises:
            GenerationError: the newer generation cannot be opened; the reader keeps the one before.
        """
        now = self._opened
        self._looks += 1
        # Usually the next number is enough. A slow reader may find that one collected already, so it lists them too.
        if (
            now is not None
            and self._looks % _LIST_EVERY
            and not self._generations.is_published(now.generation.number + 1)
        ):
            return False
        newest = self._generations.newest()
        if newest is None or (now is not None and newest.number == now.generation.number):
            return False
        self._opened = self._open(newest)
        if now is not None:
            now.cursors.retire()
        return True

    def read_position(self) -> ReadPosition | None:
        """Return the current position; None if nothing is published yet."""
        opened = self._opened
        return opened.position if opened else None

    def ask(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[T, ReadPosition]:
        """Run a query on the newest generation.

        Raises:
            GenerationError: nothing is published yet, or the reader is closed.
        """
        while (opened := self._opened) is not None:
            cursor = opened.cursors.take()
            if cursor is None:  # retired a moment ago
                continue
            try:
                return query(cursor), opened.position
            finally:
                opened.cursors.give(cursor)
        raise GenerationError("No read models are published yet. Run `refold rebuild` or `refold stream` first.")

    def close(self) -> None:
        """Close the generation once no query uses it."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.cursors.retire()

    def _open(self, generation: Generation) -> _Opened:
        wanted = {t: c for t, c in self._indexes.items() if t in generation.tables}
        large = {t: c for t, c in wanted.items() if generation.tables[t].rows >= INDEXED_ROWS}
        folder = PrivateFolder(_PREFIX) if large else None
        connection: duckdb.DuckDBPyConnection | None = None
        try:
            if folder is not None:
                path = self._generations.working_copy(generation, folder.path)
                path.chmod(0o600)
                connection = connect(path, threads=self._threads, memory_limit=_MEMORY, temp_directory=folder.path)
                create_indexes(connection, large)
            else:
                path = self._generations.path(generation)
                connection = connect(path, threads=self._threads, memory_limit=_MEMORY, read_only=True)
            [[_, _, _, updated]] = connection.execute(_CHECKPOINT).fetchall()
        except BaseException:
            if connection is not None:
                connection.close()
            if folder is not None:
                folder.remove()
            raise
        position = ReadPosition(
            generation.position,
            generation.commit_number,
            generation.recorded_at,
            updated.isoformat() if updated else generation.published_at,
            generation.number,
            digest_of(generation),
            outdated_names(self._domain, generation),
        )

        def end() -> None:
            connection.close()
            if folder is not None:
                folder.remove()

        return _Opened(generation, position, Cursors(connection.cursor, end))


@dataclass(frozen=True, slots=True)
class _Followed:
    """One live database, open for reading."""

    live: LiveDatabase
    digest: str
    cursors: Cursors


@dataclass(frozen=True, slots=True)
class _Seen:
    """The position of a live database, and its count of changes at that time."""

    followed: _Followed
    changes: int
    position: ReadPosition


@dataclass(slots=True)
class LiveReader:
    """Reads the live database of a stream in this process.

    Attributes:
        updated: called in the stream's thread after rows changed.
    """

    updated: Callable[[], None] = lambda: None
    _followed: _Followed | None = None
    _seen: _Seen | None = None

    def adopt(self, live: LiveDatabase) -> None:
        """Read from another live database from now on; pass this method to a stream as ``on_open``."""
        shown = replace(live.generation, views=live.views)
        followed = _Followed(live, digest_of(shown), Cursors(live.cursor, lambda: None))
        before, self._followed = self._followed, followed
        if before is not None:
            before.cursors.retire()
        self.moved()

    def moved(self) -> None:
        """Record that the stream applied events; called in its thread, between micro-batches."""
        followed = self._followed
        if followed is None or (cursor := followed.cursors.take()) is None:
            return
        try:
            _, position = _in_transaction(cursor, lambda _: None, followed)
        finally:
            followed.cursors.give(cursor)
        self._seen = _Seen(followed, followed.live.changes, position)
        self.updated()

    def read_position(self) -> ReadPosition | None:
        """Return the position after the last micro-batch; None before the stream has opened its database."""
        seen = self._seen
        return seen.position if seen else None

    def ask(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[T, ReadPosition]:
        """Run a query, and return its result with the position of its rows.

        Between two micro-batches this takes no transaction, because each statement waits for Python's lock again.

        Raises:
            GenerationError: the stream has not opened its database yet, or has ended.
        """
        while (followed := self._followed) is not None:
            cursor = followed.cursors.take()
            if cursor is None:  # another was adopted a moment ago
                continue
            try:
                return self._ask(query, followed, cursor)
            except duckdb.InterruptException:
                raise
            except duckdb.Error:
                if followed is self._followed:  # else it was closed meanwhile; try the one that replaced it
                    raise
            finally:
                followed.cursors.give(cursor)
        raise GenerationError("The stream of this server has not opened its database yet, or has ended. Try again.")

    def _ask(
        self, query: Callable[[duckdb.DuckDBPyConnection], T], followed: _Followed, cursor: duckdb.DuckDBPyConnection
    ) -> tuple[T, ReadPosition]:
        seen, live = self._seen, followed.live
        if seen is not None and seen.followed is followed and seen.changes == live.changes:
            try:
                rows = query(cursor)
            except duckdb.InterruptException:
                raise
            except duckdb.Error:
                if seen.changes == live.changes:
                    raise
            else:
                if seen.changes == live.changes:
                    return rows, seen.position
        return _in_transaction(cursor, query, followed)

    def close(self) -> None:
        """Stop reading."""
        followed, self._followed = self._followed, None
        self._seen = None
        if followed is not None:
            followed.cursors.retire()


def _in_transaction(
    cursor: duckdb.DuckDBPyConnection, query: Callable[[duckdb.DuckDBPyConnection], T], followed: _Followed
) -> tuple[T, ReadPosition]:
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    try:
        [[position, commit_number, recorded, updated]] = cursor.execute(_CHECKPOINT).fetchall()
        rows = query(cursor)
    finally:
        cursor.execute("ROLLBACK")
    read_position = ReadPosition(
        position,
        commit_number,
        recorded.isoformat() if recorded else "",
        updated.isoformat() if updated else "",
        followed.live.generation.number,
        followed.digest,
    )
    return rows, read_position
