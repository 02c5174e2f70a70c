"""Imports from end to end: segments or commits, rejected rows, identity, resuming, and failures on the way."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pytest
from filelock import FileLock

from refold.event_schemas import PayloadError, RejectedRowsError, UsageError
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.ingest.ingest import (
    ImportLimits,
    ImportProgress,
    Ingested,
    ingest,
)
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.event_log import Appender, EventLog, create_log, verify
from tests.pipelines.ingest.imports import TIME, history, lines, row, write_parquet
from tests.pipelines.ingest.parcels import PARCELS, REF, Lost

SMALL = ImportLimits(chunk_rows=10, commit_events=8)


class Stopped(Exception):
    """The import ends here, as if it had been killed."""


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """An empty log."""
    return create_log(str(tmp_path / "log"), domain_name="parcels", bucket_count=4)


def write(path: Path, *rows: Any) -> str:
    """Write rows as JSON lines."""
    path.write_text(lines(*rows))
    return str(path)


def rows_of(count: int, streams: int = 7) -> list[dict[str, Any]]:
    """Make rows of several streams and schemas, one in ten of them invalid."""
    rows = []
    for i in range(count):
        made = row(stream_id=f"p-{i % streams}", event_id=f"e{i}", payload={"name": f"n{i}", "price": f"{i}.25"})
        if i % 3 == 1:
            made |= {"event_type": "Sent", "payload": {"parcel": f"p-{i % streams}", "weight": i}}
        rows.append(made | ({"stream_id": ""} if i % 10 == 9 else {}))
    return rows


def imported(events: list[dict[str, Any]]) -> list[str]:
    """Name the events that came out of ``rows_of``, in the order of the log."""
    return [e["event_id"] for e in events if re.fullmatch(r"e\d+", e["event_id"])]


def objects(log: EventLog) -> list[str]:
    """Name all that lies in a log, but for what an unfinished import keeps for itself."""
    return [key for key in log.store.list_from("") if not key.startswith("staging/")]


def at(phase: str, act: Callable[[ImportProgress], object], *, time: int = 1) -> Callable[[ImportProgress], None]:
    """Do something when a phase reports for the n-th time."""
    seen = [0]

    def report(progress: ImportProgress) -> None:
        seen[0] += progress.phase == phase
        if progress.phase == phase and seen[0] == time:
            act(progress)

    return report


def stop(_: ImportProgress) -> None:
    """Stop the import."""
    raise Stopped


def test_a_history_becomes_segments_and_read_models(tmp_path: Path, log: EventLog) -> None:
    """Events keep order, streams get versions without gaps, the log is sound, and a rebuild reads it."""
    done = ingest(log, REF, [write(tmp_path / "h.jsonl", *rows_of(100))], limits=SMALL)
    assert dataclasses.replace(done, reasons=()) == Ingested(
        events=90, rejected=10, commits=1, mode="segments", rejects=tmp_path / "h.jsonl.rejects.jsonl"
    )
    found = history(log)
    assert [e["event_id"] for e in found] == [f"e{i}" for i in range(100) if i % 10 != 9]
    assert [e["position"] for e in found] == list(range(1, 91))
    assert found[4] == {
        "position": 5,
        "commit_number": 1,
        "stream_id": "p-4",
        "stream_version": 1,
        "event_id": "e4",
        "event_type": "Sent",
        "schema_version": 1,
        "occurred_at": datetime(2024, 5, 1, 12, tzinfo=UTC),
        "correlation_id": None,
        "causation_id": None,
        "payload": {"parcel": "p-4", "weight": 4},
    }
    versions: dict[str, list[int]] = {}
    for event in found:
        versions.setdefault(event["stream_id"], []).append(event["stream_version"])
    assert all(v == list(range(1, len(v) + 1)) for v in versions.values())
    assert verify(log, PARCELS.registry).sound
    assert not list((tmp_path / "log" / "staging").iterdir())
    rebuild(log, REF, str(tmp_path / "models"), beam_options(None))
    with duckdb.connect(str(tmp_path / "models" / "parcels" / "current.duckdb"), read_only=True) as models:
        price = sum(Decimal(f"{i}.25") for i in range(100) if i % 10 != 9 and i % 3 != 1)
        assert models.execute("SELECT sum(events), sum(price) FROM parcel").fetchone() == (90, price)


def test_rejects_are_written_where_the_user_says(tmp_path: Path, log: EventLog) -> None:
    """File, line, reason and text, in the order of the files; good files have no reject file."""
    bad = write(tmp_path / "bad.jsonl", row(), "nonsense", row(stream_id=""))
    worse = write(tmp_path / "worse.jsonl", "nonsense")
    target = tmp_path / "deep" / "down" / "rejects.jsonl"
    done = ingest(log, REF, [bad, worse], rejects=target)
    assert (done.events, done.rejected, done.rejects) == (1, 3, target)
    rejected = [json.loads(line) for line in target.read_text().splitlines()]
    assert [(r["file"], r["line"], r["text"]) for r in rejected] == [
        (bad, 2, "nonsense"),
        (bad, 3, json.dumps(row(stream_id=""))),
        (worse, 1, "nonsense"),
    ]


def test_strict_publishes_nothing(tmp_path: Path, log: EventLog) -> None:
    """With --strict the log does not change; without it the import resumes and counts the row."""
    path = write(tmp_path / "h.jsonl", *rows_of(100))
    before = objects(log)
    for _ in range(2):
        with pytest.raises(PayloadError, match=r"h\.jsonl, line 10: stream_id is missing"):
            ingest(log, REF, [path], strict=True, limits=SMALL)
    assert objects(log) == before
    assert ingest(log, REF, [path], limits=SMALL).rejected == 10


def test_strict_sees_the_rejects_of_an_earlier_run(tmp_path: Path, log: EventLog) -> None:
    """A killed run had counted an invalid row; a strict run that resumes stops at it."""
    path = write(tmp_path / "h.jsonl", *rows_of(100))
    with pytest.raises(Stopped):
        ingest(log, REF, [path], limits=SMALL, report=at("read", stop, time=3))
    with pytest.raises(PayloadError, match="line 10: stream_id is missing"):
        ingest(log, REF, [path], limits=SMALL, strict=True)


def test_the_same_content_is_imported_once(tmp_path: Path, log: EventLog) -> None:
    """A second run, a touched file and a copy change nothing, and report the rows that the first run rejected."""
    path = tmp_path / "h.jsonl"
    write(path, *rows_of(20))
    first = ingest(log, REF, [str(path)])
    assert first.rejected == 2
    before = objects(log)
    copy = tmp_path / "elsewhere.jsonl"
    copy.write_bytes(path.read_bytes())
    path.touch()
    for again in (path, copy):
        assert ingest(log, REF, [str(again)]) == Ingested(already=True, rejected=2, reasons=first.reasons)
        with pytest.raises(RejectedRowsError, match=r"2 of 20 rows .* These files were imported without them"):
            ingest(log, REF, [str(again)], max_rejects="9%")
    assert objects(log) == before


@pytest.mark.slow
@pytest.mark.parametrize("time", [1, 3, 7])
def test_a_stopped_import_resumes(tmp_path: Path, log: EventLog, time: int) -> None:
    """The next run continues after the last chunk, with the result of an uninterrupted import."""
    path = write(tmp_path / "h.jsonl", *rows_of(100))
    with pytest.raises(Stopped):
        ingest(log, REF, [path], limits=SMALL, report=at("read", stop, time=time))
    seen: list[ImportProgress] = []
    done = ingest(log, REF, [path], limits=SMALL, report=seen.append)
    assert (done.events, done.rejected) == (90, 10)
    assert next(p for p in seen if p.phase == "read").events >= 9 * time
    assert [e["event_id"] for e in history(log)] == [f"e{i}" for i in range(100) if i % 10 != 9]
    assert len((tmp_path / "h.jsonl.rejects.jsonl").read_text().splitlines()) == 10


def test_a_stopped_import_whose_segments_were_collected_writes_them_again(tmp_path: Path, log: EventLog) -> None:
    """Files that `refold generations gc` deleted are found missing before the publish."""
    path = write(tmp_path / "h.jsonl", *rows_of(30))

    def stop_when_built(progress: ImportProgress) -> None:
        if (
            progress.phase == "build"
            and progress.done == progress.total
            and threading.current_thread() is threading.main_thread()
        ):
            raise Stopped

    with pytest.raises(Stopped):
        ingest(log, REF, [path], report=stop_when_built)
    for key in [*log.store.list_from("segments")][::2] + [*log.store.list_from("heads")][:1]:
        log.store.delete(key)
    assert ingest(log, REF, [path]).events == 27
    assert verify(log, PARCELS.registry).sound


def test_a_file_that_changed_between_runs_is_read_again(tmp_path: Path, log: EventLog) -> None:
    """The spool of the old content is discarded."""
    path = tmp_path / "h.jsonl"
    with pytest.raises(Stopped):
        ingest(log, REF, [write(path, *rows_of(60))], limits=SMALL, report=at("read", stop, time=3))
    write(path, row(event_id="new"))
    assert ingest(log, REF, [str(path)], limits=SMALL).events == 1
    assert [e["event_id"] for e in history(log)] == ["new"]
    assert not list((tmp_path / "log" / "staging").iterdir())


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, log: EventLog) -> None:
    """A file that changes during the import is an error, and nothing is published."""
    path = tmp_path / "h.jsonl"
    write(path, *rows_of(30))
    with pytest.raises(UsageError, match="changed while it was read"):
        ingest(log, REF, [str(path)], limits=SMALL, report=at("read", lambda _: path.touch()))
    assert not history(log)


def test_streams_of_the_log_go_through_commits(tmp_path: Path, log: EventLog) -> None:
    """Events are appended to existing streams; concurrent writers only shift their positions."""
    appender = Appender(log, PARCELS.registry)
    appender.append("p-1", [Lost()])
    path = write(tmp_path / "h.jsonl", *rows_of(30))
    race = at("commit", lambda _: appender.append("p-2", [Lost(), Lost()]))
    done = ingest(log, REF, [path], limits=SMALL, report=race)
    assert (done.events, done.mode, done.rejected) == (27, "commits", 3)
    found = history(log)
    assert imported(found) == [f"e{i}" for i in range(30) if i % 10 != 9]
    assert found[1]["payload"] == dict.fromkeys(PARCELS.registry.schema("Described", 1).names) | {
        "name": "n0",
        "price": Decimal("0.25"),
    }
    assert len(found) == 30
    assert verify(log, PARCELS.registry).sound
    assert done.commits == len(list(log.store.list_from("commits"))) - 2
    assert ingest(log, REF, [path]).already


@pytest.mark.parametrize("time", [1, 2, 3])
def test_stopped_commits_resume_without_duplicates(tmp_path: Path, log: EventLog, time: int) -> None:
    """Batches that were committed before the end are found by their identity."""
    Appender(log, PARCELS.registry).append("p-1", [Lost()])
    path = write(tmp_path / "h.jsonl", *rows_of(60))
    with pytest.raises(Stopped):
        ingest(log, REF, [path], limits=SMALL, report=at("commit", stop, time=time))
    Appender(log, PARCELS.registry).append("p-1", [Lost()])
    ingest(log, REF, [path], limits=SMALL)
    assert imported(history(log)) == [f"e{i}" for i in range(60) if i % 10 != 9]
    assert verify(log, PARCELS.registry).sound


def test_a_grown_file_adds_only_what_is_new(tmp_path: Path, log: EventLog) -> None:
    """Events whose event_id is already in the stream are skipped, sealed or in the tail."""
    path = tmp_path / "h.jsonl"
    ingest(log, REF, [write(path, *rows_of(20))])
    ingest(log, REF, [write(path, *rows_of(30))], limits=SMALL)
    done = ingest(log, REF, [write(path, *rows_of(40))], limits=SMALL)
    assert (done.events, done.duplicates, done.mode) == (9, 27, "commits")
    assert [e["event_id"] for e in history(log)] == [f"e{i}" for i in range(40) if i % 10 != 9]


def test_a_stream_that_is_created_during_the_import(tmp_path: Path, log: EventLog) -> None:
    """Segments that can no longer be published are deleted, and the import uses commits."""
    path = write(tmp_path / "h.jsonl", *rows_of(30))
    appender = Appender(log, PARCELS.registry)
    race = at("build", lambda _: appender.append("p-2", [Lost()]))
    done = ingest(log, REF, [path], report=race)
    assert (done.events, done.mode) == (27, "commits")
    assert not list(log.store.list_from("segments"))
    assert not list(log.store.list_from("heads"))
    assert verify(log, PARCELS.registry).sound


def test_files_of_all_formats_are_one_import(tmp_path: Path, log: EventLog) -> None:
    """JSON lines, an array, CloudEvents, CSV, TSV, Parquet: in the order given, with one commit and one progress."""
    day = datetime(2024, 5, 1, tzinfo=UTC)
    envelope = {"stream_id": ["p-1"], "event_type": ["Described"], "occurred_at": [day], "more": [1]}
    cloud = {"specversion": "1.0", "type": "Lost", "source": "p-1", "id": "x", "time": TIME}
    (tmp_path / "b.json").write_text(json.dumps([row(payload={"name": "b"})]))
    (tmp_path / "c.json").write_text(json.dumps(cloud))
    (tmp_path / "d.csv").write_text(f"stream_id,event_type,occurred_at,name,stray\np-1,Described,{TIME},d,\n")
    (tmp_path / "e.tsv").write_text(f"stream_id\tevent_type\toccurred_at\tname\np-1\tDescribed\t{TIME}\te\n")
    write_parquet(tmp_path / "f.parquet", envelope | {"name": ["f"]})
    write(tmp_path / "a.jsonl", row(payload={"name": "a"}))
    seen: list[ImportProgress] = []
    done = ingest(log, REF, [str(tmp_path / "[a-f].*")], report=seen.append)
    assert (done.events, done.commits, done.unused_columns) == (6, 1, ("stray", "more"))
    assert [e["payload"].get("name") for e in history(log)] == ["a", "b", None, "d", "e", "f"]
    read = [(p.done, p.total) for p in seen if p.phase == "read"]
    assert read == sorted(read)
    assert read[-1][0] == read[-1][1] == sum(f.stat().st_size for f in tmp_path.glob("[a-f].*"))


def test_remote_files_are_read(log: EventLog, tmp_path: Path) -> None:
    """A URL that fsspec knows, as text and as Parquet."""
    with fsspec.open("memory://exports/h.jsonl.gz", "wb", compression="gzip") as file:
        file.write(lines(row(event_id="a")).encode())
    table = {"stream_id": ["p-1"], "event_type": ["Lost"], "occurred_at": [datetime(2024, 5, 1)], "event_id": ["b"]}
    local = write_parquet(tmp_path / "t.parquet", table)
    fsspec.filesystem("memory").pipe_file("/exports/t.parquet", local.read_bytes())
    assert ingest(log, REF, ["memory://exports/*"]).events == 2
    assert [e["event_id"] for e in history(log)] == ["a", "b"]


def test_nothing_to_import_changes_nothing(tmp_path: Path, log: EventLog) -> None:
    """An empty file, and one of bad rows only."""
    before = objects(log)
    assert ingest(log, REF, [write(tmp_path / "empty.jsonl")]) == Ingested()
    assert ingest(log, REF, [write(tmp_path / "bad.jsonl", "x")]).rejected == 1
    assert objects(log) == before


@pytest.mark.parametrize(
    ("names", "format", "why"),
    [
        ([], None, "name at least one"),
        (["none.jsonl"], None, "There is no file"),
        (["*.jsonl"], None, "No file matches"),
        (["."], None, "is a folder"),
        (["x.log"], None, "Give --format, one of jsonl, json, cloudevents, csv, parquet"),
        (["x.jsonl"], "xml", "'xml' is not known"),
        (["nowhere://x.jsonl"], None, "cannot be opened"),
    ],
)
def test_invalid_file_arguments(
    tmp_path: Path, log: EventLog, monkeypatch: pytest.MonkeyPatch, names: list[str], format: str | None, why: str
) -> None:
    """The message names valid arguments."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.log").write_text("")
    with pytest.raises(UsageError, match=why):
        ingest(log, REF, names, format=format)


