"""Fields named ``payload`` and ``bucket``, which files of a log have too: the same value on every way in and out."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refold.pipelines.ingest.ingest import ColumnMapping, ingest
from refold.pipelines.ingest.mapping import FLAT, ValueSource
from refold.pipelines.rebuild.independent import reconcile_independently
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.seal import seal
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log import Appender, EventLog, NewEvent, create_log, read_positions
from refold.warehouse.event_log.verification.verify import verify
from tests.pipelines.messages import FORGETFUL, MESSAGES, REF, Noted, Sent
from tests.pipelines.serving.served import served
from tests.values.logs import Foreign, payloads, tables, write_commit

pytestmark = pytest.mark.slow

TIME = "2026-01-05T09:00:00Z"


@dataclass(frozen=True, slots=True)
class Messages:
    """A log, and what its events are."""

    log: EventLog
    expected: dict[str, dict[str, Any]]


@pytest.fixture
def messages(tmp_path: Path) -> Messages:
    """Append an event of each schema, and one that fits no contract."""
    log = create_log(str(tmp_path / "log"), domain_name="messages", bucket_count=2)
    appender = Appender(log, MESSAGES.registry)
    appender.append("noted", [Noted(payload="a")])
    appender.append("sent", [Sent(payload="b", bucket=7)])
    appender.append("old", [NewEvent(payload={"payload": "c"}, event_type="Sent", schema_version=1)])
    write_commit(log, [Foreign("none", "Noted", '{"payload":1}')])
    sent: dict[str, dict[str, Any]] = {
        "noted": {"payload": "a"},
        "sent": {"payload": "b", "bucket": 7},
        "old": {"payload": "c"},
    }
    return Messages(log, {**sent, "none": {"payload": 1}})


def rows(connection: Any, model: str) -> list[tuple[Any, ...]]:
    """Return the rows of a read model."""
    found: list[tuple[Any, ...]] = connection.execute(f"FROM {model} ORDER BY ALL").fetchall()
    return found


def test_a_stream_a_rebuild_and_a_fold_of_recorded_events_agree(messages: Messages, tmp_path: Path) -> None:
    """Before and after sealing, with an SQL upcaster, a fold, an untyped segment, and a type that was dropped."""
    log = messages.log
    seen = [("noted", "a", None), ("old", "c", 3), ("sent", "b", 7)]
    buckets = [(3, "c"), (7, "b")]
    for sealed in (False, True):
        if sealed:
            seal(log, REF)
            assert verify(log, MESSAGES.registry).sound
        assert payloads(log, MESSAGES) == messages.expected
        with tables(tmp_path / f"tables-{sealed}", MESSAGES) as made:
            made.catch_up(log)
            assert (rows(made.connection, "seen"), rows(made.connection, "buckets")) == (seen, buckets)
            assert made.dead_letters() == {("", 4)}
    url = str(tmp_path / "read-models")
    rebuild(log, REF, url, dead_letter=True)
    assert not reconcile_independently(log, REF, url).differences
    with closing(connect(tmp_path / "read-models" / "messages" / "current.duckdb", read_only=True)) as published:
        assert (rows(published, "seen"), rows(published, "buckets")) == (seen, buckets)
    found = {e.stream_id: e.payload for e in read_positions(log, FORGETFUL.registry, 0)}
    assert found == messages.expected
    with tables(tmp_path / "forgetful", FORGETFUL) as made:
        made.catch_up(log)


OWN = {name: ValueSource(columns=(name,)) for name in ("stream_id", "event_type", "occurred_at", "schema_version")}
ENVELOPE = {"event_type": "Sent", "occurred_at": TIME, "schema_version": 2}
ROWS: list[dict[str, Any]] = [
    {"stream_id": f"s-{n}", **ENVELOPE, "payload": text, "bucket": n} for n, text in enumerate(("x", "{}", "7"))
]


def nested_rows() -> list[dict[str, Any]]:
    """Return the rows with the payload as an object."""
    columns = ("payload", "bucket")
    return [
        {n: v for n, v in row.items() if n not in columns} | {"payload": {n: row[n] for n in columns}} for row in ROWS
    ]


def write(path: Path) -> ColumnMapping | None:
    """Write the rows into a file, as its name says; return the mapping that it needs."""
    flat = path.stem == "flat"
    given = ROWS if flat else nested_rows()
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
    elif path.suffix == ".csv":
        cells = [",".join('"' + str(v).replace('"', '""') + '"' for v in row.values()) for row in given]
        path.write_text("\n".join([",".join(given[0]), *cells]).replace("'", '""') + "\n")
    else:
        pq.write_table(pa.Table.from_pylist(given), path)
    return ColumnMapping(envelope=OWN, payload=FLAT) if flat else None


@pytest.mark.parametrize("exists", [False, True], ids=["new_streams", "existing_streams"])
@pytest.mark.parametrize(
    "name", ["flat.jsonl", "nested.jsonl", "flat.csv", "nested.csv", "flat.parquet", "nested.parquet"]
)
def test_an_import_takes_them_from_any_file(name: str, exists: bool, tmp_path: Path) -> None:
    """As columns of the row, and inside an object, also one of JSON text."""
    log = create_log(str(tmp_path / "log"), domain_name="messages", bucket_count=2)
    if exists:
        Appender(log, MESSAGES.registry).append("s-0", [Sent(payload="before", bucket=0)])
    file = tmp_path / name
    mapping = write(file)
    assert ingest(log, REF, [str(file)], mapping=mapping).events == len(ROWS)
    found = {e.stream_id: e.payload for e in read_positions(log, MESSAGES.registry, int(exists))}
    assert found == {row["stream_id"]: {n: row[n] for n in ("payload", "bucket")} for row in ROWS}


def test_a_command_takes_them_over_http(tmp_path: Path) -> None:
    """The second command reads the event of the first."""
    log = create_log(str(tmp_path / "log"), domain_name="messages", bucket_count=2)
    Appender(log, MESSAGES.registry).append("s", [Noted(payload="w")])
    with served(tmp_path, "--stream", domain=REF, ready=False) as running, running.client() as client:
        for text in ("x", "y"):
            answer = client.post("/commands/Note", json={"stream": "s", "payload": text})
            assert answer.status_code == 201, answer.text
    found = [e.payload for e in read_positions(log, MESSAGES.registry, 1)]
    assert found == [{"payload": "wx"}, {"payload": "wxy"}]
