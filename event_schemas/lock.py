"""The lock file: all contracts of a domain as text for git, so that a change to them can be checked.

It holds every event type in every schema version that the log may have, with its fields and types, and the upcaster
that reads it. The same contracts always give the same text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas.errors import UsageError
from refold.event_schemas.registry import Registry, SchemaKey
from refold.event_schemas.upcasting import Upcaster

LOCK_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FieldType:
    """A type: a name as Arrow writes it (``decimal128(18, 2)``), or ``list`` or ``struct`` with its fields.

    Attributes:
        name: the type's name.
        fields: the fields of a struct; the one element of a list.
    """

    name: str
    fields: tuple[Field, ...] = ()

    def __str__(self) -> str:
        fields = ", ".join(f"{f.name}: {f.type}" for f in self.fields)
        return f"{self.name}<{fields}>" if self.fields else self.name


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a payload.

    Attributes:
        name: its name.
        type: its type.
        nullable: whether it is optional.
        subject: of a personal field, the field that names its subject; else empty.
    """

    name: str
    type: FieldType
    nullable: bool
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What a lock file holds of an upcaster.

    Attributes:
        name: the name of its function.
        form: ``sql``, ``python`` or ``merge``.
        into: the event types and schema versions that it yields.
    """

    name: str
    form: str
    into: tuple[SchemaKey, ...]


@dataclass(frozen=True, slots=True)
class LockedSchema:
    """An event type in one schema version.

    Attributes:
        fields: the fields of its payload, in declared order.
        upcaster: the upcaster that reads it; None for the newest.
    """

    fields: tuple[Field, ...]
    upcaster: Step | None


@dataclass(frozen=True, slots=True)
class Lock:
    """The contracts of one domain.

    Attributes:
        domain: the domain's name.
        schemas: every schema that the log may hold.
    """

    domain: str
    schemas: Mapping[SchemaKey, LockedSchema]

    @property
    def event_types(self) -> tuple[str, ...]:
        """Every event type, retired ones too, sorted."""
        return tuple(sorted({event_type for event_type, _ in self.schemas}))

    def versions(self, event_type: str) -> tuple[int, ...]:
        """Every schema version of an event type, sorted."""
        return tuple(sorted(version for name, version in self.schemas if name == event_type))

    def newest(self, event_type: str) -> int | None:
        """The schema version that is written now; None for a retired or unknown event type."""
        current = [v for v in self.versions(event_type) if self.schemas[event_type, v].upcaster is None]
        return current[-1] if current else None


def lock_of(registry: Registry, domain_name: str) -> Lock:
    """Return the lock of a domain's contracts.

    Example:
        >>> from refold.event_schemas.event import event
        >>> @event(schema_version=1)
        ... class DoorOpened:
        ...     door: str
        >>> lock_of(Registry(events=[DoorOpened]), "doors").schemas["DoorOpened", 1].fields[0].name
        'door'
    """
    schemas = {}
    for key in registry.schema_keys:
        step = registry.upcaster(key)
        subjects = {f.name: f.subject for f in registry.personal(key)}
        fields = tuple(replace(_field(f), subject=subjects.get(f.name, "")) for f in registry.schema(*key))
        schemas[key] = LockedSchema(fields, _step(registry, key, step) if step else None)
    return Lock(domain_name, schemas)


def _step(registry: Registry, key: SchemaKey, step: Upcaster) -> Step:
    if not step.into:
        return Step(step.function.__name__, step.form.value, ((key[0], key[1] + 1),))
    into = tuple(found for target in step.targets if (found := registry.newest(target)))
    return Step(step.function.__name__, step.form.value, into)


def _field(field: pa.Field) -> Field:
    return Field(field.name, _type(field.type), field.nullable)


def _type(dtype: pa.DataType) -> FieldType:
    if pt.is_struct(dtype):
        return FieldType("struct", tuple(_field(dtype.field(i)) for i in range(dtype.num_fields)))
    if pt.is_list(dtype):
        return FieldType("list", (_field(dtype.value_field.with_name("element")),))
    return FieldType("uuid" if dtype == pa.uuid() else str(dtype))


def write_lock(lock: Lock) -> str:
    """Return the text of a lock file."""
    events: dict[str, Any] = {}
    for (event_type, version), locked in sorted(lock.schemas.items()):
        entry: dict[str, Any] = {"fields": _fields_to_json(locked.fields)}
        if step := locked.upcaster:
            into = [f"{name} v{number}" for name, number in step.into]
            entry["upcaster"] = {"name": step.name, "form": step.form, "into": into}
        events.setdefault(event_type, {})[str(version)] = entry
    return json.dumps({"format": LOCK_FORMAT, "domain": lock.domain, "events": events}, indent=2) + "\n"


def _fields_to_json(fields: Iterable[Field]) -> list[dict[str, Any]]:
    return [
        {
            "name": f.name,
            "type": _type_to_json(f.type),
            "nullable": f.nullable,
            **({"subject": f.subject} if f.subject else {}),
        }
        for f in fields
    ]


def _type_to_json(type_: FieldType) -> Any:
    return {type_.name: _fields_to_json(type_.fields)} if type_.name in ("struct", "list") else type_.name


def read_lock(text: str, *, where: str) -> Lock:
    """Read a lock file.

    Args:
        text: its content.
        where: its name in an error message.

    Raises:
        UsageError: it is not a lock file, or has another format.
    """
    try:
        content = json.loads(text)
        if content["format"] != LOCK_FORMAT:
            raise UsageError(
                f"{where} has lock format {content['format']}; this refold reads {LOCK_FORMAT}. Write it again with "
                "`refold schemas lock`, or use the refold release that wrote it."
            )
        schemas = {
            (event_type, int(version)): LockedSchema(_fields(entry["fields"]), _step_from_json(entry.get("upcaster")))
            for event_type, versions in content["events"].items()
            for version, entry in versions.items()
        }
        return Lock(content["domain"], schemas)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{where} is not a lock file of event schemas ({error!r}). `refold schemas lock` writes one."
        ) from error


def _fields(entries: list[dict[str, Any]]) -> tuple[Field, ...]:
    return tuple(Field(f["name"], _type_from_json(f["type"]), f["nullable"], f.get("subject", "")) for f in entries)


def _type_from_json(value: Any) -> FieldType:
    if isinstance(value, str):
        return FieldType(value)
    [(name, fields)] = value.items()
    return FieldType(name, _fields(fields))


def _step_from_json(entry: dict[str, Any] | None) -> Step | None:
    if entry is None:
        return None
    targets = (text.rsplit(" v", 1) for text in entry["into"])
    return Step(entry["name"], entry["form"], tuple((name, int(version)) for name, version in targets))
