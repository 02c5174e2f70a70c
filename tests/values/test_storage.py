"""Hostile values in the log: the same on each way out, for few and for many events, sealed or not.

Some values are appended; all that JSON can write are in the commit of another program, which checks nothing. A value
that fits is then read from the log, by a stream and by a rebuild. One that does not fit becomes no NULL: the event is
invalid, with its position and the field in the reason.

``REFOLD_HOSTILE_VALUES=all`` runs all shapes and sizes; otherwise a sample runs.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from refold.event_schemas import InvalidEventsError
from refold.warehouse.event_log import Appender, EventLog, NewEvent, StreamAppend, create_log
from refold.warehouse.event_log.verification.verify import verify
from tests.properties.engine import seal
from tests.values.hostile import NOT_WRITABLE
from tests.values.logs import Foreign, dead_letters, payloads, same, shown, tables, write_commit
from tests.values.shapes import FIELDS, FULL, SAMPLE, Field, domain_of

SIZES = (3, 256, 257, 10_000) if FULL else (257,)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("field", SAMPLE, ids=[f.event_type for f in SAMPLE])
def test_a_value_is_the_same_on_every_way_out(field: Field, size: int, tmp_path: Path) -> None:
    """Unsealed, sealed, and sealed again together with the first segments."""
    domain = domain_of(field)
    log = create_log(str(tmp_path / "log"), domain_name="values", bucket_count=2)
    expected = append_values(log, field, bulky=size <= 3)
    foreign, refused = write_values(log, field, bulky=size <= 3)
    expected |= foreign
    pad(log, field, size - len(expected) - len(refused))
    for name, sealed in (("unsealed", False), ("sealed", True), ("sealed-twice", True)):
        if name == "sealed-twice":
            pad(log, field, 1)
        if sealed:
            seal(log, domain.registry)
            assert verify(log, domain.registry).sound
        elif not FULL and field.shape.name != "plain":
            continue
        check_reads(log, field, expected, refused)
        with tables(tmp_path / name, domain) as stream:
            stream.catch_up(log)
            check_rows(shown(stream, field.event_type), expected)
            check_dead_letters(field, dead_letters(stream), refused)
            if not sealed:
                continue
            stream.rebuild(log)
            check_rows(shown(stream, field.event_type), expected)
            check_dead_letters(field, dead_letters(stream), refused)
    if refused:
        with (
            tables(tmp_path / "strict", domain, dead_letter=False) as strict,
            pytest.raises(InvalidEventsError, match=f"position {min(refused)}, stream .*{field.event_type} v1: "),
        ):
            strict.catch_up(log)


def append_values(log: EventLog, field: Field, *, bulky: bool) -> dict[str, Any]:
    """Append the values that fit; return stream to the value of the field."""
    expected: dict[str, Any] = {}
    appends = []
    for value in (field.type.plain, *field.type.values):
        if value.python is NOT_WRITABLE or value.is_refused or (value.bulky and not bulky):
            continue
        stream = f"appended-{value.name}"
        payload = {"x": field.shape.wrap(value.python)}
        appends.append(StreamAppend(stream, [NewEvent(payload=payload, event_type=field.event_type, schema_version=1)]))
        expected[stream] = field.shape.wrap(value.stored)
    Appender(log, domain_of(field).registry).append_many(appends)
    return expected


def test_numbers_that_are_not_sealed_keep_all_digits(tmp_path: Path) -> None:
    """A number of a commit that another program wrote is no binary float, before it is sealed and after."""
    [field] = [f for f in FIELDS if f.event_type == "plain_money"]
    domain = domain_of(field)
    log = create_log(str(tmp_path / "log"), domain_name="values", bucket_count=2)
    write_commit(log, [Foreign("s", field.event_type, '{"x": 123456789012345.67}')])
    for _ in range(2):
        assert same(payloads(log, domain)["s"], {"x": Decimal("123456789012345.67")})
        seal(log, domain.registry)


def write_values(log: EventLog, field: Field, *, bulky: bool) -> tuple[dict[str, Any], dict[int, str]]:
    """Write all values as another program; return those that fit by stream, and the streams of the others by position.

    Each is written with and without blanks: a payload in canonical form takes another way through the parser.
    """
    events: list[Foreign] = []
    expected: dict[str, Any] = {}
    refused: dict[int, str] = {}
    for value in (field.type.plain, *field.type.values):
        if not value.json or (value.bulky and not bulky):
            continue
        for layout in ('{{"x":{}}}', '{{ "x": {} }}'):
            stream = f"foreign-{len(events)}-{value.name}"
            events.append(Foreign(stream, field.event_type, layout.format(field.shape.json.format(value.json))))
            if value.is_refused:
                refused[log.head().position + len(events)] = stream
            else:
                expected[stream] = field.shape.wrap(value.stored)
    plain = field.shape.json.format(field.type.plain.json)
    for text in ("", "7", "[]", "{}", f'{{"x":{plain},"y":1}}', f'{{"x":{plain},"x":{plain}}}', f'{{"X":{plain}}}'):
        if text == "{}" and field.shape.name == "optional":
            continue
        stream = f"foreign-{len(events)}-payload"
        events.append(Foreign(stream, field.event_type, text))
        refused[log.head().position + len(events)] = stream
    write_commit(log, events)
    return expected, refused


def pad(log: EventLog, field: Field, count: int) -> None:
    """Append plain events until the log has a size."""
    if count > 0:
        payload = {"x": field.shape.wrap(field.type.plain.python)}
        event = NewEvent(payload=payload, event_type=field.event_type, schema_version=1)
        Appender(log, domain_of(field).registry).append("padding", [event] * count)


def check_reads(log: EventLog, field: Field, expected: dict[str, Any], refused: dict[int, str]) -> None:
    """Check what ``events tail`` shows: also of an invalid event no value is NULL that was not."""
    found = payloads(log, domain_of(field))
    assert found.keys() - {"padding"} == expected.keys() | set(refused.values())
    for stream, stored in expected.items():
        assert same(found[stream]["x"], stored), stream


def check_rows(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check a read model."""
    assert found.keys() - {"padding"} == expected.keys()
    for stream, stored in expected.items():
        assert same(found[stream], stored), (stream, found[stream])


