"""JSON documents as columns, exactly: nothing is rounded, cut, or left out without an error.

DuckDB's ``json_transform`` is fast and lenient: it rounds 12.7 for an integer, accepts a number for a text, and ignores
keys that it was not asked for. So the *structure* of a document (``json_structure``: key to JSON type) decides first
whether the transformation keeps every value. A file has few different structures; each is checked once. A text is
extracted as text, and read as a cell of a CSV file is. All other documents are read one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import PayloadError
from refold.event_schemas.payload import from_json, parse_json, to_json
from refold.pipelines.ingest.checks.column import Column, FindColumn, field_of
from refold.pipelines.ingest.checks.exact_values import ExactReader
from refold.pipelines.ingest.checks.value_rules import extracted_as, extracts_exactly
from refold.pipelines.ingest.mapping import FLAT, ColumnMapping, path_of
from refold.warehouse.engine.sql import json_structure, literal

_EXACT_INTEGERS = 1 << 53
"""A binary float may round integers from here on."""

_MAX_FIELDS = 62
"""The fields that a document has are bits of a BIGINT; wider schemas are read one document at a time."""

_PATH = re.compile(r'(\[\*\]|\."[^"\\\0]+")*')
"""The paths that DuckDB reads as they are written."""


@dataclass(frozen=True, slots=True)
class Present:
    """What a document has, as bits of the fields.

    Attributes:
        fields: those that have a value.
        texts: those whose value is a text, but whose type is another one.
        keys: how many keys it has, those of inner objects too, but not those of objects in lists.
        lists: the paths of all objects in lists, as DuckDB writes them.
    """

    fields: int
    texts: int
    keys: int
    lists: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class JsonDocuments:
    """How the documents of one schema are read.

    Attributes:
        event_type: of the events.
        schema: of the payload.
        mapping: of the file.
    """

    event_type: str
    schema: pa.Schema
    mapping: ColumnMapping

    @cached_property
    def paths(self) -> dict[str, tuple[str, ...]]:
        """The path of each field in a document."""
        return {f.name: path_of(self.mapping.column_of(self.event_type, f.name)) for f in self.schema}

    @property
    def drops_unknown(self) -> bool:
        """Whether keys that the schema does not have are ignored."""
        return self.mapping.unknown_fields == "drop" or self.mapping.payload == FLAT

    @cached_property
    def _tree(self) -> dict[str, Any]:
        """The keys that are read, as nested dictionaries; a key that is read itself has an empty one."""
        tree: dict[str, Any] = {}
        for path in self.paths.values():
            inner = tree
            for key in path:
                inner = inner.setdefault(key, {})
        return tree

    @cached_property
    def _is_transformable(self) -> bool:
        """Whether the keys can be columns of one struct: none is inside another, or differs from it in case only."""
        paths = set(self.paths.values())
        inside = any(path[:i] in paths for path in paths for i in range(1, len(path)))
        return len(self.schema) <= _MAX_FIELDS and not inside and not _has_twins(self._tree)

    def present_fields(self, structure: Any) -> Present | None:
        """Return which fields a document has; None if it cannot be transformed exactly.

        Args:
            structure: what ``json_structure`` returns for the document, parsed.
        """
        if not self._is_transformable or any(map(_may_hide_loss, self.schema)):
            return None
        structure = {} if structure == "JSON" else structure  # an empty object
        if not isinstance(structure, dict) or (not self.drops_unknown and self._unknown(structure)):
            return None
        fields = texts = 0
        for i, field in enumerate(self.schema):
            inner = _structure_at(structure, self.paths[field.name])
            if inner is None or (inner == "NULL" and not field.nullable):
                return None
            if inner == "VARCHAR" and not pt.is_string(field.type) and not pt.is_nested(field.type):
                texts |= 1 << i
            elif inner != "NULL" and not extracts_exactly(inner, field.type, drop_unknown=self.drops_unknown):
                return None
            fields |= (inner != "NULL") << i
        lists = frozenset(_objects_in_lists(structure))
        if not self._fits(texts) or not all(map(_PATH.fullmatch, lists)):
            return None
        return Present(fields, texts, _count_keys(structure), lists)

    def _fits(self, texts: int) -> bool:
        """Check that a key that several fields are taken from is extracted as one type."""
        extracted = {(path, dtype) for path, dtype in zip(self.paths.values(), self._types(texts), strict=True)}
        return len({path for path, _ in extracted}) == len(extracted)

    def _types(self, texts: int) -> list[pa.DataType]:
        return [extracted_as(f.type, text=bool(texts >> i & 1)) for i, f in enumerate(self.schema)]

    def transform(self, document: str, prefix: tuple[str, ...], texts: int) -> str:
        """Write the expression that turns a document into a struct.

        Args:
            document: an expression of JSON text.
            prefix: path of the payload in it.
            texts: the fields that are extracted as text, as bits.
        """
        if not len(self.schema):
            return "NULL"
        structure: dict[str, Any] = {}
        for path, dtype in zip(self.paths.values(), self._types(texts), strict=True):
            inner = structure
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = json_structure(dtype)
        for key in reversed(prefix):
            structure = {key: structure}
        return field_of(f"(json_transform({document}, {literal(json.dumps(structure))}))", prefix)

    def find_column(self, struct: str, texts: int) -> FindColumn:
        """Return a function that finds the column of a path in a transformed document."""
        types = dict(zip(self.paths.values(), self._types(texts), strict=True))
        return lambda name: Column(field_of(struct, path_of(name)), types[path_of(name)], top_level=False)

    def lost_value(self, struct: str, bits: str, texts: int) -> str:
        """Write the condition that a value was not extracted, or one where there is none, or that a float is rounded.

        Args:
            struct: the transformed document.
            bits: which fields the document has a value for.
            texts: the fields that were extracted as text, as bits.
        """
        fields = [(i, f, field_of(struct, self.paths[f.name])) for i, f in enumerate(self.schema)]
        lost = [f"({value} IS NULL) <> ({bits} & {1 << i} = 0)" for i, f, value in fields if f.nullable]
        rounded = [
            f"abs({value}) >= {_EXACT_INTEGERS}"
            for i, f, value in fields
            if pt.is_floating(f.type) and not texts >> i & 1
        ]
        return " OR ".join([*lost, *rounded]) or "false"

    def read(self, text: str, prefix: tuple[str, ...], reader: ExactReader) -> dict[str, Any]:
        """Return a document as Python values.

        Args:
            text: the document.
            prefix: path of the payload in it.
            reader: of its values.

        Raises:
            PayloadError: it does not fit the schema; the message names the field.
        """
        payload = load_document(text)
        for key in prefix:
            payload = payload.get(key) if isinstance(payload, Mapping) else None
        payload = load_document(payload) if isinstance(payload, str) else payload
        given = {} if payload is None else payload
        if not isinstance(given, Mapping):
            raise PayloadError(f"expected an object as payload, found {str(given)[:80]!r}")
        if not self.drops_unknown and (unknown := self._unknown(given)):
            raise PayloadError(f"unknown field {unknown}; the schema has {sorted(_names(self.paths.values()))}")
        found = {}
        for field in self.schema:
            value = _value_at(given, self.paths[field.name])
            if value is not _ABSENT:
                source = self.mapping.source_of(self.event_type, field.name)
                value = None if self._is_null(value) else value
                found[field.name] = reader.json_value(value, field.type, field.name, source)
        return from_json(to_json(found, self.schema), self.schema)

    def _is_null(self, value: Any) -> bool:
        """Check whether a value stands for none in this file."""
        return isinstance(value, str) and value in self.mapping.null_values

    def _unknown(self, given: Mapping[str, Any]) -> str:
        """Return a key that no field is taken from; empty if there is none."""
        return _unknown_key(given, self._tree)


TOMBSTONE = "tombstone"
"""The reason of a row that is ``null``: it is skipped and counted, not rejected."""


def explain_malformed(text: str) -> str:
    """Return why a row is no JSON object; empty for a blank line."""
    if not text.strip():
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"this is no JSON: {error}"
    if value is None:
        return TOMBSTONE
    return "expected a JSON object" if not isinstance(value, dict) else "this JSON cannot be read"


def load_document(text: str) -> Any:
    """Parse JSON without a loss.

    Raises:
        PayloadError: it is no JSON.
    """
    try:
        return parse_json(text)
    except ValueError as error:
        raise PayloadError(f"this is no JSON: {error}") from None


_ABSENT = object()


def _value_at(given: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = given
    for i, key in enumerate(path):
        if value is None:
            return _ABSENT
        if not isinstance(value, Mapping):
            raise PayloadError(f"{'.'.join(path[:i])}: expected an object, found {str(value)[:80]!r}")
        value = value.get(key, _ABSENT)
        if value is _ABSENT:
            return _ABSENT
    return value


def _structure_at(structure: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Return the structure of the value at a path: ``"NULL"`` if there is none, None if a key is one of no object."""
    inner: Any = structure
    for key in path:
        if inner in ("NULL", "JSON"):
            return "NULL"
        if not isinstance(inner, dict):
            return None
        inner = inner.get(key, "NULL")
    return inner


