"""Indexes of live databases: rejected where DuckDB has none, and never in a published file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from refold.event_schemas import UsageError, event
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import collect, total
from refold.warehouse.read_models import database
from refold.warehouse.read_models.live.indexes import (
    Indexes,
    check_indexes,
    create_indexes,
    without_indexes,
)


@event(schema_version=1)
class Sold:
    """Pieces of an article were sold."""

    sku: str
    quantity: int


SKUS = Projection(
    name="skus",
    key={"sku": "VARCHAR"},
    columns={"sold": total("BIGINT"), "sales": collect("BIGINT")},
    on={Sold: "SELECT sku, quantity AS sold, quantity AS sales"},
)
FILL = "INSERT INTO skus SELECT 'sku-' || i, i, [i] FROM range(5000) r(i)"


def made(path: Path, indexes: Indexes) -> Path:
    """Make a database of one table."""
    with closing(database.open_database(path)) as connection:
        database.create_table(connection, SKUS, [])
        connection.execute(FILL)
        create_indexes(connection, indexes)
        connection.execute("CREATE VIEW best AS FROM skus ORDER BY sold DESC LIMIT 3")
        connection.execute("CHECKPOINT")
    return path


def test_a_copy_is_rewritten_without_them(tmp_path: Path) -> None:
    """The same rows, in a file that is not larger than one that never had an index."""
    plain = made(tmp_path / "plain.duckdb", {})
    indexed = made(tmp_path / "indexed.duckdb", {"skus": ["sku", "sold"]})
    assert indexed.stat().st_size > 1.2 * plain.stat().st_size
    rewritten = without_indexes(indexed)
    assert rewritten.stat().st_size <= plain.stat().st_size
    assert sorted(tmp_path.glob("*.duckdb*")) == [rewritten, plain]
    with closing(database.open_database(rewritten)) as connection:
        connection.execute(f"ATTACH '{plain}' AS plain (READ_ONLY)")
        assert connection.execute("FROM duckdb_indexes()").fetchall() == []
        assert connection.execute("FROM skus EXCEPT FROM plain.skus").fetchall() == []
        assert connection.execute("SELECT count(*) FROM skus").fetchall() == [(5000,)]


def test_a_file_without_them_is_left_alone(tmp_path: Path) -> None:
    """A file without indexes is not rewritten."""
    plain = made(tmp_path / "plain.duckdb", {})
    assert without_indexes(plain) == plain


@pytest.mark.parametrize(
    ("indexes", "message"),
    [
        ({"shelves": ["sku"]}, "no read model shelves to index. The domain has skus"),
        ({"skus": ["sku", "colour"]}, "Read model skus has no column colour to index. It has sku, sold, sales"),
    ],
)
def test_what_is_not_there_has_no_index(indexes: Indexes, message: str) -> None:
    """The error names what exists."""
    with pytest.raises(UsageError, match=message):
        check_indexes(indexes, [SKUS])


def test_a_list_has_no_index(tmp_path: Path) -> None:
    """The error has DuckDB's reason."""
    with pytest.raises(UsageError, match=r"Cannot index skus\.sales: .* Leave it out"):
        made(tmp_path / "lists.duckdb", {"skus": ["sales"]})
