"""DuckDB connections that the workers of one process use in turn.

A new database gets all of its memory anew from the system, a page fault each time: a third of the CPU of a unit that
groups millions of rows. So a connection goes from unit to unit, and keeps the blocks that it freed.
"""

from __future__ import annotations

import os
import queue
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import duckdb

from refold.warehouse.engine.connections import connect, forget_temporaries

_MAX_MEMORY = 4 << 30
_MEMORY_SHARE = 0.5
"""Of the machine's memory, what all workers together may use before they spill."""
_KEPT_BLOCKS = "1GB"


@dataclass(frozen=True, slots=True)
class _Idle:
    """A connection that waits for the next unit, and the folder that it spills to."""

    connection: duckdb.DuckDBPyConnection
    spill: TemporaryDirectory[str]

    def close(self) -> None:
        self.connection.close()
        self.spill.cleanup()


_idle: queue.SimpleQueue[_Idle] = queue.SimpleQueue()


@contextmanager
def worker_connection(workers: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a connection on one thread, without temporary tables; one that failed is not used again.

    Args:
        workers: how many share the machine's memory.
    """
    try:
        taken = _idle.get_nowait()
    except queue.Empty:
        taken = _open(workers)
    try:
        yield taken.connection
        forget_temporaries(taken.connection)
    except BaseException:
        taken.close()
        raise
    _idle.put(taken)


def close_idle_connections() -> None:
    """Give memory back, once the units of a pipeline are done."""
    while True:
        try:
            _idle.get_nowait().close()
        except queue.Empty:
            return


def _open(workers: int) -> _Idle:
    spill = tempfile.TemporaryDirectory(prefix="refold-", ignore_cleanup_errors=True)
    connection = connect(threads=1, memory_limit=_memory(workers), temp_directory=spill.name)
    connection.execute(f"SET block_allocator_memory = '{_KEPT_BLOCKS}'")
    return _Idle(connection, spill)


def _memory(workers: int) -> str:
    """Give a worker its share of the machine's memory; the nearer its limit, the earlier DuckDB takes to spilling."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{min(_MAX_MEMORY, int(machine * _MEMORY_SHARE / workers)) >> 20}MiB"
