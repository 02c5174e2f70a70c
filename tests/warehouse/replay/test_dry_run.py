"""A dry run of upcasters reports which stored events fail and why, in segments and in commits."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from refold.event_schemas import DamagedLogError, event, merger, upcaster
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    NewEvent,
    create_log,
)
from refold.warehouse.event_log.reads.scan import live_segments
from refold.warehouse.replay.dry_run import DryRunResult, Reason, dry_run
from tests.warehouse.event_log.shop import CITY, SHOP, STREET, YOUNGER, Closed, Moved, Placed, added, seal, write_commit

OLD = NewEvent(payload={"customer": "c"}, event_type="Placed", schema_version=1)
NAMELESS = NewEvent(payload={"customer": ""}, event_type="Placed", schema_version=1)
EMPTY = NewEvent(payload={"skus": []}, event_type="Bundled", schema_version=1)
BUNDLE = NewEvent(payload={"skus": ["a", "b"]}, event_type="Bundled", schema_version=1)


@pytest.fixture
def log(tmp_path: pytest.TempPathFactory) -> EventLog:
    """An empty log of two buckets."""
    return create_log(f"{tmp_path}/log", domain_name="shop", bucket_count=2)


def by_schema_key(results: list[DryRunResult]) -> dict[tuple[str, int], tuple[int, int, tuple[Reason, ...]]]:
    """Return the number of events of each schema, the number that fail, and why."""
    assert all(r.complete for r in results)
    return {(r.event_type, r.schema_version): (r.events, r.invalid, r.reasons) for r in results}


def test_an_empty_log_has_nothing_to_run(log: EventLog) -> None:
    """Without stored events there is no result."""
    assert dry_run(log, SHOP) == []


@pytest.mark.parametrize("sealed", [False, True], ids=["tail", "sealed"])
def test_each_stored_schema_is_reported(log: EventLog, *, sealed: bool) -> None:
    """Each schema has its number of events and of failures, the reasons, and the first position."""
    appender = Appender(log, SHOP.registry)
    appender.append("order-1", [OLD, Placed(customer="c", currency="EUR"), NAMELESS, added()])
    appender.append("order-2", [BUNDLE, EMPTY, NAMELESS, OLD, EMPTY])
    if sealed:
        seal(log, SHOP.registry)
    found = by_schema_key(dry_run(log, SHOP))
    nameless = found[("Placed", 1)]
    assert nameless[:2] == (4, 2)
    [reason] = nameless[2]
    assert ("nameless customer" in reason.text, reason.events, reason.first_position) == (True, 2, 3)
    empty = Reason("upcaster unbundle (from Bundled v1): an empty bundle", 2, 6, (6, 9))
    assert found[("Bundled", 1)] == (3, 2, (empty,))
    assert found[("Placed", 2)] == (1, 0, ())
    assert found[("Added", 1)] == (1, 0, ())


def test_the_resulting_event_type_is_reported(log: EventLog) -> None:
    """A retired type ends as the type that its upcaster yields."""
    Appender(log, SHOP.registry).append("order-1", [OLD, BUNDLE, Closed()])
    becomes = {(r.event_type, r.schema_version): r.becomes for r in dry_run(log, SHOP)}
    assert becomes == {("Bundled", 1): ("Added",), ("Closed", 1): ("Closed",), ("Placed", 1): ("Placed",)}


def test_a_merger_runs_over_all_that_it_joins(log: EventLog) -> None:
    """Adjacent halves are valid; a single half fails with the reason of the merger."""
    street = NewEvent(payload={"street": "s"}, event_type="StreetChanged", schema_version=1)
    city = NewEvent(payload={"city": "c"}, event_type="CityChanged", schema_version=1)
    appender = Appender(log, SHOP.registry)
    appender.append("order-1", [street, city])
    appender.append("order-2", [street])
    seal(log, SHOP.registry)
    found = by_schema_key(dry_run(log, SHOP))
    assert found[("CityChanged", 1)] == (1, 0, ())
    assert found[("StreetChanged", 1)] == (
        2,
        1,
        (Reason("upcaster join_address (from StreetChanged v1, CityChanged v1): 'city'", 1, 3, (3,)),),
    )


def test_events_that_match_no_contract_are_invalid(log: EventLog) -> None:
    """A payload that does not fit and an unknown type count, in the tail and in untyped segments."""
    write_commit(log, [("a", "Placed", 2, '{"currency": "EUR"}'), ("a", "Opened", 1, "{}")])
    seal(log, SHOP.registry)
    write_commit(log, [("b", "Placed", 2, '{"customer": "c"}')])
    found = by_schema_key(dry_run(log, SHOP))
    assert found[("Placed", 2)][:2] == (2, 2)
    assert {(r.first_position, "customer" in r.text) for r in found[("Placed", 2)][2]} == {(1, True), (3, False)}
    events, invalid, [reason] = found[("Opened", 1)]
    assert (events, invalid, reason.first_position, "Opened" in reason.text) == (1, 1, 2, True)


def test_typed_events_of_an_undeclared_schema_are_invalid(log: EventLog) -> None:
    """The schema was known when the segment was sealed, and is unknown now."""
    Appender(log, SHOP.registry).append("order-1", [Closed(), added()])
    seal(log, SHOP.registry)
    forgetful = Domain(name="shop", events=(Placed, Closed), upcasters=YOUNGER.upcasters)
    found = by_schema_key(dry_run(log, forgetful))
    assert found[("Added", 1)] == (1, 1, (Reason("Unknown to the domain: Added v1", 1, 2, (2,)),))
    assert found[("Closed", 1)] == (1, 0, ())


def test_a_chain_that_fails_for_all_is_left_early(log: EventLog) -> None:
    """The first hundred of a bucket are counted, and the result is incomplete; other schemas are not affected."""

    @event(schema_version=2, name="Placed")
    class Strict:
        customer: int

    @upcaster(Strict, from_version=1, schema=pa.schema([("customer", pa.string())]))
    def to_number() -> str:
        return "SELECT CAST(customer AS BIGINT) AS customer FROM event"

    write_commit(log, [("a", "Placed", 1, '{"customer": "c"}')] * 300 + [("a", "Closed", 1, "{}")])
    closed, placed = dry_run(log, Domain(name="shop", events=(Strict, Closed), upcasters=(to_number,)))
    assert (placed.events, placed.invalid, placed.complete) == (300, 100, False)
    assert (placed.reasons[0].events, placed.reasons[0].positions) == (100, (1, 2, 3, 4, 5))
    assert (closed.events, closed.invalid, closed.complete) == (1, 0, True)


def test_python_failures_are_counted_beside_those_in_sql(log: EventLog) -> None:
    """One event fails in the SQL step of a chain, another in its Python step; both count for the stored schema."""

    @event(schema_version=3, name="Placed")
    class Checked:
        customer: str

    schema = pa.schema([pa.field("customer", pa.string(), nullable=False)])

    @upcaster(Checked, from_version=1, schema=schema)
    def in_sql() -> str:
        return "SELECT CASE WHEN customer = 'sql' THEN error('no') ELSE customer END AS customer FROM event"

    @upcaster(Checked, from_version=2, schema=schema)
    def in_python(placed: object) -> list[Checked]:
        if placed.payload["customer"] == "python":  # type: ignore[attr-defined]
            raise ValueError("no")
        return [Checked(customer="c")]

    write_commit(log, [("a", "Placed", 1, f'{{"customer": "{name}"}}') for name in ("c", "python", "sql", "c")])
    [placed] = dry_run(log, Domain(name="shop", events=(Checked,), upcasters=(in_sql, in_python)))
    assert (placed.events, placed.invalid, placed.complete) == (4, 2, True)
    assert {r.first_position for r in placed.reasons} == {2, 3}


def test_a_failure_of_a_run_is_reported(log: EventLog) -> None:
    """A merged event can fail in a later step, although no single event of the run fails."""

    @event(schema_version=1, name="Moved")
    class Numbered:
        city: int

    @merger([("StreetChanged", 1, STREET), ("CityChanged", 1, CITY)], into=Numbered)
    def join(changes: list[Any]) -> list[Numbered]:
        if len(changes) < 2:
            return []
        raise ValueError("together")

    write_commit(log, [("a", "StreetChanged", 1, '{"street": "s"}'), ("a", "CityChanged", 1, '{"city": "c"}')])
    results = dry_run(log, Domain(name="shop", events=(Numbered,), upcasters=(join,)))
    assert [(r.events, r.invalid, r.reasons[0].text.endswith("together")) for r in results] == [(1, 1, True)] * 2


def test_progress_is_reported_to_the_end(log: EventLog) -> None:
    """A step is a bucket, or a range of commits that are not sealed."""
    appender = Appender(log, SHOP.registry)
    appender.append("order-1", [Closed()])
    seal(log, SHOP.registry)
    appender.append("order-1", [Moved(street="s", city="c")])
    steps: list[tuple[int, int]] = []
    dry_run(log, SHOP, report=lambda done, planned: steps.append((done, planned)))
    assert steps == [(0, 2), (1, 2), (2, 2)]


def test_a_damaged_segment_is_an_error(log: EventLog) -> None:
    """A segment that cannot be read is an error, not an invalid event."""
    Appender(log, SHOP.registry).append("order-1", [OLD] * 10)
    seal(log, SHOP.registry)
    [segment] = live_segments(log.head())
    log.store.put(segment.key, bytes(segment.bytes))
    with pytest.raises(DamagedLogError, match="its SHA-256 is"):
        dry_run(log, SHOP)
