"""Names, compared as DuckDB compares them: without the case of the 26 ASCII letters, with the case of all others."""

from __future__ import annotations

from collections.abc import Iterable

MAX_NAME_BYTES = 128
"""The longest name, in UTF-8: names become parts of file names, which file systems limit to 255 bytes."""

_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def folded(name: str) -> str:
    """Return a name in the form that DuckDB compares.

    Example:
        >>> folded("Payments") == folded("payments"), folded("Ä") == folded("ä")
        (True, False)
    """
    return name.translate(_LOWER)


def first_double(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that DuckDB takes for the same; None if there are none.

    Example:
        >>> first_double(["id", "name", "Id"])
        ('id', 'Id')
    """
    seen: dict[str, str] = {}
    for name in names:
        if folded(name) in seen:
            return seen[folded(name)], name
        seen[folded(name)] = name
    return None


def name_fault(name: str) -> str:
    """Return why DuckDB cannot keep a name; empty if it can.

    Example:
        >>> name_fault("two words"), name_fault("")
        ('', 'it is empty')
    """
    if not name:
        return "it is empty"
    if not name.isprintable():
        return "it has a character that cannot be printed"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    return ""
