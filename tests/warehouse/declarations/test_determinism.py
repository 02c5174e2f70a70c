"""Declared SQL gives the same result each time: what may be called and read, and what every reader sees alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pytest

from refold.event_schemas import ContractError, ProjectionError, event, upcaster
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Parameter, Report
from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import Fold, Projection, View
from refold.warehouse.declarations.reducers import latest, total


@event(schema_version=1)
class Sold:
    """An article was sold."""

    sku: str
    region: str
    pieces: int
    moment: datetime
    day: date
    numbers: list[int]


TABLE = Projection(
    name="sales",
    key={"sku": "VARCHAR"},
    columns={
        "pieces": total("BIGINT"),
        "moment": latest("TIMESTAMPTZ"),
        "day": latest("DATE"),
        "place": latest("STRUCT(city VARCHAR, spot STRUCT(lat DOUBLE))"),
        "list": latest("INTEGER[]"),
    },
    on={Sold: "SELECT sku, pieces, moment, day"},
)


def handler(select: str | Delete, key: str = "sku") -> Projection:
    """Declare a projection of one handler."""
    return Projection(name="p", key={key: "VARCHAR"}, columns={"n": latest("VARCHAR")}, on={Sold: select})


def with_derived(expression: str) -> Projection:
    """Declare a projection with one derived column."""
    return Projection(name="p", key=TABLE.key, columns=TABLE.columns, on=TABLE.on, derived={"more": expression})


def with_view(select: str) -> Domain:
    """Declare a domain with one view."""
    return Domain(name="shop", events=(Sold,), read_models=(TABLE,), views=(View("best", select),))


def with_seed(select: str) -> Domain:
    """Declare a domain with a read model that starts from a seed."""
    columns = {"n": latest("VARCHAR")}
    seeded = Projection(name="p", key=TABLE.key, columns=columns, on={Sold: "SELECT sku"}, seed=select)
    return Domain(name="shop", events=(Sold,), read_models=(TABLE, seeded))


def with_report(select: str, parameters: Mapping[str, Parameter]) -> Domain:
    """Declare a domain with one report."""
    report = Report(path="/best", sql=select, text="The best.", parameters=parameters)
    return Domain(name="shop", events=(Sold,), read_models=(TABLE,), endpoints=(report,))


CLOCKS = [
    "current_date",
    "current_timestamp",
    "current_time",
    "localtimestamp",
    "localtime",
    "today()",
    "now()",
    "NOW()",
    "system.main.now()",
    "transaction_timestamp()",
    "get_current_timestamp()",
    "age(TIMESTAMP '2020-01-01')",
    "ago(INTERVAL 1 DAY)",
]
OTHERS = [
    *("random()", '"main".random()', "uuid()", "gen_random_uuid()", "uuidv7()", "setseed(1)", "hash(1)"),
    *("getvariable('x')", "getenv('HOME')", "current_setting('TimeZone')", "version()", "txid_current()"),
    *("nextval('s')", "currval('s')", "current_catalog", "current_schema", "pg_postmaster_start_time()"),
    *("list_aggregate([1, 2], 'reservoir_quantile', 0.5)", "list_approx_count_distinct([1])", "sleep_ms(1)"),
    *("list_transform([1], lambda x: x + random())", "[x + random() for x in [1]]", "if(true, uuid(), NULL)"),
    *("(SELECT content FROM read_text('/etc/hosts'))", "(SELECT max(a) FROM read_csv('/etc/hosts') t(a))"),
    *("(SELECT max(a) FROM '/etc/hosts.csv' t(a))", "(SELECT max(a) FROM 'x.parquet' t(a))"),
    *("(SELECT max(file) FROM glob('*'))", "(SELECT max(value) FROM duckdb_settings())"),
    *("(SELECT max(table_name) FROM information_schema.tables)", "(SELECT max(name) FROM sqlite_master)"),
    *("(SELECT max(a) FROM query('SELECT 1 AS a'))", "(SELECT max(name) FROM pragma_table_info('x'))"),
    *("(SELECT max(view_name) FROM duckdb_views)", "(SELECT max(a) FROM clocks)", "(SELECT max(a) FROM (DESCRIBE x))"),
    *("(SELECT max(Delim) FROM sniff_csv('/etc/hosts'))", "(SELECT max(a) FROM variable_of_python)"),
]


UNKNOWN = ("FROM clocks)", "(DESCRIBE x))", "FROM variable_of_python)")


@pytest.mark.parametrize("expression", [*CLOCKS, *OTHERS])
def test_what_may_differ_is_refused_everywhere(expression: str) -> None:
    """No clock, no random number, no file, no setting and no catalogue, in handlers, upcasters, views and the rest."""
    with pytest.raises(ProjectionError, match="Read model p, event Sold: "):
        handler(f"SELECT sku, CAST({expression} AS VARCHAR) AS n")
    with pytest.raises(ProjectionError, match="Read model p, event Sold: "):
        handler(Delete(f"SELECT CAST({expression} AS VARCHAR) AS sku"))
    with pytest.raises(ProjectionError, match="Read model f, event Sold: "):
        Fold(
            name="f",
            key={"sku": "VARCHAR"},
            columns={"n": "VARCHAR"},
            on={Sold: f"SELECT sku WHERE {expression} IS NULL"},
            fold=lambda state, _event: state,
        )
    with pytest.raises(ProjectionError, match="Read model p, derived column more: "):
        with_derived(expression)
    with pytest.raises(ProjectionError, match="View best: "):
        with_view(f"SELECT sku, {expression} AS n FROM sales")
    with pytest.raises(ProjectionError, match="View best: "):
        with_view(f"WITH w AS (SELECT {expression} AS n) SELECT sku, n FROM sales, w")
    with pytest.raises(ProjectionError, match="Endpoint /best: "):
        with_report(f"SELECT sku FROM sales WHERE {expression} IS NOT NULL ORDER BY sku", {})


@pytest.mark.parametrize("expression", [e for e in (*CLOCKS, *OTHERS) if not e.endswith(UNKNOWN)])
def test_what_may_differ_is_refused_in_seeds(expression: str) -> None:
    """A seed may read tables that only the published generation has; those are checked when it runs."""
    with pytest.raises(ProjectionError, match="Read model p, seed: "):
        with_seed(f"SELECT sku, CAST({expression} AS VARCHAR) AS n FROM sales")


@pytest.mark.parametrize("expression", [*CLOCKS, *OTHERS])
def test_what_may_differ_is_refused_in_upcasters(expression: str) -> None:
    """An upcaster runs each time an event is replayed, and must give the same event."""
    old = pa.schema([pa.field("word", pa.string(), nullable=False)])

    @event(schema_version=2)
    class Said:
        word: str

    @upcaster(Said, from_version=1, schema=old)
    def repeat() -> str:
        return f"SELECT CAST({expression} AS VARCHAR) AS word"

    with pytest.raises(ContractError, match="Said"):
        Domain(name="talk", events=(Said,), upcasters=(repeat,))


@pytest.mark.parametrize(
    "expression",
    [
        *("upper(sku)", "md5(sku)", "sku || '-' || region", "CAST(pieces AS VARCHAR)", "age(moment, moment)::VARCHAR"),
        *("strftime(moment, '%Y')", "CAST(moment AS DATE)::VARCHAR", "list_sum(numbers)::VARCHAR"),
        *("list_aggregate(numbers, 'max')::VARCHAR", "list_transform(numbers, lambda x: x + 1)::VARCHAR"),
        *("CASE WHEN pieces > 0 THEN 'a' ELSE error('none') END", "json_extract_string('{\"a\": 1}', '$.a')"),
        *(
            "(SELECT sum(x) FROM unnest(numbers) AS u(x))::VARCHAR",
            "(SELECT max(x) FROM range(pieces) AS u(x))::VARCHAR",
        ),
        *(
            "regexp_extract(sku, '[a-z]+')",
            "CAST(sku COLLATE NOCASE = 'A' AS VARCHAR)",
            "extract(year FROM moment)::VARCHAR",
        ),
    ],
)
def test_what_repeats_is_allowed_in_handlers(expression: str) -> None:
    """Handlers run in connections of refold, which are in UTC, so they may convert times."""
    assert handler(f"SELECT sku, {expression} AS n").handlers[0].names == {"n"}


def test_a_type_named_in_a_cast_is_no_clock() -> None:
    """`'now'` is no time in this version of DuckDB: a text that is cast to a time never reads the clock."""
    assert handler("SELECT sku, CAST(CAST(region AS TIMESTAMP) AS VARCHAR) AS n").handlers


@pytest.mark.parametrize(
    ("select", "why"),
    [
        ("SELECT sku, n FROM (SELECT *, 7 AS position, 'a' AS n FROM event)", "calls another column `position`"),
        ("SELECT sku, n FROM (SELECT * REPLACE (7 AS position), 'a' AS n FROM event)", "another column `position`"),
        ("SELECT sku, n FROM (SELECT * RENAME (pieces AS event_id), 'a' AS n FROM event)", "column `event_id`"),
        ("WITH event AS (SELECT 'a' AS sku, 'b' AS n) SELECT sku, n FROM event", "a WITH clause defines `event`"),
        ("WITH e AS (FROM event) SELECT a.sku, b.sku AS n FROM e a JOIN e b USING (region)", "event is read twice"),
        (
            "WITH e AS (SELECT count(*) AS c FROM event) SELECT sku, c::VARCHAR AS n FROM event, e",
            "event is read twice",
        ),
        (
            "SELECT sku, n FROM (SELECT sku, max(region) AS n, max(position) AS position FROM event GROUP BY sku)",
            "calls another column `position`|an aggregate spans many events",
        ),
        ("SELECT sku, n FROM (SELECT sku, max(region) AS n FROM event GROUP BY sku)", "an aggregate spans many events"),
        ("SELECT sku, 'a' AS n FROM (VALUES (1)) v(x) LEFT JOIN event ON true", "yields no `position` of the event"),
        ("SELECT sku, 'a' AS n FROM event POSITIONAL JOIN (VALUES (1)) v(x)", "positional join"),
        ("SELECT sku, max(region) AS n GROUP BY CUBE (sku, position, _ordinal)", "yields no `position`"),
        ("SELECT sku, 'a' AS n, 0 AS _position", "starts with an underscore"),
        ("SELECT sku, 'a' AS n FROM event _e", "starts with an underscore"),
        ("SELECT sku, n FROM (SELECT sku, region AS n FROM event)", "begin with SELECT \\*"),
        ("SELECT sku, string_agg(x, ',') AS n FROM event, unnest(['a']) u(x) GROUP BY ALL", "add ORDER BY"),
        ("SELECT sku, $n AS n", "a parameter has no value here"),
        ("SELECT sku, 'a' AS n FROM main.event", "main.event cannot be read here"),
    ],
)
def test_a_handler_can_hide_nothing(select: str, why: str) -> None:
    """Names that hide the event, and common tables that repeat it, are no way around one event at a time."""
    with pytest.raises(ProjectionError, match=f"Read model p, event Sold: .*({why})"):
        handler(select)


ZONED = [
    *("CAST(moment AS DATE)", "moment::TIMESTAMP", "moment::VARCHAR", "moment::TIME", "date_trunc('day', moment)"),
    *("extract(year FROM moment)", "date_part('hour', moment)", "strftime(moment, '%d')", "dayname(moment)"),
    *("moment + INTERVAL 1 DAY", "moment - moment", "age(moment, moment)", "date_diff('day', moment, moment)"),
    *("moment > day", "moment > '2020-01-01'", "moment = TIMESTAMP '2020-01-01'", "moment IN (day)"),
    *("moment BETWEEN '2020-01-01' AND '2021-01-01'", "coalesce(moment, day)", "concat(sku, moment)"),
    *("CAST(day AS TIMESTAMPTZ)", "make_timestamptz(2020, 1, 1, 0, 0, 0)", "CAST(sku AS TIMESTAMPTZ)"),
    *("try_cast(sku AS TIMESTAMPTZ)", "strptime(sku, '%Y %z')", "format('{}', moment)", "[moment]::VARCHAR[]"),
    *("{'a': moment}::VARCHAR", "to_json(moment)", "time_bucket(INTERVAL 1 DAY, moment)", "last_day(moment)"),
    *("list_sort(list)", "list_reverse_sort(list)", "moment::TIMETZ", "TIMESTAMPTZ '2020-01-01 00:00:00'"),
    *("CASE WHEN pieces > 0 THEN moment ELSE day END", "greatest(moment, day)", "timezone(moment)"),
]


@pytest.mark.parametrize("expression", ZONED)
def test_what_depends_on_the_reader_is_refused(expression: str) -> None:
    """A conversion in the session's time zone gives each reader another day; so may the reader's order of NULLs."""
    advice = "AT TIME ZONE 'UTC'|NULLS LAST|reader's session"
    with pytest.raises(ProjectionError, match=f"Read model p, derived column more: .*({advice})"):
        with_derived(expression)
    with pytest.raises(ProjectionError, match=f"View best: .*({advice})"):
        with_view(f"SELECT {expression} AS n FROM sales")
    with pytest.raises(ProjectionError, match=f"Endpoint /best: .*({advice})"):
        with_report(f"SELECT sku, {expression} AS n FROM sales ORDER BY sku", {})


@pytest.mark.parametrize(
    "expression",
    [
        *("CAST(moment AT TIME ZONE 'UTC' AS DATE)", "date_trunc('day', moment AT TIME ZONE 'UTC')", "epoch(moment)"),
        *("epoch_us(moment)", "moment > TIMESTAMPTZ '2020-01-01 00:00:00+00'", "moment < '2020-01-01T00:00:00Z'"),
        *("moment = moment", "CASE WHEN pieces > 0 THEN moment END", "isodow(day)", "day + INTERVAL 1 DAY"),
        *("place.city", "place.spot.lat", '"place"."spot"."lat" + 1', "list[1]", "pieces / nullif(pieces, 0)"),
        *("list_sort(list, 'ASC', 'NULLS LAST')", "make_timestamp(epoch_us(moment))", "pieces -- the comment"),
    ],
)
def test_what_does_not_depend_on_the_reader_is_allowed(expression: str) -> None:
    """The same work with a zone that the SQL itself names; and a field of a struct, in a derived column too."""
    assert with_derived(expression.split(" --")[0]).derived
    assert with_view(f"SELECT {expression}\n AS n FROM sales").views
    assert with_report(f"SELECT sku, {expression}\n AS n FROM sales ORDER BY sku", {}).bound_endpoints


@pytest.mark.parametrize(
    ("select", "why"),
    [
        ("SELECT 1; SELECT 2", "expected one SELECT, found 2 statements"),
        ("INSERT INTO sales VALUES (1)", "expected one SELECT"),
        ("", "expected one SELECT|syntax error"),
        ("SELECT any_value(sku) FROM sales", r"any_value\(\) depends on the order of rows"),
        ("SELECT first(sku) AS f FROM sales", "add ORDER BY"),
        ("SELECT sku FROM sales LIMIT 1", "LIMIT without ORDER BY"),
        ("SELECT DISTINCT ON (day) day, sku FROM sales", "DISTINCT ON without ORDER BY"),
        ("SELECT row_number() OVER () AS n FROM sales", "add ORDER BY to its window"),
        ("SELECT sum(pieces) OVER (ORDER BY moment RANGE INTERVAL 1 DAY PRECEDING) AS n FROM sales", "AT TIME ZONE"),
        ("SELECT rowid FROM sales", "rowid differs"),
        ("SELECT sku FROM sales TABLESAMPLE 10%", "a sample selects other rows"),
        ("SELECT approx_count_distinct(sku) AS n FROM sales", "is an estimate"),
        ("SELECT sku, moment FROM sales UNION ALL SELECT 'x', DATE '2020-01-01'", "AT TIME ZONE"),
        ("DESCRIBE sales", "DESCRIBE and SHOW"),
        ("SUMMARIZE sales", "is an estimate"),
        ("PIVOT sales ON sku USING sum(pieces)", "expected one SELECT"),
        ("SELECT * FROM refold.checkpoint", "refold.checkpoint cannot be read here"),
        ("SELECT * FROM best", "best cannot be read here"),
        ("SELECT sku, pieces AS SKU FROM sales", "two columns are named 'SKU'"),
        ("SELECT sku FROM sales WHERE pieces > $least", "a parameter has no value here"),
        ("SELECT nope FROM sales", "nope"),
    ],
)
def test_a_view_repeats(select: str, why: str) -> None:
    """A view is one SELECT whose rows its tables alone determine."""
    with pytest.raises(ProjectionError, match=f"View best: .*({why})"):
        with_view(select)


@pytest.mark.parametrize(
    "select",
    [
        "SELECT first(sku ORDER BY day) AS f, max(moment) AS m, count(*) AS n, avg(pieces) AS a FROM sales",
        "FROM sales ORDER BY pieces DESC LIMIT 3",
        "SELECT sku, lag(moment) OVER (ORDER BY moment) AS before FROM sales",
        "SELECT sku, sum(pieces) OVER (ORDER BY day RANGE INTERVAL 1 DAY PRECEDING) AS n FROM sales",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT * FROM r",
        "PIVOT (SELECT sku, day, pieces FROM sales) ON sku IN ('a', 'b') USING sum(pieces)",
        "SELECT a.sku, b.pieces FROM sales a JOIN Sales b USING (sku)",
        "SELECT * FROM sales, unnest(list) AS u(x)",
        "SELECT median(pieces) AS m, quantile_cont(pieces, 0.9) AS q, stddev(pieces) AS s FROM sales",
    ],
)
def test_views_may_do_more_than_handlers(select: str) -> None:
    """Aggregates, windows and several tables are what views are for."""
    assert with_view(select).views


@pytest.mark.parametrize(
    "value",
    [
        "region COLLATE NOCASE",
        "CAST(region COLLATE NOCASE AS VARCHAR)",
        "lower(region COLLATE DE)",
        "[region COLLATE NOCASE][1]",
        "CASE WHEN pieces > 0 THEN region COLLATE NOCASE ELSE 'x' END",
    ],
)
def test_no_column_has_a_collation(value: str) -> None:
    """A key that ignores case would have one row on some ways, and two on others."""
    with pytest.raises(ProjectionError, match=r"event Sold: column 'sku' has the collation .*COLLATE C"):
        handler(f"SELECT {value} AS sku")

    @event(schema_version=2)
    class Moved:
        """An article went to another region."""

        region: str

    old = pa.schema([pa.field("region", pa.string(), False), pa.field("pieces", pa.int64(), False)])

    @upcaster(Moved, from_version=1, schema=old)
    def drop_pieces() -> str:
        """Drop a field."""
        return f"SELECT * EXCLUDE (pieces) REPLACE ({value} AS region) FROM event"

    with pytest.raises(ContractError, match="column 'region' has the collation"):
        Domain(name="shop", events=(Moved,), upcasters=(drop_pieces,))
    assert handler(f"SELECT {value} COLLATE C AS sku")


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        *(
            (e, "cannot compute it when a row is read")
            for e in ("list_transform(list, lambda x: x)", "[x for x in list]")
        ),
        *((e, "cannot compute it when a row is read") for e in ("(SELECT 1)", "pieces IN (SELECT 1)", "sum(pieces)")),
        *((e, "cannot compute it when a row is read") for e in ("unnest(list)", "rank() OVER (ORDER BY sku)", "*")),
        *(
            (e, "expected one expression")
            for e in ("pieces AS n", "pieces, pieces", "pieces FROM sales", "1 WHERE true")
        ),
        *((e, "expected one SELECT|syntax error") for e in ("pieces; SELECT 1", "pieces) , x AS (1", "SELECT 1")),
        ("", "SELECT clause without selection list"),
        *(
            (e, "more|nope|NOPE|struct_extract")
            for e in ("more", "nope", "pieces::NOPE", "place.nope", "place.city.nope")
        ),
    ],
)
def test_what_no_generated_column_can_have_is_refused(expression: str, why: str) -> None:
    """DuckDB refuses some expressions only when it creates the table, so an empty one is created."""
    with pytest.raises(ProjectionError, match=f"Read model p, derived column more: .*({why})"):
        with_derived(expression)


@pytest.mark.parametrize("dtype", ["TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "timestamptz"])
def test_a_parameter_has_a_type_by_any_name(dtype: str) -> None:
    """A report over times with a zone takes a parameter with a zone, however its type is written."""
    parameters = {"since": Parameter(type=dtype, text="The first moment.")}
    [bound] = with_report("SELECT sku FROM sales WHERE moment > $since ORDER BY sku", parameters).bound_endpoints
    assert bound.columns == {"sku": "VARCHAR"}


def test_a_date_is_no_moment_for_a_report() -> None:
    """A comparison of a moment with a day needs a zone, which the report must name."""
    parameters = {"since": Parameter(type="DATE", text="The first day.")}
    with pytest.raises(ProjectionError, match="Endpoint /best: a conversion of DATE to TIMESTAMP WITH TIME ZONE"):
        with_report("SELECT sku FROM sales WHERE moment > $since ORDER BY sku", parameters)


def test_the_advice_of_a_message_works() -> None:
    """What the messages tell to write is accepted."""
    select: Any = "SELECT sku, line AS n FROM (SELECT *, unnest(numbers)::VARCHAR AS line FROM event)"
    assert handler(select).handlers[0].sql.multiplies


def test_a_subquery_makes_no_more_rows() -> None:
    """A list of one event that a subquery reduces to a value leaves the event one row, which needs no order."""
    select = "SELECT sku, (SELECT string_agg(x, ',' ORDER BY x) FROM unnest(numbers) AS u(x)) AS n"
    assert not handler(select).handlers[0].sql.multiplies


@pytest.mark.parametrize(
    "select",
    [
        "SELECT sku, x::VARCHAR AS n FROM (SELECT *, unnest(numbers) AS x FROM event ORDER BY pieces)",
        "SELECT sku, (x + rank() OVER (PARTITION BY position))::VARCHAR AS n FROM event, unnest(numbers) AS u(x)",
        "SELECT sku, x::VARCHAR AS n FROM (SELECT *, unnest(numbers) AS x FROM event) WHERE x IN (SELECT pieces)",
        "WITH w AS (SELECT DISTINCT * FROM event) SELECT sku, unnest(numbers)::VARCHAR AS n FROM w",
    ],
)
def test_rows_that_are_sorted_or_joined_have_no_order(select: str) -> None:
    """A sort, a window or a join may return the rows of one event in another order, which `latest` would show."""
    with pytest.raises(ProjectionError, match="n depends on the order of rows"):
        handler(select)
