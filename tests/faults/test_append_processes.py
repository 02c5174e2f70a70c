"""Many processes append to one log at once, and some of them are killed: nothing is lost, double or missing.

Run as a program, this file forks into those processes. Each prints to their shared standard output what the log
acknowledges.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refold.event_schemas import ConcurrencyError, Registry, event
from refold.warehouse.event_log import (
    Appender,
    NewEvent,
    create_log,
    open_log,
    read_positions,
    verify,
)

WORKERS = 8
KILLED_AFTER = {1: 3, 3: 12, 5: 20}
"""Number of acknowledged appends after which each of these workers is killed."""
APPENDS = 30

History = tuple[str, dict[int, list[Any]], list[int]]
"""URL of the log, the acknowledged appends of each worker, and the exit code of each."""


@event(schema_version=1)
class Counted:
    """One event of one worker."""

    worker: int
    number: int


REGISTRY = Registry(events=[Counted])


def work(url: str, worker: int) -> None:
    """Append by turns to an own and to a shared stream, both with an expected version, and print each answer."""
    appender = Appender(open_log(url), REGISTRY)
    for number in range(APPENDS if worker not in KILLED_AFTER else 1_000_000):
        events = [
            NewEvent(payload=Counted(worker=worker, number=number), event_id=f"{worker}-{number}-{part}")
            for part in range(1 + number % 3)
        ]
        stream_id = "shared-1" if number % 2 else f"own-{worker}"
        while True:
            try:
                answer = appender.append(stream_id, events, expected_version=appender.version(stream_id))
                break
            except ConcurrencyError:
                continue
        acknowledged = [stream_id, [e.event_id for e in events], answer.first_position, answer.stream_version]
        print_line({"worker": worker, "pid": os.getpid(), "acknowledged": acknowledged})


def print_line(value: object) -> None:
    """Write a line in one call, so that lines of several processes do not mix."""
    os.write(sys.stdout.fileno(), json.dumps(value).encode() + b"\n")


def fork(url: str) -> None:
    """Fork eight workers, wait for them, and print the exit code of each."""
    workers = {}
    for worker in range(WORKERS):
        if (pid := os.fork()) == 0:
            try:
                work(url, worker)
                os._exit(0)
            finally:
                os._exit(1)
        workers[pid] = worker
    for _ in range(WORKERS):
        pid, status = os.wait()
        print_line({"worker": workers[pid], "code": os.waitstatus_to_exitcode(status)})


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A log after eight processes, three of which were killed during an append."""
    url = str(tmp_path_factory.mktemp("processes") / "log")
    create_log(url, domain_name="counting", bucket_count=4)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, url]
    acknowledged: dict[int, list[Any]] = {n: [] for n in range(WORKERS)}
    codes: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in map(json.loads, process.stdout):
            worker = line["worker"]
            if "code" in line:
                codes[worker] = line["code"]
                continue
            acknowledged[worker].append(line["acknowledged"])
            if len(acknowledged[worker]) == KILLED_AFTER.get(worker):
                os.kill(line["pid"], signal.SIGKILL)
    return url, acknowledged, [codes[n] for n in range(WORKERS)]


def test_the_killed_died_and_the_others_ended_well(history: History) -> None:
    """Only the chosen workers are killed; the others complete all appends."""
    _, acknowledged, codes = history
    assert codes == [-signal.SIGKILL if n in KILLED_AFTER else 0 for n in range(WORKERS)]
    assert all(len(acknowledged[n]) == APPENDS for n in range(WORKERS) if n not in KILLED_AFTER)
    assert all(len(acknowledged[n]) >= count for n, count in KILLED_AFTER.items())


def test_no_acknowledged_event_is_lost(history: History) -> None:
    """Each event has the position and stream version that its writer received."""
    url, acknowledged, _ = history
    events = {e.event_id: e for e in read_positions(open_log(url), REGISTRY, 0)}
    for stream_id, event_ids, first_position, stream_version in (a for worker in acknowledged.values() for a in worker):
        found = [events[i] for i in event_ids]
        assert [e.position for e in found] == [first_position + i for i in range(len(event_ids))]
        assert {e.stream_id for e in found} == {stream_id}
        assert found[-1].stream_version == stream_version


def test_no_event_is_double_and_no_position_missing(history: History) -> None:
    """Positions count from 1 without a gap; at most the last append of a killed worker is unacknowledged."""
    url, acknowledged, _ = history
    events = list(read_positions(open_log(url), REGISTRY, 0))
    assert [e.position for e in events] == list(range(1, len(events) + 1))
    assert len({e.event_id for e in events}) == len(events)
    acknowledged_ids = {i for worker in acknowledged.values() for a in worker for i in a[1]}
    unacknowledged = {tuple(e.event_id.split("-")[:2]) for e in events if e.event_id not in acknowledged_ids}
    assert {int(worker) for worker, _ in unacknowledged} <= set(KILLED_AFTER)
    assert len(unacknowledged) <= len(KILLED_AFTER)


def test_each_worker_s_events_are_in_its_order(history: History) -> None:
    """The events of one worker have the order of its appends."""
    url, _, _ = history
    numbers: dict[int, list[int]] = {}
    for found in read_positions(open_log(url), REGISTRY, 0):
        numbers.setdefault(found.payload["worker"], []).append(found.payload["number"])
    assert all(mine == sorted(mine) for mine in numbers.values())
    assert set(numbers) == set(range(WORKERS))


def test_the_log_is_sound(history: History) -> None:
    """A full verification has no findings."""
    url, _, _ = history
    found = verify(open_log(url), REGISTRY)
    assert (found.findings, found.unchecked, found.streams) == ((), (), WORKERS + 1)


if __name__ == "__main__":
    fork(sys.argv[1])
