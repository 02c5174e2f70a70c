"""Payloads in JSON documents: transformed into columns in bulk, or one by one where that may lose a value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from refold.event_schemas import PayloadError
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.checks.context import PART, CheckContext, Indices, PayloadFields
from refold.pipelines.ingest.checks.json_documents import JsonDocuments
from refold.pipelines.ingest.checks.payload_plan import plan_payload
from refold.pipelines.ingest.mapping import FLAT

_MAX_STRUCTURES = 100_000
"""Structures remembered by a worker; a file with more of them uses keys as data, and they are checked again."""

StructureCache = dict[tuple[SchemaKey, str], int | None]
"""Which fields a document of a schema and a structure has, see :meth:`JsonDocuments.present_fields`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPayload:
    """Payloads that are JSON documents.

    Attributes:
        documents: a column of JSON text.
        prefix: path of the payload in the document.
        inner: the payload of a document that holds it as text; else NULL.
        structures: ``json_structure`` of each payload, as text; empty if it has none.
        cache: of structures that were checked.
    """

    documents: pa.ChunkedArray
    prefix: tuple[str, ...] = ()
    inner: pa.ChunkedArray
    structures: pa.ChunkedArray
    cache: StructureCache

    def read(self, context: CheckContext, schema_key: SchemaKey, picked: Indices) -> PayloadFields:
        """Return the fields of some rows, which all have one schema."""
        mapping = context.mapping
        documents = JsonDocuments(
            schema=context.registry.schema(*schema_key),
            keys=mapping.payload_columns.get(schema_key[0], {}),
            drop_unknown=mapping.unknown_fields == "drop" or mapping.payload == FLAT,
            zone=mapping.zone,
        )
        bits = self._present_fields(documents, schema_key, picked)
        if bits.null_count == len(bits):
            return self._read_exactly(context, documents, picked)
        fast = self._transformed(context, documents, picked, bits)
        doubtful = np.flatnonzero(fast.reasons.is_valid().to_numpy())
        if not len(doubtful):
            return fast
        return fast.replaced(doubtful, self._read_exactly(context, documents, picked[doubtful]))

    def _present_fields(self, documents: JsonDocuments, schema_key: SchemaKey, picked: Indices) -> pa.Array:
        encoded = self.structures.take(pa.array(picked)).combine_chunks().dictionary_encode()
        found = [self._checked(documents, schema_key, structure) for structure in encoded.dictionary.to_pylist()]
        return pa.array(found, pa.int64()).take(encoded.indices)

    def _checked(self, documents: JsonDocuments, schema_key: SchemaKey, structure: str) -> int | None:
        key = (schema_key, structure)
        if key not in self.cache:
            if len(self.cache) >= _MAX_STRUCTURES:
                self.cache.clear()
            self.cache[key] = documents.present_fields(json.loads(structure)) if structure else None
        return self.cache[key]

    def _transformed(
        self, context: CheckContext, documents: JsonDocuments, picked: Indices, bits: pa.Array
    ) -> PayloadFields:
        """Transform documents a vector at a time; a reason marks a row that may have lost a value."""
        rows = pa.array(picked)
        columns = {"_document": self.documents.take(rows), "_inner": self.inner.take(rows), "_bits": bits}
        struct = f"""CASE
            WHEN _bits IS NULL THEN NULL
            WHEN _inner IS NOT NULL THEN {documents.transform("_inner")}
            ELSE {documents.transform("_document", self.prefix)}
        END"""
        unsure = f"_bits IS NULL OR {documents.lost_value('_p', '_bits')}"
        return _fields(
            context, documents, columns, struct, lambda reason: f"CASE WHEN {unsure} THEN '' ELSE {reason} END"
        )

    def _read_exactly(self, context: CheckContext, documents: JsonDocuments, picked: Indices) -> PayloadFields:
        """Read documents one by one, by way of canonical JSON."""
        canonical: list[str | None] = []
        reasons: list[str | None] = []
        rows = pa.array(picked)
        for document, inner in zip(self.documents.take(rows), self.inner.take(rows), strict=True):
            text, prefix = (inner, ()) if inner.is_valid else (document, self.prefix)
            try:
                canonical.append(documents.canonical(text.as_py(), prefix))
                reasons.append(None)
            except PayloadError as error:
                canonical.append(None)
                reasons.append(str(error))
        columns = {"_document": pa.array(canonical, pa.string()), "_invalid": pa.array(reasons, pa.string())}
        named = replace(documents, keys={})
        return _fields(
            context, named, columns, named.transform("_document"), lambda reason: f"coalesce(_invalid, {reason})"
        )


def _fields(
    context: CheckContext,
    documents: JsonDocuments,
    columns: Mapping[str, Any],
    struct: str,
    reason: Callable[[str], str],
) -> PayloadFields:
    """Compute the fields of documents.

    Args:
        context: the documents are registered in its database.
        documents: how they are read.
        columns: of the documents.
        struct: an expression over ``columns`` for the transformed document.
        reason: returns an expression for why a row is invalid, given that of the value rules.
    """
    plan = plan_payload(documents.schema, documents.find_column("_p"), documents.keys)
    aliases = {name: f"_f{i}" for i, name in enumerate(plan.values)}
    context.register(PART, columns)
    expressions = {aliases[name]: sql for name, sql in plan.values.items()} | {"_reason": reason(plan.reason)}
    computed = context.select(f"(SELECT *, {struct} AS _p FROM {PART})", expressions)
    return PayloadFields({name: computed[alias] for name, alias in aliases.items()}, computed["_reason"])
