"""The sandbox child: a process that runs analysts' SQL and can do nothing else.

It starts as a file, isolated (``python -I``) and with an empty environment, and imports nothing of refold, so it knows
no token and no address. It opens one published file, then gives up the right to open files and sockets, to write files
and to exceed its memory limit. DuckDB's own settings are locked before that.

It reads lines of JSON, first its settings and then one query per line, and answers each with one line. It does not rely
on its parent: a timer ends the process if a query exceeds its time, or if no query arrives for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import sys
import time
from typing import Any

_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?", re.IGNORECASE)
_MAX_ERROR_CHARACTERS = 2_000
_ALL_TYPES = """
SELECT 1, 1.5::DOUBLE, 2.50::DECIMAL(9, 2), 'a', true, DATE '2026-01-01', TIME '10:00', TIMESTAMP '2026-01-01 10:00:00',
       TIMESTAMPTZ '2026-01-01 10:00:00+00', INTERVAL 1 DAY, uuid(), '\\xAA'::BLOB, [1], {'a': 1}, MAP {'a': 1}
"""

_SETTINGS = {
    "temp_directory": "",
    "python_enable_replacements": "false",  # otherwise a query could read the variables of this program
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_persistent_secrets": "false",
    "threads": "1",
    "TimeZone": "UTC",
    "enable_external_access": "false",
}
"""In this order: some settings cannot be changed after others."""


class _Failure:
    """How a query can fail; each is a key of the answer."""

    REFUSED = "refused"
    SLOW = "slow"
    MEMORY = "memory"


def main() -> None:
    """Answer queries until the input ends."""
    settings = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = settings["modules"]
    try:
        connection = _open(settings["file"], settings["memory_bytes"], settings["seconds"])
    except Exception as error:
        _send({_Failure.REFUSED: _cause(error)})
        return
    last_updated = _read_last_updated(connection)
    # Rows of every type import their modules now: from here on the process can open no file.
    ready = _ask(connection, {"sql": _ALL_TYPES, "parameters": []}, settings)
    _drop_rights(settings["memory_bytes"])
    _send({**ready, "last_updated": last_updated})
    while True:
        signal.setitimer(signal.ITIMER_REAL, settings["idle_seconds"])
        line = sys.stdin.buffer.readline()
        if not line:
            return
        signal.setitimer(signal.ITIMER_REAL, settings["seconds"] + settings["grace_seconds"])
        answer = _ask(connection, json.loads(line), settings)
        _send(answer)
        if _Failure.MEMORY in answer:
            return  # a new process starts with all its memory


def _open(file: str, memory_bytes: int, seconds: float) -> Any:
    import duckdb

    connection = duckdb.connect(file, read_only=True)
    for name, value in {
        **_SETTINGS,
        "memory_limit": f"{memory_bytes}B",
        "max_execution_time": int(seconds * 1000),
    }.items():
        connection.execute(f"SET GLOBAL {name} = '{value}'")  # each query has its own session
    connection.execute("SET GLOBAL lock_configuration = true")
    return connection


def _read_last_updated(connection: Any) -> Any:
    """Read when the file's tables reached its position; None if the file does not record it."""
    import duckdb

    with contextlib.suppress(duckdb.CatalogException):
        row = connection.execute("SELECT last_updated FROM refold.checkpoint").fetchone()
        return _to_plain(row[0]) if row and row[0] else None
    return None


def _drop_rights(memory_bytes: int) -> None:
    """Give up, permanently, every right that a query does not need."""
    if sys.platform == "linux":  # other kernels do not enforce this limit
        # DuckDB does not count all memory of strings and lists; the kernel does.
        limit = _address_space() + 2 * memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    next_descriptor = os.dup(0)  # the lowest free descriptor
    os.close(next_descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_descriptor, next_descriptor))


def _address_space() -> int:
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    with open(descriptor, "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _ask(connection: Any, query: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Run one query in its own session, so that it leaves nothing behind for the next one."""
    import duckdb

    started = time.perf_counter()
    try:
        with contextlib.closing(connection.cursor()) as cursor:
            refusal = _refusal_of(cursor, query["sql"])
            if refusal is not None:
                return {_Failure.REFUSED: refusal}
            cursor.execute(query["sql"], query["parameters"])
            answer = _read(cursor, settings["rows"], settings["answer_bytes"])
    except duckdb.InterruptException:
        return {_Failure.SLOW: ""}
    except (duckdb.OutOfMemoryException, MemoryError):
        return {_Failure.MEMORY: ""}
    except Exception as error:
        return {_Failure.REFUSED: _cause(error)}
    return {**answer, "seconds": time.perf_counter() - started}


def _refusal_of(cursor: Any, sql: str) -> str | None:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        return f"Expected one statement, found {len(statements)}."
    kind = statements[0].type.name
    if kind == "EXPLAIN":
        # EXPLAIN ANALYZE runs its statement.
        return (
            _refusal_of(cursor, _EXPLAIN.sub("", sql, count=1)) if _EXPLAIN.match(sql) else "EXPLAIN must come first."
        )
    if kind == "SELECT":
        return None
    hint = " Name the values of PIVOT: PIVOT t ON column IN ('a', 'b') USING …" if kind == "MULTI" else ""
    return f"Only SELECT and EXPLAIN SELECT are allowed; this is a statement of kind {kind}.{hint}"


def _read(cursor: Any, max_rows: int, max_bytes: int) -> dict[str, Any]:
    """Read rows up to the limits, and report whether there are more."""
    import orjson

    columns = [column[0] for column in cursor.description or ()]
    types = [str(column[1]) for column in cursor.description or ()]
    used = sum(map(len, columns)) + sum(map(len, types))
    rows: list[orjson.Fragment] = []
    truncated = used > max_bytes
    if truncated:
        raise ValueError(f"The names of {len(columns):,} columns exceed the size limit of an answer.")
    while (row := cursor.fetchone()) is not None:
        if len(rows) >= max_rows:
            truncated = True
            break
        written = _to_json(row)
        used += len(written)
        if used > max_bytes:
            truncated = True
            break
        rows.append(orjson.Fragment(written))
    return {"columns": columns, "types": types, "rows": rows, "truncated": truncated}


def _to_json(row: tuple[Any, ...]) -> bytes:
    """Serialize a row; decimals and integers that JSON readers would round become text, times RFC 3339."""
    import orjson

    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
    try:
        return orjson.dumps(row, default=_to_plain, option=options)
    except TypeError:
        return orjson.dumps(_big_integers_to_text(row), default=_to_plain, option=options)


def _to_plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def _big_integers_to_text(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, dict):
        return {str(key): _big_integers_to_text(item) for key, item in value.items()}
    return [_big_integers_to_text(item) for item in value] if isinstance(value, list | tuple) else value


def _cause(error: Exception) -> str:
    """Return DuckDB's message without its excerpt of the query."""
    return " ".join(str(error).split("\n\nLINE ")[0].split())[:_MAX_ERROR_CHARACTERS]


def _send(answer: dict[str, Any]) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
