"""Progress on a terminal: bars on stderr while work is done, and not a byte of them in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from refold.pipelines.ingest.ingest import ImportProgress
    from refold.pipelines.rebuild.rebuild import RebuildProgress

Report = Callable[[int, int | None], None]
"""Takes how much is done so far, and how much there is to do; None if that is not known."""


def _bars(console: Console | None) -> Progress:
    console = console or Console(stderr=True)
    return Progress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def bar(phase: str, unit: str, *, console: Console | None = None) -> Iterator[Report]:
    """Show a bar for work that counts up.

    Args:
        phase: what is done.
        unit: of what is counted, in the plural.
        console: where to; stderr by default.
    """
    started = time.monotonic()
    with _bars(console) as bars:
        task = bars.add_task(phase, total=None, told="")

        def report(done: int, total: int | None) -> None:
            of = f"/{total:,}" if total else ""
            told = f"{done:,}{of} {unit}{_rate(done, time.monotonic() - started, unit)}"
            bars.update(task, completed=done, total=total, told=told)

        yield report
        _finish(bars, task)


def _finish(bars: Progress, task: TaskID) -> None:
    whole = bars.tasks[bars.task_ids.index(task)].completed or 1
    bars.update(task, completed=whole, total=whole)


@contextmanager
def rebuild_bars(*, without: str = "", console: Console | None = None) -> Iterator[Callable[[RebuildProgress], None]]:
    """Show a bar for each phase of a rebuild: staged against planned objects, events a second, time left.

    Args:
        without: a phase that is not shown.
        console: where to; stderr by default.
    """
    with _bars(console) as bars:
        phases = _Phases(bars)

        def report(progress: RebuildProgress) -> None:
            if progress.phase != without:
                phases.enter(progress.phase, done=progress.done)
                told = replay_text(progress, phases.resumed_from, phases.seconds) if progress.planned else ""
                phases.update(progress.done, progress.planned, told)

        yield report
        phases.finish()


@contextmanager
def ingest_bars(*, console: Console | None = None) -> Iterator[Callable[[ImportProgress], None]]:
    """Show a bar for each phase of an import: how much of the files is through, events a second, rejected rows.

    Args:
        console: where to; stderr by default.
    """
    with _bars(console) as bars:
        phases = _Phases(bars)

        def report(progress: ImportProgress) -> None:
            phases.enter(progress.phase, done=progress.done)
            told = f"{progress.events:,} events{_rate(progress.events, phases.seconds, 'events')}"
            rejected = f", {progress.rejected:,} rows rejected" if progress.rejected else ""
            phases.update(progress.done, progress.total, (told + rejected) if progress.events or rejected else "")

        yield report
        phases.finish()


class _Phases:
    """One bar a phase; the one before is finished when the next begins.

    Attributes:
        resumed_from: how much of the present phase an earlier run had done.
    """

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._phase = ""
        self._task: TaskID | None = None
        self._started = time.monotonic()
        self.resumed_from = 0

    @property
    def seconds(self) -> float:
        """Since the present phase began."""
        return time.monotonic() - self._started

    def enter(self, phase: str, *, done: int) -> None:
        """Begin a phase, unless it is the present one."""
        if phase != self._phase:
            self.finish()
            self._phase, self._started, self.resumed_from = phase, time.monotonic(), done
            self._task = self._bars.add_task(phase, total=None, told="")

    def update(self, done: int, total: int, told: str) -> None:
        """Show how far the present phase is; a total of 0 is not known."""
        if self._task is not None and total:
            self._bars.update(self._task, completed=done, total=total, told=told)

    def finish(self) -> None:
        """Mark the present phase as done."""
        if self._task is not None:
            _finish(self._bars, self._task)


def replay_text(progress: RebuildProgress, resumed_from: int, seconds: float) -> str:
    """Tell how far a replay is, how fast it is, and how long it will take.

    Args:
        progress: as reported.
        resumed_from: how many objects were staged before this run; they say nothing about its speed.
        seconds: since it began.

    Example:
        >>> from types import SimpleNamespace as Reported
        >>> replay_text(Reported(done=20, planned=80, events=800), 0, 10.0)
        '20/80, 20 events/s, 30 s left'
    """
    staged = progress.done - resumed_from
    left = progress.planned - progress.done
    told = f"{progress.done}/{progress.planned}"
    if staged <= 0 or seconds <= 0:
        return told
    told += _rate(round(progress.events * staged / progress.planned), seconds, "events")
    return f"{told}, {round(seconds * left / staged)} s left" if left else told


def _rate(done: int, seconds: float, unit: str) -> str:
    return f", {round(done / seconds):,} {unit}/s" if seconds > 0.5 and done else ""