def _count_keys(structure: Any) -> int:
    """Count the keys of a document of a structure that are not in lists."""
    if not isinstance(structure, dict):
        return 0
    return len(structure) + sum(map(_count_keys, structure.values()))


def _objects_in_lists(structure: Any, path: str = "", *, in_list: bool = False) -> Iterator[str]:
    """Yield the path of each object that is in a list, or inside an object in a list."""
    if isinstance(structure, list):
        for inner in structure:
            yield from _objects_in_lists(inner, f"{path}[*]", in_list=True)
    elif isinstance(structure, dict):
        if in_list:
            yield path
        for key, inner in structure.items():
            yield from _objects_in_lists(inner, f'{path}."{key}"', in_list=in_list)


def keys_in_lists(document: str, prefix: tuple[str, ...], lists: Iterable[str]) -> str:
    """Write how many keys the objects in the lists of a document have, each counted once in its object.

    Args:
        document: an expression of JSON text.
        prefix: path of the payload in it.
        lists: of :class:`Present`.
    """
    at = "".join(f'."{key}"' for key in prefix)
    if not _PATH.fullmatch(at):
        return "-1"  # as many keys as no document has
    found = [f"json_keys({document}, {literal(f'${at}{path}')})" for path in sorted(lists)]
    return " + ".join(f"coalesce(list_sum(list_transform({keys}, lambda _k: list_unique(_k))), 0)" for keys in found)


