"""Increments: what a merge of contributions costs when nothing is unusual."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from refold.event_schemas import event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import total
from refold.warehouse.event_log import Appender, create_log
from refold.warehouse.read_models.increments.exact_merge import merge_exactly
from tests.properties.engine import Tables


@event(schema_version=1)
class Booked:
    """An amount is added to an account."""

    account: str
    amount: int


SUMS = Projection(
    name="sums",
    key={"account": "VARCHAR"},
    columns={"amount": total("INTEGER")},
    on={Booked: "SELECT account, amount FROM event"},
)
BANK = Domain(name="bank", events=(Booked,), read_models=(SUMS,))


def test_totals_that_fit_are_merged_by_the_fast_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New rows beside changed ones are no reason for the exact merge, which reads the events again."""
    exact: list[str] = []

    def counted(connection: duckdb.DuckDBPyConnection, model: Projection, delta: str) -> None:
        exact.append(model.name)
        merge_exactly(connection, model, delta)

    monkeypatch.setattr("refold.warehouse.read_models.increments.increment.merge_exactly", counted)
    log = create_log(str(tmp_path / "log"), domain_name="bank")
    appender = Appender(log, BANK.registry)
    tables = Tables(tmp_path / "tables", BANK, dead_letter=True)
    appender.append("ada", [Booked(account="ada", amount=1)])
    tables.catch_up(log)
    appender.append("ada", [Booked(account="ada", amount=2), Booked(account="ben", amount=3)])
    tables.catch_up(log)
    assert tables.rows("sums") == [{"account": "ada", "amount": 3}, {"account": "ben", "amount": 3}]
    assert not exact
    appender.append("ada", [Booked(account="ada", amount=2**31 - 1)])
    tables.catch_up(log)
    assert exact
    assert tables.rows("sums") == [{"account": "ben", "amount": 3}]
    tables.close()
