"""Totals at the limits of their types: where a history is cut makes no difference."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pytest

from refold.event_schemas import InvalidEventsError, ProjectionError, event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import count, count_distinct, latest, total
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log import Appender, EventLog, create_log
from refold.warehouse.read_models import withheld
from refold.warehouse.read_models.comparison.compare import compare_files, compared_dead_letters, compared_tables
from refold.warehouse.read_models.comparison.differences import TableDifference
from refold.warehouse.sequential_fold import fold_log, write_folded
from tests.properties.engine import Tables, scratch_folder, seal

pytestmark = pytest.mark.slow


@event(schema_version=1)
class Booked:
    """An amount, as text so that it may have any number of digits."""

    account: str
    amount: str


@event(schema_version=1)
class Closed:
    """The row of an account is deleted."""

    account: str


@event(schema_version=1)
class Counted:
    """A decimal that may be written in several ways, and a float as text."""

    amount: Annotated[Decimal, pa.decimal128(18, 4)]
    ratio: str


def booking(dtype: str, *, deletes: bool = False) -> Domain:
    """Declare a total of a type, with other columns beside it, and a read model that has no total."""
    contributed = "DOUBLE" if dtype in ("FLOAT", "DOUBLE") else dtype
    on: dict[type, str | Delete] = {
        Booked: f"SELECT account, CAST(amount AS {contributed}) AS amount, 1 AS n, amount AS last, amount AS amounts"
    }
    if deletes:
        on[Closed] = Delete("SELECT account")
    columns = {
        "amount": total(dtype, approximate=contributed == "DOUBLE"),
        "n": count(),
        "last": latest("VARCHAR"),
        "amounts": count_distinct(),
    }
    sums = Projection(name="sums", key={"account": "VARCHAR"}, columns=columns, on=on)
    counts = Projection(
        name="counts", key={"account": "VARCHAR"}, columns={"n": count()}, on={Booked: "SELECT account, 1 AS n"}
    )
    return Domain(name="bank", events=(Booked, Closed), read_models=(sums, counts))


@dataclass(frozen=True, slots=True)
class Shown:
    """What a database has for the read model with the total."""

    rows: list[dict[str, Any]]
    counts: list[dict[str, Any]]
    letters: list[tuple[Any, ...]]
    withheld: list[tuple[Any, ...]]


def shown(tables: Tables) -> Shown:
    """Read all of it."""
    connection = tables.connection
    letters = connection.execute("SELECT read_model, position, reason FROM refold.dead_letters ORDER BY ALL").fetchall()
    held = []
    if withheld.models_with_withheld(connection):
        held = connection.execute(
            "SELECT account, n, last, amounts, _beyond_amount, _position FROM refold.withheld_sums ORDER BY ALL"
        ).fetchall()
    return Shown(tables.rows("sums"), tables.rows("counts"), letters, held)


def every_cut(folder: Path, domain: Domain, appends: list[tuple[str, Any]], cuts: set[int]) -> Iterator[Shown]:
    """Give what a follower with these cuts has at the end, and what a rebuild has; compare with a sequential fold."""
    log = create_log(str(folder / "log"), domain_name="bank", bucket_count=4)
    followed = Tables(folder / "followed", domain, dead_letter=True)
    for number, (stream_id, payload) in enumerate(appends):
        Appender(log, domain.registry).append(stream_id, [payload])
        if number in cuts:
            followed.catch_up(log)
    followed.catch_up(log)
    yield shown(followed)
    followed.close()
    seal(log, domain.registry)
    tables = Tables(folder / "rebuilt", domain, dead_letter=True)
    tables.rebuild(log)
    yield shown(tables)
    tables.close()
    assert recompute(log, domain, folder) == []


def recompute(log: EventLog, domain: Domain, folder: Path) -> list[TableDifference]:
    """Compare a rebuilt database with a sequential fold: rows, withheld rows and dead letters."""
    found = fold_log(log.store, domain, domain.read_models, up_to=log.head().position)
    with closing(connect(folder / "recomputed.duckdb")) as connection:
        write_folded(connection, domain.read_models, found)
    tables = [t for m in domain.read_models for t in compared_tables(m) if t.key]
    tables.append(compared_dead_letters([m.name for m in domain.read_models]))
    return compare_files(folder / "rebuilt" / "working.duckdb", folder / "recomputed.duckdb", tables, spill=folder)


LIMITS = {
    "TINYINT": ("100", "27", "1", "-128", "-100", "-29"),
    "UTINYINT": ("200", "55", "1", "200"),
    "BIGINT": ("9223372036854775807", "1", "-9223372036854775808", "-2"),
    "UBIGINT": ("18446744073709551615", "1", "18446744073709551615"),
    "DECIMAL(9,2)": ("9000000.00", "2000000.00", "-5000000.00", "-9999999.99", "0.01"),
    "DECIMAL(2,2)": ("0.99", "0.01", "-.99", "-0.02"),
    "DECIMAL(38,2)": ("999999999999999999999999999999999999.99", "0.01", "-999999999999999999999999999999999999.99"),
    "HUGEINT": ("170141183460469231731687303715884105727", "1", "-170141183460469231731687303715884105728"),
    "UHUGEINT": ("340282366920938463463374607431768211455", "1"),
    "FLOAT": ("3e38", "2e38", "-3e38"),
}
"""Type to contributions whose sums leave it and return."""


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("seed", range(2))
def test_every_cut_shows_the_same_rows(dtype: str, seed: int) -> None:
    """Rows, withheld rows and dead letters are the same for any cut and in a rebuild, and sums are right."""
    chance = random.Random(seed)
    amounts = [chance.choice(LIMITS[dtype]) for _ in range(9)]
    appends = [(f"s-{chance.randrange(5)}", Booked(account=chance.choice("ab"), amount=a)) for a in amounts]
    domain = booking(dtype)
    found: list[Shown] = []
    for cuts in (set(), {1, 2, 5}, set(range(9))):
        with scratch_folder() as folder:
            found += every_cut(Path(folder), domain, appends, cuts)
    assert all(each == found[0] for each in found)
    for account in {b.account for _, b in appends}:
        own = [Fraction(b.amount) for _, b in appends if b.account == account]
        assert_total(found[0], dtype, account, own)


def assert_total(found: Shown, dtype: str, account: str, amounts: list[Fraction]) -> None:
    """Compare with a sum in Python: the row shows it, or is withheld with it."""
    shown_as = {row["account"]: row for row in found.rows}
    held = {row[0]: row for row in found.withheld}
    assert (account in shown_as) != (account in held)
    if dtype == "FLOAT":  # its sum is approximate
        return
    scale = int(dtype.rstrip(")").split(",")[1]) if "," in dtype else 0
    found_sum = Fraction(int(held[account][4]), 10**scale) if account in held else Fraction(shown_as[account]["amount"])
    assert found_sum == sum(amounts)
    n = held[account][1] if account in held else shown_as[account]["n"]
    assert n == len(amounts)


def test_a_dead_letter_says_where_the_total_left_its_type() -> None:
    """It names read model, key, column, the total and the position; and it goes when the row returns."""
    appends = [
        (f"s-{i}", Booked(account="ada", amount=a)) for i, a in enumerate(("9000000", "2000000", "1", "-5000000"))
    ]
    domain = booking("DECIMAL(9,2)")
    with scratch_folder() as folder:
        log = create_log(str(Path(folder) / "log"), domain_name="bank", bucket_count=4)
        tables = Tables(Path(folder) / "followed", domain, dead_letter=True)
        letters = []
        for stream_id, booked in appends:
            Appender(log, domain.registry).append(stream_id, [booked])
            tables.catch_up(log)
            letters.append(tables.connection.execute("SELECT position, reason FROM refold.dead_letters").fetchall())
            assert tables.rows("counts") == [{"account": "ada", "n": len(letters)}]
        assert [len(found) for found in letters] == [0, 1, 1, 0]
        assert letters[1] == letters[2]
        [(position, reason)] = letters[1]
        assert position == 2
        assert "The total amount of the row account = ada becomes 11000000.00 and leaves DECIMAL(9,2)" in reason
        assert tables.rows("sums")[0]["amount"] == Decimal("6000001.00")
        tables.close()


def test_a_deleted_row_is_no_longer_withheld() -> None:
    """Its dead letter goes too, and a new row of the key starts from nothing."""
    appends = [
        ("s-1", Booked(account="ada", amount="100")),
        ("s-2", Booked(account="ada", amount="100")),
        ("s-3", Closed(account="ada")),
        ("s-4", Booked(account="ada", amount="5")),
    ]
    found: list[Shown] = []
    for cuts in (set(), {1}, {1, 2}, {0, 1, 2}):
        with scratch_folder() as folder:
            found += every_cut(Path(folder), booking("TINYINT", deletes=True), appends, cuts)
    assert all(each == found[0] for each in found)
    assert [row["amount"] for row in found[0].rows] == [5]
    assert found[0].letters == []


def test_a_strict_run_ends_with_an_error() -> None:
    """It names read model, key, column and position, and what to do."""
    domain = booking("TINYINT")
    with scratch_folder() as folder:
        log = create_log(str(Path(folder) / "log"), domain_name="bank", bucket_count=4)
        for stream_id in ("s-1", "s-2"):
            Appender(log, domain.registry).append(stream_id, [Booked(account="ada", amount="100")])
        tables = Tables(Path(folder) / "tables", domain)
        tables.catch_up(log)
        with pytest.raises(InvalidEventsError, match=r"sums, position 2: The total amount of the row account = ada"):
            withheld.refuse(tables.connection, ["sums"], doing="The rebuild")
        tables.close()


@pytest.mark.parametrize("value", ["NaN", "inf", "-inf"])
def test_a_float_total_adds_numbers_only(value: str) -> None:
    """An event whose contribution is no number is left out, since what it does depends on the order of events."""
    appends = [("s-1", Booked(account="ada", amount="1.5")), ("s-2", Booked(account="ada", amount=value))]
    for cuts in (set(), {0}):
        with scratch_folder() as folder:
            for found in every_cut(Path(folder), booking("DOUBLE"), appends, cuts):
                assert [row["amount"] for row in found.rows] == [1.5]
                assert [(name, position) for name, position, _ in found.letters] == [("sums", 2)]


@pytest.mark.parametrize("dtype", ["FLOAT4", "FLOAT8", "REAL", "double precision"])
def test_a_float_total_by_any_name_is_approximate(dtype: str) -> None:
    """An alias of a float type is a float type."""
    with pytest.raises(ProjectionError, match="a sum of floats depends on the order"):
        total(dtype)


@pytest.mark.parametrize("dtype", ["INTERVAL", "VARCHAR", "BIT", "BIGNUM", "DATE"])
def test_a_total_is_of_numbers(dtype: str) -> None:
    """The message names read model, column and type."""
    with pytest.raises(ProjectionError, match=rf"Read model p, column x: {dtype} has no sum"):
        Projection(
            name="p", key={"a": "VARCHAR"}, columns={"x": total(dtype)}, on={Booked: "SELECT account AS a, NULL AS x"}
        )


def test_a_distinct_count_counts_values() -> None:
    """Not their text: 2.50 and 2.5000 are one, 0.0 and -0.0 too, and so are all NaNs; also inside lists and structs."""
    columns = {
        "amounts": count_distinct(),
        "ratios": count_distinct(),
        "lists": count_distinct(),
        "rows": count_distinct(),
    }
    of = "(SELECT *, CAST(ratio AS DOUBLE) AS r FROM event)"
    select = (
        f"SELECT 'all' AS k, amount AS amounts, r AS ratios, [r] AS lists, {{'r': r, 'a': amount}} AS rows FROM {of}"
    )
    model = Projection(name="p", key={"k": "VARCHAR"}, columns=columns, on={Counted: select})
    domain = Domain(name="bank", events=(Counted,), read_models=(model,))
    given = [("2.50", "0.0"), ("2.5000", "-0.0"), ("2.5", "1"), ("0", "NaN"), ("-0", "-NaN"), ("2.5", "0")]
    with scratch_folder() as folder:
        log = create_log(str(Path(folder) / "log"), domain_name="bank", bucket_count=4)
        followed = Tables(Path(folder) / "followed", domain)
        for number, (amount, ratio) in enumerate(given):
            Appender(log, domain.registry).append(f"s-{number}", [Counted(amount=Decimal(amount), ratio=ratio)])
            followed.catch_up(log)
        seal(log, domain.registry)
        again = Tables(Path(folder) / "rebuilt", domain)
        again.rebuild(log)
        for tables in (followed, again):
            assert tables.rows("p") == [{"k": "all", "amounts": 2, "ratios": 3, "lists": 3, "rows": 3}]
            tables.close()


def test_handlers_of_a_distinct_count_yield_one_type() -> None:
    """Values of different types have no equality that everybody agrees on."""
    with pytest.raises(ProjectionError, match="Read model p, column x: events yield different types"):
        Projection(
            name="p",
            key={"a": "VARCHAR"},
            columns={"x": count_distinct()},
            on={Booked: "SELECT account AS a, amount AS x", Closed: "SELECT account AS a, 1 AS x"},
        )
