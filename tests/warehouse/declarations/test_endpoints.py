"""Endpoints: rejected declarations, and the result of binding."""

from __future__ import annotations

import re

import pytest

from refold.event_schemas import ProjectionError, event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import (
    BoundEndpoint,
    Endpoint,
    Lookup,
    Parameter,
    Report,
)
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import count, latest


@event(schema_version=1)
class Stored:
    """A box was put on a shelf."""

    shelf: str
    place: int
    weight: float


SHELVES = Projection(
    name="places",
    key={"shelf": "VARCHAR", "place": "INTEGER"},
    columns={"weight": latest("DOUBLE"), "boxes": count()},
    on={Stored: "SELECT shelf, place, weight, 1 AS boxes"},
)
PLACE = Lookup(path="/shelves/{shelf}/{place}", table="places", text="One place.")


def bound(*endpoints: Endpoint) -> tuple[BoundEndpoint, ...]:
    """Bind endpoints to a domain of one read model."""
    return Domain(name="shelves", events=(Stored,), read_models=(SHELVES,), endpoints=endpoints).bound_endpoints


def lookup(path: str = "/shelves/{shelf}", table: str = "places", newest_first: str | None = None) -> Lookup:
    """Declare a lookup."""
    return Lookup(path=path, table=table, text="Places.", newest_first=newest_first)


def report(sql: str, path: str = "/report", **parameters: Parameter) -> Report:
    """Declare a report."""
    return Report(path=path, sql=sql, text="A report.", parameters=parameters)


def given(dtype: str = "INTEGER", **options: object) -> Parameter:
    """Declare a parameter."""
    return Parameter(type=dtype, text="A parameter.", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        (lookup(path="/status/{shelf}"), "the server itself uses the paths below"),
        (lookup(path="shelves/{shelf}"), "/words and /{names} in lower case"),
        (lookup(path="/Shelves/{shelf}"), "/words and /{names} in lower case"),
        (lookup(path="/shelves/{shelf}/"), "/words and /{names} in lower case"),
        (lookup(path="/shelves/x{shelf}"), "/words and /{names} in lower case"),
        (lookup(table="attic"), "there is no read model 'attic'; there are: places"),
        (lookup(path="/shelves"), "the path names no column of places; use a Report for a whole table"),
        (lookup(path="/shelves/{floor}"), "places has no column 'floor'; it has: shelf, place, weight, boxes"),
        (lookup(newest_first="age"), "places has no column 'age'"),
        (lookup(path="/heavy/{weight}"), "a lookup by 'weight', a DOUBLE, is not supported"),
        (report("FROM places WHERE place > $wait", wait=given()), "the parameter name 'wait' is reserved"),
        (
            report("FROM places WHERE shelf = $s", s=given("VARCHAR", choices=("a", "b"), default="c")),
            "s: the default 'c' is not one of its choices",
        ),
        (report("FROM places", path="/report/{shelf}"), "the path names 'shelf', which is not a parameter"),
        (report("SELEC 1"), "syntax error"),
        (report("SELECT 1; SELECT 2"), "sql= must be one SELECT"),
        (report("DELETE FROM places"), "sql= must be one SELECT"),
        (report("FROM places", place=given()), "'place' is in only one of sql= and parameters="),
        (report("FROM places WHERE place = $place"), "'place' is in only one of sql= and parameters="),
        (report("FROM places WHERE place = $p", p=given("NUMBER")), "parameter p: "),
        (report("FROM places WHERE place = $p", p=given(choices=("many",))), "parameter p: "),
        (report("FROM attic"), "attic"),
        (report("SELECT depth FROM places"), "depth"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(endpoint: Endpoint, why: str) -> None:
    """Each error has the endpoint's path and the reason."""
    with pytest.raises(ProjectionError, match=f"^Endpoint {re.escape(endpoint.path)}: .*{re.escape(why)}"):
        bound(endpoint)


def test_two_endpoints_of_one_path_are_refused() -> None:
    """Two endpoints with one path are an error."""
    with pytest.raises(ProjectionError, match=r"Domain shelves: two endpoints have the path '/shelves/\{shelf\}'"):
        bound(lookup(), lookup(newest_first="weight"))


def test_what_a_lookup_becomes() -> None:
    """A lookup by the full key has one row; a lookup by a part of the key can have several."""
    place, shelf, more = bound(PLACE, lookup(), lookup(path="/boxes/{boxes}/{shelf}/{place}"))
    assert (place.single_row, shelf.single_row, more.single_row) == (True, False, True)
    assert place.key == ("shelf", "place")
    assert place.columns == {"shelf": "VARCHAR", "place": "INTEGER", "weight": "DOUBLE", "boxes": "BIGINT"}


def test_what_a_report_becomes() -> None:
    """Its columns have the types of its SQL, whatever the types of its parameters."""
    found, plain = bound(
        report(
            "SELECT shelf, sum(boxes) AS boxes FROM places WHERE weight < $most AND $since IS NULL AND shelf = $shelf "
            "GROUP BY ALL",
            path="/report/{shelf}",
            most=given("DECIMAL(9,2)", default=1),
            since=given("TIMESTAMPTZ"),
            shelf=given("VARCHAR", choices=("a", "b"), default="a"),
        ),
        report("SELECT 1 AS one", path="/one"),
    )
    assert (found.columns, found.key, found.single_row) == ({"shelf": "VARCHAR", "boxes": "HUGEINT"}, (), False)
    assert plain.columns == {"one": "INTEGER"}
