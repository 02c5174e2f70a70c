"""Lag and catch-up speed of read models, with a writer in a separate process.

``python -m benchmarks.stream --json``:

- latency: a writer appends single commits at a steady rate; from the return of each append to the result of the first
  query of the stream's live database that shows its position, rows and checkpoint being of one transaction.
- sustained: a backlog of commits that are not sealed, applied by increments to all order read models.
- idle: the share of a core that a stream takes while nothing happens.
- memory: resident memory after a tenth of the micro-batches, and at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from benchmarks.sides import Measurement, measured, print_result, run_side
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.stream.stream import ProgressReport, Streamed, stream
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    StreamAppend,
    create_log,
    open_log,
)
from refold.warehouse.orders import ORDERS
from refold.warehouse.orders.sample_history import sample_history
from refold.warehouse.read_models.live.live_database import LiveDatabase

DOMAIN = "orders"
_SEED = 11
_COMMIT = 500
_SHOWN = "SELECT position, (SELECT count(*) FROM order_summary WHERE status = 'paid') FROM refold.checkpoint"


def appends(seed: int) -> Iterator[StreamAppend]:
    """Yield a shop's history, one append at a time, without end and without repeating a stream."""
    year = 0
    while True:
        for round_ in sample_history(50_000, seed=seed + year):
            for one in round_:
                yield StreamAppend(f"{one.stream_id}-y{year}", one.events, one.expected_version)
        year += 1


def make_log(folder: Path, events: int) -> EventLog:
    """Make a small log with published read models, to continue from."""
    shutil.rmtree(folder, ignore_errors=True)
    log = create_log(str(folder / "log"), domain_name=DOMAIN)
    fill(log, events, seed=_SEED)
    rebuild(log, DOMAIN, str(folder / "read-models"), beam_options(None))
    return log


def fill(log: EventLog, events: int, *, seed: int) -> int:
    """Append events, many to a commit, and return their number."""
    appender, source = Appender(log, ORDERS.registry), appends(seed)
    made = 0
    while made < events:
        batch: list[StreamAppend] = []
        while sum(len(one.events) for one in batch) < _COMMIT:
            batch.append(StreamAppend((one := next(source)).stream_id, one.events))
        appender.append_many(batch)
        made += sum(len(one.events) for one in batch)
    return made


def write(folder: Path, commits: int, rate: float) -> None:
    """Append single commits at a steady rate, and print position and time of each as it returned."""
    appender, source = Appender(open_log(str(folder / "log")), ORDERS.registry), appends(_SEED + 1000)
    first = next(source)
    appender.append(first.stream_id, first.events)  # which reads the stream heads
    started = time.monotonic()
    for number, one in zip(range(commits), source, strict=False):
        time.sleep(max(started + number / rate - time.monotonic(), 0))
        done = appender.append(one.stream_id, one.events)
        print(done.last_position, time.monotonic(), flush=True)


