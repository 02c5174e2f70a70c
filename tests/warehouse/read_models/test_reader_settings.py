"""A published file gives every reader the same answer, whatever the settings of the reader's session."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection, View
from refold.warehouse.declarations.reducers import latest, total
from refold.warehouse.read_models import database


@event(schema_version=1)
class Sold:
    """An article was sold."""

    sku: str
    pieces: int
    moment: datetime


SALES = Projection(
    name="sales",
    key={"sku": "VARCHAR"},
    columns={
        "pieces": latest("BIGINT"),
        "sold": total("BIGINT"),
        "moment": latest("TIMESTAMPTZ"),
        "place": latest("STRUCT(city VARCHAR, spot STRUCT(lat DOUBLE))"),
    },
    on={Sold: "SELECT sku, pieces, moment"},
    derived={
        "day": "CAST(moment AT TIME ZONE 'UTC' AS DATE)",
        "half": "sold / 2",
        "lat": "place.spot.lat",
        "late": "moment > TIMESTAMPTZ '2026-07-01 00:00:00Z'",
    },
)
VIEWS = (
    View("by_pieces", "FROM sales ORDER BY pieces"),
    View("most", "FROM sales ORDER BY pieces DESC LIMIT 2"),
    View("every", "SELECT sku, pieces FROM sales ORDER BY ALL"),
    View("ranked", "SELECT sku, row_number() OVER (ORDER BY pieces, sku) AS place FROM sales ORDER BY 2"),
    View("listed", "SELECT list(sku ORDER BY pieces, sku) AS skus FROM sales"),
    View("sorted", "SELECT list_sort([2, NULL, 1], 'ASC', 'NULLS LAST') AS n"),
    View("months", "SELECT date_trunc('month', day) AS m, sum(sold / 2) AS n FROM sales GROUP BY ALL ORDER BY 1"),
    View("moments", "SELECT max(moment) = min(moment) AS same, max(epoch_us(moment)) AS last FROM sales"),
    View("nested", "WITH w AS (FROM sales ORDER BY pieces LIMIT 2) SELECT list(sku ORDER BY sku) AS skus FROM w"),
)
SETTINGS = [
    "SET TimeZone = 'America/New_York'",
    "SET TimeZone = 'Pacific/Kiritimati'",
    "SET default_null_order = 'nulls_first'",
    "SET default_null_order = 'nulls_first_on_asc_last_on_desc'",
    "SET default_order = 'desc'",
    "SET integer_division = true",
    "SET old_implicit_casting = true",
    "SET scalar_subquery_error_on_multiple_rows = false",
    "SET preserve_identifier_case = false",
]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a database of one table, with its views."""
    path: Path = tmp_path_factory.mktemp("published") / "models.duckdb"
    domain = Domain(name="shop", events=(Sold,), read_models=(SALES,), views=VIEWS)
    with database.open_database(path) as connection:
        database.create_table(connection, SALES, [])
        database.set_fingerprint(connection, SALES, domain, 0)
        connection.executemany(
            "INSERT INTO sales VALUES (?, ?, ?, ?, {'city': 'Ulm', 'spot': {'lat': 48.4}})",
            [
                ("a", 3, 3, datetime(2026, 7, 1, 3, 30, tzinfo=UTC)),
                ("b", None, 1, datetime(2026, 6, 30, 23, 30, tzinfo=UTC)),
                ("c", 1, 5, datetime(2026, 3, 31, 12, 0, tzinfo=UTC)),
            ],
        )
        database.create_views(connection, domain)
        database.finish(connection, domain)
    return path


def answers(path: Path, setting: str) -> dict[str, list[Any]]:
    """Read all tables and views in a session with a setting."""
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(setting)
        names = [SALES.name, *(view.name for view in VIEWS)]
        fetched = {name: connection.execute(f"FROM {name}").fetchall() for name in names}
    return {name: [tuple(map(_instant, row)) for row in rows] for name, rows in fetched.items()}


def _instant(value: object) -> object:
    """Return a moment in UTC: its zone is how the session shows it, not what it is."""
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_changes_no_answer(published: Path, setting: str) -> None:
    """Order, days and quotients are those of refold in each session."""
    assert answers(published, setting) == answers(published, "SET TimeZone = 'UTC'")