def test_two_processes_do_not_share_an_import(tmp_path: Path, log: EventLog) -> None:
    """The second process gets an error that advises to wait."""
    path = write(tmp_path / "h.jsonl", *rows_of(30))
    with pytest.raises(Stopped):
        ingest(log, REF, [path], limits=SMALL, report=at("read", stop))
    (folder,) = (p for p in (tmp_path / "log" / "staging").iterdir() if p.is_dir())
    with FileLock(f"{folder}.lock"), pytest.raises(UsageError, match="Another process is importing"):
        ingest(log, REF, [path], limits=SMALL)


def test_a_contract_that_changed_between_runs(tmp_path: Path, log: EventLog) -> None:
    """Rows that were accepted under the old contract are checked again under the new one."""
    path = write(tmp_path / "h.jsonl", *rows_of(30))
    with pytest.raises(Stopped):
        ingest(log, REF, [path], limits=SMALL, report=at("read", stop, time=2))
    done = ingest(log, "tests.pipelines.ingest.parcels:STRICTER", [path], limits=SMALL)
    assert (done.events, done.rejected) == (9, 21)


def test_a_log_elsewhere_keeps_its_spool_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports to a remote log spool in the user's cache folder, and leave no files there."""
    monkeypatch.setenv("REFOLD_CACHE_DIR", str(tmp_path / "cache"))
    log = create_log("memory://remote-log", domain_name="parcels", bucket_count=2)
    done = ingest(log, REF, [write(tmp_path / "h.jsonl", *rows_of(20))])
    assert (done.events, len(history(log))) == (18, 18)
    assert not list((tmp_path / "cache" / "ingest").iterdir())


def test_a_log_of_another_domain_is_refused(log: EventLog, tmp_path: Path) -> None:
    """The import rejects a log of another domain, whose event types differ."""
    other = dataclasses.replace(log, domain_name="orders")
    with pytest.raises(UsageError, match="belongs to domain 'orders', not 'parcels'"):
        ingest(other, REF, [write(tmp_path / "h.jsonl", row())])