class _Reader:
    """Query the live database in a thread of its own, after each micro-batch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []
        self._live: LiveDatabase | None = None
        self._waiting = threading.Semaphore(0)
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> _Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._waiting.release()
        self._thread.join()

    def open(self, live: LiveDatabase) -> None:
        """Query this one from now on."""
        self._live = live

    def wake(self) -> None:
        """Take note of a micro-batch."""
        self._waiting.release()

    def _read(self) -> None:
        live, cursor = None, None
        while self._waiting.acquire() and not self._ended:
            if self._live is not live or cursor is None:
                live = self._live
                assert live is not None
                cursor = live.cursor()
            row = cursor.execute(_SHOWN).fetchone()
            assert row is not None
            self.seen.append((row[0], time.monotonic()))


def latency_side(folder: Path, commits: int, rate: float) -> Measurement:
    """Stream while another process writes."""
    command = [sys.executable, "-m", "benchmarks.stream", "--side", "write", "--folder", str(folder)]
    command += ["--commits", str(commits), "--rate", str(rate)]
    stop, micro_batches = threading.Event(), []
    appended: list[tuple[int, float]] = []

    def watch_writer() -> None:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                position, at = line.split()
                appended.append((int(position), float(at)))
        time.sleep(1)
        stop.set()

    def take(progress: ProgressReport) -> None:
        if progress.what == "micro_batch":
            micro_batches.append(progress.seconds)
            reader.wake()

    with _Reader() as reader:
        thread = threading.Thread(target=watch_writer)
        thread.start()
        _follow(folder, stop=stop.is_set, report=take, reader=reader)
        thread.join()
    delays = sorted(_delays(appended, reader.seen))
    return {
        "commits": len(delays),
        "rate": round(len(appended) / (appended[-1][1] - appended[0][1])),
        "p50_ms": round(statistics.median(delays) * 1000, 1),
        "p99_ms": round(delays[len(delays) * 99 // 100] * 1000, 1),
        "max_ms": round(delays[-1] * 1000, 1),
        "micro_batches": len(micro_batches),
        "micro_batch_p50_ms": round(statistics.median(micro_batches) * 1000, 1),
    }


def _delays(appended: list[tuple[int, float]], seen: list[tuple[int, float]]) -> Iterator[float]:
    shown = iter(seen)
    position, at = next(shown)
    for wanted, returned in appended:
        while position < wanted:
            position, at = next(shown)
        yield max(at - returned, 0.0)


def sustained_side(folder: Path) -> Measurement:
    """Apply the entire backlog by increments."""
    applying: list[ProgressReport] = []
    done = _follow(folder, once=True, report=lambda m: applying.append(m) if m.what == "micro_batch" else None)
    seconds = sum(m.seconds for m in applying)
    return {
        "events": done.events,
        "micro_batches": done.micro_batches,
        "apply_seconds": round(seconds, 2),
        "events_per_second": round(done.events / seconds),
    }


def idle_side(folder: Path, seconds: float) -> Measurement:
    """Follow a log to which nothing is appended."""
    stop = threading.Event()
    used: list[float] = []

    def measure(progress: ProgressReport) -> None:
        if progress.what == "open":
            threading.Thread(target=wait, daemon=True).start()

    def wait() -> None:
        time.sleep(2)
        before = time.process_time()
        time.sleep(seconds)
        used.append((time.process_time() - before) / seconds)
        stop.set()

    _follow(folder, stop=stop.is_set, report=measure)
    return {"idle_cpu_percent": round(used[0] * 100, 2)}


def memory_side(folder: Path, micro_batches: int) -> Measurement:
    """Run many micro-batches of one commit each, and compare memory at the start and the end."""
    log = open_log(str(folder / "log"))
    appender, source = Appender(log, ORDERS.registry), appends(_SEED + 2000)
    stop, resident = threading.Event(), []
    done = 0

    def next_micro_batch(progress: ProgressReport) -> None:
        nonlocal done
        if progress.what not in ("open", "micro_batch"):
            return
        done += progress.what == "micro_batch"
        if done % max(micro_batches // 10, 1) == 0:
            resident.append(_resident_mib())
        if done >= micro_batches:
            stop.set()
        one = next(source)
        appender.append(one.stream_id, one.events)

    _follow(folder, stop=stop.is_set, report=next_micro_batch)
    return {"micro_batches": done, "resident_mib": resident}


def _follow(
    folder: Path,
    *,
    once: bool = False,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[ProgressReport], None],
    reader: _Reader | None = None,
) -> Streamed:
    return stream(
        open_log(str(folder / "log")),
        DOMAIN,
        str(folder / "read-models"),
        beam_options(None),
        once=once,
        stop=stop,
        rebuild_if_cheaper=False,
        report=report,
        on_open=reader.open if reader else lambda _: None,
    )


def _resident_mib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


@click.command()
@click.option("--events", type=int, default=1_000_000, show_default=True, help="Of the backlog.")
@click.option("--commits", type=int, default=6_000, show_default=True, help="Of the writer.")
@click.option("--rate", type=float, default=200, show_default=True, help="Commits a second of the writer.")
@click.option(
    "--micro-batches",
    type=int,
    default=0,
    show_default=True,
    help="Number of micro-batches to run to check that memory stays flat.",
)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("benchmark-data/stream"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
@click.option("--side", type=click.Choice(["write", "latency", "sustained", "idle", "memory"]), hidden=True)
def main(
    events: int, commits: int, rate: float, micro_batches: int, folder: Path, as_json: bool, side: str | None
) -> None:
    """Measure how read models follow the log."""
    if side == "write":
        write(folder, commits, rate)
        return
    if side:
        work: dict[str, Callable[[], Measurement]] = {
            "latency": lambda: latency_side(folder, commits, rate),
            "sustained": lambda: sustained_side(folder),
            "idle": lambda: idle_side(folder, 20),
            "memory": lambda: memory_side(folder, micro_batches),
        }
        print(json.dumps(measured(work[side])))
        return
    options = ("--commits", str(commits), "--rate", str(rate), "--micro-batches", str(micro_batches))
    log = make_log(folder, 100_000)
    result: Measurement = {"idle": run_side("benchmarks.stream", "idle", folder, *options)}
    result["latency"] = run_side("benchmarks.stream", "latency", folder, *options)
    fill(log, events, seed=_SEED + 3000)
    result["sustained"] = run_side("benchmarks.stream", "sustained", folder, *options)
    if micro_batches:
        result["memory"] = run_side("benchmarks.stream", "memory", folder, *options)
    latency, sustained = result["latency"], result["sustained"]
    result |= {"events": events, "p50_ms": latency["p50_ms"], "p99_ms": latency["p99_ms"]}
    result |= {"events_per_second": sustained["events_per_second"], "peak_memory_mib": sustained["peak_memory_mib"]}
    print_result(result, as_json=as_json)


if __name__ == "__main__":
    main()
