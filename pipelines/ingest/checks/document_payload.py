"""Payloads in JSON documents: transformed into columns in bulk, or one by one where that may lose a value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from refold.event_schemas import PayloadError
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.checks.computed_fields import compute_fields
from refold.pipelines.ingest.checks.context import PART, CheckContext, Indices, PayloadFields, nullable_type
from refold.pipelines.ingest.checks.exact_values import ExactReader
from refold.pipelines.ingest.checks.json_documents import JsonDocuments, Present, keys_in_lists
from refold.pipelines.ingest.checks.payload_plan import plan_payload
from refold.pipelines.ingest.checks.value_rules import surplus_digits
from refold.pipelines.ingest.mapping import path_of
from refold.warehouse.engine.arrow_values import array_of

_MAX_STRUCTURES = 100_000
"""Structures remembered by a worker; a file with more of them uses keys as data, and they are checked again."""

_UNSURE = ""
"""The reason of a row that may have lost a value: it is read again."""

StructureCache = dict[tuple[SchemaKey, str], Present | None]
"""What a document of a schema and a structure has, see :meth:`JsonDocuments.present_fields`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPayload:
    """Payloads that are JSON documents.

    Attributes:
        documents: a column of JSON text.
        prefixes: the paths that a document may have its payload at.
        which: of each document, the index of its path in ``prefixes``.
        inner: the payload of a document that holds it as text; else NULL.
        structures: ``json_structure`` of each payload, as text; empty if it has none.
        keys: how many keys each payload has; of other texts that look like keys too.
        cache: of structures that were checked.
    """

    documents: pa.ChunkedArray
    prefixes: tuple[tuple[str, ...], ...]
    which: Indices
    inner: pa.ChunkedArray
    structures: pa.ChunkedArray
    keys: Indices
    cache: StructureCache

    def read(self, context: CheckContext, schema_key: SchemaKey, picked: Indices) -> PayloadFields:
        """Return the fields of some rows, which all have one schema."""
        documents = JsonDocuments(
            event_type=schema_key[0], schema=context.registry.schema(*schema_key), mapping=context.mapping
        )
        present = self._present_fields(documents, schema_key, picked)
        known = present.is_known(self.keys[picked])
        if not known.any():
            return self._read_exactly(documents, picked)
        fields = _empty_fields(documents, len(picked))
        for rows, texts in _variants(present, np.flatnonzero(known)):
            for group in self._groups(picked, rows):
                made = self._transformed(context, documents, picked[group], present.of_rows(group), texts)
                fields = made if len(group) == len(picked) else fields.replaced(group, made)
        unsure = np.flatnonzero(~known | fields.reasons.is_valid().to_numpy())
        return fields.replaced(unsure, self._read_exactly(documents, picked[unsure])) if len(unsure) else fields

    def _groups(self, picked: Indices, rows: Indices) -> Iterator[Indices]:
        """Divide rows by where their documents have the payload."""
        inner = self.inner.is_valid().to_numpy()[picked[rows]]
        place = np.where(inner, -1, self.which[picked[rows]].astype(np.int64))
        return (rows[place == one] for one in np.unique(place).tolist())

    def _payload_of(self, row: int) -> tuple[pa.ChunkedArray, tuple[str, ...]]:
        """Return the column of JSON text that has the payload of a row, and its path in it."""
        return (self.inner, ()) if self.inner[row].is_valid else (self.documents, self.prefixes[self.which[row]])

    def has(self, _context: CheckContext, path: str, picked: Indices) -> bool:
        """Check whether any of some documents has a path."""
        distinct = self.structures.take(pa.array(picked)).unique().to_pylist()
        return any(_has(json.loads(structure), path_of(path)) for structure in distinct if structure)

    def _present_fields(self, documents: JsonDocuments, schema_key: SchemaKey, picked: Indices) -> _PresentRows:
        encoded = self.structures.take(pa.array(picked)).combine_chunks().dictionary_encode()
        found = [self._checked(documents, schema_key, structure) for structure in encoded.dictionary.to_pylist()]
        return _PresentRows(found, encoded.indices.to_numpy())

    def _checked(self, documents: JsonDocuments, schema_key: SchemaKey, structure: str) -> Present | None:
        key = (schema_key, structure)
        if key not in self.cache:
            if len(self.cache) >= _MAX_STRUCTURES:
                self.cache.clear()
            self.cache[key] = documents.present_fields(json.loads(structure)) if structure else None
        return self.cache[key]

    def _transformed(
        self, context: CheckContext, documents: JsonDocuments, rows: Indices, present: _PresentRows, texts: int
    ) -> PayloadFields:
        """Transform documents a vector at a time; a reason marks a row that may have lost a value."""
        texts_of, prefix = self._payload_of(rows[0])
        in_lists = pa.array(self.keys[rows] - present.keys)
        context.register(
            PART,
            {"_document": texts_of.take(pa.array(rows)), "_bits": pa.array(present.bits), "_in_lists": in_lists},
        )
        mapping = context.mapping
        plan = plan_payload(
            documents.schema,
            documents.find_column("_p", texts),
            partial(mapping.source_of, documents.event_type),
            mapping,
        )
        numbers = [field for i, field in enumerate(documents.schema) if not texts >> i & 1]
        unsure = f"{documents.lost_value('_p', '_bits', texts)} OR {surplus_digits('_document', numbers)}"
        if present.lists:
            unsure += f" OR _in_lists <> {keys_in_lists('_document', prefix, present.lists)}"
        return compute_fields(
            context,
            plan,
            documents.schema,
            f"(SELECT *, {documents.transform('_document', prefix, texts)} AS _p FROM {PART})",
            event_type=documents.event_type,
            reason=f"CASE WHEN {unsure} OR ({plan.reason}) IS NOT NULL THEN '{_UNSURE}' END",
        )

    def _read_exactly(self, documents: JsonDocuments, rows: Indices) -> PayloadFields:
        """Read documents one by one."""
        reader = ExactReader(documents.mapping)
        found: list[dict[str, Any]] = []
        reasons: list[str | None] = []
        for row in rows.tolist():
            texts, prefix = self._payload_of(row)
            try:
                found.append(documents.read(texts[row].as_py(), prefix, reader))
                reasons.append(None)
            except PayloadError as error:
                found.append({})
                reasons.append(str(error))
        columns = {
            f.name: pa.chunked_array([array_of([row.get(f.name) for row in found], nullable_type(f.type))])
            for f in documents.schema
        }
        return PayloadFields(columns, pa.chunked_array([pa.array(reasons, pa.string())]), reader.local.count)


