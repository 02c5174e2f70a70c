"""Hostile values at the borders of Python: each way in stores the same value, or refuses it with the same reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from refold.event_schemas import PayloadError, schema_of
from refold.event_schemas.decider import command, command_from_json
from refold.event_schemas.payload import from_json, parse_json, read_stored, to_json
from refold.event_schemas.values import instance_of
from refold.warehouse.event_log import Appender, NewEvent, StreamAppend, create_log
from tests.values.hostile import NOT_WRITABLE, Hostile
from tests.values.logs import payloads, same
from tests.values.shapes import FIELDS, Field, class_of, domain_of

ids = [f.event_type for f in FIELDS]


def written(field: Field) -> Iterator[tuple[Hostile, Any]]:
    """Yield each value that Python can write, in the shape of the field."""
    for value in (field.type.plain, *field.type.values):
        if value.python is not NOT_WRITABLE:
            yield value, field.shape.wrap(value.python)


@pytest.mark.parametrize("field", FIELDS, ids=ids)
def test_appends_store_a_value_or_name_it(field: Field, tmp_path: Path) -> None:
    """``append`` of an instance and of a mapping, and ``append_many``, agree; what is refused leaves no event."""
    domain, cls = domain_of(field), class_of(field, 1)
    appender = Appender(log := create_log(str(tmp_path), domain_name="values", bucket_count=2), domain.registry)
    ways: dict[str, Callable[[str, Any], Any]] = {
        "instance": lambda stream, x: appender.append(stream, [cls(x=x)]),
        "mapping": lambda stream, x: appender.append(
            stream, [NewEvent(payload={"x": x}, event_type=field.event_type, schema_version=1)]
        ),
        "many": lambda stream, x: appender.append_many([StreamAppend(stream, [cls(x=x)])]),
    }
    expected: dict[str, Any] = {}
    for value, x in written(field):
        for way, append in ways.items():
            stream = f"{value.name}-{way}"
            if value.is_refused:
                with pytest.raises(PayloadError) as caught:
                    append(stream, x)
                assert f"Event {field.event_type} v1: " in str(caught.value)
                assert field.shape.path in str(caught.value), value.name
                assert str(caught.value).endswith("Nothing was appended.")
            else:
                append(stream, x)
                expected[stream] = field.shape.wrap(value.stored)
    found = payloads(log, domain)
    assert found.keys() == expected.keys()
    for stream, stored in expected.items():
        assert same(found[stream]["x"], stored), stream


@pytest.mark.parametrize("field", FIELDS, ids=ids)
def test_commands_take_the_values_that_events_take(field: Field) -> None:
    """A command from parsed JSON has the value that an event stores, or is refused with the same words."""
    cls: Any = command(type("Put", (), {"__annotations__": {"x": field.annotation}}))
    schema = schema_of(class_of(field, 1))
    for value in (field.type.plain, *field.type.values):
        if not value.json:
            continue
        text = f'{{"x":{field.shape.json.format(value.json)}}}'
        if value.is_refused:
            with pytest.raises((PayloadError, ValueError)) as by_command:
                command_from_json(cls, parse_json(text))
            with pytest.raises(PayloadError) as by_event:
                read_stored(text, schema)
            reason = str(by_event.value).removeprefix("the payload is not JSON: ")
            assert str(by_command.value) in (reason, f"Command Put: {reason}. Nothing changed."), value.name
        else:
            made = command_from_json(cls, parse_json(text))
            stored = instance_of(cls, {"x": field.shape.wrap(value.stored)})
            assert same(to_json(made, schema), to_json(stored, schema)), value.name


@pytest.mark.parametrize("field", FIELDS, ids=ids)
def test_a_stored_value_has_one_text(field: Field) -> None:
    """The value that is read writes the same text again, and that text is read as the same value."""
    schema = schema_of(class_of(field, 1))
    for value, x in written(field):
        if value.is_refused:
            continue
        stored = to_json({"x": x}, schema)
        read = from_json(stored, schema)
        assert same(read["x"], field.shape.wrap(value.stored)), value.name
        assert to_json(read, schema) == stored
        assert read_stored(json.dumps(stored, indent=1), schema) == stored, "another layout, the same value"
