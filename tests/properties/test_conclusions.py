"""What refold concludes from a handler's SQL changes no row: random SQL, with and without the conclusions.

refold skips work that a handler makes unnecessary: merging buckets if the key is the stream, ordering rows if an event
has only one, checking for NULL what is never NULL. Here the same handler runs with each conclusion and without any.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refold.event_schemas import ProjectionError, event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.handlers import Delete, Handler
from refold.warehouse.declarations.projection import Projection, keyed_by_stream
from refold.warehouse.declarations.reducers import collect, count, first, latest, total
from refold.warehouse.event_log import Appender, EventLog, create_log
from tests.properties.engine import Tables, scratch_folder, seal

EXAMPLES = 5 * int(os.environ.get("REFOLD_HYPOTHESIS_EXAMPLES", "4"))


@event(schema_version=1)
class Noted:
    """A note, with a region that is no stream, and an optional text."""

    region: str
    text: str | None
    size: int
    sizes: list[int]


@event(schema_version=1)
class Closed:
    """The end of a stream."""

    region: str


DOMAIN = Domain(name="notes", events=(Noted, Closed))
SOURCES = [
    *("event", "event AS e", "Event", '"event" AS position', "(SELECT * FROM event)", "(SELECT * FROM event) AS event"),
    "(SELECT * EXCLUDE (stream_id), region AS stream_id FROM event)",
    "(SELECT * REPLACE (region AS stream_id) FROM event)",
    "(SELECT * REPLACE (coalesce(text, region) AS region, region AS stream_id) FROM event AS other)",
    "(SELECT * EXCLUDE (region), stream_id AS region FROM event WHERE size > 0)",
    "(SELECT * EXCLUDE (text), 'none' AS text FROM event)",
    "(SELECT * EXCLUDE (size), unnest(sizes) AS size FROM event)",
    "(SELECT * EXCLUDE (text), unnest([text, region]) AS text FROM event)",
    "(SELECT * EXCLUDE (stream_id), unnest([stream_id, region]) AS stream_id FROM event)",
    "(SELECT * FROM event UNION ALL SELECT * REPLACE (region AS stream_id) FROM event)",
    "(SELECT * FROM event WHERE size > 1 UNION ALL SELECT * REPLACE (NULL AS text) FROM event WHERE size < 1)",
    "(SELECT DISTINCT * FROM event)",
    "(SELECT * FROM event GROUP BY ALL)",
    "event, unnest(sizes) AS u(x)",
    "event, range(2) AS u(x)",
    "(VALUES (1), (2)) AS v(x), event",
    "event LEFT JOIN (VALUES (1, 'a')) AS v(x, y) ON size = x",
    "event JOIN (VALUES (1, 'a'), (1, 'b')) AS v(x, y) ON size = x",
    "event LEFT JOIN (SELECT 1 AS x, 'a' AS y) AS v ON size = x",
    "w",
    "(SELECT * FROM w) AS w2",
]
USES_COMMON = SOURCES[-2:]
COMMON = [
    "SELECT * FROM event",
    "SELECT * REPLACE (region AS stream_id) FROM event",
    "SELECT *, unnest(sizes) AS x FROM event",
]
KEYS = ["stream_id", "region", "upper(stream_id)", "'one'", "coalesce(text, stream_id)", "text", "event_id"]
VALUES = [
    "y",
    *("text", "region", "stream_id", "'constant'", "NULL", "coalesce(text, 'none')", "region || size", "event_id"),
    *("regexp_split_to_table(region, '-')", "unnest([region, text])", "CASE WHEN size > 1 THEN text END"),
    "(SELECT max(v) FROM unnest(sizes) AS u(v))::VARCHAR",
]
NUMBERS = [
    "size",
    "1",
    "NULL",
    "x",
    "unnest(sizes)",
    "len(sizes)",
    "(SELECT sum(v) FROM unnest(sizes) AS u(v))::BIGINT",
]
FILTERS = ["", "WHERE size > 0", "WHERE text IS NOT NULL", "WHERE 1 IN (SELECT unnest(sizes))", "WHERE region = 'emea'"]
COLUMNS = {
    "latest": latest("VARCHAR"),
    "first": first("VARCHAR"),
    "listed": collect("VARCHAR"),
    "total": total("BIGINT"),
    "count": count(),
}
CLOSED = {
    "none": None,
    "text": "SELECT stream_id AS k, 'closed' AS latest",
    "region": "SELECT region AS k, NULL AS latest, 'closed' AS listed",
    "delete": Delete("SELECT stream_id AS k"),
    "delete a region": Delete("SELECT k FROM (SELECT *, region AS k FROM event)"),
}


@st.composite
def handlers(draw: st.DrawFn) -> str:
    """Draw a SELECT over ``event``."""
    source = draw(st.sampled_from(SOURCES))
    names = draw(st.sets(st.sampled_from(sorted(COLUMNS)), min_size=1))
    pools = {"total": NUMBERS, "count": [*NUMBERS, *VALUES]}
    listed = [f"{draw(st.sampled_from(pools.get(name, VALUES)))} AS {name}" for name in sorted(names)]
    common = (
        f"WITH w AS ({draw(st.sampled_from(COMMON))}) " if "w" in source.split(" ")[-1] or "FROM w" in source else ""
    )
    key = draw(st.sampled_from(KEYS))
    where = draw(st.sampled_from(FILTERS))
    select = f"{common}SELECT {key} AS k, {', '.join(listed)} FROM {source} {where}"
    if draw(st.integers(0, 9)) == 0:
        select = f"SELECT k, {', '.join(sorted(names))} FROM (SELECT *, {key} AS k, {', '.join(listed)} FROM event)"
    return select


def without_conclusions(handler: Handler) -> Handler:
    """Return a handler of which nothing is known."""
    return dataclasses.replace(
        handler,
        sql=dataclasses.replace(handler.sql, multiplies=True),
        by_stream=frozenset(),
        never_null=frozenset(),
        key_never_null=False,
        same=frozenset(),
    )


@pytest.fixture(scope="module")
def log() -> Iterator[EventLog]:
    """Write a log of five streams, in several commits."""
    with scratch_folder() as folder:
        made = create_log(str(Path(folder) / "log"), domain_name=DOMAIN.name, bucket_count=3)
        appender = Appender(made, DOMAIN.registry)
        regions, texts = ["emea", "s-1", "ap-ac"], [None, "a", "b", "a"]
        for number in range(15):
            size = number % 4 - 1
            noted = Noted(region=regions[number % 3], text=texts[number % 4], size=size, sizes=[*range(size + 1), 1])
            again = dataclasses.replace(noted, size=number, sizes=[])
            closed = [Closed(region="emea")] if number in (6, 11) else []
            appender.append(f"s-{number % 5}", [noted, *closed, again])
        yield made


def tables_of(log: EventLog, model: Projection, folder: Path) -> list[list[dict[str, Any]]]:
    """Return a read model's rows from a stream in commits, and from a rebuild."""
    domain = Domain(name=DOMAIN.name, events=DOMAIN.events, read_models=(model,))
    streamed, rebuilt = Tables(folder / "streamed", domain), Tables(folder / "rebuilt", domain)
    try:
        streamed.catch_up(log)
        seal(log, domain.registry)
        rebuilt.rebuild(log)
        return [streamed.rows(model.name), rebuilt.rows(model.name)]
    finally:
        streamed.close()
        rebuilt.close()


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@example(select="SELECT stream_id AS k, unnest([region, 'b', 'a']) AS latest", closed="none")
@example(select="SELECT stream_id AS k, unnest(['c', region]) AS first, unnest(['b', 'a']) AS listed", closed="text")
@example(select="SELECT stream_id AS k, text AS latest", closed="none")
@given(select=handlers(), closed=st.sampled_from(sorted(CLOSED)))
def test_conclusions_change_no_row(log: EventLog, select: str, closed: str) -> None:
    """Whatever the SQL, its rows are those that refold makes when it concludes nothing."""
    on: dict[type, str | Delete] = {Noted: select}
    if (handler := CLOSED[closed]) is not None:
        on[Closed] = handler
    try:
        model = Projection(name="m", key={"k": "VARCHAR"}, columns=COLUMNS, on=on)
    except ProjectionError:
        return
    cautious = dataclasses.replace(model)
    object.__setattr__(cautious, "handlers", tuple(map(without_conclusions, model.handlers)))
    answers = []
    with scratch_folder() as folder:
        for number, each in enumerate((model, cautious)):
            try:
                answers += tables_of(log, each, Path(folder) / str(number))
            except Exception as error:  # a key that is NULL
                answers += [[{"failed": type(error).__name__}]] * 2
    assert answers[1] == answers[3], select
    assert answers[0] == answers[2] == answers[1], select


