"""Hostile values in files of JSON: an import keeps the value that an append keeps, and rejects what it refuses.

The same rows are imported as JSON lines with the payload as an object, as JSON lines with the payload's fields in the
row, and as CloudEvents; into streams that are new and into streams that exist.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from refold.pipelines.ingest.ingest import ColumnMapping, ingest
from refold.pipelines.ingest.mapping import FLAT, ValueSource
from refold.warehouse.event_log import Appender, NewEvent, StreamAppend, create_log
from tests.values.hostile import Hostile
from tests.values.logs import payloads, same
from tests.values.shapes import FIELDS, IMPORTED, Field

REF = "tests.values.shapes:IMPORTED"
TIME = "2026-01-05T09:00:00Z"


SPELLINGS = {"text", "yes", "spaces", "whole_float", "exponent", "no_zone", "no_time", "named_zone"}
"""What an import reads and an append refuses: other spellings of an exact value, which files have."""


def nested(stream: str, field: Field, text: str) -> str:
    """Return a row with the payload as an object."""
    head = json.dumps({"stream_id": stream, "event_type": field.event_type, "occurred_at": TIME})
    return f'{head[:-1]},"payload":{{"x":{text}}}}}'


def flat(stream: str, field: Field, text: str) -> str:
    """Return a row with the payload's field beside the envelope's."""
    head = json.dumps({"stream_id": stream, "event_type": field.event_type, "occurred_at": TIME})
    return f'{head[:-1]},"x":{text}}}'


def cloudevent(stream: str, field: Field, text: str) -> str:
    """Return a CloudEvent."""
    head = {"specversion": "1.0", "id": stream, "source": "/tests", "type": field.event_type, "subject": stream}
    return f'{json.dumps(head | {"time": TIME})[:-1]},"data":{{"x":{text}}}}}'


Row = Callable[[str, Field, str], str]
OWN_COLUMNS = {name: ValueSource(columns=(name,)) for name in ("stream_id", "event_type", "occurred_at")}
FORMATS: dict[str, tuple[Row, ColumnMapping | None, str | None]] = {
    "nested": (nested, None, None),
    "flat": (flat, ColumnMapping(envelope=OWN_COLUMNS, payload=FLAT), None),
    "cloudevents": (cloudevent, None, "cloudevents"),
}


def written() -> dict[str, tuple[Field, Hostile]]:
    """Return stream to field and value, for all values that JSON can write."""
    return {
        f"{field.event_type}-{number}-{value.name}": (field, value)
        for field in FIELDS
        for number, value in enumerate((field.type.plain, *field.type.values))
        if value.json and not (value.bulky and field.shape.name != "plain")
    }


@pytest.mark.parametrize("existing", [False, True], ids=["new_streams", "existing_streams"])
@pytest.mark.parametrize("form", FORMATS)
def test_an_import_keeps_what_an_append_keeps(form: str, existing: bool, tmp_path: Path) -> None:
    """No value is changed, and none is lost: what is no event is among the rejects."""
    row, mapping, format = FORMATS[form]
    values = written()
    log = create_log(str(tmp_path / "log"), domain_name="values", bucket_count=2)
    if existing:
        plain = FIELDS[0]
        event = NewEvent(payload={"x": 7}, event_type=plain.event_type, schema_version=1)
        Appender(log, IMPORTED.registry).append_many([StreamAppend(stream, [event]) for stream in values])
    file = tmp_path / "rows.jsonl"
    lines = [row(stream, field, field.shape.json.format(value.json)) for stream, (field, value) in values.items()]
    file.write_text("\n".join(lines) + "\n")
    done = ingest(log, REF, [str(file)], mapping=mapping, format=format, rejects=tmp_path / "rejects.jsonl")
    found = payloads(log, IMPORTED)
    expected = {stream: field.shape.wrap(v.stored) for stream, (field, v) in values.items() if not v.is_refused}
    kept = {s for s in values if not existing or found[s] != {"x": 7}} & found.keys()
    wrong = {s: found[s]["x"] for s in kept & expected.keys() if not same(found[s]["x"], expected[s])}
    assert not wrong
    plain_sevens = {s for s, x in expected.items() if x == 7}  # as the event before them
    spelled = kept - expected.keys()
    assert {values[stream][1].name for stream in spelled} <= SPELLINGS
    alike = [(s, (values[s][0].type.name, values[s][1].name)) for s in values]
    read = {what for stream, what in alike if stream in spelled}
    assert spelled == {stream for stream, what in alike if what in read}  # at any depth
    assert expected.keys() - kept <= plain_sevens
    assert (done.events, done.rejected) == (len(expected) + len(spelled), len(values) - len(expected) - len(spelled))