def _unknown_key(given: Mapping[str, Any], tree: Mapping[str, Any], prefix: str = "") -> str:
    for key, value in given.items():
        if key not in tree:
            return f"{prefix}{key}"
        if tree[key] and isinstance(value, Mapping) and (inner := _unknown_key(value, tree[key], f"{prefix}{key}.")):
            return inner
    return ""


def _names(paths: Iterable[tuple[str, ...]]) -> set[str]:
    return {".".join(path) for path in paths}


def _has_twins(tree: Mapping[str, Any]) -> bool:
    """Check whether names of one level differ in case only, which the fields of a struct must not."""
    return len({key.casefold() for key in tree}) < len(tree) or any(map(_has_twins, tree.values()))


def _may_hide_loss(field: pa.Field) -> bool:
    """Check whether a nested field has a value inside whose loss neither its bit nor a comparison shows."""
    dtype = field.type
    if not pt.is_nested(dtype):
        return False
    inner_fields = [dtype.value_field] if pt.is_list(dtype) else dtype.fields
    return any(
        pt.is_floating(inner.type)
        or (inner.nullable and not (pt.is_nested(inner.type) or pt.is_string(inner.type) or pt.is_boolean(inner.type)))
        or _may_hide_loss(inner)
        for inner in inner_fields
    )
