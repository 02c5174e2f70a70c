"""Users' SQL on one event: an empty DuckDB, a table ``event`` with one row, and the text as the user wrote it."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    _texts: dict[tuple[str, pa.Schema], tuple[str, list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connection.execute("SET TimeZone = 'UTC'; SET threads = 1; SET enable_progress_bar = false")

    def put(self, event: RecordedEvent, schema: pa.Schema) -> None:
        """Make an event the only row of the table ``event``."""
        values = [as_sql(getattr(event, f.name), f.type) for f in ENVELOPE]
        values += [as_sql(event.payload[f.name], f.type) for f in schema]
        names = [name_in_sql(f.name) for f in (*ENVELOPE, *schema)]
        selected = ", ".join(f"{text} AS {name}" for (text, _), name in zip(values, names, strict=True))
        parameters = [p for _, mine in values for p in mine]
        self.connection.execute(f"CREATE OR REPLACE TABLE event AS SELECT {selected}", parameters)

    def columns(self, select: str, schema: pa.Schema) -> list[str]:
        """Return the columns that a SELECT yields over events of this schema, of which ``put`` has put one."""
        return self._bound(select, schema)[1]

    def rows(self, select: str, schema: pa.Schema, outputs: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return the rows that a SELECT makes of the event, as SQL expressions over its columns."""
        text = self._bound(select, schema)[0]
        return self.connection.execute(f"SELECT {', '.join(outputs)} FROM ({text}\n)").fetchall()

    def _bound(self, select: str, schema: pa.Schema) -> tuple[str, list[str]]:
        if (select, schema) not in self._texts:
            text = select.strip().removesuffix(";")
            try:
                found = self.connection.execute(f"DESCRIBE FROM ({text}\n)").fetchall()
            except duckdb.Error:
                text = _from_event(self.connection, text)
                found = self.connection.execute(f"DESCRIBE FROM ({text}\n)").fetchall()
            self._texts[select, schema] = text, [row[0] for row in found]
        return self._texts[select, schema]


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
