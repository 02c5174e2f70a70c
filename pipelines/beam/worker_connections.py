"""A pool of DuckDB connections for the workers of one process.

A new database gets all of its memory from the system, one page fault after the other: a third of the CPU time of a unit
that groups millions of rows. A pooled connection keeps the blocks that it freed, from unit to unit.
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
"""The bound for one worker on machines with much memory; a unit that needs more spills."""
_MEMORY_SHARE = 0.5
"""Of the machine's memory, what all workers together use before they spill."""
_KEPT_BLOCKS = "1GB"
"""Freed memory that a connection keeps for its next unit; the rest goes back to the system."""


@dataclass(frozen=True, slots=True)
class _Idle:
    """A connection that waits for the next unit, and the folder to which it spills."""

    connection: duckdb.DuckDBPyConnection
    spill: TemporaryDirectory[str]

    def close(self) -> None:
        self.connection.close()
        self.spill.cleanup()


_idle: dict[str, queue.SimpleQueue[_Idle]] = {}
"""By memory limit, so a connection is never reused under another limit than its own."""


@contextmanager
def worker_connection(workers: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Borrow a connection with one thread and no temporary tables; after an error it is closed.

    Args:
        workers: how many workers share the machine's memory.
    """
    limit = _memory_limit(workers)
    idle = _idle.setdefault(limit, queue.SimpleQueue())
    try:
        borrowed = idle.get_nowait()
    except queue.Empty:
        borrowed = _open(limit)
    try:
        yield borrowed.connection
        forget_temporaries(borrowed.connection)
    except BaseException:
        borrowed.close()
        raise
    idle.put(borrowed)


def close_idle_connections() -> None:
    """Free the memory of the pool, once the units of a pipeline are done."""
    for idle in list(_idle.values()):
        while True:
            try:
                idle.get_nowait().close()
            except queue.Empty:
                break


def _open(memory_limit: str) -> _Idle:
    spill = tempfile.TemporaryDirectory(prefix="refold-", ignore_cleanup_errors=True)
    connection = connect(threads=1, memory_limit=memory_limit, temp_directory=spill.name)
    connection.execute(f"SET block_allocator_memory = '{_KEPT_BLOCKS}'")
    return _Idle(connection, spill)


def _memory_limit(workers: int) -> str:
    """Compute a worker's share of the machine's memory; the nearer its limit, the earlier DuckDB spills."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{min(_MAX_MEMORY, int(machine * _MEMORY_SHARE / workers)) >> 20}MiB"
