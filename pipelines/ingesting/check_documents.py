"""Payloads that are JSON documents: transformed a vector at a time where that loses nothing, else looked at singly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from event_schemas import PayloadError
from event_schemas.registry import Shape
from pipelines.ingesting.chunk import Chunk
from pipelines.ingesting.desk import KEPT, Desk, Told, good, same
from pipelines.ingesting.mapping import FLAT
from pipelines.ingesting.payload_json import JsonShape
from warehouse.sql import quote

_JUDGED = 100_000
"""Structures remembered; more of them means that keys are data."""


class Documents:
    """Reads the documents of one chunk after the other, and remembers what it judged of their structures.

    Args:
        desk: what the worker has before it.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._judged: dict[tuple[Shape, str], int | None] = {}

    def read(self, chunk: Chunk, shape: Shape, told: Sequence[Told], wrong: dict[int, str]) -> pa.Table:
        """Read the events of one shape, sorted by bucket; rows that do not fit are noted as wrong."""
        desk, plan = self._desk, self._plan(shape)
        judged = {t.structure: self._judge(plan, shape, t.structure) for t in told}
        desk.connection.register(
            "_judged", pa.table({"_structure": list(judged), "_bits": pa.array(judged.values(), pa.int64())})
        )
        documents = f"""(
            SELECT k.*, j._bits, CASE
                WHEN j._bits IS NULL THEN NULL
                WHEN k._inner IS NOT NULL THEN {plan.transform("k._inner")}
                ELSE {plan.transform("k._document", chunk.prefix)}
            END AS _p
            FROM {KEPT} k JOIN _judged j USING (_structure)
        )"""
        fits = f"(_bits IS NOT NULL AND {plan.fits('_p', '_bits')})::TINYINT AS _fits"
        table = desk.by_bucket(documents, [*_selected(plan), fits], f"_wrong IS NULL AND {same(told)}")
        fit = table["_fits"].to_numpy() == 1
        table = table.drop_columns(["_fits"])
        if fit.all():
            return table
        exact = self._one_by_one(chunk, plan, table["_row"].to_numpy()[~fit], wrong)
        whole = pa.concat_tables([table.filter(pa.array(fit)), exact])
        return whole.take(pa.array(np.argsort(whole["_bucket"].to_numpy(), kind="stable")))

    def _one_by_one(self, chunk: Chunk, plan: JsonShape, rows: np.ndarray[Any, Any], wrong: dict[int, str]) -> pa.Table:
        """Read some documents by way of canonical JSON."""
        desk = self._desk
        desk.connection.register("_doubtful", pa.table({"_row": rows}))
        canonical: dict[int, str] = {}
        for row, document, inner in desk.rows(
            f"SELECT _row, _document, _inner FROM {KEPT} JOIN _doubtful USING (_row)"
        ):
            try:
                canonical[row] = plan.mend(document or "{}", chunk.prefix) if inner is None else plan.mend(inner)
            except PayloadError as error:
                wrong[row] = str(error)
        arrays = [pa.array(canonical, pa.int64()), pa.array(canonical.values(), pa.string())]
        desk.connection.register("_mended", pa.table(arrays, names=["_row", "_canonical"]))
        own = JsonShape(schema=plan.schema, keys={}, drop_unknown=False, zone=plan.zone)
        documents = f"(SELECT k.*, {own.transform('_canonical')} AS _p FROM {KEPT} k JOIN _mended USING (_row))"
        why = f"CASE WHEN NOT ({own.fits('_p', None)}) THEN 'the payload cannot be read' END AS _why"
        return good(desk.by_bucket(documents, [*_selected(own), why], "true"), wrong)

    def _plan(self, shape: Shape) -> JsonShape:
        mapping = self._desk.mapping
        return JsonShape(
            schema=self._desk.registry.schema(*shape),
            keys=mapping.payload_columns.get(shape[0], {}),
            drop_unknown=mapping.unknown_fields == "drop" or mapping.payload == FLAT,
            zone=mapping.zone,
        )

    def _judge(self, plan: JsonShape, shape: Shape, structure: str) -> int | None:
        key = (shape, structure)
        if key not in self._judged:
            if len(self._judged) >= _JUDGED:
                self._judged.clear()
            self._judged[key] = plan.judge(json.loads(structure)) if structure else None
        return self._judged[key]


def _selected(plan: JsonShape) -> list[str]:
    return [f"{sql} AS {quote(name)}" for name, sql in plan.fields("_p").items()]
