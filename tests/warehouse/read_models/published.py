"""Published generations for tests, made without a log: the content of their files does not matter."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from refold.warehouse.object_store.memory import MemoryStore
from refold.warehouse.object_store.records import encode_record
from refold.warehouse.read_models.generations.generations import Generation, Generations

_READER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
for _ in sys.stdin:
    print(connection.execute("SELECT shown FROM t").fetchone()[0], flush=True)
"""


def publish(generations: Generations, folder: Path, *, ago: timedelta = timedelta(0)) -> Generation:
    """Publish a file whose one table shows the number of its generation, some time ago."""
    newest = generations.newest()
    number = newest.number + 1 if newest else 1
    path = folder / f"{number}-{time.monotonic_ns()}.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT {number} AS shown")
    file, size = generations.upload(path)
    path.unlink()
    generation = Generation(
        number=number,
        file=file,
        bytes=size,
        position=10 * number,
        commit_number=number,
        recorded_at="2026-01-01T00:00:00+00:00",
        published_at=(datetime.now(UTC) - ago).isoformat(),
        parent=number - 1,
        log_id="a-log",
    )
    assert generations.publish(generation)
    _set_modified(generations, number, ago)
    return generation


def _set_modified(generations: Generations, number: int, ago: timedelta) -> None:
    """Make the store's own time of a generation one of some time ago."""
    key, store = f"generations/{number:020d}.json", generations.store
    if store.is_local:
        os.utime(store.local_path(key), (time.time() - ago.total_seconds(),) * 2)
    elif isinstance(store, MemoryStore):
        fs, path = store._locate(key)
        fs.store[path].created = datetime.now(UTC) - ago


def shown(generations: Generations) -> int:
    """Read what the current file shows."""
    newest = generations.newest()
    assert newest is not None
    with duckdb.connect(str(generations.path(newest)), read_only=True) as connection:
        [(number,)] = connection.execute("SELECT shown FROM t").fetchall()
    return int(number)


class Reader:
    """Another process that has a published file open.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", _READER, str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self) -> int:
        """Query in the session that is open."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def reading(*paths: Path) -> Iterator[list[Reader]]:
    """Have other processes open some files."""
    readers = [Reader(path) for path in paths]
    try:
        for reader in readers:
            reader.read()
        yield readers
    finally:
        for reader in readers:
            reader.close()


def aged(path: Path, by: timedelta) -> Path:
    """Backdate a file."""
    then = time.time() - by.total_seconds()
    os.utime(path, (then, then))
    return path


@contextmanager
def rewriting(generations: Generations) -> Iterator[duckdb.DuckDBPyConnection]:
    """Change the newest published file, which no process does, and the digests with it."""
    newest = generations.newest()
    assert newest is not None
    with TemporaryDirectory() as folder:
        path = generations.working_copy(newest, Path(folder))
        path.chmod(0o644)
        with closing(duckdb.connect(str(path))) as connection:
            yield connection
        file, size = generations.upload(path)
    changed = dataclasses.replace(newest, file=file, bytes=size)
    generations.store.put(f"generations/{newest.number:020d}.json", encode_record(changed))
    generations.store.delete(newest.file)
    generations.update_current_link()
