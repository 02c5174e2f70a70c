"""A row with a total that does not fit: every report of a rebuild counts it, and a lookup says that it is withheld."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import tenacity
from click.testing import CliRunner

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.cli.main import cli
from refold.pipelines.rebuild.as_of import rebuild_as_of
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.event_log import Appender, EventLog, create_log
from tests.pipelines.serving.served import served
from tests.pipelines.serving.tills import TILLS, Counted

HERE = "tests.pipelines.serving.tills:TILLS"
pytestmark = pytest.mark.slow
ONE_WORKER = ["--direct_num_workers=1"]


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """A log in which the total of one row does not fit."""
    log = create_log(str(tmp_path / "log"), domain_name="tills", bucket_count=2)
    for day, coins in ((1, 100), (2, 5), (1, 28)):
        count(log, day, coins)
    return log


def count(log: EventLog, day: int, coins: int) -> None:
    """Append an event."""
    Appender(log, TILLS.registry).append(f"day-{day}", [Counted(till="a b", day=day, coins=coins)])


def test_every_report_counts_it(tmp_path: Path, log: EventLog) -> None:
    """A rebuild, a rebuild as of a position, ``status`` and ``dead-letters list`` agree."""
    url = str(tmp_path / "read-models")
    assert rebuild(log, HERE, url, beam_options(None, ONE_WORKER), dead_letter=True).dead_letters == 1
    place = {"position": 3, "to": tmp_path / "third.duckdb", "staging_url": url}
    assert rebuild_as_of(log, HERE, beam_options(None, ONE_WORKER), dead_letter=True, **place).dead_letters == 1  # type: ignore[arg-type]
    options = ["--domain", HERE, "--read-models", url, "--json"]
    status = json.loads(CliRunner().invoke(cli, ["status", *options, "--log", log.url]).stdout)
    listed = json.loads(CliRunner().invoke(cli, ["dead-letters", "list", *options]).stdout)
    assert status["dead_letters"] == {"open": 1, "discarded": 0}
    assert (listed["open"], [g["positions"] for g in listed["groups"]]) == (1, [[3]])


@pytest.mark.parametrize("follow", [[], ["--stream"]])
def test_a_lookup_says_that_the_row_is_withheld(tmp_path: Path, log: EventLog, follow: list[str]) -> None:
    """409 with read model, key, column and position; a row that there is not is 404, and other rows are served."""
    rebuild(log, HERE, str(tmp_path / "read-models"), beam_options(None, ONE_WORKER), dead_letter=True)
    with served(tmp_path, *follow, domain=HERE) as running, running.client() as client:
        found = client.get("/coins/a%20b/1")
        assert (found.status_code, found.headers["content-type"]) == (409, "application/problem+json")
        assert found.json() == {
            "type": "about:blank",
            "title": "The row is withheld",
            "status": 409,
            "detail": "Read model coins withholds the row till = a b, day = 1, because its total coins does not fit "
            "its column since the event at position 3. The row returns once its total fits.",
            "code": "withheld",
            "read_model": "coins",
            "key": {"till": "a b", "day": "1"},
            "columns": ["coins"],
            "since": 3,
        }
        assert client.get("/coins/a%20b/1/twice/4").status_code == 409
        assert client.get("/coins/a%20b/3").status_code == 404
        assert client.get("/coins/a%20b/2").json()["data"] == {
            "till": "a b",
            "day": 2,
            "coins": 5,
            "counts": 1,
            "twice": 2,
        }
        responses = client.get("/openapi.json").json()["paths"]["/coins/{till}/{day}"]["get"]["responses"]
        assert "withheld" in responses["409"]["description"]
        if follow:
            count(log, 1, -1)
            assert _when(client, "/coins/a%20b/1", 200).json()["data"]["coins"] == 127


def _when(client: httpx.Client, path: str, status: int) -> httpx.Response:
    return tenacity.Retrying(
        stop=tenacity.stop_after_delay(30),
        wait=tenacity.wait_fixed(0.05),
        retry=tenacity.retry_if_result(lambda found: found.status_code != status),
    )(client.get, path)
