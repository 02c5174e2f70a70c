"""What a failed command prints: one paragraph that says what failed, why, and what to do."""

from __future__ import annotations

import re


def explain(error: Exception, command: str) -> tuple[str, int]:
    """Describe an error in one paragraph.

    Args:
        error: what the command raised.
        command: the command, as in ``refold events tail``.

    Returns:
        The paragraph, and the exit code.

    Example:
        >>> explain(PermissionError(13, "Permission denied", "/srv/log"), "refold seal")[0]
        '`refold seal` failed: Permission denied: /srv/log. Run it again with --debug to see where.'
    """
    from refold.event_schemas import RefoldError

    if isinstance(error, RefoldError):
        return " ".join(str(error).split()), error.exit_code
    if is_damaged_file(error):
        return (
            f"`{command}` failed: a published file of the read models is damaged ({_cause(error).strip()}). Run "
            "`refold rebuild --all`: it makes a new file from the log and does not read the damaged one.",
            1,
        )
    return f"`{command}` failed{_cause(error)}. Run it again with --debug to see where.", 1


_DAMAGED = re.compile(r"Corrupt database file|not a valid DuckDB database file|checksum .* does not match", re.I)


def is_damaged_file(error: Exception) -> bool:
    """Check whether DuckDB says that a database file is damaged.

    Example:
        >>> is_damaged_file(ValueError("Corrupt database file"))
        False
    """
    import duckdb

    return isinstance(error, duckdb.Error) and _DAMAGED.search(str(error)) is not None


def _cause(error: Exception) -> str:
    """Say where an error comes from, and its reason."""
    import duckdb
    import pyarrow as pa

    from refold.warehouse.engine.sql import first_line

    reason = _reason(str(error))
    if isinstance(error, duckdb.Error):
        return f" in DuckDB: {first_line(error).rstrip('.!')}"
    if isinstance(error, pa.ArrowException):  # before OSError, which some of them are as well
        return f" on Arrow or Parquet data: {reason or type(error).__name__}"
    if isinstance(error, OSError):
        named = [str(name) for name in (error.strerror, error.filename) if name]
        return f": {': '.join(named) or reason or type(error).__name__}"
    return f" with an unexpected {type(error).__name__}" + (f": {reason}" if reason else "")


def _reason(text: str) -> str:
    r"""Shorten a message to its sentence, without the traceback of a worker.

    Example:
        >>> _reason("Traceback (most recent call last):\n  File x.py, line 1\nValueError: odd\n")
        'ValueError: odd'
    """
    if "Traceback (most recent call last)" in text:
        text = ([line for line in text.splitlines() if any(map(str.isalnum, line))] or [""])[-1]
    return " ".join(text.split()).rstrip(".!")
