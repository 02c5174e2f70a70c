"""Users' SQL on one event: an empty DuckDB, a relation ``event`` with one row, and the text as the user wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from refold.event_schemas.envelope import ENVELOPE, RecordedEvent
from refold.warehouse.sequential_fold.values import as_sql, name_in_sql


@dataclass(slots=True)
class OneEvent:
    """Runs users' SQL on one event after the other; threads must not share it."""

    connection: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect)
    _texts: dict[tuple[str, pa.Schema], tuple[str, frozenset[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connection.execute("SET TimeZone = 'UTC'; SET threads = 1; SET enable_progress_bar = false")

    def rows(
        self, select: str, event: RecordedEvent, schema: pa.Schema, outputs: Callable[[frozenset[str]], Sequence[str]]
    ) -> list[tuple[Any, ...]]:
        """Return the rows that a SELECT makes of an event.

        Args:
            select: the user's text.
            event: the event.
            schema: the schema of its payload.
            outputs: takes the names that the SELECT yields, in lower case; returns SQL expressions over them.
        """
        relation, parameters = _relation(event, schema)
        if (select, schema) not in self._texts:
            self._texts[select, schema] = self._bound(select, relation, parameters)
        text, names = self._texts[select, schema]
        query = f"{relation} SELECT {', '.join(outputs(names))} FROM ({text}\n)"
        return self.connection.execute(query, parameters).fetchall()

    def _bound(self, select: str, relation: str, parameters: list[Any]) -> tuple[str, frozenset[str]]:
        text = select.strip().removesuffix(";")
        try:
            found = self.connection.execute(f"{relation} FROM ({text}\n)", parameters).description
        except duckdb.BinderException:
            text = _from_event(self.connection, text)
            found = self.connection.execute(f"{relation} FROM ({text}\n) LIMIT 0", parameters).description
        return text, frozenset(column[0].lower() for column in found or ())


def _relation(event: RecordedEvent, schema: pa.Schema) -> tuple[str, list[Any]]:
    """Return a table ``event`` with one row, and the parameters that are its values."""
    values = [as_sql(getattr(event, f.name), f.type) for f in ENVELOPE]
    values += [as_sql(event.payload[f.name], f.type) for f in schema]
    names = [name_in_sql(f.name) for f in (*ENVELOPE, *schema)]
    selected = ", ".join(f"{text} AS {name}" for (text, _), name in zip(values, names, strict=True))
    return f"WITH event AS MATERIALIZED (SELECT {selected})", [p for _, mine in values for p in mine]


def _from_event(connection: duckdb.DuckDBPyConnection, select: str) -> str:
    """Write the ``FROM event`` that the user may leave out, on all sides of a UNION."""
    tree, source = (
        json.loads(connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0])
        for text in (select, "FROM event")
    )
    nodes = [tree["statements"][0]["node"]]
    for node in nodes:
        nodes += node.get("children") or [node[side] for side in ("left", "right") if side in node]
        if node.get("from_table", {}).get("type") == "EMPTY":
            node["from_table"] = source["statements"][0]["node"]["from_table"]
    return str(connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()[0][0])
