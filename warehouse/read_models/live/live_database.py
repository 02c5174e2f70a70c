"""The live database: the private working copy that a stream advances, and that readers in its process may query.

It starts as a copy of the newest generation and continues from its checkpoint: so a stream recovers from a crash with
nothing but the published files.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from refold.event_schemas import GenerationError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts, view_digests
from refold.warehouse.engine.connections import forget_temporaries
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.generations.build import working_parent
from refold.warehouse.read_models.generations.generations import Generation, Generations
from refold.warehouse.read_models.increments.catch_up import apply_staged
from refold.warehouse.read_models.increments.increment import Staged
from refold.warehouse.read_models.increments.spans import Span
from refold.warehouse.read_models.lag import check_history, checkpoint_of, find_end
from refold.warehouse.read_models.live.indexes import (
    NO_INDEXES,
    Indexes,
    check_indexes,
    create_indexes,
)
from refold.warehouse.replay.contributions import Compiled, compile_model

_MEMORY = "2GB"
_NO_CHECKPOINT = "1TB"
_DEFAULT_CHECKPOINT = "64MB"
"""Size of the write-ahead log at which DuckDB writes a checkpoint into the file."""


@dataclass(slots=True)
class LiveDatabase:
    """Tables that follow the log.

    Attributes:
        log: the log.
        domain: contracts and read models.
        generation: the generation that it was copied from, or that was last published from it.
        models: its read models.
        at: their checkpoint.
        path: the file; no other process may open it.
        connection: the writer's connection.
        indexes: read model to its indexed columns, for readers that look up a few rows.
        views: view to the digest of its SQL; the views are those of the domain, whichever the generation has.
    """

    log: EventLog
    domain: Domain
    generation: Generation
    models: tuple[Compiled, ...]
    at: Checkpoint
    path: Path
    connection: duckdb.DuckDBPyConnection
    indexes: Indexes
    _folder: tempfile.TemporaryDirectory[str]
    views: dict[str, str] = field(default_factory=dict)
    _open: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False
    _held: bool = False
    _changes: int = 0

    @property
    def has_other_views(self) -> bool:
        """Whether its views differ from those of its generation."""
        return self.views != self.generation.views

    @property
    def changes(self) -> int:
        """Number of starts and ends of changes; odd while a change is under way."""
        return self._changes

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Mark a change of rows, so that readers notice it."""
        self._changes += 1
        try:
            yield
        finally:
            self._changes += 1

    def apply(self, staged: Sequence[Staged], span: Span) -> int:
        """Advance all tables by one span, in one transaction.

        Returns:
            The number of events that could not be applied; they are in ``refold.dead_letters``.
        """
        try:
            with self.changing():
                invalid = apply_staged(
                    self.connection,
                    self.log,
                    self.domain,
                    self.models,
                    staged,
                    span,
                    dead_letter=True,
                    indexes=self.indexes,
                )
        finally:
            forget_temporaries(self.connection)
        self.at = span.to
        return invalid

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a cursor for short queries from another thread; a long query would prevent checkpoints.

        Raises:
            GenerationError: the database is closed, since its stream stopped or opened another generation.
        """
        with self._open:
            if self._closed:
                raise GenerationError("This live database is closed. Use the one that its stream has opened since.")
            cursor = self.connection.cursor()
        cursor.execute("USE models")
        return cursor

    def checkpoint(self) -> bool:
        """Write all changes into the file, and none after that until :meth:`release`.

        Returns:
            False if a reader that began before the last change prevents it.
        """
        try:
            self.connection.execute("CHECKPOINT models")
        except duckdb.TransactionException:
            return False
        self.connection.execute(f"SET checkpoint_threshold = '{_NO_CHECKPOINT}'")
        self._held = True
        return True

    def release(self) -> None:
        """Allow writes into the file again."""
        if self._held:
            self.connection.execute(f"SET checkpoint_threshold = '{_DEFAULT_CHECKPOINT}'")
            self._held = False

    def close(self) -> None:
        """Close the database, and remove its file."""
        with self._open:
            self._closed = True
        with suppress(duckdb.Error):
            self.connection.close()
        self._folder.cleanup()


def open_live(
    log: EventLog,
    domain: Domain,
    generations: Generations,
    generation: Generation,
    *,
    threads: int,
    indexes: Indexes = NO_INDEXES,
) -> LiveDatabase:
    """Copy a generation, to continue from its checkpoint.

    Args:
        log: the log that it was built from.
        domain: contracts and read models.
        generations: the generations.
        generation: the generation, usually the newest.
        threads: number of threads of a query.
        indexes: read model to the columns to index, of those in the generation.

    Raises:
        GenerationError: its tables were built from another log, or from other declarations.
        UsageError: there is no such read model or column to index.
    """
    check_followable(log, domain, generation)
    check_indexes(indexes, domain.read_models)
    models = tuple(compile_model(m, domain) for m in domain.read_models if m.name in generation.tables)
    parent = working_parent(generations.store)
    folder = tempfile.TemporaryDirectory(prefix="refold-", dir=parent, ignore_cleanup_errors=True)
    path = generations.working_copy(generation, Path(folder.name))
    connection = database.open_database(path, threads=threads, memory_limit=_MEMORY)
    database.drop_views(connection)
    database.create_views(connection, domain)
    at = database.get_checkpoint(connection)
    held = {m.model.name: indexes[m.model.name] for m in models if m.model.name in indexes}
    create_indexes(connection, held)
    return LiveDatabase(log, domain, generation, models, at, path, connection, held, folder, view_digests(domain))


def stale_models(domain: Domain, generation: Generation | None) -> list[str]:
    """Return the read models that a generation lacks, or has from another declaration."""
    return [
        m.name
        for m in domain.read_models
        if generation is None
        or m.name not in generation.tables
        or generation.tables[m.name].fingerprint != fingerprint(fingerprint_parts(m, domain))
    ]


def check_followable(log: EventLog, domain: Domain, generation: Generation) -> None:
    """Check that this domain can advance the tables of a generation.

    Raises:
        GenerationError: the generation was built from another log, or from other declarations.
    """
    if generation.log_id != log.log_id:
        raise GenerationError(
            f"Generation {generation.number} was built from another log than {log.url}, so this log cannot advance it. "
            "Rebuild with `refold rebuild`, or give the --log that it was built from."
        )
    check_history(log, find_end(log), checkpoint_of(generation))
    held = {m.name for m in domain.read_models} & set(generation.tables)
    if other := sorted(held & set(stale_models(domain, generation))):
        raise GenerationError(
            f"Generation {generation.number} has {', '.join(other)} from another declaration than this process: other "
            "code built it, or it was rolled back. Restart the stream with that code, or rebuild with this code."
        )
