"""A log rewritten without some values: the same events otherwise, which verify, and go on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from refold import (
    Appender,
    Domain,
    EventLog,
    NewEvent,
    Projection,
    Registry,
    UsageError,
    beam_options,
    create_log,
    event,
    ingest,
    latest,
    open_log,
    read_positions,
    rebuild,
    verify,
)
from refold.pipelines.rewrite_log import MAP, rewrite_log
from refold.warehouse.object_store.digests import file_digest
from refold.warehouse.personal.key_store import Subject
from tests.pipelines.cli.running import Call, answer
from tests.pipelines.erasure.histories import holding_files, make_history

OPTIONS = beam_options(None, ["--direct_num_workers=1"])
REF = "tests.pipelines.test_rewrite_log:GUESTS"


@event(schema_version=1)
class GuestArrived:
    """A guest, with data that nobody marked."""

    guest: int
    name: str
    wish: str | None
    room: int


GUEST_BOOK = Projection(
    name="guest_book",
    key={"guest": "BIGINT"},
    columns={"name": latest("VARCHAR"), "wish": latest("VARCHAR"), "room": latest("BIGINT")},
    on={GuestArrived: "SELECT guest, name, wish, room"},
)
GUESTS = Domain(name="guests", events=(GuestArrived,), read_models=(GUEST_BOOK,))
FIELDS = [("GuestArrived", "name"), ("GuestArrived", "wish")]


@pytest.fixture
def hotel(tmp_path: Path) -> EventLog:
    """A log of an import, of commits, and of events that fit no contract."""
    log = create_log(str(tmp_path / "log"), domain_name="guests", bucket_count=2)
    rows = [
        {
            "stream_id": f"g-{n}",
            "event_id": f"e-{n}",
            "event_type": "GuestArrived",
            "schema_version": 1,
            "occurred_at": "2026-01-01T00:00:00Z",
            "payload": {"guest": n, "name": f"qzx-{n}-name", "wish": f"qzx-{n}-wish" if n % 2 else None, "room": n},
        }
        for n in range(30)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    ingest(log, REF, [str(source)], options=OPTIONS)
    source.unlink()
    appender = Appender(log, GUESTS.registry)
    appender.append("g-3", [GuestArrived(guest=3, name="qzx-3-other", wish=None, room=9)])

    @event(schema_version=1, name="GuestArrived")
    class Strange:
        guest: int
        name: str

    Appender(log, Registry(events=[Strange])).append("g-3", [NewEvent(payload=Strange(guest=3, name="qzx-3-misfit"))])
    return log


def events(log: EventLog, guest: int | None = None) -> list[dict[str, Any]]:
    """Return the events of all guests but one."""
    found = [dataclasses.asdict(e) for e in read_positions(log, GUESTS.registry, 0)]
    return [e for e in found if e["payload"]["guest"] != guest]


@pytest.mark.slow
def test_only_the_values_of_the_subjects_differ(hotel: EventLog, tmp_path: Path) -> None:
    """Positions, ids, times and all other values are equal; a search of every byte of the new log finds nothing."""
    to = tmp_path / "new"
    done = rewrite_log(hotel, REF, str(to), OPTIONS, fields=FIELDS, subjects=[Subject("guest", "3")])
    assert (done.values, done.position) == (4, 32)
    new = open_log(str(to))
    assert new.log_id != hotel.log_id
    assert events(new, guest=3) == events(hotel, guest=3)
    mine = [e["payload"] for e in events(new) if e["payload"]["guest"] == 3]
    assert [p["name"] for p in mine] == ["[erased]"] * 3
    assert [p.get("wish") for p in mine] == [None] * 3
    assert [e["position"] for e in events(new)] == list(range(1, 33))
    assert not holding_files(to, ["qzx-3-name", "qzx-3-wish", "qzx-3-other", "qzx-3-misfit"])
    assert not verify(new, GUESTS.registry).findings

    first, *mapped = [json.loads(line) for line in (to / MAP).read_text().splitlines()]
    assert first["log_id"] == hotel.log_id
    for line in mapped:
        assert file_digest(tmp_path / "log" / line["old"]) == line["old_sha256"]
        assert file_digest(to / line["new"]) == line["new_sha256"]
    assert sum(line["replaced_values"] for line in mapped) == 4
    assert done.head.endswith(file_digest(to / MAP))

    Appender(new, GUESTS.registry).append("g-3", [GuestArrived(guest=3, name="back", wish=None, room=1)])
    assert rebuild(new, REF, str(tmp_path / "models"), OPTIONS, dead_letter=True).generation.position == 33
    assert not verify(open_log(str(to)), GUESTS.registry).findings


@pytest.mark.slow
def test_what_is_refused(hotel: EventLog, tmp_path: Path, call: Call) -> None:
    """A number that is required, an unknown field or subject, an existing log, and a log with encrypted fields."""
    three = [Subject("guest", "3")]
    for fields, subjects, message in (
        ([("GuestArrived", "room")], three, "a required field needs a value"),
        ([("GuestArrived", "age")], three, "No schema of GuestArrived in this domain has a field 'age'"),
        (FIELDS, [Subject("member", "3")], "has no field 'member' that could name a subject"),
        (FIELDS, [], "Name at least one subject"),
    ):
        with pytest.raises(Exception, match=message):
            rewrite_log(hotel, REF, str(tmp_path / "new"), OPTIONS, fields=fields, subjects=subjects)
    with pytest.raises(UsageError, match="is not empty: it holds "):
        rewrite_log(hotel, REF, hotel.url, OPTIONS, fields=FIELDS, subjects=three)
    (tmp_path / "log").rename(tmp_path / "moved")
    encrypted = make_history(tmp_path, 2, changed=0)
    with pytest.raises(UsageError, match="holds encrypted fields"):
        rewrite_log(
            encrypted,
            "tests.warehouse.personal.customers:CUSTOMERS",
            str(tmp_path / "new"),
            OPTIONS,
            fields=[("CustomerRegistered", "city")],
            subjects=[Subject("customer_id", "customer-1")],
        )
    line = ("--domain", REF, "--log", str(tmp_path / "moved"), "--to", str(tmp_path / "cli"))
    bad = call("log", "rewrite", "--erase", "name", "--subject", "guest=3", *line, folder=tmp_path, code=2)
    assert "write --erase OrderPlaced.note" in bad.stderr
    done = call(
        "log", "rewrite", "--erase", "GuestArrived.name", "--subject", "guest=3", "--json", *line, folder=tmp_path
    )
    assert answer(done)["values"] == 3
