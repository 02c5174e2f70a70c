"""Names in declarations, compared as DuckDB compares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import pytest

from refold.event_schemas import ContractError, ProjectionError, event
from refold.event_schemas.decider import Decider, command
from refold.event_schemas.names import folded
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Lookup, Parameter, Report
from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import Fold, Projection, View
from refold.warehouse.declarations.reducers import count, count_distinct, total


@event(schema_version=1)
class Sold:
    """An article was sold."""

    sku: str
    pieces: int


@dataclass
class Line:
    """A part of an event with two fields that are one in SQL."""

    Id: int
    id: int


def model(name: str = "p", key: str = "sku", column: str = "n", **given: Any) -> Projection:
    """Declare a small read model."""
    on: dict[type, str | Delete] = {Sold: f'SELECT sku AS "{key}"'}
    return Projection(name=name, key={key: "VARCHAR"}, columns={column: total("BIGINT")}, on=on, **given)


def domain(*names: str, views: tuple[str, ...] = (), **given: Any) -> Domain:
    """Declare a domain of small read models and views."""
    selects = tuple(View(v, "SELECT 1 AS one") for v in views)
    return Domain(name="shop", events=(Sold,), read_models=tuple(map(model, names)), views=selects, **given)


LETTERS = [
    "aA",
    "Ää",
    "éÉ",
    "İi",
    "ßẞ",
    "\N{KELVIN SIGN}k",
    "\N{LATIN SMALL LETTER LONG S}s",
    "σς",
    "ǅǆ",
    "ﬁf",
    "Ωω",
    "эЭ",
]


@pytest.mark.parametrize("pair", LETTERS)
def test_names_fold_as_in_duckdb(pair: str) -> None:
    """DuckDB is asked itself whether two letters are one name."""
    one, other = (f"x{letter}" for letter in pair)
    try:
        duckdb.connect().execute(f'CREATE TABLE t ("{one}" INTEGER, "{other}" INTEGER)')
    except duckdb.Error:
        same = True
    else:
        same = False
    assert (folded(one) == folded(other)) is same


@pytest.mark.parametrize(
    ("names", "views"),
    [
        (("Payments", "payments"), ()),
        (("payments",), ("PAYMENTS",)),
        ((), ("best", "Best")),
        (("naïve", "NAÏVE"), ()),
        (("straße", "strasse"), ()),
    ],
)
def test_tables_that_differ_in_case_only(names: tuple[str, ...], views: tuple[str, ...]) -> None:
    """DuckDB would have one table for both; a file system may have one file."""
    with pytest.raises(ProjectionError, match=r"Domain shop: two read models or views are named .* Rename one"):
        domain(*names, views=views)


@pytest.mark.parametrize("name", ["", "a b", "a\0b", "x" * 129, "_p", "refold", "Main", "pg_catalog", "models", "1a"])
def test_names_that_no_table_can_have(name: str) -> None:
    """Names of schemas, reserved names and names beyond what a file system keeps, of read models and views."""
    with pytest.raises(ProjectionError, match="Read model"):
        model(name)
    with pytest.raises(ProjectionError, match="View"):
        domain(views=(name,))


@pytest.mark.parametrize(
    ("columns", "derived", "why"),
    [
        (["n", "N"], [], "column 'N' is declared twice"),
        (["Sku"], [], "column 'Sku' is declared twice"),
        (["n"], ["N"], "derived column N: a key or reducer column has this name"),
        (["n"], ["SKU"], "derived column SKU: a key or reducer column has this name"),
        (["n"], ["m", "M"], "derived column 'M' is declared twice"),
        ([""], [], "column '': the name is invalid: it is empty"),
        (["a\0b"], [], "the name is invalid: it has a character that cannot be printed"),
        (["x" * 200], [], "the name is invalid: it is longer than 128 bytes"),
        (["n"], [""], "column '': the name is invalid"),
        (["n"], ["_m"], "column _m: a leading underscore is reserved"),
        (["RowId"], [], "every table of DuckDB has a rowid"),
        (["\ud800"], [], "the name is invalid"),
    ],
)
def test_columns(columns: list[str], derived: list[str], why: str) -> None:
    """The columns of a table are distinct, derived ones too."""
    with pytest.raises(ProjectionError, match=f"Read model p.*{why}"):
        Projection(
            name="p",
            key={"sku": "VARCHAR"},
            columns={c: total("BIGINT") for c in columns},
            on={Sold: "SELECT sku"},
            derived=dict.fromkeys(derived, "1"),
        )


@pytest.mark.parametrize("key", ["sku", "SKU"])
def test_a_fold_has_distinct_columns(key: str) -> None:
    """A fold's columns, and the columns of its events, are distinct as well."""
    with pytest.raises(ProjectionError, match=r"Read model f: column '[Ss][Kk][Uu]' is declared twice"):
        Fold(name="f", key={"sku": "VARCHAR"}, columns={key.upper(): "BIGINT"}, on={Sold: "SELECT sku"}, fold=print)


