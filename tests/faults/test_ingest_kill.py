"""An import is killed with SIGKILL at many points and run again: no event is lost or duplicated.

Run as a program, this file forks into the processes that import: each case kills one at a given state of its files on
disk, then lets a second one finish, and reports the contents of the log.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refold.pipelines.ingest.ingest import ImportLimits, ingest
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    create_log,
    open_log,
    verify,
)
from tests.pipelines.ingest.imports import history, lines, row
from tests.pipelines.ingest.parcels import PARCELS, REF, Lost

pytestmark = pytest.mark.slow

ROWS = 2_000
LIMITS = ImportLimits(chunk_rows=125, commit_events=75)

CASES = {
    "before the first chunk": ("segments", "ingest-*", 1),
    "after the first chunk": ("segments", "ingest-*/chunks/*", 2),
    "in the middle of reading": ("segments", "ingest-*/chunks/*", 9),
    "while the last chunk is checked": ("segments", "ingest-*/chunks/*", 16),
    "while buckets are built": ("segments", "ingest-*/built/*", 1),
    "while the last buckets are built": ("segments", "ingest-*/built/*", 7),
    "before the first commit": ("commits", "ingest-*/commits.json", 1),
    "after the first commits": ("commits", "../commits/*", 4),
    "in the middle of the commits": ("commits", "../commits/*", 12),
}
"""How the import is published, and the pattern and number of staging files at which it is killed."""


def make_rows() -> str:
    """Write a history of several schemas and streams, with some invalid rows."""
    made: list[Any] = []
    for i in range(ROWS):
        valid = row(stream_id=f"p-{i % 97}", event_id=f"e{i}", payload={"name": f"n{i}", "tags": ["x"] * (i % 4)})
        if i % 3 == 1:
            valid |= {"event_type": "Sent", "payload": {"parcel": f"p-{i}", "weight": i}}
        made.append("not JSON" if i % 100 == 7 else valid)
    return lines(*made)


def make_log(folder: Path, mode: str) -> EventLog:
    """Create a log; if the import is to use commits, with a stream that the history continues."""
    log = create_log(str(folder), domain_name="parcels", bucket_count=8)
    if mode == "commits":
        Appender(log, PARCELS.registry).append("p-1", [Lost()])
    return log


def forked(work: Callable[[], object]) -> int:
    """Run work in a child process and return its process id."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            work()
        finally:
            os._exit(0)
    return pid


def killed(work: Callable[[], object], staging: Path, pattern: str, count: int) -> bool:
    """Run work in a process and kill it once ``count`` files match; return False if it ended before."""
    pid = forked(work)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if len(list(staging.glob(pattern))) >= count:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return True
    return False


def run_case(folder: Path, mode: str, pattern: str, count: int) -> None:
    """Kill an import, run it again, and print the result."""
    log_folder, source = folder / "log", folder / "history.jsonl"
    os.waitpid(forked(lambda: make_log(log_folder, mode)), 0)

    def work() -> None:
        ingest(open_log(str(log_folder)), REF, [str(source)], limits=LIMITS)

    was_killed = killed(work, log_folder / "staging", pattern, count)
    os.waitpid(forked(work), 0)
    os.waitpid(forked(lambda: print_result(log_folder, was_killed)), 0)


def print_result(log_folder: Path, was_killed: bool) -> None:
    """Print the contents of the log and the leftover staging files as one line."""
    log = open_log(str(log_folder))
    events = history(log)
    rejects = log_folder.parent / "history.jsonl.rejects.jsonl"
    result = {
        "killed": was_killed,
        "events": [[e["event_id"], e["stream_id"], e["stream_version"], str(e["payload"])] for e in events],
        "sound": verify(log, PARCELS.registry).sound,
        "rejects": [json.loads(line)["line"] for line in rejects.read_text().splitlines()],
        "left": [p.name for p in (log_folder / "staging").iterdir()],
    }
    print(json.dumps(result), flush=True)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Run all cases in one program, which imports this file once."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.faults.test_ingest_kill", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_killed_import_ends_as_if_it_had_not_been(outcomes: dict[str, dict[str, Any]], case: str) -> None:
    """Every good row is in the log once, in order, in a stream without gaps; every invalid one is rejected once."""
    found = outcomes[case]
    assert found["killed"]
    good = [i for i in range(ROWS) if i % 100 != 7]
    events = [e for e in found["events"] if e[3] != "{}"]
    assert [e[0] for e in events] == [f"e{i}" for i in good]
    versions = {"p-1": int(CASES[case][0] == "commits")}
    for i, (_, stream, version, _) in zip(good, events, strict=True):
        assert stream == f"p-{i % 97}"
        assert version == versions.setdefault(stream, 0) + 1
        versions[stream] = version
    assert found["sound"]
    assert found["rejects"] == [i + 1 for i in range(ROWS) if i % 100 == 7]
    assert found["left"] == []


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for number, (how, wanted, times) in enumerate(CASES.values()):
        here = place / str(number)
        here.mkdir()
        (here / "history.jsonl").write_text(make_rows())
        run_case(here, how, wanted, times)
