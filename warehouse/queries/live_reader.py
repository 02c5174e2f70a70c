"""Reads the live database of a stream in the same process, a fraction of a second behind the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import duckdb

from refold.event_schemas import GenerationError
from refold.warehouse.queries.read_source import CHECKPOINT, Cursors, ReadPosition, T, digest_of
from refold.warehouse.read_models.live.live_database import LiveDatabase


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
        [[position, commit_number, recorded, updated]] = cursor.execute(CHECKPOINT).fetchall()
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