@pytest.mark.parametrize(
    ("select", "by_stream"),
    [
        ("SELECT stream_id AS k, size AS total", True),
        ("SELECT stream_id AS k, size AS total FROM event AS other WHERE size > 0", True),
        ("SELECT k, size AS total FROM (SELECT *, stream_id AS k FROM event)", True),
        ("WITH w AS (FROM event) SELECT stream_id AS k, size AS total FROM w", True),
        ("SELECT stream_id AS k, unnest(sizes) AS total", True),
        ("SELECT stream_id AS k, x AS total FROM event, unnest(sizes) AS u(x)", True),
        ("SELECT stream_id AS k, size AS total FROM (SELECT * REPLACE (region AS stream_id) FROM event)", False),
        (
            "SELECT stream_id AS k, size AS total FROM (SELECT * EXCLUDE (stream_id), region AS stream_id FROM event)",
            False,
        ),
        ("WITH w AS (SELECT * REPLACE (region AS stream_id) FROM event) SELECT stream_id AS k FROM w", False),
        ("SELECT stream_id AS k FROM event UNION ALL SELECT region AS k FROM event", False),
        ("SELECT upper(stream_id) AS k, size AS total", False),
        ("SELECT region AS stream_id, stream_id AS k FROM event", None),
    ],
)
def test_what_is_keyed_by_the_stream(select: str, by_stream: bool | None) -> None:
    """A key is the stream's id if the plan says so, not if a name does."""
    if by_stream is None:
        with pytest.raises(ProjectionError, match="'stream_id' is not declared"):
            Projection(name="m", key={"k": "VARCHAR"}, columns=COLUMNS, on={Noted: select})
        return
    model = Projection(name="m", key={"k": "VARCHAR"}, columns=COLUMNS, on={Noted: select})
    assert keyed_by_stream(model) is by_stream