@dataclass(frozen=True, slots=True)
class _PresentRows:
    """What the documents of some rows have.

    Attributes:
        distinct: what documents have, once for each structure.
        index: of each row, into ``distinct``.
    """

    distinct: list[Present | None]
    index: Indices

    def of_rows(self, rows: Indices) -> _PresentRows:
        """Return what the documents of some of the rows have."""
        return _PresentRows(self.distinct, self.index[rows])

    def is_known(self, keys: Indices) -> Indices:
        """Return which rows can be transformed: those of another number of keys may have one twice.

        Of a row with objects in lists, the keys are counted when it is transformed.
        """
        known = np.array([p is not None for p in self.distinct], bool)[self.index]
        in_lists = np.array([bool(p and p.lists) for p in self.distinct], bool)[self.index]
        return np.asarray(known & (in_lists | (self.keys == keys)))

    @property
    def keys(self) -> Indices:
        """How many keys each row has outside lists."""
        return np.array([p.keys if p else 0 for p in self.distinct], np.int64)[self.index]

    @property
    def lists(self) -> frozenset[str]:
        """The paths of the objects in lists that any row has."""
        found = (self.distinct[i] for i in np.unique(self.index).tolist())
        return frozenset().union(*(p.lists for p in found if p))

    @property
    def bits(self) -> Indices:
        """The fields that each row has a value for."""
        return np.array([p.fields if p else 0 for p in self.distinct], np.int64)[self.index]

    @property
    def texts(self) -> Indices:
        """The fields that each row has as text."""
        return np.array([p.texts if p else 0 for p in self.distinct], np.int64)[self.index]


def _variants(present: _PresentRows, rows: Indices) -> Iterator[tuple[Indices, int]]:
    """Divide rows by the fields that they have as text; a field without a value may be extracted as anything."""
    bits, texts = present.bits, present.texts
    while len(rows):
        as_text = int(np.bitwise_or.reduce(texts[rows]))
        fit = (bits[rows] & ~texts[rows] & as_text) == 0
        if not fit.any():
            as_text = int(texts[rows[0]])
            fit = ((bits[rows] & ~texts[rows] & as_text) == 0) & (texts[rows] & ~as_text == 0)
        yield rows[fit], as_text
        rows = rows[~fit]


def _empty_fields(documents: JsonDocuments, count: int) -> PayloadFields:
    columns = {f.name: pa.chunked_array([pa.nulls(count, nullable_type(f.type))]) for f in documents.schema}
    return PayloadFields(columns, pa.chunked_array([pa.nulls(count, pa.string())]))


def one_document(count: int) -> dict[str, Any]:
    """Return the attributes of payloads that are documents of their own."""
    return {
        "prefixes": ((),),
        "which": np.zeros(count, np.uint8),
        "inner": pa.chunked_array([pa.nulls(count, pa.string())]),
    }


def _has(structure: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(structure, dict) or key not in structure:
            return False
        structure = structure[key]
    return True
