"""The process that runs analysts' SQL, and can do nothing else.

It is started as a file, isolated (``python -I``), with an empty environment, and imports nothing of refold: so it knows
no token and no address. It opens one published file, then gives up what it no longer needs: to open any file or socket,
to write to a file, to grow beyond its memory. DuckDB's own locks stand before that.

It reads lines of JSON: first its settings, then one query at a time; and answers each with a line. It does not trust
its parent to watch it: an alarm ends it if a query goes on for too long, or none comes for a while.
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
_MAX_CHARACTERS = 2_000
_ALL_KINDS = """
SELECT 1, 1.5::DOUBLE, 2.50::DECIMAL(9, 2), 'a', true, DATE '2026-01-01', TIME '10:00', TIMESTAMP '2026-01-01 10:00:00',
       TIMESTAMPTZ '2026-01-01 10:00:00+00', INTERVAL 1 DAY, uuid(), '\\xAA'::BLOB, [1], {'a': 1}, MAP {'a': 1}
"""

_LOCKS = {
    "temp_directory": "",
    "python_enable_replacements": "false",  # else a query could read this program's variables
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_persistent_secrets": "false",
    "threads": "1",
    "TimeZone": "UTC",
    "enable_external_access": "false",
}
"""In this order: some can no longer be set after others."""


class _Endings:
    """How a query can end but well; each is a key of the answer."""

    REFUSED = "refused"
    SLOW = "slow"
    MEMORY = "memory"


def main() -> None:
    """Answer queries until there are no more."""
    settings = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = settings["modules"]
    try:
        connection = _open(settings["file"], settings["memory_bytes"], settings["seconds"])
    except Exception as error:
        _say({_Endings.REFUSED: _cause(error)})
        return
    last_updated = _read_last_updated(connection)
    ready = _ask(connection, {"sql": _ALL_KINDS, "parameters": []}, settings)  # imports all that rows ever need
    _give_up(settings["memory_bytes"])
    _say({**ready, "last_updated": last_updated})
    while True:
        signal.setitimer(signal.ITIMER_REAL, settings["idle_seconds"])
        line = sys.stdin.buffer.readline()
        if not line:
            return
        signal.setitimer(signal.ITIMER_REAL, settings["seconds"] + settings["grace_seconds"])
        answer = _ask(connection, json.loads(line), settings)
        _say(answer)
        if _Endings.MEMORY in answer:
            return  # a fresh process has all its memory again


def _open(file: str, memory_bytes: int, seconds: float) -> Any:
    import duckdb

    folder, name = os.path.split(file)
    os.chdir(folder)  # so that DuckDB knows, and can tell, only the file's name
    connection = duckdb.connect(name, read_only=True)
    for name, value in {
        **_LOCKS,
        "memory_limit": f"{memory_bytes}B",
        "max_execution_time": int(seconds * 1000),
    }.items():
        connection.execute(f"SET GLOBAL {name} = '{value}'")  # each query has a session of its own
    connection.execute("SET GLOBAL lock_configuration = true")
    return connection


def _read_last_updated(connection: Any) -> Any:
    """Read when the file's tables were brought to its position; None if the file does not say."""
    import duckdb

    with contextlib.suppress(duckdb.CatalogException):
        row = connection.execute("SELECT last_updated FROM refold.checkpoint").fetchone()
        return _plain(row[0]) if row and row[0] else None
    return None


def _give_up(memory_bytes: int) -> None:
    """Give up, for good, what answering a query does not need."""
    if sys.platform == "linux":  # elsewhere the kernel does not count it
        # DuckDB does not count all that strings and lists take; the kernel does.
        most = _address_space() + 2 * memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    next_descriptor = os.dup(0)  # the lowest that is free
    os.close(next_descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_descriptor, next_descriptor))


def _address_space() -> int:
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    with open(descriptor, "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _ask(connection: Any, query: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Run one query in a session of its own, so that it leaves nothing to the next one."""
    import duckdb

    started = time.perf_counter()
    try:
        with contextlib.closing(connection.cursor()) as cursor:
            refusal = _refusal_of(cursor, query["sql"])
            if refusal is not None:
                return {_Endings.REFUSED: refusal}
            cursor.execute(query["sql"], query["parameters"])
            answer = _read(cursor, settings["rows"], settings["answer_bytes"])
    except duckdb.InterruptException:
        return {_Endings.SLOW: ""}
    except (duckdb.OutOfMemoryException, MemoryError):
        return {_Endings.MEMORY: ""}
    except Exception as error:
        return {_Endings.REFUSED: _cause(error)}
    return {**answer, "seconds": time.perf_counter() - started}


def _refusal_of(cursor: Any, sql: str) -> str | None:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        return f"Expected one statement, found {len(statements)}."
    kind = statements[0].type.name
    if kind == "EXPLAIN":
        # What is explained with ANALYZE is carried out.
        return _refusal_of(cursor, _EXPLAIN.sub("", sql, count=1)) if _EXPLAIN.match(sql) else "EXPLAIN comes first."
    if kind == "SELECT":
        return None
    hint = " Give PIVOT its values: PIVOT t ON column IN ('a', 'b') USING …" if kind == "MULTI" else ""
    return f"Only queries are answered, and this is a statement of kind {kind}.{hint}"


def _read(cursor: Any, most_rows: int, most_bytes: int) -> dict[str, Any]:
    """Take rows up to the bounds, and tell whether there were more."""
    import orjson

    columns = [column[0] for column in cursor.description or ()]
    types = [str(column[1]) for column in cursor.description or ()]
    used = sum(map(len, columns)) + sum(map(len, types))
    rows: list[orjson.Fragment] = []
    truncated = used > most_bytes
    if truncated:
        raise ValueError(f"The names of {len(columns):,} columns are longer than an answer may be.")
    while (row := cursor.fetchone()) is not None:
        if len(rows) >= most_rows:
            truncated = True
            break
        written = _to_json(row)
        used += len(written)
        if used > most_bytes:
            truncated = True
            break
        rows.append(orjson.Fragment(written))
    return {"columns": columns, "types": types, "rows": rows, "truncated": truncated}


def _to_json(row: tuple[Any, ...]) -> bytes:
    """Write a row; decimals and integers that JSON readers would round are text, times RFC 3339."""
    import orjson

    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
    try:
        return orjson.dumps(row, default=_plain, option=options)
    except TypeError:
        return orjson.dumps(_whole(row), default=_plain, option=options)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def _whole(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, dict):
        return {str(key): _whole(held) for key, held in value.items()}
    return [_whole(held) for held in value] if isinstance(value, list | tuple) else value


def _cause(error: Exception) -> str:
    """Take DuckDB's message without its picture of the query."""
    return " ".join(str(error).split("\n\nLINE ")[0].split())[:_MAX_CHARACTERS]


def _say(answer: dict[str, Any]) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
