"""Batches of reports: each request gets the rows that it gets alone, and a report that cannot be batched runs alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

import duckdb
import pytest

from refold.event_schemas import UsageError
from refold.pipelines.serving.reads.query_batcher import Answer, QueryBatcher
from refold.warehouse.declarations.endpoints import (
    BoundEndpoint,
    Parameter,
    Report,
    bind,
)
from refold.warehouse.queries.endpoint_queries import EndpointQuery, answer
from refold.warehouse.queries.read_source import ReadPosition

T = TypeVar("T")
SOLD = """
SELECT shop, CAST(sum(pieces) AS BIGINT) AS pieces, count(*) AS sales FROM sales
WHERE pieces >= $least AND ($shop IS NULL OR shop = $shop) GROUP BY ALL ORDER BY ALL
"""
LEAST = Parameter(type="BIGINT", text="The least sale that counts.", default=0)
SHOP = Parameter(type="VARCHAR", text="One shop; all by default.")
POSITION = ReadPosition(1, 1, "", "", 1, "")


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """Sales of some shops."""
    with closing(duckdb.connect()) as made:
        made.execute("CREATE TABLE sales AS SELECT 'shop-' || i % 7 AS shop, i % 30 AS pieces FROM range(200) r(i)")
        yield made


def bound(connection: duckdb.DuckDBPyConnection, sql: str, **parameters: Parameter) -> BoundEndpoint:
    """Bind a report."""
    return bind(Report(path="/report", sql=sql, text="A report.", parameters=parameters), {}, connection)


def test_together_is_what_it_is_alone(connection: duckdb.DuckDBPyConnection) -> None:
    """Each request gets its rows in order, also if it has none."""
    report = bound(connection, SOLD, least=LEAST, shop=SHOP)
    assert report.batchable
    queries = [EndpointQuery(report, (least, shop)) for least in (0, 17, 29, 99) for shop in (None, "shop-3", "none")]
    assert len({query.group for query in queries}) == 1
    together = answer(connection, queries)
    assert together == [answer(connection, [query])[0] for query in queries]
    assert [len(page.rows) for page in together] == [7, 1, 0, 7, 1, 0, 6, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT shop FROM sales WHERE pieces > $least ORDER BY ALL LIMIT 3", {"least": LEAST}),
        ("SELECT shop FROM sales WHERE pieces > $least", {"least": LEAST}),
        ("SELECT shop, '$least' AS text FROM sales WHERE pieces > $least ORDER BY ALL", {"least": LEAST}),
        ("SELECT shop FROM sales ORDER BY ALL", {}),
    ],
)
def test_what_a_join_would_change_is_asked_alone(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Parameter]
) -> None:
    """A limit, an order of its own, a parameter's name in a text, and what has no parameters."""
    report = bound(connection, sql, **parameters)
    assert not report.batchable
    assert len({EndpointQuery(report, (least,)).group for least in (1, 2)}) == 2


def test_too_many_rows_are_refused_to_those_who_asked_for_them(connection: duckdb.DuckDBPyConnection) -> None:
    """The other requests get their rows."""
    report = bound(connection, "SELECT i FROM range($least) r(i) ORDER BY ALL", least=LEAST)
    found = _ask(connection, report, 20_000, 3)
    assert [type(one) for one in found] == [UsageError, Answer]


def test_a_question_that_fails_harms_no_other(connection: duckdb.DuckDBPyConnection) -> None:
    """Each runs alone after their batch failed."""
    report = bound(connection, "SELECT CAST($shop AS INTEGER) AS number ORDER BY ALL", shop=SHOP)
    assert report.batchable
    found = _ask(connection, report, "12", "twelve", "13")
    assert [getattr(one, "data", type(one)) for one in found] == [
        b'[{"number":12}]',
        duckdb.ConversionException,
        b'[{"number":13}]',
    ]


class _Source:
    """A reader of one connection, whose data does not change."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def read_position(self) -> ReadPosition | None:
        return POSITION

    def ask(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[T, ReadPosition]:
        return query(self._connection), POSITION

    def close(self) -> None:
        """Releasing does nothing."""


def _ask(connection: duckdb.DuckDBPyConnection, report: BoundEndpoint, *values: object) -> list[Answer | BaseException]:
    async def ask() -> list[Answer | BaseException]:
        batcher = QueryBatcher(_Source(connection), threads=1)
        queries = (batcher.ask(EndpointQuery(report, (value,))) for value in values)
        found = await asyncio.gather(*queries, return_exceptions=True)
        batcher.close()
        return [*found]

    return asyncio.run(ask())