def check_dead_letters(field: Field, found: dict[int, str], refused: dict[int, str]) -> None:
    """Check that each event that does not fit is a dead letter, whose reason names the field."""
    assert found.keys() == refused.keys()
    for position, stream in refused.items():
        path = field.shape.path
        assert path in found[position] or "payload" in stream or "not JSON" in found[position], found[position]


@pytest.mark.parametrize("count", [0, 300])
@pytest.mark.parametrize("layout", ['{"x":1}', '{ "x": 1 }'])
def test_a_time_beyond_the_years_is_an_invalid_event(layout: str, count: int, tmp_path: Path) -> None:
    """On each way through the parser, by a microsecond: the bounds of appends hold for other programs too."""
    field = next(f for f in FIELDS if f.event_type == "plain_int64")
    log = create_log(str(tmp_path / "log"), domain_name="values", bucket_count=2)
    first, last = -62_135_596_800_000_000, 253_402_300_799_999_999
    times = {"first": first, "last": last, "before": first - 1, "after": last + 1}
    write_commit(log, [Foreign(name, field.event_type, layout, occurred_at=at) for name, at in times.items()])
    pad(log, field, count)
    domain = domain_of(field)
    for sealed in (False, True):
        if sealed:
            seal(log, domain.registry)
        with tables(tmp_path / f"tables-{sealed}", domain) as made:
            made.catch_up(log)
            for rebuilt in (False, True) if sealed else (False,):
                if rebuilt:
                    made.rebuild(log)
                check_rows(shown(made, field.event_type), {"first": 1, "last": 1})
                reasons = dead_letters(made)
                assert reasons.keys() == {3, 4}
                assert all("occurred_at is outside the years 1 to 9999" in reason for reason in reasons.values())
