"""Compatibility of two states of a domain's contracts, with a reason for every field that differs.

============  =================================================================================================
backward      new code reads old data: every stored schema is unchanged, and is the newest or has an upcaster
forward       old code reads new data, by field name: nothing that it requires is missing or out of its range
full          both
none          neither
============  =================================================================================================

A log needs backward compatibility, because stored events are never rewritten. Forward compatibility is for readers that
still have the old contracts: consumers of the Parquet files, and services that are deployed later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from refold.event_schemas.errors import UsageError
from refold.event_schemas.field_changes import Reason, compare_fields
from refold.event_schemas.lock import Lock


class Verdict(Enum):
    """How compatible a change is."""

    FULL = "full"
    BACKWARD = "backward"
    FORWARD = "forward"
    NONE = "none"


class Mode(Enum):
    """The compatibility that a change must have."""

    BACKWARD = "backward"
    FORWARD = "forward"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class TypeVerdict:
    """How compatible the change of one event type is.

    Attributes:
        event_type: the event type.
        before: the schema version that was written before; None if none was.
        after: the schema version that is written now; None for a retired or removed event type.
        reasons: every difference; empty if nothing changed.
    """

    event_type: str
    before: int | None
    after: int | None
    reasons: tuple[Reason, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict over all reasons."""
        return _verdict(self.reasons)


@dataclass(frozen=True, slots=True)
class Compatibility:
    """How compatible a change of contracts is.

    Attributes:
        event_types: one verdict for each event type of either side, sorted by name.
    """

    event_types: tuple[TypeVerdict, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict over all event types."""
        return _verdict([r for t in self.event_types for r in t.reasons])

    @property
    def errors(self) -> tuple[tuple[str, Reason], ...]:
        """The reasons that are errors in every mode, with their event types."""
        return tuple((t.event_type, r) for t in self.event_types for r in t.reasons if r.error)

    def meets(self, mode: Mode) -> bool:
        """Check whether the change has no errors and the compatibility of ``mode``."""
        return not self.errors and self.verdict in (Verdict.FULL, Verdict(mode.value))


def _verdict(reasons: Sequence[Reason]) -> Verdict:
    backward, forward = all(r.backward for r in reasons), all(r.forward for r in reasons)
    if backward:
        return Verdict.FULL if forward else Verdict.BACKWARD
    return Verdict.FORWARD if forward else Verdict.NONE


def compare(old: Lock, new: Lock) -> Compatibility:
    """Compare two states of a domain's contracts.

    Args:
        old: the state before.
        new: the state now.

    Raises:
        UsageError: they belong to different domains.

    Example:
        >>> from refold.event_schemas.lock import Field, FieldType, LockedSchema
        >>> field = Field("door", FieldType("string"), nullable=False)
        >>> before = Lock("doors", {("DoorOpened", 1): LockedSchema((field,), None)})
        >>> compare(before, Lock("doors", {})).event_types[0].reasons[0].what
        'removed event type'
    """
    if old.domain != new.domain:
        raise UsageError(
            f"The contracts belong to different domains, {old.domain!r} and {new.domain!r}. Give --domain, or the lock "
            "file of the same domain."
        )
    names = sorted({*old.event_types, *new.event_types})
    return Compatibility(tuple(_judge(name, old, new) for name in names))


def _judge(name: str, old: Lock, new: Lock) -> TypeVerdict:
    before, after = old.newest(name), new.newest(name)
    reasons = (*_stored(name, old, new), *_written(name, before, after, old, new))
    return TypeVerdict(name, before, after, reasons)


def _stored(name: str, old: Lock, new: Lock) -> Iterator[Reason]:
    """Compare every schema that the log may already hold."""
    known = new.versions(name)
    if old.versions(name) and not known:
        yield _error(
            "removed event type",
            name,
            f"{name} is removed, and no upcaster converts its stored events to another event type: declare one with "
            "into=, or keep the class",
        )
        return
    for version in old.versions(name):
        was, where = old.schemas[name, version], f"v{version}"
        if version not in known:
            text = f"{where} is stored, and no upcaster reads it: write the upcaster from v{version}"
            yield _error("missing upcaster", where, text)
            continue
        now = new.schemas[name, version]
        for reason in compare_fields(was.fields, now.fields):
            text = f"{where} is already stored, but {reason.text}: give the new schema a new schema_version"
            yield _error("unversioned change", f"{where} {reason.where}", text, forward=reason.forward)
        if now.upcaster is None and version != new.newest(name):
            text = f"{where} is older than v{new.newest(name)}, and no upcaster reads it: write the upcaster"
            yield _error("missing upcaster", where, text)


def _error(what: str, where: str, text: str, *, forward: bool = True) -> Reason:
    return Reason(what, where, text, backward=False, forward=forward, error=True)


def _written(name: str, before: int | None, after: int | None, old: Lock, new: Lock) -> Iterator[Reason]:
    """Compare what is written now with what was written before."""
    if after is None:
        if before is not None and (step := _upcaster_text(name, before, new)):
            yield Reason("retired event type", name, f"{name} is retired: {step}")
        return
    if before is None:
        what = "declared again" if old.versions(name) else "added event type"
        yield Reason(what, name, f"{name} v{after} is new: no code read it before")
    elif after < before:
        text = f"v{before} was written before, v{after} is written now: a schema_version never goes back"
        yield _error("older version", f"v{after}", text)
    elif after > before:
        step = _upcaster_text(name, before, new)
        for reason in compare_fields(old.schemas[name, before].fields, new.schemas[name, after].fields):
            suffix = f"; {step}" if step else ""
            yield Reason(reason.what, reason.where, f"v{after}: {reason.text}{suffix}", forward=reason.forward)


def _upcaster_text(name: str, version: int, new: Lock) -> str:
    locked = new.schemas.get((name, version))
    if locked is None or locked.upcaster is None:
        return ""
    into = ", ".join(f"{target} v{number}" for target, number in locked.upcaster.into)
    return f"upcaster {locked.upcaster.name} converts v{version} to {into}"
