"""Hostile values in commands over HTTP: stored as an append stores them, or refused with the name of the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.warehouse.event_log import create_log
from tests.pipelines.serving.served import served
from tests.values.commands import REF, TAKEN
from tests.values.logs import payloads, same
from tests.values.shapes import SAMPLE

pytestmark = pytest.mark.slow

NO_BODY = {"nul", "lone_surrogate", "lone_low_surrogate", "long"}
"""Values that no body may have, or that are larger than a body may be."""


def test_a_command_over_http_stores_a_value_or_names_it(tmp_path: Path) -> None:
    """A value that an event refuses is a 4xx with its field, and leaves no event."""
    log = create_log(str(tmp_path / "log"), domain_name="values", bucket_count=2)
    expected = {}
    with served(tmp_path, domain=REF, ready=False) as running, running.client() as client:
        for field in SAMPLE:
            for number, value in enumerate((field.type.plain, *field.type.values)):
                if not value.json:
                    continue
                stream = f"{field.event_type}-{number}"
                body = f'{{"stream":"{stream}","x":{field.shape.json.format(value.json)}}}'
                answer = client.post(
                    f"/commands/Put_{field.event_type}",
                    content=body.encode(),
                    headers={"content-type": "application/json"},
                )
                if value.is_refused or value.name in NO_BODY:
                    assert 400 <= answer.status_code < 500, (stream, value.name, answer.text)
                    assert any(text in answer.text for text in (field.shape.path, "JSON", "NUL", "bytes")), answer.text
                    continue
                assert answer.status_code == 201, (stream, value.name, answer.text)
                expected[stream] = field.shape.wrap(value.stored)
    found = payloads(log, TAKEN)
    assert found.keys() == expected.keys()
    assert all(same(found[stream]["x"], x) for stream, x in expected.items())
