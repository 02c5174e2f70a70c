"""Reads the newest published generation, and moves to a newer one while queries run.

Any number of processes may have a reader. A query runs in one transaction, and its rows come with their log position.
Rows of large read models are found by indexes, which are created in a private copy: the published file has none
(docs/adr/0009).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import duckdb

from refold.event_schemas import GenerationError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Lookup
from refold.warehouse.declarations.fingerprint import view_digests
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.private_folder import PrivateFolder
from refold.warehouse.queries.read_source import CHECKPOINT, Cursors, ReadPosition, T, digest_of
from refold.warehouse.read_models.generations.generations import Generation, Generations
from refold.warehouse.read_models.live.indexes import create_indexes
from refold.warehouse.read_models.live.live_database import stale_models

INDEXED_ROWS = 100_000
"""A smaller read model has no index: it fits in one row group of DuckDB, which is scanned as fast."""

_MEMORY = "2GB"
_LIST_EVERY = 10  # looks; the others only check for the next number, which takes one request to the store
_PREFIX = "refold-serve-"


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


def outdated_names(domain: Domain, generation: Generation) -> frozenset[str]:
    """Return the read models and views that a generation lacks, or has from other code than a domain's."""
    published = generation.views or {}
    views = {name for name, digest in view_digests(domain).items() if published.get(name) != digest}
    return frozenset({*stale_models(domain, generation), *views})


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
            [[_, _, _, updated]] = connection.execute(CHECKPOINT).fetchall()
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
