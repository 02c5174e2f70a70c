"""The live database: the private working copy that a stream brings forward, and that readers in its process may query.

It begins as a copy of the newest generation, whose checkpoint says where to go on: so a stream that was killed needs no
more than what is published.
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
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts
from refold.warehouse.engine.connections import forget_temporaries
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.generations.generations import Generation, Generations
from refold.warehouse.read_models.increments.catch_up import apply_staged
from refold.warehouse.read_models.increments.increment import Staged
from refold.warehouse.read_models.increments.spans import Span
from refold.warehouse.read_models.live.indexes import (
    NO_INDEXES,
    Indexes,
    check_indexes,
    create_indexes,
)
from refold.warehouse.replay.contributions import Compiled, compile_model

_MEMORY = "2GB"
_NO_CHECKPOINT = "1TB"
_USUAL_CHECKPOINT = "64MB"


@dataclass(slots=True)
class LiveDatabase:
    """Tables that follow the log.

    Attributes:
        log: the log.
        domain: contracts and read models.
        generation: the one that it was copied from, or that was published of it last.
        models: the read models that it holds.
        at: where in the log they stand.
        path: the file; nobody else may open it.
        connection: the writer's.
        indexes: read model to the columns that have an index, for readers that look for a few rows.
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
    _open: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False
    _held: bool = False
    _changes: int = 0

    @property
    def changes(self) -> int:
        """How often a change began or ended; odd while one is under way."""
        return self._changes

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change rows in this block only, so that readers know."""
        self._changes += 1
        try:
            yield
        finally:
            self._changes += 1

    def apply(self, staged: Sequence[Staged], span: Span) -> int:
        """Bring all tables forward by one span, in one transaction.

        Returns:
            How many events could not be applied: they are in ``refold.dead_letters``.
        """
        try:
            with self.changing():
                broken = apply_staged(
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
        return broken

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Give a cursor for short queries from another thread; a long one would keep checkpoints from being made.

        Raises:
            GenerationError: the database was closed, since its stream ended or took over another generation.
        """
        with self._open:
            if self._closed:
                raise GenerationError("This live database was closed. Ask for the one that its stream opened since.")
            cursor = self.connection.cursor()
        cursor.execute("USE models")
        return cursor

    def checkpoint(self) -> bool:
        """Write everything into the file, and let nothing be written into it until :meth:`release`.

        Returns:
            False if a reader that began before the last change keeps that from being done now.
        """
        try:
            self.connection.execute("CHECKPOINT models")
        except duckdb.TransactionException:
            return False
        self.connection.execute(f"SET checkpoint_threshold = '{_NO_CHECKPOINT}'")
        self._held = True
        return True

    def release(self) -> None:
        """Let the file be written again."""
        if self._held:
            self.connection.execute(f"SET checkpoint_threshold = '{_USUAL_CHECKPOINT}'")
            self._held = False

    def close(self) -> None:
        """Close and remove the file."""
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
    """Copy a generation, to go on from where it stands.

    Args:
        log: the log that it was made from.
        domain: contracts and read models.
        generations: where it is published.
        generation: usually the newest.
        threads: how many threads a query may use.
        indexes: read model to the columns that get an index; of those that the generation holds.

    Raises:
        GenerationError: its tables were made from another log, or by other declarations than the domain's.
        UsageError: there is no such read model or column to make an index of.
    """
    check_followable(log, domain, generation)
    check_indexes(indexes, domain.read_models)
    models = tuple(compile_model(m, domain) for m in domain.read_models if m.name in generation.tables)
    parent = Path(generations.store.url) / "work" if generations.store.is_local else None
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(prefix="refold-", dir=parent, ignore_cleanup_errors=True)
    path = generations.working_copy(generation, Path(folder.name))
    connection = database.open_database(path, threads=threads, memory_limit=_MEMORY)
    at = database.get_checkpoint(connection)
    held = {m.model.name: indexes[m.model.name] for m in models if m.model.name in indexes}
    create_indexes(connection, held)
    return LiveDatabase(log, domain, generation, models, at, path, connection, held, folder)


def stale_models(domain: Domain, generation: Generation | None) -> list[str]:
    """Name the read models that a generation lacks, or holds by another declaration."""
    return [
        m.name
        for m in domain.read_models
        if generation is None
        or m.name not in generation.tables
        or generation.tables[m.name].fingerprint != fingerprint(fingerprint_parts(m, domain))
    ]


def check_followable(log: EventLog, domain: Domain, generation: Generation) -> None:
    """Make sure that tables of a generation can be brought forward by this domain's code.

    Raises:
        GenerationError: they can not.
    """
    if generation.log_id != log.log_id:
        raise GenerationError(
            f"Generation {generation.number} was built from another log than {log.url}, so it cannot be brought "
            "forward from here. Rebuild with `refold rebuild`, or give the --log that it was made from."
        )
    held = {m.name for m in domain.read_models} & set(generation.tables)
    if other := sorted(held & set(stale_models(domain, generation))):
        raise GenerationError(
            f"Generation {generation.number} holds {', '.join(other)} by another declaration than this process has: it "
            "was built by other code, or rolled back. Start the stream again with that code, or rebuild with this."
        )
