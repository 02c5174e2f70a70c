"""A busy day in a few minutes: appends, a stream and a server with clients, seals, collections, and kills.

In the first half, a process is killed every 20 seconds. In the second half all grow old, and their memory, open files
and the number of files on the disk must not grow. ``REFOLD_SOAK_MINUTES`` is the length; ``REFOLD_SOAK_REPORT`` names a
file for what was measured.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic, time
from typing import Any

import httpx
import pytest

from refold.warehouse.declarations.endpoints import Lookup
from refold.warehouse.event_log import open_log
from tests.faults import fragile
from tests.faults.killable import (
    History,
    Place,
    check_history,
    check_rows,
    complete,
    orphans,
    processes_of,
    run_command,
    start,
    write,
)

pytestmark = pytest.mark.slow

SECONDS = 60 * float(os.environ.get("REFOLD_SOAK_MINUTES", "1"))
KILL_EVERY = min(20, SECONDS / 8)
MAINTAIN_EVERY = min(60, SECONDS / 6)
SAMPLE_EVERY = min(10, SECONDS / 12)
PAUSE = 0.001
"""Mean seconds between two appends of the writer: with the appends themselves, about a hundred commits a second."""
PUBLISH_EVERY = 2
CLIENTS = 2
THINK_SECONDS = 0.02
READY_SECONDS = 60
HOURS = 2 * 3600
"""A manifest of the last maintenance but one is made so old, because collections keep for an hour what it needs."""

DOMAIN = dataclasses.replace(
    fragile.CASTING, endpoints=(Lookup(path="/tills/{till}", table="tills", text="One till."),)
)
COMMANDS = {
    "stream": ["stream", "--publish-every", str(PUBLISH_EVERY)],
    "server": ["serve", "--port", "0"],
}
DOCUMENTED = {200, 404, 503}
"""404: the till has no row at the position that is shown; 503 with ``Retry-After``: nothing can be shown yet."""

Answer = tuple[int, str, Any]
"""Position that was shown, till, and its row or None."""


class Soak:
    """The processes, and what was measured of them.

    Args:
        place: where they work.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.dice = random.Random(7)
        self.runs: dict[str, int] = {}
        self.processes: dict[str, BaseProcess] = {}
        self.sessions: set[int] = set()
        self.url = ""
        self.server_changes = 0
        self.samples: list[dict[str, Any]] = []
        self.answers: list[Answer] = []
        self.latencies: list[float] = []
        self.failures: list[str] = []
        self.ended = threading.Event()
        self._changing = threading.Lock()
        self.began = monotonic()

    def start(self, name: str) -> None:
        """Start the writer, the stream or the server."""
        self.runs[name] = self.runs.get(name, 0) + 1
        output = self.place.folder / f"{name}-{self.runs[name]}.txt"
        if name == "writer":
            process = start(write, self.place, 0, self.dice.getrandbits(32), PAUSE)
        else:
            process = start(run_command, self.place.command(*COMMANDS[name]), str(output))
        assert process.pid is not None
        self.processes[name] = process
        self.sessions.add(process.pid)
        if name == "server":
            self._wait_until_ready(output)

    def kill(self, name: str) -> None:
        """Kill one of them, and start it again."""
        with self._changing:
            self.server_changes += name == "server"
            self.processes[name].kill()
            self.processes[name].join()
            self.start(name)
            self.server_changes += name == "server"

    def end(self) -> None:
        """Kill all."""
        self.ended.set()
        for process in self.processes.values():
            process.kill()
            process.join()
        assert orphans(self.sessions) == set()

    def _wait_until_ready(self, output: Path) -> None:
        give_up = monotonic() + READY_SECONDS
        while monotonic() < give_up:
            text = output.read_text() if output.exists() else ""
            if " at http://" in text:
                self.url = text.splitlines()[0].split()[-1]
                with suppress(httpx.TransportError):
                    if httpx.get(f"{self.url}/readyz", timeout=30).status_code == 200:
                        return
            threading.Event().wait(0.05)
        raise AssertionError(f"the server is not ready: {text}")

    def ask(self, client: int) -> None:
        """Ask for tills without end; positions never decrease, and only a server that was killed may not answer."""
        dice, shown = random.Random(client), 0
        with httpx.Client(timeout=30) as session:
            while not self.ended.wait(THINK_SECONDS):
                before, till, began = self.server_changes, f"till-0-{dice.randrange(20)}", monotonic()
                try:
                    answer = session.get(f"{self.url}/tills/{till}")
                except httpx.TransportError as error:
                    if before == self.server_changes and before % 2 == 0 and not self.ended.is_set():
                        self.failures.append(f"no answer: {error!r}")
                    continue
                self.latencies.append(monotonic() - began)
                if answer.status_code not in DOCUMENTED:
                    self.failures.append(f"{answer.status_code}: {answer.text}")
                elif answer.status_code != 503:
                    found = answer.json()
                    if found["position"] < shown:
                        self.failures.append(f"position {found['position']} after {shown}")
                    shown = found["position"]
                    self.answers.append((shown, till, found.get("data")))

    def measure(self) -> None:
        """Take a sample."""
        with self._changing:
            assert all(process.exitcode is None for process in self.processes.values())
            self._measure()

    def _measure(self) -> None:
        times = sorted(self.latencies)
        self.latencies.clear()
        files = files_of(self.place.folder / "log")
        commits = sum(path.parent.name == "commits" for path in files)
        sample: dict[str, Any] = {
            "seconds": round(monotonic() - self.began),
            "commit": open_log(self.place.log).head().commit,
            "requests": len(times),
            "p50_ms": round(1000 * times[len(times) // 2], 1) if times else None,
            "p99_ms": round(1000 * times[len(times) * 99 // 100], 1) if times else None,
            "commit_files": commits,
            "other_log_files": len(files) - commits,
            "read_model_files": len(files_of(self.place.folder / "read-models")),
        }
        for name, process in self.processes.items():
            assert process.pid is not None
            sample[f"{name}_mb"], sample[f"{name}_fds"] = resources(process.pid)
        self.samples.append(sample)


def files_of(folder: Path) -> list[Path]:
    """List all files below a folder that others change meanwhile."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def resources(session: int) -> tuple[int, int]:
    """Return the memory in MB and the number of open files of all processes of a session."""
    memory = descriptors = 0
    for pid in processes_of({session}):
        with suppress(OSError):
            memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
    return memory >> 20, descriptors


def maintain(place: Place) -> None:
    """Seal, and collect what was superseded for some time."""
    complete(place, "seal")
    now = time()
    for path in files_of(place.folder / "log" / "manifests"):
        if now - HOURS < (modified := path.stat().st_mtime) < now - MAINTAIN_EVERY:
            os.utime(path, (now, modified - HOURS))
    complete(place, "log", "gc", "--window", "1h", "--yes")
    complete(place, "generations", "gc", "--keep", "3", "--min-age", f"{MAINTAIN_EVERY}s", "--yes")


def every(seconds: float, until: float) -> Iterator[None]:
    """Return at a steady rate, until a time."""
    due = monotonic() + seconds
    while due < until:
        threading.Event().wait(max(due - monotonic(), 0))
        yield
        due = max(due + seconds, monotonic())


def repeat(seconds: float, until: float, work: Callable[[], None]) -> None:
    """Do something at a steady rate, until a time."""
    for _ in every(seconds, until):
        work()


def test_a_busy_day(tmp_path: Path) -> None:
    """Every event is counted once, every answer is right at the position that it shows, and nothing grows."""
    place = Place(tmp_path, f"{__name__}:DOMAIN")
    place.create()
    complete(place, "rebuild", "--dead-letter")
    soak = Soak(place)
    half, end = soak.began + SECONDS / 2, soak.began + SECONDS
    with ExitStack() as stack:
        stack.callback(soak.end)
        for name in ("writer", "stream", "server"):
            soak.start(name)
        threads = [threading.Thread(target=soak.ask, args=(n,)) for n in range(CLIENTS)]
        threads += [
            threading.Thread(target=repeat, args=(MAINTAIN_EVERY, end, lambda: maintain(place))),
            threading.Thread(target=repeat, args=(SAMPLE_EVERY, end, soak.measure)),
        ]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(soak.ended.set)
        for number, _ in enumerate(every(KILL_EVERY, half)):
            soak.kill(["server", "stream", "writer"][number % 3])
        threading.Event().wait(end - monotonic())
    report(soak)
    assert soak.failures == []
    check_growth(soak.samples)
    events = check_history(place, {}, soak.runs["writer"])
    complete(place, "stream", "--once")
    check_rows(place, events)
    check_answers(soak.answers, events)


def check_answers(answers: list[Answer], events: History) -> None:
    """Check every answer against the events up to the position that it shows."""
    states: dict[str, tuple[list[int], list[Any]]] = {}
    for e in events:
        if e.event_type == "Noted":
            continue
        positions, pieces = states.setdefault(e.stream_id, ([], []))
        positions.append(e.position)
        pieces.append((pieces[-1] if pieces else 0) + (e.payload["pieces"] if e.event_type == "Sold" else 0))
    assert answers
    for position, till, row in answers:
        positions, pieces = states.get(till, ([], []))
        index = bisect_right(positions, position) - 1
        assert (None if row is None else row["pieces"]) == (pieces[index] if index >= 0 else None)
        assert (row is None) == (index < 0)


def check_growth(samples: list[dict[str, Any]]) -> None:
    """Check that what is needed at the end is what was needed when the kills had just ended.

    Memory may grow by a quarter and 64 MB, because allocators keep what is free; open files by those of one more
    connection to each other process. Of the commits, those of four maintenances are kept: the one under way, the one
    before, whose manifest is too young, and two whose times do not meet those of the samples. Other files of the log
    are few and come in waves, because a seal writes some before it removes others; a generation of every publish is
    kept from one maintenance to the next but one.
    """
    old = samples[len(samples) // 2 :]
    first, last = old[len(old) // 6], old[-1]
    for name in ("writer", "stream", "server"):
        assert last[f"{name}_mb"] <= 1.25 * first[f"{name}_mb"] + 64, name
        assert last[f"{name}_fds"] <= first[f"{name}_fds"] + 16, name
    before = [s["commit"] for s in samples if s["seconds"] < last["seconds"] - 4 * MAINTAIN_EVERY] or [0]
    assert last["commit_files"] <= last["commit"] - before[-1]
    assert last["other_log_files"] <= first["other_log_files"] + 400
    assert last["read_model_files"] <= 4 * (2 * MAINTAIN_EVERY / PUBLISH_EVERY) + 50


def report(soak: Soak) -> None:
    """Write what was measured to the file that ``REFOLD_SOAK_REPORT`` names."""
    if path := os.environ.get("REFOLD_SOAK_REPORT"):
        found = {"runs": soak.runs, "answers": len(soak.answers), "failures": soak.failures, "samples": soak.samples}
        Path(path).write_text(json.dumps(found, indent=1))
