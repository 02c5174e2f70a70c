"""``refold status``: lag, objectives, the live stream's heartbeat, and watching."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from refold.event_schemas import GenerationError
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.cli.main import cli
from refold.pipelines.cli.support.durations import parse_duration
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    create_log,
    open_log,
)
from refold.warehouse.event_log.commit import CommitInfo, encode
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.read_models.generations.generations import Generations, open_generations
from refold.warehouse.read_models.lag import (
    Lag,
    checkpoint_of,
    find_end,
    lag_of,
)
from refold.warehouse.read_models.live.heartbeat import (
    Heartbeat,
    forget_heartbeat,
    read_heartbeat,
    write_heartbeat,
)
from tests.pipelines.cli.letters import WRITER, Weighed
from tests.pipelines.cli.running import raw_on_terminal

ROOT = Path(__file__).parents[3]
REF = "tests.pipelines.cli.letters:BROKEN"


@dataclass(frozen=True, slots=True)
class Scales:
    """A log, and two of three read models published of it."""

    folder: Path

    @property
    def log(self) -> EventLog:
        """The log."""
        return open_log(str(self.folder / "log"))

    @property
    def generations(self) -> Generations:
        """The published generations."""
        return open_generations(str(self.folder / "models"), "letters")

    def append(self, *printed: str) -> None:
        """Append in one commit each."""
        for text in printed:
            Appender(self.log, WRITER).append("parcel-1", [Weighed(parcel="a", printed=text)])

    def append_ahead(self, recorded_at: datetime) -> int:
        """Append an event as a program does whose clock is wrong, and return the number of its commit."""
        head = self.log.head()
        number, position = head.commit + 1, head.position + 1
        info = CommitInfo(
            number=number,
            uuid=str(uuid.uuid4()),
            first_position=position,
            last_position=position,
            recorded_at=recorded_at,
            previous=head.end.digest,
            heads={f"parcel-{number}": 1},
        )
        event = ("e" + str(number), "Weighed", 1, recorded_at, recorded_at, None, None, '{"parcel":"b","printed":"1"}')
        row = (position, number, f"parcel-{number}", 1, *event)
        assert self.log.store.put_if_absent(commit_key(number), encode(info, [[value] for value in row])[1])
        return number

    def arguments(self, *arguments: str) -> list[str]:
        """Return the command line for this log and these read models."""
        where = ["--log", str(self.folder / "log"), "--read-models", str(self.folder / "models")]
        return ["--domain", REF, *where, "status", *arguments]

    def status(self, *arguments: str, code: int = 0) -> Result:
        """Run it in this process."""
        result = CliRunner().invoke(cli, self.arguments(*arguments))
        assert result.exit_code == code, result.output
        return result

    def answer(self, *arguments: str) -> Any:
        """Run it with ``--json``, and parse its output."""
        return json.loads(self.status(*arguments, "--json").stdout)

    def write_heartbeat(self, *, ago: float = 0.0, position: int = 2) -> Heartbeat:
        """Write the heartbeat of a live stream as of some seconds ago."""
        info = self.log.commit_info(position)
        assert info is not None
        at = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat()
        recorded = info.recorded_at.isoformat()
        heartbeat = Heartbeat(position, info.number, recorded, at, at, "scales.example", 4711, 1200, 340.5)
        store = self.generations.store
        write_heartbeat(store, heartbeat)
        os.utime(store.local_path("live/stream.json"), (time.time() - ago,) * 2)
        return heartbeat


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two events, of which one can be applied."""
    folder = tmp_path_factory.mktemp("status")
    create_log(str(folder / "log"), domain_name="letters", bucket_count=2)
    Scales(folder).append("10", "12 g")
    options = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
    models = str(folder / "models")
    rebuild(Scales(folder).log, REF, models, options, only=["weights", "seen"], dead_letter=True)
    return folder