@pytest.mark.parametrize(
    ("source", "never_null"),
    [
        ("(SELECT *, region AS y FROM event)", True),
        ("(SELECT *, 'a' AS y FROM event)", True),
        ("event JOIN (SELECT 1 AS x, 'a' AS y) AS v ON size = x", True),
        ("event LEFT JOIN (SELECT 1 AS x, 'a' AS y) AS v ON size = x", False),
        ("event FULL JOIN (SELECT 1 AS x, 'a' AS y) AS v ON size = x", None),
        ("(SELECT *, text AS y FROM event)", False),
        ("(SELECT *, NULL AS y FROM event)", False),
        ("(SELECT *, upper(region) AS y FROM event)", False),
    ],
)
def test_what_is_never_null(source: str, never_null: bool | None) -> None:
    """A key that an outer join may fill up, an optional field and the result of a function may be NULL."""
    select = f"SELECT y AS k, size AS total FROM {source}"
    if never_null is None:
        with pytest.raises(ProjectionError, match="outer join"):
            Projection(name="m", key={"k": "VARCHAR"}, columns=COLUMNS, on={Noted: select})
        return
    model = Projection(name="m", key={"k": "VARCHAR"}, columns=COLUMNS, on={Noted: select})
    assert model.handlers[0].key_never_null is never_null
