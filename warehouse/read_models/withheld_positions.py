"""The events since which rows are withheld, and their dead letters.

The position is that of the event that took a total beyond its column the last time. It depends on the history alone, so
a rebuild and any increments report the same one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import duckdb

from refold.warehouse.declarations import totals
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.engine.sql import columns, quote
from refold.warehouse.event_log.payload_parsing import InvalidEvent, Typed
from refold.warehouse.read_models import withheld
from refold.warehouse.read_models.increments.exact_merge import before_total
from refold.warehouse.replay.contributions import Compiled, contributions, deletions, position_of, same_key
from refold.warehouse.replay.history import Replay
from refold.warehouse.replay.invalid_events import events_at


def report_withheld(
    connection: duckdb.DuckDBPyConnection,
    domain: Domain,
    compiled: Compiled,
    typed: Typed,
    *,
    before: str | None,
    without: Collection[int],
) -> list[InvalidEvent]:
    """Find since which event each newly withheld row of a read model is withheld, and keep that position.

    Args:
        connection: connection to the database; inside the transaction that withheld the rows.
        domain: contracts and upcasters.
        compiled: the read model.
        typed: the events of the increment, or of the whole history.
        before: relation of the rows before these events, with their positions; None if there were none.
        without: positions of events that the read model excludes.

    Returns:
        These events, each with the reason.
    """
    model = compiled.model
    assert isinstance(model, Projection)
    held = withheld.table_of(model.name)
    source = contributions(compiled, Replay(connection, domain, typed.relations, skip=without).events)
    if source is None:
        return []
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _moved AS {_moved(compiled, source, before)}")
    connection.execute(f"UPDATE {held} SET _position = m._since FROM _moved m WHERE {same_key(model.key, held, 'm')}")
    reasons = _reasons(connection, model)
    found = events_at(connection, typed.relations, [(position,) for position in reasons], "")
    return [dataclasses.replace(event, reason=reasons[event.position]) for event in found]


def _moved(compiled: Compiled, source: str, before: str | None) -> str:
    """Return the relation of newly withheld rows: key, ``_since``, and the totals at that event as text, or NULL."""
    model = compiled.model
    assert isinstance(model, Projection)
    keys, held = compiled.keys, withheld.table_of(model.name)
    each = [(c, quote(c.name), str(c.reducer.type)) for c in model.totals()]
    sums = ", ".join(f"sum({totals.exact(name, dtype)}) AS {name}" for _, name, dtype in each)
    window = f"OVER (PARTITION BY {columns(model.key, prefix='s.')} ORDER BY s._at)"
    running = ", ".join(f"{before_total(c)} + sum(s.{name}) {window} AS {name}" for c, name, _ in each)
    fits = " AND ".join(f"{totals.fitting(name, dtype)} IS NOT NULL" for _, name, dtype in each)
    texts = ", ".join(
        f"CASE WHEN {totals.fitting(name, dtype)} IS NULL THEN {totals.text_of(name, dtype)} END AS {name}"
        for _, name, dtype in each
    )
    return f"""
    WITH c AS (SELECT * FROM ({source}) SEMI JOIN (FROM {held} WHERE _position IS NULL) USING ({keys})),
    sums AS (SELECT {keys}, {position_of(compiled)} AS _at, {sums} FROM ({_alive(compiled)}) GROUP BY ALL),
    running AS (
        SELECT {columns(model.key, prefix="s.")}, s._at, t._position AS _before, {running}
        FROM sums s LEFT JOIN {before or f"(FROM {held} LIMIT 0)"} t ON {same_key(model.key, "s", "t")}
    ),
    fitted AS (SELECT *, {fits} AS _fits FROM running),
    ends AS (SELECT *, max(_at) FILTER (_fits) OVER (PARTITION BY {keys}) AS _last FROM fitted),
    firsts AS (
        SELECT * FROM ends WHERE _at > coalesce(_last, -1)
        QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY _at) = 1
    )
    SELECT {keys}, CASE WHEN _last IS NULL THEN coalesce(_before, _at) ELSE _at END AS _since,
           _last IS NULL AND _before IS NOT NULL AS _known, {texts}
    FROM firsts
    """


def _alive(compiled: Compiled) -> str:
    """Return the contributions since the last deletion of their key."""
    if not compiled.model.deletes:
        return "FROM c"
    gone = deletions(compiled, "c")
    return (
        f"SELECT c.* FROM c LEFT JOIN ({gone}) d ON {same_key(compiled.model.key, 'c', 'd')} "
        "WHERE NOT c._delete AND (d._deleted_at IS NULL OR c._at > d._deleted_at)"
    )


def _reasons(connection: duckdb.DuckDBPyConnection, model: Projection) -> dict[int, str]:
    """Return why rows are withheld since each event; one reason an event, which may concern several rows."""
    names = [c.name for c in model.totals()]
    key = ", ".join(f"CAST({quote(k)} AS VARCHAR)" for k in model.key)
    rows = connection.execute(
        f"SELECT _since, {key}, {columns(names)}, count(*) OVER (PARTITION BY _since) FROM _moved WHERE NOT _known "
        f"QUALIFY row_number() OVER (PARTITION BY _since ORDER BY {columns(model.key)}) = 1"
    ).fetchall()
    return {row[0]: _reason(model, names, row[1 : 1 + len(model.key)], row[1 + len(model.key) :]) for row in rows}


def _reason(model: Projection, names: list[str], key: Any, rest: Any) -> str:
    name, total = next((n, t) for n, t in zip(names, rest, strict=False) if t is not None)
    row = ", ".join(f"{k} = {v}" for k, v in zip(model.key, key, strict=True))
    others = f" So do totals of {rest[-1] - 1} other rows." if rest[-1] > 1 else ""
    return (
        f"The total {name} of the row {row} becomes {total} and leaves {model.columns[name].type}.{others} The row is "
        "withheld until its total fits."
    )
