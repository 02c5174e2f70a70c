"""Dead letters: events that a read model goes without, because they could not be applied when it was built.

They are published with the read models, in ``refold.dead_letters``. A letter is *open* until a rebuild can apply its
event, or until somebody discards it: decides to go without. That decision is remembered by read model and position, so
that later rebuilds, strict ones too, pass the event over; it can be undone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

import duckdb

from refold.event_schemas import GenerationError, UsageError
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log.reads.scan import from_microseconds
from refold.warehouse.read_models import database
from refold.warehouse.read_models.generations.build import scratch_folder
from refold.warehouse.read_models.generations.generations import Generation, Generations, now

_PUBLISH_ATTEMPTS = 10
_FIRST = 5

Key = tuple[str, int]
"""Read model (empty for an event that fits no contract) and position: what a dead letter is known by."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a read model goes without.

    Attributes:
        read_model: which; empty if the event fits no contract, so that no read model could take it.
        position: its place in the log.
        stream_id: its stream.
        event_type: its stored type.
        schema_version: its stored schema version.
        reason: what does not fit, or what failed.
        payload: as JSON text.
        discarded_at: since when it is discarded; None while it is open.
    """

    read_model: str
    position: int
    stream_id: str
    event_type: str
    schema_version: int
    reason: str
    payload: str
    discarded_at: datetime | None

    @property
    def key(self) -> Key:
        """The pair that names it."""
        return (self.read_model, self.position)


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Dead letters of one read model that have one reason.

    Attributes:
        read_model: which; empty for events that fit no contract.
        reason: what does not fit, or what failed.
        events: how many are open.
        discarded: how many are discarded.
        positions: of the first few, the open ones first.
    """

    read_model: str
    reason: str
    events: int
    discarded: int
    positions: tuple[int, ...]


def read_dead_letters(
    connection: duckdb.DuckDBPyConnection, *, positions: Collection[int] | None = None
) -> list[DeadLetter]:
    """Read the dead letters of a database, by position; one published before letters could be discarded has them too.

    Args:
        connection: of a published file, or of a working database.
        positions: only of these events; of all by default.
    """
    wanted = "true" if positions is None else f"position IN ({', '.join(map(str, sorted(positions))) or 'NULL'})"
    rows = connection.execute(
        "SELECT read_model, position, stream_id, event_type, schema_version, reason, payload, "
        f"epoch_us(discarded_at) FROM {_letters(connection)} WHERE {wanted} ORDER BY position, read_model"
    ).fetchall()
    return [DeadLetter(*(*row[:-1], _moment(row[-1]))) for row in rows]


def _letters(connection: duckdb.DuckDBPyConnection) -> str:
    """Give the table, with the column that files of refold 0.1.0 lack."""
    if "discarded_at" in connection.sql("FROM refold.dead_letters").columns:
        return "refold.dead_letters"
    return "(SELECT *, NULL::TIMESTAMPTZ AS discarded_at FROM refold.dead_letters)"


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)


def published_letters(
    generations: Generations, generation: Generation, *, positions: Collection[int] | None = None
) -> list[DeadLetter]:
    """Read the dead letters of a published generation, all or those of some positions."""
    with closing(connect(generations.path(generation), read_only=True)) as connection:
        return read_dead_letters(connection, positions=positions)


def published_discards(generations: Generations, generation: Generation | None, *, log_id: str) -> dict[Key, datetime]:
    """Read which dead letters of a published generation are discarded; those of another log say nothing of this one.

    A file that is lost or damaged has nothing to tell: a rebuild is what mends that, so it must not stop one.
    """
    if generation is None or generation.log_id != log_id:
        return {}
    try:
        with closing(connect(generations.path(generation), read_only=True)) as connection:
            rows = connection.execute(
                f"SELECT read_model, position, epoch_us(discarded_at) FROM {_letters(connection)} "
                "WHERE discarded_at IS NOT NULL"
            ).fetchall()
    except (GenerationError, duckdb.Error):
        return {}
    return {(name, position): from_microseconds(at) for name, position, at in rows}


