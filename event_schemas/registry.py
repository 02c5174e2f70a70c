"""The registry: the event types and schema versions that a domain knows, and the upcasters between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from refold.event_schemas.erasure import SubjectErased
from refold.event_schemas.errors import ContractError, UnknownEventTypeError, UnknownSchemaVersionError
from refold.event_schemas.event import (
    event_type_of,
    is_event,
    schema_of,
    schema_version_of,
)
from refold.event_schemas.field_types import path_name
from refold.event_schemas.personal import PersonalField, personal_fields, stored_schema
from refold.event_schemas.upcasting import Form, Upcaster

SchemaKey = tuple[str, int]
"""An event type and a schema version, which name one schema."""


class Registry:
    """The contracts of one domain, as a value: there is no global registry.

    Args:
        events: the newest class of every event type.
        upcasters: the steps from older schema versions and retired event types to these classes.

    Raises:
        ContractError: two contracts for one event type and schema version, event types that differ only in case, a gap
            in a chain of upcasters, or an upcaster whose target is not declared.

    Example:
        >>> from refold.event_schemas.event import event
        >>> @event(schema_version=1)
        ... class OrderShipped:
        ...     order_id: str
        >>> Registry(events=[OrderShipped]).schema_keys
        (('OrderShipped', 1),)
    """

    def __init__(self, *, events: Iterable[type], upcasters: Iterable[Upcaster] = ()) -> None:
        declared, steps = tuple(events), tuple(upcasters)
        schemas = [*(schema_of(c) for c in declared if is_event(c)), *(s.schema for u in steps for s in u.sources)]
        if any(map(personal_fields, schemas)) and SubjectErased not in declared:
            declared = (*declared, SubjectErased)
        self._classes = _by_type(declared)
        self._upcasters = _by_schema_key(steps, self._classes)
        self._schemas: dict[SchemaKey, pa.Schema] = {
            **{s.key: s.schema for u in set(self._upcasters.values()) for s in u.sources},
            **{(t, schema_version_of(c)): schema_of(c) for t, c in self._classes.items()},
        }
        self._stored = {key: stored_schema(schema) for key, schema in self._schemas.items()}
        self._personal = {key: found for key, schema in self._schemas.items() if (found := personal_fields(schema))}
        _check_case(t for t, _ in self._schemas)
        self._check_chains()

    @property
    def classes(self) -> Mapping[str, type]:
        """Event type name to its newest class."""
        return self._classes

    @property
    def schema_keys(self) -> tuple[SchemaKey, ...]:
        """Every (event type, schema version) that the log may hold, sorted."""
        return tuple(sorted(self._schemas))

    @property
    def upcasters(self) -> tuple[Upcaster, ...]:
        """Every upcaster, sorted by the first schema that it reads."""
        return tuple(dict.fromkeys(self._upcasters[key] for key in sorted(self._upcasters)))

    def schema(self, event_type: str, schema_version: int) -> pa.Schema:
        """Return the Arrow schema of a payload.

        Raises:
            UnknownEventTypeError: the domain has no such event type.
            UnknownSchemaVersionError: the domain has the event type, but not this schema version.
        """
        found = self._schemas.get((event_type, schema_version))
        if found is not None:
            return found
        versions = sorted(v for t, v in self._schemas if t == event_type)
        if not versions:
            known = ", ".join(sorted({t for t, _ in self._schemas}))
            raise UnknownEventTypeError(
                f"Unknown event type {event_type!r}. This domain knows: {known}. Declare it with @event, or add an "
                "upcaster from it to a declared event type."
            )
        raise UnknownSchemaVersionError(
            f"Unknown schema version {schema_version} of event type {event_type!r}; known: {versions}. Run the newer "
            "code that declares it, or add an upcaster for it."
        )

    def stored_schema(self, event_type: str, schema_version: int) -> pa.Schema:
        """Return the Arrow schema of a payload as the log holds it: its personal fields are encrypted, as text.

        Raises:
            UnknownEventTypeError: the domain has no such event type.
            UnknownSchemaVersionError: the domain has the event type, but not this schema version.
        """
        return self._stored.get((event_type, schema_version)) or self.schema(event_type, schema_version)

    def personal(self, key: SchemaKey) -> tuple[PersonalField, ...]:
        """Return the personal fields of a schema; none for one that is not declared."""
        return self._personal.get(key, ())

    @property
    def personal_keys(self) -> frozenset[SchemaKey]:
        """The schemas that have personal fields."""
        return frozenset(self._personal)

    def reads_personal(self, event_types: Iterable[str]) -> bool:
        """Check whether events of some types may be made from stored events with personal fields."""
        return any(key in self._personal for t in event_types for key in self.sources(t))

    @property
    def subject_fields(self) -> tuple[str, ...]:
        """The names of all fields that name the subject of a personal field, sorted."""
        return tuple(sorted({f.subject for fields in self._personal.values() for f in fields}))

    def knows(self, key: SchemaKey) -> bool:
        """Check whether an event type is declared in a schema version."""
        return key in self._schemas

    def newest(self, event_type: str) -> SchemaKey | None:
        """Return the newest schema version of an event type; None for a retired or unknown event type."""
        cls = self._classes.get(event_type)
        return (event_type, schema_version_of(cls)) if cls else None

    def upcaster(self, key: SchemaKey) -> Upcaster | None:
        """Return the upcaster that reads a schema; None for the newest schema of an event type."""
        return self._upcasters.get(key)

    def sources(self, event_type: str) -> tuple[SchemaKey, ...]:
        """Return every stored schema that events of ``event_type`` may come from, the newest included."""
        wanted = {self.newest(event_type)} - {None}
        grown = True
        while grown:
            more = {s for s, u in self._upcasters.items() if wanted & self._yields(s, u)} - wanted
            wanted |= more
            grown = bool(more)
        return tuple(sorted(key for key in wanted if key is not None))

    def merged_schemas(self) -> frozenset[SchemaKey]:
        """Return every stored schema of whose events a merger may join several."""
        wanted = {s.key for u in self._upcasters.values() if u.form is Form.MERGE for s in u.sources}
        while more := {s for s, u in self._upcasters.items() if wanted & self._yields(s, u)} - wanted:
            wanted |= more
        return frozenset(wanted)

    def _yields(self, key: SchemaKey, step: Upcaster) -> set[SchemaKey | None]:
        if step.into:
            return {self.newest(t) for t in step.targets}
        return {(key[0], key[1] + 1)}

    def _check_chains(self) -> None:
        for key, step in self._upcasters.items():
            if self._yields(key, step) <= self._schemas.keys():
                continue
            missing = ", ".join(step.targets) if step.into else f"{key[0]} v{key[1] + 1}"
            raise ContractError(
                f"{step.name} yields {missing}, which is not declared in this domain. Add the class to events=, or "
                "name another one in into=."
            )
        for event_type, cls in self._classes.items():
            for version in range(1, schema_version_of(cls)):
                if (event_type, version) not in self._upcasters:
                    raise ContractError(
                        f"Event type {event_type} is at schema version {schema_version_of(cls)}, but no upcaster "
                        f"reads schema version {version}. Stored events could not be read: write the upcaster."
                    )


def _by_type(events: Iterable[type]) -> dict[str, type]:
    classes: dict[str, type] = {}
    for cls in events:
        if not is_event(cls):
            raise ContractError(f"{cls!r} is not an event. Decorate the class with @event(schema_version=...).")
        if event_type_of(cls) in classes:
            raise ContractError(f"Event type {event_type_of(cls)} is declared twice. Keep only its newest class.")
        classes[event_type_of(cls)] = cls
    return classes


def _check_case(event_types: Iterable[str]) -> None:
    """Check that no two event types share a folder on a disk that ignores case."""
    by_path: dict[str, str] = {}
    for event_type in event_types:
        other = by_path.setdefault(path_name(event_type).lower(), event_type)
        if other != event_type:
            raise ContractError(
                f"The event types {other!r} and {event_type!r} differ only in case, so their segments would share a "
                "folder on disks that ignore case. Rename one of them."
            )


def _by_schema_key(upcasters: tuple[Upcaster, ...], classes: Mapping[str, type]) -> dict[SchemaKey, Upcaster]:
    steps: dict[SchemaKey, Upcaster] = {}
    for step in upcasters:
        for source in step.sources:
            if source.key in steps:
                raise ContractError(
                    f"{step.name} and {steps[source.key].name} read the same schema version. Remove one of them."
                )
            cls = classes.get(source.event_type)
            if cls and source.schema_version >= schema_version_of(cls):
                raise ContractError(
                    f"{step.name} reads schema version {source.schema_version} of {source.event_type}, whose class "
                    f"declares version {schema_version_of(cls)}. An upcaster reads an older version than its class."
                )
            if (
                cls is None
                and not step.into
                and (source.event_type, source.schema_version + 1) not in {s.key for u in upcasters for s in u.sources}
            ):
                raise ContractError(
                    f"{step.name}: {source.event_type} has no class. Name the event class that it becomes in into=."
                )
            steps[source.key] = step
    return steps
