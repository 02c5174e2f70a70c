"""The registry: which event types and schema versions a domain knows, and how each becomes the newest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from refold.event_schemas.errors import ContractError, UnknownEventTypeError, UnknownSchemaVersionError
from refold.event_schemas.event import (
    event_type_of,
    is_event,
    schema_of,
    schema_version_of,
)
from refold.event_schemas.upcasting import Upcaster

SchemaKey = tuple[str, int]
"""An event type in one schema version."""


class Registry:
    """The contracts of one domain: an explicit value, no global.

    Args:
        events: the newest class of every event type.
        upcasters: what carries older shapes to them.

    Raises:
        ContractError: two contracts for one shape, a gap in a chain, or an upcaster that leads nowhere.

    Example:
        >>> from refold.event_schemas.event import event
        >>> @event(schema_version=1)
        ... class OrderShipped:
        ...     order_id: str
        >>> Registry(events=[OrderShipped]).shapes
        (('OrderShipped', 1),)
    """

    def __init__(self, *, events: Iterable[type], upcasters: Iterable[Upcaster] = ()) -> None:
        self._classes = _by_type(events)
        self._upcasters = _by_schema_key(tuple(upcasters), self._classes)
        self._schemas: dict[SchemaKey, pa.Schema] = {
            **{s.key: s.schema for u in set(self._upcasters.values()) for s in u.sources},
            **{(t, schema_version_of(c)): schema_of(c) for t, c in self._classes.items()},
        }
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
        """Every upcaster, in the order of what it reads."""
        return tuple(dict.fromkeys(self._upcasters[schema_key] for schema_key in sorted(self._upcasters)))

    def schema(self, event_type: str, schema_version: int) -> pa.Schema:
        """Give the payload's Arrow schema of one shape.

        Raises:
            UnknownEventTypeError: the domain has no such event type.
            UnknownSchemaVersionError: it has, but not in this version.
        """
        found = self._schemas.get((event_type, schema_version))
        if found is not None:
            return found
        versions = sorted(v for t, v in self._schemas if t == event_type)
        if not versions:
            known = ", ".join(sorted({t for t, _ in self._schemas}))
            raise UnknownEventTypeError(
                f"Unknown event type {event_type!r}. This domain knows: {known}. Declare it with @event, or add an "
                "upcaster that carries it to a type that is declared."
            )
        raise UnknownSchemaVersionError(
            f"Unknown schema version {schema_version} of event type {event_type!r}; known: {versions}. Run the newer "
            "code that declares it, or add an upcaster for it."
        )

    def knows(self, schema_key: SchemaKey) -> bool:
        """Tell whether a shape is declared."""
        return schema_key in self._schemas

    def newest(self, event_type: str) -> SchemaKey | None:
        """Give the newest shape of an event type, or None for a retired one."""
        cls = self._classes.get(event_type)
        return (event_type, schema_version_of(cls)) if cls else None

    def upcaster(self, schema_key: SchemaKey) -> Upcaster | None:
        """Give the upcaster that reads a shape, or None if the shape is the newest."""
        return self._upcasters.get(schema_key)

    def sources(self, event_type: str) -> tuple[SchemaKey, ...]:
        """Name every stored shape from which events of ``event_type`` may come, the newest included."""
        wanted = {self.newest(event_type)} - {None}
        grown = True
        while grown:
            more = {s for s, u in self._upcasters.items() if wanted & self._yields(s, u)} - wanted
            wanted |= more
            grown = bool(more)
        return tuple(sorted(schema_key for schema_key in wanted if schema_key is not None))

    def _yields(self, schema_key: SchemaKey, step: Upcaster) -> set[SchemaKey | None]:
        if step.into:
            return {self.newest(t) for t in step.targets}
        return {(schema_key[0], schema_key[1] + 1)}

    def _check_chains(self) -> None:
        for schema_key, step in self._upcasters.items():
            for target in self._yields(schema_key, step):
                if target not in self._schemas:
                    raise ContractError(
                        f"{step.name} leads to {target[0] if target else '?'} v{target[1] if target else '?'}, which "
                        "is not declared. Declare the class, or name another in into=."
                    )
        for event_type, cls in self._classes.items():
            for version in range(1, schema_version_of(cls)):
                if (event_type, version) not in self._upcasters:
                    raise ContractError(
                        f"Event type {event_type} stands at schema version {schema_version_of(cls)}, but no upcaster "
                        f"reads its version {version}. Old events would be lost: write the upcaster."
                    )


def _by_type(events: Iterable[type]) -> dict[str, type]:
    classes: dict[str, type] = {}
    for cls in events:
        if not is_event(cls):
            raise ContractError(f"{cls!r} is no event: decorate the class with @event(schema_version=...).")
        if event_type_of(cls) in classes:
            raise ContractError(f"Event type {event_type_of(cls)} is declared twice; keep only its newest class.")
        classes[event_type_of(cls)] = cls
    return classes


def _by_schema_key(upcasters: tuple[Upcaster, ...], classes: Mapping[str, type]) -> dict[SchemaKey, Upcaster]:
    steps: dict[SchemaKey, Upcaster] = {}
    for step in upcasters:
        for source in step.sources:
            if source.key in steps:
                raise ContractError(f"{step.name} and {steps[source.key].name} read the same schema version.")
            cls = classes.get(source.event_type)
            if cls and source.schema_version >= schema_version_of(cls):
                raise ContractError(
                    f"{step.name} reads schema version {source.schema_version} of {source.event_type}, whose class "
                    f"declares version {schema_version_of(cls)}: an upcaster reads an older one."
                )
            if (
                cls is None
                and not step.into
                and (source.event_type, source.schema_version + 1) not in {s.key for u in upcasters for s in u.sources}
            ):
                raise ContractError(
                    f"{step.name}: {source.event_type} has no class. Say with into= which event it becomes."
                )
            steps[source.key] = step
    return steps