@pytest.mark.parametrize(
    "select", ["SELECT sku, pieces, 1 AS Pieces", "SELECT sku, 1 AS a, 2 AS a", "SELECT *, 1 AS SKU"]
)
def test_the_columns_of_an_event_are_distinct(select: str) -> None:
    """DuckDB would rename the second of two equal columns, and a fold would read a name that nobody wrote."""
    with pytest.raises(ProjectionError, match="Read model f, event Sold: the SELECT yields two columns"):
        Fold(name="f", key={"sku": "VARCHAR"}, columns={"n": "BIGINT"}, on={Sold: select}, fold=print)


def test_fields_of_a_struct() -> None:
    """In DuckDB, `Id` and `id` are one field of a struct: of a column, and of an event."""
    with pytest.raises(ProjectionError, match=r"Fold p, column n: .*[Dd]uplicate"):
        Fold(name="p", key={"sku": "VARCHAR"}, columns={"n": "STRUCT(Id INT, id INT)"}, on={Sold: ""}, fold=print)

    with pytest.raises(ContractError, match="Event Ordered, field lines: two fields are named 'id'"):

        @event(schema_version=1)
        class Ordered:
            lines: list[Line]


def test_commands() -> None:
    """Two deciders cannot accept one command, whatever its case."""

    @command
    class Pay:
        account: str

    @command
    class PAY:
        account: str

    deciders = tuple(
        Decider(
            name=accepted.__name__,
            commands=(accepted,),
            stream_id=lambda c: c.account,
            initial_state=lambda: None,
            evolve=lambda s, _e: s,
            decide=lambda _c, _s: [],
        )
        for accepted in (Pay, PAY)
    )
    with pytest.raises(ContractError, match=r"both accept a command PAY.*Pay.*case makes no difference"):
        domain("p", deciders=deciders)


def test_endpoints() -> None:
    """Two paths that match the same requests, and two parameters that are one in SQL."""
    lookups = (
        Lookup(path="/p/{sku}", table="p", text="One."),
        Report(path="/p/{n}", sql="SELECT $n AS n", text="It.", parameters={"n": Parameter(type="BIGINT", text="It.")}),
    )
    with pytest.raises(ProjectionError, match=r"the endpoints '/p/\{sku\}' and '/p/\{n\}' match the same requests"):
        domain("p", endpoints=lookups)
    parameters = {"n": Parameter(type="BIGINT", text="It."), "N": Parameter(type="BIGINT", text="It.")}
    report = Report(path="/r", sql="SELECT $n AS n, $N AS m", text="It.", parameters=parameters)
    with pytest.raises(ProjectionError, match="Endpoint /r: two parameters are named 'N'"):
        domain("p", endpoints=(report,))


def test_tables_of_seen_values() -> None:
    """`seen_a_b_c` is of column `b_c` of `a`, or of column `c` of `a_b`; both at once would share their values."""
    models = tuple(
        Projection(name=name, key={"sku": "VARCHAR"}, columns={column: count_distinct()}, on={Sold: "SELECT sku"})
        for name, column in (("a", "b_c"), ("a_b", "c"))
    )
    with pytest.raises(ProjectionError, match=r"columns a\.b_c and a_b\.c would keep their values in one table"):
        Domain(name="shop", events=(Sold,), read_models=models)


def test_what_is_distinct_stays_so() -> None:
    """Umlauts keep their case; words of SQL, spaces, dots and quotes make good columns."""
    names = ["Ä", "ä", "select", "two words", "a.b", 'a"b', "x'y", "1", "x", "value", "event", "日本"]
    columns = {name: count() for name in names}
    assert Projection(name="p", key={"sku": "VARCHAR"}, columns=columns, on={Sold: "SELECT sku"}).table
