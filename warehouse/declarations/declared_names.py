"""Checks of the names in declarations: DuckDB must be able to keep them, and to tell them apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from refold.event_schemas import ProjectionError
from refold.warehouse.engine.names import first_double, folded, name_fault

_SCHEMAS = {"main", "refold", "temp", "system", "models", "information_schema", "pg_catalog"}
"""Schemas and databases of a published file and of a session: ``FROM refold.checkpoint`` must mean the schema."""


def check_table_name(kind: str, name: str) -> None:
    """Check the name of a read model or a view.

    Args:
        kind: ``Read model`` or ``View``.
        name: its name.

    Raises:
        ProjectionError: naming it.
    """
    if not name.isidentifier() or name_fault(name):
        raise ProjectionError(
            f"{kind} {name!r}: the name becomes a table, so use at most 128 letters, digits and underscores, as in "
            "orders_by_day."
        )
    if name.startswith("_"):
        raise ProjectionError(f"{kind} {name}: a leading underscore is reserved. Rename it.")
    if folded(name) in _SCHEMAS:
        raise ProjectionError(f"{kind} {name}: DuckDB or refold has a schema of this name. Rename it.")


def check_table_names(domain: str, names: Iterable[str]) -> None:
    """Check that the tables and views of a domain, and the files named after them, are distinct.

    DuckDB ignores the case of ASCII letters. Some file systems ignore the case of all letters, and how an accent is
    written.

    Raises:
        ProjectionError: naming both.
    """
    seen: dict[str, str] = {}
    for name in names:
        as_file = unicodedata.normalize("NFKC", name).casefold()
        if (other := seen.get(as_file)) is not None:
            raise ProjectionError(
                f"Domain {domain}: two read models or views are named {name!r}{also(other, name)}. Rename one of them."
            )
        seen[as_file] = name


def check_column_names(where: str, columns: Sequence[str], derived: Sequence[str]) -> None:
    """Check the names of a read model's columns.

    Args:
        where: the start of an error message.
        columns: key columns and other columns.
        derived: derived columns.

    Raises:
        ProjectionError: naming the column.
    """
    for column in (*columns, *derived):
        if fault := name_fault(column):
            raise ProjectionError(f"{where}, column {column[:40]!r}: the name is invalid: {fault}. Rename the column.")
        if column.startswith("_"):
            raise ProjectionError(f"{where}, column {column}: a leading underscore is reserved. Rename the column.")
    if double := first_double(columns):
        raise ProjectionError(f"{where}: column {double[1]!r} is declared twice{also(*double)}. Rename or remove one.")
    for column in derived:
        if double := first_double([*columns, column]):
            raise ProjectionError(
                f"{where}, derived column {column}: a key or reducer column has this name{also(*double)}. Rename the "
                "derived column."
            )
    if double := first_double(derived):
        raise ProjectionError(f"{where}: derived column {double[1]!r} is declared twice{also(*double)}. Rename one.")


def also(one: str, other: str) -> str:
    """Return what to add to a message about two equal names if they are written differently."""
    return "" if one == other else f" ({one!r} and {other!r} are the same name: case makes no difference)"
