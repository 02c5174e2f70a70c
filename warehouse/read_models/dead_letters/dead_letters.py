"""Dead letters: events that a read model lacks, because they could not be applied when it was built.

An event since which a read model withholds a row is a dead letter too, although it counts. Dead letters are
published with the read models, in ``refold.dead_letters``. A dead letter is *open* until a rebuild applies its event,
or until a user discards it. Discards are kept by read model and position, so that later rebuilds skip the event, also
strict ones; a discard can be undone.
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
_MAX_POSITIONS = 5

Key = tuple[str, int]
"""Identity of a dead letter: read model (empty for an event that matches no contract) and position."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a read model lacks, or since which it withholds a row.

    Attributes:
        read_model: the read model; empty if the event matches no contract, so that no read model can apply it.
        position: position of the event.
        stream_id: its stream.
        event_type: its stored event type.
        schema_version: its stored schema version.
        reason: what does not match, or what failed.
        payload: its payload as JSON text.
        discarded_at: time at which it was discarded; None while it is open.
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
        """Its identity."""
        return (self.read_model, self.position)


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Dead letters of one read model with the same reason.

    Attributes:
        read_model: the read model; empty for events that match no contract.
        reason: what does not match, or what failed.
        events: number of open ones.
        discarded: number of discarded ones.
        positions: the first few positions, open ones first.
    """

    read_model: str
    reason: str
    events: int
    discarded: int
    positions: tuple[int, ...]


def read_dead_letters(
    connection: duckdb.DuckDBPyConnection, *, positions: Collection[int] | None = None
) -> list[DeadLetter]:
    """Read the dead letters of a database, by position; also of one that was published by refold 0.1.0.

    Args:
        connection: connection to a published file or a working database.
        positions: positions of the events; all by default.
    """
    wanted = "true" if positions is None else f"position IN ({', '.join(map(str, sorted(positions))) or 'NULL'})"
    rows = connection.execute(
        "SELECT read_model, position, stream_id, event_type, schema_version, reason, payload, "
        f"epoch_us(discarded_at) FROM {_letters(connection)} WHERE {wanted} ORDER BY position, read_model"
    ).fetchall()
    return [DeadLetter(*(*row[:-1], _time(row[-1]))) for row in rows]


def _letters(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the relation of dead letters, with the column that files of refold 0.1.0 lack."""
    if "discarded_at" in connection.sql("FROM refold.dead_letters").columns:
        return "refold.dead_letters"
    return "(SELECT *, NULL::TIMESTAMPTZ AS discarded_at FROM refold.dead_letters)"


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)


def published_dead_letters(
    generations: Generations, generation: Generation, *, positions: Collection[int] | None = None
) -> list[DeadLetter]:
    """Read the dead letters of a published generation, all or those at some positions."""
    with closing(connect(generations.path(generation), read_only=True)) as connection:
        return read_dead_letters(connection, positions=positions)


def published_discards(generations: Generations, generation: Generation | None, *, log_id: str) -> dict[Key, datetime]:
    """Read the discarded dead letters of a published generation; empty if it was built from another log.

    The result is also empty if its file is missing or damaged: a rebuild repairs that, so this must not stop one.
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


def group_dead_letters(
    connection: duckdb.DuckDBPyConnection, *, read_model: str | None = None
) -> list[DeadLetterGroup]:
    """Group dead letters by read model and reason, those with most open ones first.

    Args:
        connection: connection to a published file or a working database.
        read_model: the read model; all by default.
    """
    rows = connection.execute(
        f"""
        SELECT
            read_model,
            reason,
            count(*) FILTER (discarded_at IS NULL) AS undecided,
            count(*) FILTER (discarded_at IS NOT NULL) AS discarded,
            coalesce(min(position, {_MAX_POSITIONS}) FILTER (discarded_at IS NULL), []),
            coalesce(min(position, {_MAX_POSITIONS}) FILTER (discarded_at IS NOT NULL), []),
        FROM {_letters(connection)}
        WHERE $read_model IS NULL OR read_model = $read_model
        GROUP BY ALL
        ORDER BY undecided DESC, discarded DESC, read_model, reason
        """,
        {"read_model": read_model},
    ).fetchall()
    return [DeadLetterGroup(*(*row[:4], tuple([*row[4], *row[5]][:_MAX_POSITIONS]))) for row in rows]


def count_dead_letters(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int]]:
    """Count the open and the discarded dead letters of each read model."""
    rows = connection.execute(
        "SELECT read_model, count(*) - count(discarded_at), count(discarded_at) "
        f"FROM {_letters(connection)} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return {name: (undecided, discarded) for name, undecided, discarded in rows}


def count_open(connection: duckdb.DuckDBPyConnection, read_models: Collection[str]) -> int:
    """Count the open dead letters of some read models, with those that match no contract."""
    counts = count_dead_letters(connection)
    return sum(counts[name][0] for name in {"", *read_models} & counts.keys())


def discard(
    generations: Generations, positions: Collection[int], *, read_model: str | None = None, undo: bool = False
) -> tuple[Generation, list[DeadLetter]]:
    """Discard dead letters, or undo that, and publish the result as the next generation.

    Args:
        generations: the generations.
        positions: positions of the events.
        read_model: the read model; all by default.
        undo: open the dead letters again.

    Returns:
        The new generation, and the dead letters that changed; the newest generation, if none changed.

    Raises:
        UsageError: there is no such dead letter; nothing was changed.
        GenerationError: nothing is published, or other publishers won every attempt.
    """
    for _ in range(_PUBLISH_ATTEMPTS):
        newest = generations.newest()
        if newest is None:
            raise GenerationError(
                f"Nothing is published at {generations.store.url}, so there are no dead letters. Run `refold rebuild` "
                "first, or give another --read-models."
            )
        letters = _select(
            published_dead_letters(generations, newest, positions=positions), positions, read_model, newest
        )
        changed = [letter for letter in letters if (letter.discarded_at is not None) is undo]
        if not changed:
            return newest, []
        if (made := _publish_changed(generations, newest, changed, undo=undo)) is not None:
            return made, changed
    raise GenerationError(
        f"Other publishers to {generations.store.url} were first {_PUBLISH_ATTEMPTS} times; nothing was changed. Try "
        "again."
    )


def _select(
    letters: Sequence[DeadLetter], positions: Collection[int], read_model: str | None, newest: Generation
) -> list[DeadLetter]:
    found = [letter for letter in letters if read_model in (None, letter.read_model)]
    if missing := sorted(set(positions) - {letter.position for letter in found}):
        listed = ", ".join(f"{position:,}" for position in missing)
        owner = f" of read model {read_model}" if read_model else ""
        raise UsageError(
            f"Generation {newest.number} has no dead letter{owner} at position {listed}; nothing was changed. "
            "`refold dead-letters list` shows them."
        )
    return found


def _publish_changed(
    generations: Generations, parent: Generation, letters: Sequence[DeadLetter], *, undo: bool
) -> Generation | None:
    """Publish a copy of a generation with changed dead letters; return None if another publisher was first."""
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