def group_letters(connection: duckdb.DuckDBPyConnection, *, read_model: str | None = None) -> list[LetterGroup]:
    """Group letters by read model and reason, what is most open first.

    Args:
        connection: of a published file, or of a working database.
        read_model: only its letters.
    """
    rows = connection.execute(
        f"""
        SELECT
            read_model,
            reason,
            count(*) FILTER (discarded_at IS NULL) AS undecided,
            count(*) FILTER (discarded_at IS NOT NULL) AS discarded,
            coalesce(min(position, {_FIRST}) FILTER (discarded_at IS NULL), []),
            coalesce(min(position, {_FIRST}) FILTER (discarded_at IS NOT NULL), []),
        FROM {_letters(connection)}
        WHERE $read_model IS NULL OR read_model = $read_model
        GROUP BY ALL
        ORDER BY undecided DESC, discarded DESC, read_model, reason
        """,
        {"read_model": read_model},
    ).fetchall()
    return [LetterGroup(*(*row[:4], tuple([*row[4], *row[5]][:_FIRST]))) for row in rows]


def count_letters(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int]]:
    """Count the letters of each read model: the open ones, and the discarded ones."""
    rows = connection.execute(
        "SELECT read_model, count(*) - count(discarded_at), count(discarded_at) "
        f"FROM {_letters(connection)} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return {name: (undecided, discarded) for name, undecided, discarded in rows}


def discard(
    generations: Generations, positions: Collection[int], *, read_model: str | None = None, undo: bool = False
) -> tuple[Generation, list[DeadLetter]]:
    """Decide to go without some events, or take that back; published as the next generation.

    Args:
        generations: where the letters are published.
        positions: of their events.
        read_model: only its letters; those of all read models by default.
        undo: open them again.

    Returns:
        The generation that holds the decision, and the letters that it changed. None changed: nothing was published.

    Raises:
        UsageError: there is no such letter; nothing was changed.
        GenerationError: nothing is published, or others published all the time.
    """
    for _ in range(_PUBLISH_ATTEMPTS):
        newest = generations.newest()
        if newest is None:
            raise GenerationError(
                f"Nothing is published at {generations.store.url}, so there are no dead letters. Run `refold rebuild` "
                "first, or give another --read-models."
            )
        letters = _chosen(published_letters(generations, newest, positions=positions), positions, read_model, newest)
        changed = [letter for letter in letters if (letter.discarded_at is not None) is undo]
        if not changed:
            return newest, []
        if (made := _publish_marked(generations, newest, changed, undo=undo)) is not None:
            return made, changed
    raise GenerationError(f"Others published to {generations.store.url} all the time; gave up. Try again.")


def _chosen(
    letters: Sequence[DeadLetter], positions: Collection[int], read_model: str | None, newest: Generation
) -> list[DeadLetter]:
    found = [letter for letter in letters if read_model in (None, letter.read_model)]
    if missing := sorted(set(positions) - {letter.position for letter in found}):
        told = ", ".join(f"{position:,}" for position in missing)
        whose = f" of read model {read_model}" if read_model else ""
        raise UsageError(
            f"Generation {newest.number} has no dead letter{whose} at position {told}; nothing was changed. "
            "`refold dead-letters list` shows those there are."
        )
    return found


def _publish_marked(
    generations: Generations, parent: Generation, letters: Sequence[DeadLetter], *, undo: bool
) -> Generation | None:
    """Publish a copy of a generation in which some letters are marked; None if another publisher was first."""
    at = "NULL" if undo else "now()"
    with scratch_folder(generations.store) as folder:
        path = generations.working_copy(parent, folder)
        with closing(database.open_database(path)) as connection:
            connection.executemany(
                f"UPDATE refold.dead_letters SET discarded_at = {at} WHERE read_model = ? AND position = ?",
                [letter.key for letter in letters],
            )
            connection.execute("CHECKPOINT")
        file, size = generations.upload(path)
    made = dataclasses.replace(
        parent, number=parent.number + 1, file=file, bytes=size, published_at=now(), parent=parent.number
    )
    return made if generations.publish(made) else None
