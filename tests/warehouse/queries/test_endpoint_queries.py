"""Endpoint queries of one group, answered alone and by one statement, over tables with gaps and ties."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.event_schemas import UsageError
from refold.warehouse.declarations.endpoints import BoundEndpoint, Lookup, Parameter, Report
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.duckdb_types import readable_type
from refold.warehouse.engine.sql import literal
from refold.warehouse.queries import endpoint_queries as queries
from refold.warehouse.queries.endpoint_queries import (
    EndpointQuery,
    Page,
    answer,
    to_json,
)
from tests.properties.test_types import VALUES

OWNERS = ("ann", "bob", "eve")
COLUMNS = {"owner": "VARCHAR", "id": "INTEGER", "part": "VARCHAR", "seen": "BIGINT"}
NEWEST = BoundEndpoint(
    Lookup(path="/of/{owner}", table="things", text="Things.", newest_first="seen"),
    COLUMNS,
    key=("owner", "id", "part"),
)
PLAIN = BoundEndpoint(Lookup(path="/by/{owner}", table="things", text="Things."), COLUMNS, key=("owner", "id", "part"))
ONE = BoundEndpoint(
    Lookup(path="/{id}/{part}/{owner}", table="things", text="One thing."),
    COLUMNS,
    key=("owner", "id", "part"),
    single_row=True,
)

Thing = tuple[str, int, str, int | None]
THINGS = st.lists(
    st.tuples(
        st.sampled_from(OWNERS),
        st.integers(0, 3),
        st.sampled_from(("", "a", "B", "ä")),
        st.none() | st.integers(0, 2),  # few, so that many are equal
    ),
    unique_by=lambda thing: thing[:3],
    max_size=24,
)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with an empty table."""
    with connect(threads=1) as connection:
        connection.execute("CREATE TABLE things (owner VARCHAR, id INTEGER, part VARCHAR, seen BIGINT)")
        yield connection


def put(connection: duckdb.DuckDBPyConnection, things: Sequence[Thing]) -> None:
    """Replace the table's rows."""
    connection.execute("DELETE FROM things")
    if things:
        connection.execute(
            f"INSERT INTO things VALUES {', '.join(['(?, ?, ?, ?)'] * len(things))}", [v for t in things for v in t]
        )


def paged(connection: duckdb.DuckDBPyConnection, bound: BoundEndpoint, limit: int, *values: Any) -> Iterator[Page]:
    """Follow the cursors from the first page to the last."""
    page = Page([], "")
    for number in itertools.count():
        if number and not page.after:
            return
        [page] = answer(connection, [EndpointQuery(bound, values, limit, page.after)])
        yield page


def in_order(things: Sequence[Thing], owner: str) -> list[Thing]:
    """Return an owner's rows in the expected order: newest first, without a time last, ties by key."""
    mine = [t for t in things if t[0] == owner]
    return sorted(mine, key=lambda t: (t[3] is None, -(t[3] or 0), t[1], t[2].encode()))


@given(things=THINGS, limit=st.integers(1, 9))
def test_pages_give_every_row_once_in_order(
    connection: duckdb.DuckDBPyConnection, things: list[Thing], limit: int
) -> None:
    """At any page size only the last page is short, and it has no next page."""
    put(connection, things)
    for owner in OWNERS:
        wanted = in_order(things, owner)
        pages = list(paged(connection, NEWEST, limit, owner))
        assert [tuple(row.values()) for page in pages for row in page.rows] == wanted
        assert [len(page.rows) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert len(pages) == max(math.ceil(len(wanted) / limit), 1)
        by_key = [tuple(row.values()) for page in paged(connection, PLAIN, limit, owner) for row in page.rows]
        assert by_key == sorted(wanted, key=lambda t: (t[1], t[2].encode()))


@given(things=THINGS, limit=st.integers(1, 5), spare=st.integers(1, 8))
def test_batched_queries_get_the_rows_that_each_gets_alone(
    connection: duckdb.DuckDBPyConnection, things: list[Thing], limit: int, spare: int
) -> None:
    """This holds on later pages too, and if one query has more rows than the limit."""
    put(connection, things)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "_SPARE_ROWS", spare)
        for bound in (NEWEST, PLAIN):
            cursors = ["", *[page.after for page in paged(connection, bound, limit, "ann") if page.after]]
            for after in cursors:
                group = [EndpointQuery(bound, (owner,), limit, after) for owner in (*OWNERS, "nobody")]
                assert answer(connection, group) == [page for q in group for page in answer(connection, [q])]


