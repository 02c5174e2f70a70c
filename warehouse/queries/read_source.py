"""What every reader of read models offers: rows with the log position that they belong to, and connections to lend."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import duckdb

from refold.warehouse.read_models.generations.generations import Generation

T = TypeVar("T")

CHECKPOINT = "SELECT position, commit_number, recorded_at, last_updated FROM refold.checkpoint"
"""Selects the position of the rows of a database of read models."""


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
    """A source of rows: the newest generation (``reader``) or the live database of a stream (``live_reader``)."""

    def read_position(self) -> ReadPosition | None:
        """Return the current position, without a query; None if there are no rows yet."""

    def ask(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[T, ReadPosition]:
        """Run a short query, and return its result with the position of its rows."""

    def close(self) -> None:
        """Close the connections."""


def digest_of(generation: Generation) -> str:
    """Return eight hexadecimal digits that identify the declarations and rows of a generation."""
    parts = [f"{name} {table.fingerprint} {table.checksum}" for name, table in sorted(generation.tables.items())]
    parts += [f"{name} {view}" for name, view in sorted((generation.views or {}).items())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


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