@pytest.fixture
def scales(original: Path, tmp_path: Path) -> Scales:
    """A copy, to change."""
    return Scales(Path(shutil.copytree(original, tmp_path / "scales", symlinks=True)))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("2m", 120), ("1h", 3600), ("1h30m", 5400), ("250ms", 0.25), ("1d", 86400), ("60", 60), ("0", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    """Units, several together, and plain seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5 x", "h", "-5s", "5s3", "1e3", "nan"])
def test_an_invalid_duration_is_rejected(scales: Scales, text: str) -> None:
    """An invalid duration is a usage error with an example."""
    assert "write 5s, 2m, 1h30m" in scales.status(f"--max-lag={text}", code=2).stderr


def test_each_read_model_has_its_lag(scales: Scales) -> None:
    """Published read models have the generation's lag; one that was never built lags by the full log."""
    scales.append("14", "15")
    report = scales.answer()
    lags = {m["name"]: m["lag"]["events"] for m in report["read_models"]}
    assert lags == {"weights": 2, "seen": 2, "losses": 4}
    assert report["lag"] == {m["name"]: m["lag"] for m in report["read_models"]}["seen"]
    assert report["dead_letters"] == {"open": 1, "discarded": 0}
    shown = scales.status().stdout
    assert re.search(r"losses +not built yet", shown)
    assert re.search(r"seen +1 +2 +2 events, ", shown)
    assert "1 open, 0 discarded" in shown


def test_the_lag_objective(scales: Scales) -> None:
    """The objective is met without lag, at any age; it is missed, with exit code 4, if an event waits longer."""
    scales.status("--max-lag", "0")
    scales.append("14")
    scales.status("--max-lag", "1h")
    assert "above --max-lag 0 s" in scales.status("--max-lag", "0s", code=4).stderr


def test_the_idle_objective_is_separate(scales: Scales, tmp_path: Path) -> None:
    """It is missed if nothing was appended for that long, even without lag, or if the log is empty."""
    scales.status("--max-idle", "1h")
    missed = scales.status("--max-idle", "0", "--max-lag", "0", code=4)
    assert "idle for longer than --max-idle 0 s: the last append was at" in missed.stderr
    assert "--max-lag" not in missed.stderr
    empty = Scales(tmp_path)
    create_log(str(tmp_path / "log"), domain_name="letters", bucket_count=2)
    assert "nothing was appended yet" in empty.status("--max-idle", "1h", code=4).stderr
    assert "no events yet" in empty.status("--max-lag", "0").stdout


def test_the_lag_in_seconds_is_exact(scales: Scales) -> None:
    """The lag is the age of the first commit that is not applied."""
    scales.append("14", "15")
    first = scales.log.commit_info(3)
    assert first is not None
    at = checkpoint_of(scales.generations.newest())
    now = first.recorded_at + timedelta(seconds=90)
    assert lag_of(scales.log, find_end(scales.log), at, now=now) == Lag(2, 90.0)
    assert lag_of(scales.log, find_end(scales.log), at, now=first.recorded_at - timedelta(seconds=9)) == Lag(2, 0.0)
    ahead = lag_of(scales.log, find_end(scales.log), at, now=first.recorded_at - timedelta(1))
    assert (ahead.events, ahead.seconds) == (2, None)


FAR = datetime(2099, 1, 1, tzinfo=UTC)


def test_a_clock_far_ahead_blinds_no_objective(scales: Scales) -> None:
    """Lag and idle time are those of the object in the store, and the commit and its skew are named."""
    number = scales.append_ahead(FAR)
    _set_modified(scales, number, ago=90)
    missed = scales.status("--max-lag", "80s", "--max-idle", "80s", code=4)
    assert f"commit {number} (write " in missed.stdout
    assert "recorded at 2099-01-01T00:00:00+00:00" in missed.stdout
    assert "ahead of the clock of this machine" in missed.stdout
    report = scales.answer()
    assert 90 <= report["lag"]["seconds"] < 600
    assert 90 <= report["idle_seconds"] < 600
    assert [found["commit_number"] for found in report["clocks_ahead"]] == [number]


def test_an_age_that_no_clock_knows_misses_an_objective(scales: Scales) -> None:
    """If the machine was ahead when it wrote, its disk was too: the age is unknown, which is no success."""
    number = scales.append_ahead(FAR)
    _set_modified(scales, number, ago=(datetime.now(UTC) - FAR).total_seconds())
    missed = scales.status("--max-lag", "100d", "--max-idle", "100d", code=4)
    assert f"The lag is unknown, so not below --max-lag 8.64e+06 s: commit {number}" in missed.stderr
    assert "it is unknown when the last append was" in missed.stderr
    assert "of unknown age" in missed.stdout
    assert scales.answer()["lag"]["seconds"] is None
    scales.append("14")  # the next commit with a credible time bounds the age
    assert 0 <= scales.answer()["lag"]["seconds"] < 600
    assert scales.answer("--max-idle", "100d")["idle_seconds"] < 600


def _set_modified(scales: Scales, number: int, *, ago: float) -> None:
    os.utime(scales.log.store.local_path(commit_key(number)), (time.time() - ago,) * 2)


def test_a_heartbeat_of_a_clock_far_ahead(scales: Scales) -> None:
    """Its age is that of its object; if that is unknown too, the stream does not count as running."""
    heartbeat = scales.write_heartbeat(ago=30)
    store = scales.generations.store
    write_heartbeat(store, dataclasses.replace(heartbeat, updated_at=FAR.isoformat()))
    path = store.local_path("live/stream.json")
    os.utime(path, (time.time() - 30,) * 2)
    stream = scales.answer()["stream"]
    assert (stream["silent"], round(stream["silent_seconds"], -1) >= 30) == (True, True)
    os.utime(path, (FAR.timestamp(),) * 2)
    stream = scales.answer()["stream"]
    assert (stream["silent"], stream["silent_seconds"]) == (True, None)
    assert "whether it runs is unknown" in scales.status().stdout


def test_the_stream_reports_its_position(scales: Scales) -> None:
    """Status has the stream's position and lag, separate from the published ones, and its last heartbeat."""
    assert scales.answer()["stream"] is None
    scales.append("14")
    heartbeat = scales.write_heartbeat(ago=-60)  # a clock ahead of this one: never silent
    report = scales.answer()["stream"]
    assert {k: v for k, v in report.items() if k in dataclasses.asdict(heartbeat)} == dataclasses.asdict(heartbeat)
    assert (report["lag"]["events"], report["silent"]) == (1, False)
    assert re.search(r"Stream +position 2, lag 1 event, .*1,200 events, 340 a second", scales.status().stdout)
    scales.write_heartbeat(ago=12, position=3)
    assert scales.answer()["stream"]["silent"] is True
    assert re.search(r"no heartbeat for \d\d s from process 4711 on scales.example", scales.status().stdout)
    forget_heartbeat(scales.generations.store)
    forget_heartbeat(scales.generations.store)
    assert scales.answer()["stream"] is None


def test_a_heartbeat_is_read_back(scales: Scales) -> None:
    """The last written heartbeat is read; an invalid one is an error with its location."""
    store = scales.generations.store
    scales.write_heartbeat(ago=60)
    heartbeat = scales.write_heartbeat()
    assert read_heartbeat(store) == heartbeat
    store.put("live/stream.json", json.dumps({**dataclasses.asdict(heartbeat), "more": 1}).encode())
    assert read_heartbeat(store) == heartbeat
    for content in (b"", b"[]", b'{"position": 1}'):
        store.put("live/stream.json", content)
        with pytest.raises(GenerationError, match=r"live/stream\.json is not the heartbeat"):
            read_heartbeat(store)


def test_watching_prints_a_line_per_interval(scales: Scales) -> None:
    """A pipe gets lines, or documents with --json; objectives apply to the last one."""
    scales.append("14")
    watched = scales.status("--watch", "--count", "3", "--interval", "0", "--max-lag", "0", code=4)
    lines = watched.stdout.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"log 3  generation 1 at 2  lag 1 event, .* s", lines[0])
    documents = scales.status("--watch", "--count", "2", "--interval", "10ms", "--json").stdout.splitlines()
    assert [json.loads(d)["log"]["position"] for d in documents] == [3, 3]
    assert "--count needs --watch" in scales.status("--count", "2", code=2).stderr


def test_ctrl_c_ends_watching(scales: Scales) -> None:
    """Ctrl-C is the normal end of watching, not an error."""
    command = [sys.executable, "-m", "refold", *scales.arguments("--watch", "--interval", "1h")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("log 2  generation 1 at 2  lag none")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_watching_on_a_terminal_stays_in_place(scales: Scales) -> None:
    """Each table overwrites the one before."""
    arguments = scales.arguments("--watch", "--count", "2", "--interval", "0")
    seen = raw_on_terminal(*arguments, folder=Path.cwd(), environment={"PYTHONPATH": str(ROOT)})
    assert seen.count("Generation  1 at position 2") >= 2
    assert "\x1b[1A" in seen, "the cursor goes up again"