def test_one_with_many_rows_leaves_the_others_theirs(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all fetched rows belong to one owner, the other gets a separate query."""
    monkeypatch.setattr(queries, "_SPARE_ROWS", 1)
    put(connection, [("ann", number, "", 2) for number in range(20)] + [("bob", 1, "", None)])
    ann, bob = answer(connection, [EndpointQuery(NEWEST, ("ann",), 2), EndpointQuery(NEWEST, ("bob",), 2)])
    assert ([row["id"] for row in ann.rows], [row["id"] for row in bob.rows]) == ([0, 1], [1])
    assert (bool(ann.after), bool(bob.after)) == (True, False)


def test_composite_keys_are_looked_up_together(connection: duckdb.DuckDBPyConnection) -> None:
    """Each query gets the row of its own values, not of a combination with values of others."""
    put(connection, [("ann", 1, "a", 1), ("ann", 2, "B", 2), ("bob", 1, "B", 3)])
    values = [(1, "a", "ann"), (1, "B", "bob"), (1, "a", "bob"), (2, "B", "ann"), (2, "a", "ann")]
    found = answer(connection, [EndpointQuery(ONE, value) for value in values])
    assert [[row["seen"] for row in page.rows] for page in found] == [[1], [3], [], [2], []]


def cursor(*parts: Any) -> str:
    """Make a cursor up."""
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


@pytest.mark.parametrize(
    "after",
    [
        "x",
        "====",
        "no base64",
        "ä",
        base64.urlsafe_b64encode(b"{}").decode(),
        base64.urlsafe_b64encode(b"[1,2").decode(),
        cursor(),
        cursor(1, 1),
        cursor(1, 1, "a", 1),
        cursor(1, "one", "a"),
        cursor("now()", 1, "a"),
        cursor(1, 2**40, "a"),
        cursor(1, [1], "a"),
        cursor(1, {}, "a"),
        cursor(2**63, 1, "a"),
    ],
)
def test_a_cursor_that_no_page_gave_is_refused(connection: duckdb.DuckDBPyConnection, after: str) -> None:
    """An invalid cursor is an error of the client, never of the database."""
    put(connection, [("ann", 1, "a", 1)])
    with pytest.raises(UsageError, match="is invalid"):
        answer(connection, [EndpointQuery(NEWEST, ("ann",), 1, after)])


@pytest.mark.parametrize(
    ("dtype", "newest", "oldest"),
    [
        ("DOUBLE", "'nan'", "'-inf'"),
        ("DOUBLE", "'inf'", "0.1"),
        ("FLOAT", "0.3", "0.1"),
        ("HUGEINT", "170141183460469231731687303715884105727", "-1"),
        ("DECIMAL(38,9)", "12345678901234567890123456789.000000001", "12345678901234567890123456789"),
        ("TIMESTAMPTZ", "'2026-01-01 00:00:00.000002+00'", "'2026-01-01 00:00:00.000001+00'"),
        ("DATE", "'2026-01-02'", "'2026-01-01'"),
        ("UUID", "'ffffffff-0000-0000-0000-000000000000'", "'00000000-0000-0000-0000-000000000000'"),
        ("BOOLEAN", "true", "false"),
        ("VARCHAR", "'ß'", "'a\"'"),
    ],
)
def test_pages_go_by_a_column_of_any_type(dtype: str, newest: str, oldest: str) -> None:
    """A cursor has the exact value, so that no row is skipped or repeated."""
    with connect(threads=1) as connection:
        connection.execute(f"CREATE TABLE t (owner VARCHAR, id INTEGER, seen {dtype})")
        times = [newest, oldest, "NULL"]
        rows = [f"('ann', {id}, CAST({seen} AS {dtype}))" for id, seen in enumerate(times * 2)]
        connection.execute(f"INSERT INTO t VALUES {', '.join(rows)}")
        types = {name: str(t) for name, t, *_ in connection.execute("FROM t").description}
        lookup = Lookup(path="/t/{owner}", table="t", text="Rows.", newest_first="seen")
        pages = paged(connection, BoundEndpoint(lookup, types, key=("owner", "id")), 1, "ann")
        assert [row["id"] for page in pages for row in page.rows] == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("dtype", [t for t in VALUES if t != "INTERVAL"])
@pytest.mark.parametrize("nested", ["{}", "{}[]", 'STRUCT("a b" {})'])
def test_pages_over_a_key_of_any_type_end(dtype: str, nested: str) -> None:
    """Each row is on one page, whatever type the key has; a cursor carries its values exactly."""
    wrapped = {"{}": "v", "{}[]": "[v]"}.get(nested, 'struct_pack("a b" := v)')
    values = ", ".join(f"(CAST({literal(text)} AS {dtype}))" for text in VALUES[dtype])
    with connect() as connection:
        connection.execute(
            f"CREATE TABLE t AS SELECT DISTINCT 'ada' AS owner, CAST({wrapped} AS {nested.format(dtype)}) AS k "
            f"FROM (VALUES {values}) v(v)"
        )
        lookup = Lookup(path="/t/{owner}", table="t", text="Rows.")
        bound = BoundEndpoint(lookup, {"owner": "VARCHAR", "k": nested.format(dtype)}, key=("owner", "k"))
        [[rows]] = connection.execute("SELECT count(*) FROM t").fetchall()
        pages = list(itertools.islice(paged(connection, bound, 1, "ada"), rows + 1))
        assert len(pages) == rows
        shown = [row["k"] for page in pages for row in page.rows]
        readable = readable_type(nested.format(dtype))
        ordered = connection.execute(f"SELECT CAST(o.k AS {readable}) AS k FROM t o ORDER BY o.k").fetchall()
        assert list(map(repr, shown)) == [repr(k) for (k,) in ordered]
        to_json(shown)


def test_values_are_written_without_loss(connection: duckdb.DuckDBPyConnection) -> None:
    """Integers of 128 bits and decimals as text, times in UTC, bytes as base64, NULL as null."""
    sql = (
        "SELECT $wide::HUGEINT AS wide, 0.10::DECIMAL(38,20) AS exact, '2026-03-01 01:30:00+02'::TIMESTAMPTZ AS seen, "
        "DATE '2026-03-01' AS day, '\\xFF'::BLOB AS bytes, NULL::HUGEINT AS nothing, [1.5, NULL] AS list"
    )
    types = {name: str(t) for name, t, *_ in connection.execute(sql, {"wide": 1}).description}
    report = Report(path="/report", sql=sql, text="A report.", parameters={"wide": Parameter(type="HUGEINT", text="")})
    [page] = answer(connection, [EndpointQuery(BoundEndpoint(report, types), (2**100,))])
    assert orjson.loads(to_json(page.rows)) == [
        {
            "wide": str(2**100),
            "exact": "0.10000000000000000000",
            "seen": "2026-02-28T23:30:00Z",
            "day": "2026-03-01",
            "bytes": "/w==",
            "nothing": None,
            "list": ["1.5", None],
        }
    ]


def test_a_report_with_too_many_rows_is_refused(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit itself is allowed; one row more is an error that names the next step."""
    monkeypatch.setattr(queries, "MAX_ROWS", 3)
    report = Report(
        path="/r",
        sql="SELECT range AS n FROM range($n)",
        text="R.",
        parameters={"n": Parameter(type="BIGINT", text="N.")},
    )
    with_n = BoundEndpoint(report, {"n": "BIGINT"})
    assert len(answer(connection, [EndpointQuery(with_n, (3,))])[0].rows) == 3
    with pytest.raises(UsageError, match=r"more than 3 rows\. Request fewer"):
        answer(connection, [EndpointQuery(with_n, (4,))])
