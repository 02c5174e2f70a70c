"""Log and read models below folders whose names an engine could interpret: nothing of a path becomes a value."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from refold import Appender, create_log, open_log
from refold.warehouse.event_log.reads.read import read_positions
from tests.pipelines.cli.running import Call, answer, refold
from tests.pipelines.sales import PLACES, Sold
from tests.pipelines.serving.served import ROOT, served

pytestmark = pytest.mark.slow

REF = "tests.pipelines.sales:PLACES"
COMBINED = "-region=emea/bucket=0 %20#?*[g]'\"\\{a,b};é\u0301日/~/$HOME/filename=x:y/s3:/file:/%2e%2e"
"""Hive partitions, patterns, quotes, separators, escapes, schemes and expansions, in one path."""

ROWS = [
    {"region": "apac", "bucket": 7, "filename": "b", "cents": 30, "file_row_number": "n", "event_type": 1},
    {"region": "latam", "bucket": 7, "filename": "a", "cents": 30, "file_row_number": "n", "event_type": 2},
]
"""The rows of ``sales`` after the first three events."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with hostile names, and a sibling of each that a pattern would match."""
    place = tmp_path / COMBINED
    place.mkdir(parents=True)
    (tmp_path / "-region=emea" / "bucket=0 %20#xyzg'\"/{a,b};é\u0301日").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the publishing process
    return place


def _lines(*numbers: int) -> str:
    rows = []
    for n in numbers:
        payload = {"region": "latam" if n % 2 else "apac", "shelf": 7, "filename": "ab"[n % 2 == 0], "cents": "15"}
        payload["cents"] = "30" if n == 2 else "15"
        rows.append(
            {
                "stream_id": f"shop-{n}",
                "event_type": "Sold",
                "schema_version": 1,
                "event_id": f"e{n}",
                "occurred_at": "2026-01-05T09:00:00Z",
                "payload": payload,
            }
        )
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_core_works_below_hostile_names(place: Path, call: Call) -> None:
    """Import, append, seal, rebuild, stream, catch up, read, verify, compare, serve and collect, all in one folder."""
    (place / "first.jsonl").write_text(_lines(1, 2, 3))
    where = ("--domain", REF, "--log", str(place / "log"), "--read-models", str(place / "rm"), "--json")

    def run(*arguments: str, code: int = 0) -> object:
        return answer(call(*where, *arguments, folder=place, code=code))

    assert run("ingest", "first.jsonl")["events"] == 3  # type: ignore[index]
    run("rebuild")
    assert run("query", "FROM sales ORDER BY region")["rows"] == ROWS  # type: ignore[index]
    log = open_log(str(place / "log"))
    appender = Appender(log, PLACES.registry)
    appender.append("shop-1", [Sold(region="latam", shelf=7, filename="a", cents="5")])
    run("stream", "--once")
    run("seal")
    appender.append("shop-9", [Sold(region="latam", shelf=7, filename="longer", cents="no number")])
    run("stream", "--once")
    assert run("dead-letters", "show", "5")["letters"]  # type: ignore[index]
    assert run("query", "FROM longest ORDER BY ALL")["rows"] == [  # type: ignore[index]
        {"region": "apac", "filename": "b"},
        {"region": "latam", "filename": "longer"},
    ]
    run("reconcile")
    run("reconcile", "--independent")
    run("rebuild", "--all", "--dead-letter")
    run("reconcile", "--keep", str(place / "kept*?[g].duckdb"))
    run("events", "verify")
    run("events", "stats")
    run("capacity")
    run("plan")
    run("status")
    run("rebuild", "--as-of", "3", "--to", str(place / "as*of?[3]\\.duckdb"))
    run("generations", "list")
    run("generations", "diff", "1", "2")
    run("generations", "rollback", "1")
    run("generations", "gc", "--keep", "1", "--min-age", "0s", "--yes")
    run("refresh", "--dead-letter")
    run("dead-letters", "discard", "5")
    run("dead-letters", "retry")
    read = read_positions(log, PLACES.registry, 0, 5)
    assert [e.payload["cents"] for e in read] == [
        "15",
        "30",
        "15",
        "5",
        "no number",
    ]


def test_serving_below_hostile_names(place: Path, call: Call) -> None:
    """The server, its stream, its publishing process and its sandbox open files there."""
    log = create_log(str(place / "log"), domain_name="places")
    Appender(log, PLACES.registry).append("shop-1", [Sold(region="latam", shelf=7, filename="a", cents="5")])
    for options in ([], ["--stream"]):
        call("--domain", REF, "--log", "log", "--read-models", "read-models", "rebuild", folder=place)
        with served(place, "--query", *options, domain=REF) as running, running.client() as client:
            found = client.get("/shops/shop-1").json()["data"]
            assert (found["region"], found["bucket"]) == ("latam", 7)
            asked = client.post("/query", json={"sql": "SELECT region, bucket FROM sales"})
            assert asked.json()["data"] == [["latam", 7]]
            assert str(place) not in asked.text


def test_one_place_has_one_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, a URL, a home folder, a slash at the end and a link all name the same log."""
    (tmp_path / "a b%20#").mkdir()
    log = create_log(str(tmp_path / "a b%20#" / "log"), domain_name="places")
    os.symlink(tmp_path / "a b%20#", tmp_path / "link")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a b%20#/log", "a b%20#/log/", f"file://{tmp_path}/a b%20#/log", "~/a b%20#/log", "link/log"):
        assert open_log(name).log_id == log.log_id, name


def test_temporary_files_below_hostile_names(place: Path, tmp_path: Path, call: Call) -> None:
    """A folder for temporary files with such a name is no obstacle, nor is the cache of a remote store."""
    log = create_log(str(tmp_path / "log"), domain_name="places")
    Appender(log, PLACES.registry).append("shop-1", [Sold(region="latam", shelf=7, filename="a", cents="5")])
    where = ("--domain", REF, "--log", str(tmp_path / "log"), "--read-models", str(tmp_path / "read-models"))
    environment = {"TMPDIR": str(place), "REFOLD_CACHE_DIR": str(place / "cache")}
    refold(*where, "rebuild", folder=tmp_path, environment=environment)
    Appender(log, PLACES.registry).append("shop-1", [Sold(region="latam", shelf=7, filename="a", cents="7")])
    refold(*where, "stream", "--once", folder=tmp_path, environment=environment)
    refold(*where, "reconcile", folder=tmp_path, environment=environment)
    printed = refold(*where, "--json", "query", "FROM regions", folder=tmp_path, environment=environment)
    assert answer(printed)["rows"] == [{"region": "latam", "cents": 12}]
    with served(tmp_path, "--query", domain=REF, environment=environment) as running, running.client() as client:
        assert client.post("/query", json={"sql": "SELECT cents FROM sales"}).json()["data"] == [[12]]
