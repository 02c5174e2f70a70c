"""``kill -9`` of stream, publish, seal and rebuild at random instants, all running together, while a writer appends.

The variable ``REFOLD_KILLS`` is the number of processes to kill.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.reconcile import reconcile
from refold.pipelines.stream.stream import stream
from refold.warehouse.event_log import Appender, create_log, open_log, verify
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import open_generations

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("REFOLD_KILLS", "4"))
LONGEST = 0.8
"""Maximum seconds from a process's start of work to its kill."""
OPTIONS = beam_options(None, ["--direct_num_workers=2"])
COMMANDS = {
    "stream": ["stream", "--publish-every", "0.2"],
    "seal": ["seal"],
    "rebuild": ["rebuild", "--all", "--dead-letter"],
}


class Chaos:
    """The processes that run concurrently.

    Args:
        folder: holds log and read models.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def keep_running(self) -> None:
        """Start the processes that are not running."""
        for name, arguments in COMMANDS.items():
            if name not in self._running or self._running[name].poll() is not None:
                self._running[name] = self._started(arguments)

    def kill(self, name: str) -> None:
        """Kill a process, or the one that publishes for the stream."""
        victim = self._running["stream" if name == "publish" else name]
        pids = _children(victim.pid) if name == "publish" else [victim.pid]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if name != "publish":
            victim.wait()

    def wait(self, seconds: float) -> None:
        """Wait for some time."""
        with suppress(subprocess.TimeoutExpired):
            self._running["stream"].wait(timeout=seconds)

    def end(self) -> None:
        """Kill everything."""
        for name in list(self._running):
            self.kill(name)

    def _started(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "refold", "--domain", "orders", *arguments]
        command += ["--log", str(self._folder / "log"), "--read-models", str(self._folder / "read-models")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def _children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in children.read_text().split()]
    return []


@contextmanager
def writing(folder: Path) -> Iterator[list[int]]:
    """Append single commits from a process of its own, and collect the positions that it printed."""
    acknowledged: list[int] = []
    command = [sys.executable, __file__, str(folder / "log")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        acknowledged.append(int(process.stdout.readline()))
        yield acknowledged
        process.send_signal(signal.SIGTERM)
        acknowledged += map(int, process.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log with a first generation of read models."""
    log = create_log(str(tmp_path / "log"), domain_name="orders", bucket_count=8)
    append(Appender(log, ORDERS.registry), 0, 400)
    stream(log, "orders", str(tmp_path / "read-models"), OPTIONS, once=True)
    return tmp_path


def test_nothing_is_lost_or_applied_twice(folder: Path) -> None:
    """After all kills, read models equal those of a rebuild, and generation positions never decrease."""
    dice = random.Random(KILLS)
    chaos = Chaos(folder)
    names = [*COMMANDS, "publish"]
    try:
        with writing(folder) as acknowledged:
            give_up = monotonic() + 20 * KILLS + 60
            for _ in range(KILLS):
                assert monotonic() < give_up
                chaos.keep_running()
                chaos.wait(dice.uniform(0.3, 1.2 + LONGEST))
                chaos.kill(dice.choice(names))
    finally:
        chaos.end()
    log = open_log(str(folder / "log"))
    done = stream(log, "orders", str(folder / "read-models"), OPTIONS, once=True)
    assert done.position == log.head().position >= acknowledged[-1]
    assert acknowledged == sorted(set(acknowledged))
    assert verify(log, ORDERS.registry).findings == ()
    published = open_generations(str(folder / "read-models"), "orders")
    positions = [g.position for g in published.all()]
    assert positions == sorted(positions)
    assert reconcile(log, "orders", str(folder / "read-models"), OPTIONS).differences == ()


def append(appender: Appender, first: int, count: int) -> Iterator[int]:
    """Append orders and stock, a commit each."""
    from refold.warehouse.orders.sample_history import sample_history

    done = []
    for round_ in sample_history(10 * count, seed=first):
        for one in round_:
            done.append(appender.append(f"{one.stream_id}-{first}", one.events).last_position)
            if len(done) == count:
                return iter(done)
    return iter(done)


if __name__ == "__main__":
    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    appender = Appender(open_log(sys.argv[1]), ORDERS.registry)
    first = 1
    while going:
        for position in append(appender, first, 20):
            print(position, flush=True)
        first += 1
