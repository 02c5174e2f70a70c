"""Domains that are made at the same time: each binds its SQL in a schema of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyarrow as pa
import pytest

from refold.event_schemas import event, upcaster
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Lookup, Report
from refold.warehouse.declarations.projection import Projection, View
from refold.warehouse.declarations.reducers import count
from refold.warehouse.engine.scratch import scratch

_THREADS = 16
_DOMAINS = 160


@event(schema_version=2)
class PageViewed:
    """Somebody looked at a page."""

    path: str


@upcaster(PageViewed, from_version=1, schema=pa.schema([pa.field("url", pa.string(), nullable=False)]))
def _url_is_path() -> str:
    return "SELECT * EXCLUDE (url), url AS path FROM event"


def _make(number: int) -> Domain:
    """Make a domain whose table, view and seed have the same names in every thread, but other columns."""
    column = f"views_{number}"
    views = Projection(
        name="views",
        key={"path": "VARCHAR"},
        columns={column: count()},
        on={PageViewed: f"SELECT path, 1 AS {column}"},
        seed=f"SELECT path, {column} FROM totals",
    )
    return Domain(
        name="pages",
        events=(PageViewed,),
        upcasters=(_url_is_path,),
        read_models=(views,),
        views=(View("totals", f"SELECT path, {column} FROM views"),),
        endpoints=(
            Lookup(path="/views/{path}", table="views", text="One page."),
            Report(path="/totals", sql="FROM totals ORDER BY ALL", text="All pages."),
        ),
    )


@pytest.mark.slow
def test_domains_are_made_in_many_threads() -> None:
    """Every construction succeeds and sees its own tables only; nothing stays in the scratch database."""
    together = Barrier(_THREADS)

    def start(number: int) -> list[Domain]:
        together.wait()
        return [_make(n) for n in range(number, _DOMAINS, _THREADS)]

    with ThreadPoolExecutor(_THREADS) as pool:
        domains = [domain for part in pool.map(start, range(_THREADS)) for domain in part]

    assert len(domains) == _DOMAINS
    for domain in domains:
        (column,) = domain.read_models[0].columns
        assert [list(bound.columns) for bound in domain.bound_endpoints] == [["path", column]] * 2
    with scratch() as connection:
        assert connection.execute("SELECT schema_name FROM duckdb_schemas() WHERE NOT internal").fetchall() == []
