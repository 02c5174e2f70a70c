"""Payloads that are JSON documents: transformed a vector at a time where that loses nothing, else looked at singly."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from refold.event_schemas import PayloadError
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.checks.context import (
    BROUGHT,
    CheckContext,
    Found,
    Told,
    by_bucket,
    good,
    same,
)
from refold.pipelines.ingest.chunk import Documents
from refold.pipelines.ingest.envelope_columns import selected
from refold.pipelines.ingest.mapping import FLAT
from refold.pipelines.ingest.payload_json import JsonShape
from refold.warehouse.engine.sql import quote

_KEPT = "_kept"
"""The table that holds a chunk's documents while they are looked at."""

_JUDGED = 100_000
"""Structures remembered; more of them means that keys are data."""


class DocumentReader:
    """Reads the documents of one chunk after the other, and remembers what it judged of their structures.

    Args:
        desk: what the worker has before it.
    """

    def __init__(self, desk: CheckContext) -> None:
        self._desk = desk
        self._judged: dict[tuple[SchemaKey, str], int | None] = {}

    def read(self, chunk: Documents, explain: Callable[[int], str], wrong: dict[int, str]) -> Found:
        """Read the events of a chunk; rows that are none are noted as wrong.

        Args:
            chunk: rows with documents.
            explain: why a row that cannot be read is no event; empty for a blank one.
            wrong: row to why it is no event.
        """
        desk = self._desk
        desk.run(f"CREATE OR REPLACE TEMP TABLE {_KEPT} AS FROM {chunk.relation}")
        told = desk.rows(f"SELECT _row, _wrong FROM {_KEPT} WHERE _wrong IS NOT NULL")
        wrong |= {row: reason or explain(row) for row, reason in told}
        schema_keys: dict[SchemaKey, list[Told]] = {}
        query = f"SELECT _type, _version, _structure FROM {_KEPT} WHERE _wrong IS NULL GROUP BY ALL ORDER BY ALL"
        for one in (Told(*row) for row in desk.rows(query)):
            schema_key, unknown = desk.schema_key(one)
            if unknown:
                rows = desk.rows(f"SELECT _row FROM {_KEPT} WHERE _wrong IS NULL AND {same([one])}")
                wrong |= {row: unknown for (row,) in rows}
            else:
                schema_keys.setdefault(schema_key, []).append(one)
        found = {
            schema_key: by_bucket(self._of_shape(chunk, schema_key, told, wrong))
            for schema_key, told in schema_keys.items()
        }
        desk.run(f"DROP TABLE {_KEPT}")
        return found

    def _of_shape(
        self, chunk: Documents, schema_key: SchemaKey, told: Sequence[Told], wrong: dict[int, str]
    ) -> pa.Table:
        desk, plan = self._desk, self._plan(schema_key)
        judged = {t.structure: self._judge(plan, schema_key, t.structure) for t in told}
        desk.register("_judged", {"_structure": list(judged), "_bits": pa.array(judged.values(), pa.int64())})
        documents = f"""(
            SELECT k.*, j._bits, CASE
                WHEN j._bits IS NULL THEN NULL
                WHEN k._inner IS NOT NULL THEN {plan.transform("k._inner")}
                ELSE {plan.transform("k._document", chunk.prefix)}
            END AS _p
            FROM {_KEPT} k JOIN _judged j USING (_structure)
            WHERE _wrong IS NULL AND {same(told)}
        )"""
        fits = f"(_bits IS NOT NULL AND {plan.fits('_p', '_bits')})::TINYINT"
        table = self._typed(documents, plan, {"_fits": fits})
        fit = table["_fits"].to_numpy() == 1
        table = table.drop_columns(["_fits"])
        if fit.all():
            return table
        singly = self._singly(chunk, plan, table["_row"].to_numpy()[~fit], wrong)
        return pa.concat_tables([table.filter(pa.array(fit)), singly])

    def _singly(self, chunk: Documents, plan: JsonShape, rows: np.ndarray[Any, Any], wrong: dict[int, str]) -> pa.Table:
        """Read some documents one by one, by way of canonical JSON."""
        desk = self._desk
        desk.register("_doubtful", {"_row": rows})
        canonical: dict[int, str] = {}
        found = desk.rows(f"SELECT _row, _document, _inner FROM {_KEPT} JOIN _doubtful USING (_row)")
        for row, document, inner in found:
            try:
                canonical[row] = plan.mend(document or "{}", chunk.prefix) if inner is None else plan.mend(inner)
            except PayloadError as error:
                wrong[row] = str(error)
        texts = pa.array(canonical.values(), pa.string())
        desk.register("_canonical", {"_row": pa.array(canonical, pa.int64()), "_text": texts})
        own = JsonShape(schema=plan.schema, keys={}, drop_unknown=False, zone=plan.zone)
        documents = f"(SELECT k.*, {own.transform('_text')} AS _p FROM {_KEPT} k JOIN _canonical USING (_row))"
        why = f"CASE WHEN NOT ({own.fits('_p', None)}) THEN 'the payload cannot be read' END"
        table = self._typed(documents, own, {"_why": why})
        return good(table.drop_columns(["_why"]), table["_why"], wrong)

    def _typed(self, documents: str, plan: JsonShape, more: dict[str, str]) -> pa.Table:
        """Select the envelope and the payload of transformed documents, with their buckets."""
        names = {name: name for name in ("_row", *BROUGHT)}
        fields = {quote(name): sql for name, sql in plan.fields("_p").items()}
        table = self._desk.query(f"SELECT {selected(names | fields | more)} FROM {documents}")
        buckets = self._desk.buckets(table["stream_id"].combine_chunks())
        return table.append_column("_bucket", pa.array(buckets))

    def _plan(self, schema_key: SchemaKey) -> JsonShape:
        mapping = self._desk.mapping
        return JsonShape(
            schema=self._desk.registry.schema(*schema_key),
            keys=mapping.payload_columns.get(schema_key[0], {}),
            drop_unknown=mapping.unknown_fields == "drop" or mapping.payload == FLAT,
            zone=mapping.zone,
        )

    def _judge(self, plan: JsonShape, schema_key: SchemaKey, structure: str) -> int | None:
        key = (schema_key, structure)
        if key not in self._judged:
            if len(self._judged) >= _JUDGED:
                self._judged.clear()
            self._judged[key] = plan.judge(json.loads(structure)) if structure else None
        return self._judged[key]
