"""The pool of workers' connections: memory is reused, settings and temporary tables are not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from refold.pipelines.beam.worker_connections import close_idle_connections, worker_connection


@pytest.fixture(autouse=True)
def _empty_pool() -> Iterator[None]:
    close_idle_connections()
    yield
    close_idle_connections()


def memory_limit(workers: int) -> str:
    """Return the memory limit of the connection that is borrowed."""
    with worker_connection(workers) as connection:
        row = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    assert row is not None
    return str(row[0])


def test_a_connection_is_reused_without_its_temporary_tables() -> None:
    """The next borrower gets the same one, empty."""
    with worker_connection(2) as first:
        first.execute("CREATE TEMP TABLE _rows AS SELECT 1")
    with worker_connection(2) as second:
        assert second is first
        assert second.execute("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchone() == (0,)


def test_a_borrower_gets_its_own_memory_limit() -> None:
    """The limit does not depend on earlier borrowers: 1,000 workers share the memory, then 2,000 do."""
    large, small = memory_limit(1_000), memory_limit(2_000)
    assert large != small
    assert (memory_limit(1_000), memory_limit(2_000)) == (large, small)


def test_a_connection_that_failed_is_not_reused() -> None:
    """A failed connection may have an open transaction."""
    with pytest.raises(ZeroDivisionError), worker_connection(2) as first:
        raise ZeroDivisionError
    with worker_connection(2) as second:
        assert second is not first
