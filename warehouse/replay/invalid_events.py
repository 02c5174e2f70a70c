"""Invalid events: a search for the events that cannot be applied, so that the valid events still can.

One invalid event fails the query over a million events. ``apply_valid`` then bisects the events until it knows which
ones fail and why, leaves them out, and runs again. The caller either stops (strict) or keeps them as dead letters.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import duckdb
import pyarrow as pa

from refold.event_schemas import DamagedLogError, InvalidEventsError, ProjectionError
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.upcaster_sql import CARRIED
from refold.warehouse.engine.sql import columns, first_line
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.personal.readable_sql import raise_failure
from refold.warehouse.replay.contributions import Compiled, contributions
from refold.warehouse.replay.folds import FoldFailure
from refold.warehouse.replay.history import Replay

T = TypeVar("T")
P = TypeVar("P", int, tuple[int, ...])
_EXAMPLES = 5
_MAX_ROUNDS = 1000  # a fold finds one failing event a round; beyond this, the fold itself is wrong


def apply_valid(
    connection: duckdb.DuckDBPyConnection,
    domain: Domain,
    compiled: Compiled,
    stored: Mapping[SchemaKey, str],
    apply: Callable[[Replay], T],
) -> tuple[T, list[InvalidEvent]]:
    """Apply stored events to a read model, except the invalid ones.

    Args:
        connection: a connection on which ``stored`` can be queried.
        domain: contracts and upcasters.
        compiled: the read model.
        stored: event type and schema version to relation.
        apply: the work on a replay. It runs again from the start whenever invalid events were found.

    Returns:
        The result of ``apply``, and the invalid events.

    Raises:
        DamagedLogError: a segment cannot be read.
        KeyStoreError: the key of personal data is lost.
        ProjectionError: the query fails although no single event does, as when a total overflows.
    """
    invalid: dict[int, InvalidEvent] = {}
    for _ in range(_MAX_ROUNDS):
        replay = Replay(connection, domain, stored, skip=invalid)
        try:
            result = apply(replay)
            found: list[InvalidEvent] = []
        except duckdb.Error as error:
            raise_failure(error)
            found = _find(connection, domain, compiled, stored, invalid, error)
        except FoldFailure as failure:
            found = events_at(connection, stored, replay.together([failure.position]), failure.reason)
        found += described(connection, stored, replay.failures)
        invalid.update({b.position: b for b in found})
        if not found:
            return result, list(invalid.values())
    raise ProjectionError(
        f"Fold {compiled.model.name}: more than {_MAX_ROUNDS} events fail in one bucket. Fix the fold function."
    )


def _find(
    connection: duckdb.DuckDBPyConnection,
    domain: Domain,
    compiled: Compiled,
    stored: Mapping[SchemaKey, str],
    known: Iterable[int],
    error: duckdb.Error,
) -> list[InvalidEvent]:
    needed = {s for h in compiled.model.handlers for s in domain.registry.sources(h.event_type)}
    tables = materialise(connection, {s: r for s, r in stored.items() if s in needed})
    positions = positions_of(connection, tables, without=set(known))
    fails = functools.partial(_failure, connection, domain, compiled, tables)
    found: list[InvalidEvent] = []
    for alone, reason in halve([(p,) for p in positions], functools.partial(fails, upcast_only=True)):
        found += events_at(connection, tables, [alone], reason)
    if found:
        return found
    replay = Replay(connection, domain, tables, skip=known)
    contributions(compiled, replay.events)  # runs the mergers, so that bisecting never splits a run
    for together, reason in halve(replay.together(positions), fails):
        found += events_at(connection, tables, [together], reason)
    if not found:
        raise ProjectionError(
            f"Projection {compiled.model.name}: {first_line(error)} No single event fails alone. Check the types of "
            "its columns: a total may overflow."
        ) from error
    return found


def halve(positions: Sequence[P], failure: Callable[[Sequence[P]], str | None]) -> Iterator[tuple[P, str]]:
    """Bisect events until each one that fails is alone.

    Args:
        positions: the positions of the events in order, or groups of positions that stay together.
        failure: returns why a part of them fails; None if it does not.

    Yields:
        The position and the reason of each event that fails, in order.

    Example:
        >>> list(halve([3, 5, 8], lambda part: "five" if 5 in part else None))
        [(5, 'five')]
    """
    ranges = [positions]
    while ranges:
        part = ranges.pop()
        reason = failure(part) if part else None
        if reason is None:
            continue
        if len(part) == 1:
            yield part[0], reason
        else:
            middle = len(part) // 2
            ranges += [part[middle:], part[:middle]]


def materialise(connection: duckdb.DuckDBPyConnection, stored: Mapping[SchemaKey, str]) -> dict[SchemaKey, str]:
    """Copy relations into temporary tables, which are fast to read many times.

    Raises:
        DamagedLogError: a segment cannot be read.
    """
    tables = {}
    for index, key in enumerate(sorted(stored)):
        name = f"_stored_{index}"
        try:
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM {stored[key]}")
        except duckdb.Error as error:
            raise DamagedLogError(
                f"The stored events of {key[0]} v{key[1]} cannot be read: {first_line(error)} Run "
                "`refold events verify` and restore the segment that it names."
            ) from error
        tables[key] = name
    return tables


def positions_of(
    connection: duckdb.DuckDBPyConnection, tables: Mapping[SchemaKey, str], *, without: Collection[int] = ()
) -> list[int]:
    """Return the positions of all events of relations, in order."""
    union = " UNION ALL ".join(f"SELECT position FROM {t}" for t in tables.values())
    rows = connection.execute(f"SELECT position FROM ({union}) ORDER BY 1").fetchall() if tables else []
    return [row[0] for row in rows if row[0] not in without]


def _failure(
    connection: duckdb.DuckDBPyConnection,
    domain: Domain,
    compiled: Compiled,
    tables: Mapping[SchemaKey, str],
    part: Sequence[tuple[int, ...]],
    *,
    upcast_only: bool = False,
) -> str | None:
    connection.register("_part", pa.table({"position": pa.array(itertools.chain(*part), pa.int64())}))
    stored = {s: f"(SELECT * FROM {t} SEMI JOIN _part USING (position))" for s, t in tables.items()}
    try:
        source = contributions(compiled, Replay(connection, domain, stored).events)
        if source is not None and not upcast_only:
            connection.execute(f"SELECT bit_xor(hash(c)) FROM ({source}) c").fetchall()
    except duckdb.Error as error:
        raise_failure(error)
        return first_line(error)
    return None


def events_at(
    connection: duckdb.DuckDBPyConnection,
    stored: Mapping[SchemaKey, str],
    positions: Iterable[tuple[int, ...]],
    reason: str,
) -> list[InvalidEvent]:
    """Return the stored events at groups of positions as invalid events with a reason."""
    return described(connection, stored, dict.fromkeys(itertools.chain(*positions), reason))


def described(
    connection: duckdb.DuckDBPyConnection, stored: Mapping[SchemaKey, str], reasons: Mapping[int, str]
) -> list[InvalidEvent]:
    """Return events as invalid events, in the schemas in which they are stored.

    Args:
        connection: a connection on which ``stored`` can be queried.
        stored: event type and schema version to relation.
        reasons: position to the reason.
    """
    if not reasons:
        return []
    listed = ", ".join(map(str, sorted(reasons)))
    found: list[InvalidEvent] = []
    envelope = columns(["position", "stream_id", "event_type", "schema_version"])
    for relation in stored.values():
        names = [name for name in connection.sql(f"FROM {relation}").columns if name not in CARRIED]
        payload = f"to_json(struct_pack({columns(names)}))::VARCHAR" if names else "'{}'"
        rows = connection.execute(
            f"SELECT {envelope}, {payload} FROM (FROM {relation} WHERE position IN ({listed}))"
        ).fetchall()
        found += [InvalidEvent(r[0], r[1], r[2], r[3], reasons[r[0]], r[4]) for r in rows]
    return found


def not_discarded(
    invalid: Mapping[str, Sequence[InvalidEvent]], discarded: Collection[tuple[str, int]]
) -> list[InvalidEvent]:
    """Return the invalid events that stop a strict run: all that were not discarded.

    Args:
        invalid: read model to its invalid events.
        discarded: read model and position of each discarded event.
    """
    return [b for name, found in invalid.items() for b in found if (name, b.position) not in discarded]


def refuse(invalid: Sequence[InvalidEvent], *, doing: str) -> InvalidEventsError:
    """Return the error of a strict run, with counts by reason and the first examples."""
    counts = Counter(b.reason.rstrip(".") for b in invalid)
    reasons = "; ".join(f"{n} x {reason}" for reason, n in counts.most_common(_EXAMPLES))
    first = sorted(invalid, key=lambda b: b.position)[:_EXAMPLES]
    examples = "; ".join(
        f"position {b.position}, stream {b.stream_id}, {b.event_type} v{b.schema_version}: {b.reason.rstrip('.')}"
        for b in first
    )
    return InvalidEventsError(
        f"{doing} cannot apply some events: {len({b.position for b in invalid})}. By reason: {reasons}. First "
        f"examples: {examples}. Nothing was published. Fix the upcaster, the handler or the contract. Or run "
        "again with "
        "--dead-letter to go on without these events, and retry them after the fix with `refold dead-letters retry`."
    )
