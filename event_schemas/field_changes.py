"""The differences between two schemas of a payload, nested fields included, and who can still read the data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refold.event_schemas.lock import Field


@dataclass(frozen=True, slots=True)
class Reason:
    """One difference, and its effect on compatibility.

    Attributes:
        what: the difference: ``added optional``, ``retyped narrowed``, ``missing upcaster``, …
        where: the field with its path (``items[].sku``), or the schema version.
        text: the full explanation, for people.
        backward: whether new code reads old data.
        forward: whether old code reads new data.
        error: whether it is wrong in every mode.
    """

    what: str
    where: str
    text: str
    backward: bool = True
    forward: bool = True
    error: bool = False


def compare_fields(old: Sequence[Field], new: Sequence[Field], path: str = "") -> list[Reason]:
    """Compare the fields of two schemas.

    Args:
        old: the fields before.
        new: the fields now; their order does not matter.
        path: the path of the struct that holds them.

    Returns:
        One reason a difference; its ``forward`` says whether a reader of the old schema accepts data of the new one.
    """
    was, now = {f.name: f for f in old}, {f.name: f for f in new}
    gone = [f for f in old if f.name not in now]
    added = [f for f in new if f.name not in was]
    reasons = [_removed(f, path, added) for f in gone]
    reasons += [_added(f, path, gone) for f in added]
    for name in was.keys() & now.keys():
        reasons += _changed(was[name], now[name], f"{path}{name}")
    return sorted(reasons, key=lambda r: (r.where, r.what))


def _removed(field: Field, path: str, added: Sequence[Field]) -> Reason:
    where = f"{path}{field.name}"
    twin = next((f.name for f in added if (f.type, f.nullable) == (field.type, field.nullable)), None)
    text = f"{_kind(field)} field {where} was removed" + (f" (renamed to {path}{twin}?)" if twin else "")
    if field.nullable:
        return Reason("removed", where, f"{text}, which old code reads as NULL")
    return Reason("removed", where, f"{text}, which old code requires", forward=False)


def _added(field: Field, path: str, gone: Sequence[Field]) -> Reason:
    where = f"{path}{field.name}"
    twin = next((f.name for f in gone if (f.type, f.nullable) == (field.type, field.nullable)), None)
    origin = f" (renamed from {path}{twin}?)" if twin else ""
    return Reason(f"added {_kind(field)}", where, f"{_kind(field)} field {where} was added{origin}")


def _kind(field: Field) -> str:
    return "optional" if field.nullable else "required"


def _changed(old: Field, new: Field, where: str) -> Iterator[Reason]:
    if old.nullable and not new.nullable:
        yield Reason("made required", where, f"optional field {where} was made required")
    elif new.nullable and not old.nullable:
        text = f"required field {where} was made optional, and old code does not accept NULL"
        yield Reason("made optional", where, text, forward=False)
    if old.subject != new.subject:
        yield Reason(
            "changed mark",
            where,
            f"field {where} was marked otherwise: it {_marked(new)}, and {_marked(old)} in old code",
            forward=False,
        )
    if old.type == new.type:
        return
    if old.type.name == new.type.name == "struct":
        yield from compare_fields(old.type.fields, new.type.fields, f"{where}.")
    elif old.type.name == new.type.name == "list":
        yield from _changed(old.type.fields[0], new.type.fields[0], f"{where}[]")
    elif _holds(new.type.name, old.type.name):
        text = f"field {where} was widened from {old.type} to {new.type}, and old code cannot hold every value"
        yield Reason("retyped widened", where, text, forward=False)
    elif _holds(old.type.name, new.type.name):
        yield Reason("retyped narrowed", where, f"field {where} was narrowed from {old.type} to {new.type}")
    else:
        text = f"field {where} was retyped from {old.type} to {new.type}"
        yield Reason("retyped", where, text, forward=False)


def _marked(field: Field) -> str:
    return f"is personal data of {field.subject}" if field.subject else "is not personal"


_INTEGER = re.compile(r"(u?)int(\d+)")
_DECIMAL = re.compile(r"decimal\d*\((\d+), (-?\d+)\)")
_FLOATS = ("halffloat", "float", "double")
_UNITS = ("s", "ms", "us", "ns")
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(.*)\]")


def _holds(wide: str, narrow: str) -> bool:
    """Check whether one type holds every value of another, as payloads write it.

    Example:
        >>> _holds("int64", "int32"), _holds("int64", "uint64"), _holds("decimal128(18, 4)", "decimal128(18, 2)")
        (True, False, False)
    """
    w, n = _digits(wide), _digits(narrow)
    if w and n:
        return w != n and all(a >= b for a, b in zip(w, n, strict=True))
    if wide in _FLOATS and narrow in _FLOATS:
        return _FLOATS.index(wide) > _FLOATS.index(narrow)
    one, other = _TIMESTAMP.fullmatch(wide), _TIMESTAMP.fullmatch(narrow)
    if one and other:
        return one[2] == other[2] and _UNITS.index(one[1]) > _UNITS.index(other[1])
    return False


def _digits(name: str) -> tuple[int, int, int] | None:
    """Return an exact number's bits before the point, digits after it, and whether it may be negative."""
    if found := _INTEGER.fullmatch(name):
        bits = int(found[2])
        return (bits, 0, 0) if found[1] else (bits - 1, 0, 1)
    if found := _DECIMAL.fullmatch(name):
        precision, scale = int(found[1]), int(found[2])
        return ((10 ** (precision - scale)).bit_length() - 1, scale, 1)
    return None
