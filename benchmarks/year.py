"""A simulated year of a log: each day appended and sealed, what is no longer needed removed once a week.

``python -m benchmarks.year --json`` compares what the last week costs with what the first did: opening the log, one
append of a new process, a seal, ``refold status``; and counts files and bytes. The days pass as fast as they can be
written: each day's objects get the time of that day, which the removal goes by.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.sides import Measurement, print_result
from benchmarks.stream import DOMAIN, appends
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.cli.main import cli
from refold.pipelines.seal import seal
from refold.warehouse.event_log import Appender, EventLog, StreamAppend, create_log, open_log
from refold.warehouse.event_log.retention import apply_retention, plan_retention
from refold.warehouse.orders import ORDERS

_COMMIT = 500
_WEEK = 7
_START = datetime(2025, 1, 1, tzinfo=UTC)


class Seconds(NamedTuple):
    """What something took, by the clock and in CPU time, which other programs on the machine disturb less."""

    clock: float
    cpu: float


class Year:
    """A log that gets older.

    Args:
        folder: of the log.
        events: of a day.
    """

    def __init__(self, folder: Path, events: int) -> None:
        self._folder = folder
        self._events = events
        self._source = appends(3)
        self._dated: set[Path] = set()
        self._options = beam_options(None, ["--direct_num_workers=1"])
        self.days = 0
        create_log(str(folder), domain_name=DOMAIN)

    def next_day(self) -> dict[str, Seconds]:
        """Append and seal a day's events; return the time of what people wait for."""
        appender, made = Appender(self._log(), ORDERS.registry), 0
        while made < self._events:
            batch = _batch(self._source)
            appender.append_many(batch)
            made += sum(len(one.events) for one in batch)
        seconds = {
            "open": _timed(lambda: self._log().head()),
            "append": _timed(lambda: Appender(self._log(), ORDERS.registry).append_many([next(self._source)])),
            "status": _timed(lambda: _status(self._folder)),
            "seal": _timed(lambda: seal(self._log(), DOMAIN, self._options)),
        }
        self._date(_START + timedelta(days=self.days))
        self.days += 1
        if self.days % _WEEK == 0:
            log = self._log()
            seconds["gc"] = _timed(
                lambda: apply_retention(log, plan_retention(log, now=_START + timedelta(days=self.days)))
            )
            self._date(_START + timedelta(days=self.days))
        return seconds

    def size(self) -> Measurement:
        """Count the files, and compare their bytes with those of the live segments and stream heads."""
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        sealed = self._log().manifest()
        live = sum(s.bytes for s in sealed.segments) + sum(h.bytes for h in sealed.heads)
        size = sum(path.stat().st_size for path in files)
        kinds = Counter(path.relative_to(self._folder).parts[0] for path in files)
        return {
            "files": len(files),
            "files_of": dict(kinds),
            "bytes": size,
            "live_bytes": live,
            "bytes_per_live_byte": round(size / live, 2),
            "events": sealed.sealed_position,
            "manifest_bytes": max(path.stat().st_size for path in (self._folder / "manifests").iterdir()),
        }

    def _log(self) -> EventLog:
        return open_log(str(self._folder))

    def _date(self, day: datetime) -> None:
        """Give the new objects the time of a day."""
        found = {path for path in self._folder.rglob("*") if path.is_file()}
        for path in found - self._dated:
            os.utime(path, (day.timestamp(), day.timestamp()))
        self._dated = found


def _batch(source: Iterator[StreamAppend]) -> list[StreamAppend]:
    batch: list[StreamAppend] = []
    while sum(len(one.events) for one in batch) < _COMMIT:
        one = next(source)
        batch.append(StreamAppend(one.stream_id, one.events))
    return batch


def _timed(work: Callable[[], object]) -> Seconds:
    started, used = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - started, time.process_time() - used)


def _status(folder: Path) -> None:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        cli.main(["status", "--log", str(folder), "--json"], standalone_mode=False)


def _ratio(before: list[Seconds], after: list[Seconds], kind: str) -> Measurement:
    old, new = (statistics.median(getattr(one, kind) for one in week) for week in (before, after))
    return {
        "first_week_ms": round(old * 1000, 1),
        "last_week_ms": round(new * 1000, 1),
        "ratio": round(new / old, 2),
    }


@click.command()
@click.option("--days", type=int, default=365, show_default=True)
@click.option("--events", type=int, default=20_000, show_default=True, help="Of a day.")
@click.option("--folder", type=Path, default=Path("benchmark-data/year"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
def main(days: int, events: int, folder: Path, as_json: bool) -> None:
    """Compare the last week of a log's first year with its first week."""
    shutil.rmtree(folder, ignore_errors=True)
    year = Year(folder, events)
    measured = [year.next_day() for _ in range(days)]
    result: Measurement = {"days": days, **year.size()}
    first, last = measured[:_WEEK], measured[-_WEEK:]
    for name in dict.fromkeys(itertools.chain.from_iterable(measured)):
        before, after = ([day[name] for day in week if name in day] for week in (first, last))
        if before and after:
            result[name] = {"clock": _ratio(before, after, "clock"), "cpu": _ratio(before, after, "cpu")}
    print_result(result, as_json=as_json)


if __name__ == "__main__":
    main()
