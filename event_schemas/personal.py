"""Personal fields: what a contract says of fields that are encrypted under a key for each subject.

The mark of a field is kept in the metadata of its Arrow field, so a schema has all that is needed to encrypt and to
read its payloads.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas.errors import ContractError, PayloadError
from refold.event_schemas.payload import to_json

ERASED_TEXT = "[erased]"
"""What readers see of a required text whose subject was erased."""

_METADATA_KEY = b"refold.personal"
_NOT_GIVEN: Any = ...


@dataclass(frozen=True, slots=True)
class Personal:
    """Marks a field of an event as personal: the log holds its values encrypted, under a key for each subject.

    Args:
        subject: the required field of the same event that names whose data it is, such as ``"customer_id"``. It is not
            encrypted.
        erased: the value that readers see once the subject's key is destroyed. By default NULL for an optional field,
            and ``"[erased]"`` for required text; a required field of another type needs one.

    In an event, write ``name: Annotated[str, Personal(subject="customer_id")]``.

    Example:
        >>> name = Personal(subject="customer_id").mark(pa.field("name", pa.string(), nullable=False))
        >>> [(f.name, f.erased) for f in personal_fields(pa.schema([name]))]
        [('name', '[erased]')]
    """

    subject: str
    erased: Any = _NOT_GIVEN

    def mark(self, field: pa.Field) -> pa.Field:
        """Return an Arrow field with this mark, for the schema of an older version that an upcaster reads.

        Example:
            >>> Personal(subject="customer_id").mark(pa.field("name", pa.string(), nullable=False)).name
            'name'
        """
        default = ERASED_TEXT if pt.is_string(field.type) and not field.nullable else None
        content: dict[str, Any] = {"subject": self.subject}
        try:
            given = default if self.erased is _NOT_GIVEN else self.erased
            content["erased"] = to_json({field.name: given}, pa.schema([field]))[field.name]
        except PayloadError as error:
            reason = "a required field needs a value for erased subjects" if self.erased is _NOT_GIVEN else str(error)
            raise ContractError(
                f"Personal field {field.name}: {reason}. Write Personal(subject=..., erased=...) with a value of type "
                f"{field.type}, or make the field optional."
            ) from error
        return field.with_metadata({**(field.metadata or {}), _METADATA_KEY: json.dumps(content).encode()})


@dataclass(frozen=True, slots=True)
class PersonalField:
    """A personal field of a schema.

    Attributes:
        name: its name.
        subject: the field that names the subject.
        type: the type that readers see; the log holds text.
        nullable: whether it is optional.
        erased: what readers see of an erased subject, as JSON.
    """

    name: str
    subject: str
    type: pa.DataType
    nullable: bool
    erased: Any

    @property
    def is_text(self) -> bool:
        """Whether its values are text, which is encrypted as it is; other values as JSON."""
        return bool(pt.is_string(self.type))


def personal_fields(schema: pa.Schema) -> tuple[PersonalField, ...]:
    """Return the personal fields of a payload's schema."""
    return tuple(_personal_field(f) for f in schema if _METADATA_KEY in (f.metadata or {}))


def _personal_field(field: pa.Field) -> PersonalField:
    content = json.loads(field.metadata[_METADATA_KEY])
    return PersonalField(field.name, content["subject"], field.type, field.nullable, content["erased"])


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema that the log stores: personal fields are text. Without such fields it is the schema itself."""
    if not personal_fields(schema):
        return schema
    names = {f.name for f in personal_fields(schema)}
    return pa.schema([pa.field(f.name, pa.string(), nullable=f.nullable) if f.name in names else f for f in schema])


def with_marks(cls: type, schema: pa.Schema, *, where: str) -> pa.Schema:
    """Return the schema of an event class with the marks of its personal fields.

    Raises:
        ContractError: a mark is where none can be, or contradicts the contract.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    marks = {f.name: mark for f in dataclasses.fields(cls) if (mark := _mark_of(hints[f.name]))}
    for name, annotation in hints.items():
        if any(_nested_marks(annotation)):
            raise ContractError(
                f"{where}, field {name}: Personal marks a part of a nested value. Make that part a field of the event, "
                "and mark the field."
            )
    marked = pa.schema([marks[f.name].mark(f) if f.name in marks else f for f in schema])
    check_personal(marked, where=where)
    return marked if marks else schema


def check_personal(schema: pa.Schema, *, where: str) -> None:
    """Check the personal fields of a schema.

    Raises:
        ContractError: a type cannot be encrypted, or the subject is no required text, integer or UUID of the payload.
    """
    found = personal_fields(schema)
    for field in found:
        here = f"{where}, personal field {field.name}"
        if pt.is_nested(field.type):
            raise ContractError(
                f"{here}: a {field.type} cannot be encrypted. Mark fields of its parts, or store it as JSON in a str."
            )
        index = schema.get_field_index(field.subject)
        subject = schema.field(index) if index >= 0 else None
        if subject is None or field.subject in {f.name for f in found}:
            state = "is no field of the event" if subject is None else "is encrypted itself"
            raise ContractError(
                f"{here}: its subject {field.subject!r} {state}. Name a field that identifies whose it is."
            )
        if subject.nullable or not (
            pt.is_string(subject.type) or pt.is_integer(subject.type) or subject.type == pa.uuid()
        ):
            raise ContractError(
                f"{here}: its subject {field.subject!r} is {'optional' if subject.nullable else ''} {subject.type}; "
                "expected a required str, int or UUID, since every value needs a key."
            )


def _mark_of(annotation: Any) -> Personal | None:
    """Return the mark of a field, beside ``| None`` or inside of it."""
    if typing.get_origin(annotation) is typing.Annotated:
        found = [a for a in typing.get_args(annotation)[1:] if isinstance(a, Personal)]
        return found[0] if found else _mark_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is not list:
        return next((mark for a in typing.get_args(annotation) if (mark := _mark_of(a))), None)
    return None


def _nested_marks(annotation: Any) -> Iterator[Personal]:
    """Yield the marks in the elements of lists and in nested dataclasses."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        for hint in typing.get_type_hints(annotation, include_extras=True).values():
            yield from filter(None, [_mark_of(hint)])
            yield from _nested_marks(hint)
    for argument in typing.get_args(annotation):
        if typing.get_origin(annotation) is list:
            yield from filter(None, [_mark_of(argument)])
        yield from _nested_marks(argument)
