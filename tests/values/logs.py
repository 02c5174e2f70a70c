"""Logs of hostile values, and what comes out of them: by reading, by a stream and by a rebuild."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log import EventLog
from refold.warehouse.event_log import commit as commits
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.reads.read import read_positions
from tests.properties.engine import Tables


@dataclass(frozen=True, slots=True)
class Foreign:
    """An event that another program writes into a commit.

    Attributes:
        stream_id: its stream, which is new.
        event_type: its event type.
        payload: the text of its payload.
        schema_version: its schema version.
        occurred_at: in microseconds since 1970, or as a time.
    """

    stream_id: str
    event_type: str
    payload: str
    schema_version: int = 1
    occurred_at: Any = datetime(2026, 1, 5, 9, tzinfo=UTC)


def write_commit(log: EventLog, events: Iterable[Foreign]) -> CommitInfo:
    """Write a commit as another program does, which checks nothing."""
    head = log.head()
    now = datetime.now(UTC)
    rows = [
        (
            head.position + i,
            head.commit + 1,
            event.stream_id,
            1,
            str(uuid.uuid4()),
            event.event_type,
            event.schema_version,
            event.occurred_at,
            now,
            None,
            None,
            event.payload,
        )
        for i, event in enumerate(events, start=1)
    ]
    info = CommitInfo(
        number=head.commit + 1,
        uuid=str(uuid.uuid4()),
        first_position=head.position + 1,
        last_position=head.position + len(rows),
        recorded_at=now,
        previous=head.end.digest,
        heads={row[2]: 1 for row in rows},
    )
    info, data = commits.encode(info, list(zip(*rows, strict=True)))
    assert log.store.put_if_absent(commit_key(info.number), data)
    return info


def payloads(log: EventLog, domain: Domain) -> dict[str, Mapping[str, Any]]:
    """Return the payload of the last event of each stream, as the log's readers show it."""
    return {e.stream_id: e.payload for e in read_positions(log, domain.registry, 0)}


@contextmanager
def tables(folder: Path, domain: Domain, *, dead_letter: bool = True) -> Iterator[Tables]:
    """Open an empty database of the domain's read models."""
    made = Tables(folder, domain, dead_letter=dead_letter)
    try:
        yield made
    finally:
        made.close()


def shown(made: Tables, model: str) -> dict[str, Any]:
    """Return the column ``x`` of a read model by stream."""
    found = made.connection.sql(f'SELECT stream, x FROM "{model}"').to_arrow_table()
    if not len(found):  # Arrow fails on an empty column of UUIDs
        return {}
    return dict(zip(found["stream"].to_pylist(), found["x"].to_pylist(), strict=True))


def dead_letters(made: Tables) -> dict[int, str]:
    """Return the reason of each dead letter by position."""
    rows: Sequence[tuple[int, str]] = made.connection.execute(
        "SELECT position, any_value(reason) FROM refold.dead_letters GROUP BY 1"
    ).fetchall()
    return dict(rows)


def same(found: Any, expected: Any) -> bool:
    """Check that two values are the same: of one type, with as many digits, as one time, with the same zero."""
    if isinstance(expected, Mapping):
        return (
            isinstance(found, Mapping)
            and found.keys() == expected.keys()
            and all(same(found[name], inner) for name, inner in expected.items())
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(same(f, e) for f, e in zip(found, expected, strict=True))
        )
    if isinstance(expected, datetime):  # a column without a zone holds times in UTC
        return isinstance(found, datetime) and _in_utc(found) == _in_utc(expected)
    return type(found) is type(expected) and repr(found) == repr(expected)


def _in_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
