"""Progress of long commands on stderr: bars on a terminal; elsewhere a line now and then.

Without a terminal a log shows that the command is alive, and how far it is: a line every 30 seconds, or as
``REFOLD_PROGRESS_SECONDS`` says. ``--quiet`` turns both off. stdout never has any of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from refold.pipelines.cli.support.output import format_duration

if TYPE_CHECKING:
    from refold.pipelines.ingest.ingest import ImportProgress
    from refold.pipelines.rebuild.rebuild import RebuildProgress

Report = Callable[[int, int | None], None]
"""Takes how much is done, and how much there is to do; None if that is unknown."""

INTERVAL_VARIABLE = "REFOLD_PROGRESS_SECONDS"
_INTERVAL_SECONDS = 30.0
"""Often enough for a job that is killed after minutes of silence, rare enough for a log of many hours."""


class Display:
    """Shows one phase of work after another; this one shows nothing."""

    def enter(self, phase: str) -> None:
        """Begin a phase; the one before is done."""

    def update(self, done: int, total: int | None, text: str) -> None:
        """Show how far the phase is; a total of None or 0 is unknown."""

    def finish(self) -> None:
        """Mark the last phase as done."""


class _Bars(Display):
    """A bar for each phase."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def enter(self, phase: str) -> None:
        self.finish()
        self._task = self._bars.add_task(phase, total=None, text="")

    def update(self, done: int, total: int | None, text: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total or None, text=text)

    def finish(self) -> None:
        if self._task is not None:
            end = self._bars.tasks[self._bars.task_ids.index(self._task)].completed or 1
            self._bars.update(self._task, completed=end, total=end)


class _Lines(Display):
    """A line at every interval, also while the work reports nothing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._phase = ""
        self._text = ""

    def enter(self, phase: str) -> None:
        self._phase, self._text = phase, ""

    def update(self, done: int, total: int | None, text: str) -> None:
        self._text = text or (f"{done / total:.0%}" if total else "")

    def print_at_intervals(self, interval: float, stopped: threading.Event) -> None:
        """Print lines until stopped."""
        while not stopped.wait(interval):
            progress = f"{self._phase or 'start'}: {self._text or 'working'}"
            line = Text(f"{progress} ({format_duration(time.monotonic() - self._started)})", style="dim")
            with suppress(OSError, ValueError):  # nobody reads stderr any more
                self._console.print(line, soft_wrap=True)


@contextmanager
def display(*, quiet: bool, console: Console | None = None, bars: bool = True) -> Iterator[Display]:
    """Open what shows the progress of a command.

    Args:
        quiet: show nothing.
        console: where to; stderr by default.
        bars: whether to show bars on a terminal, and not only lines elsewhere.

    Raises:
        UsageError: the interval in the environment is invalid.
    """
    console = console or Console(stderr=True)
    if quiet or (console.is_terminal and not bars):
        yield Display()
    elif console.is_terminal:
        with _rich_progress(console) as progress:
            yield (shown := _Bars(progress))
            shown.finish()
    else:
        lines, stopped = _Lines(console), threading.Event()
        args = _interval(), stopped
        printer = threading.Thread(target=lines.print_at_intervals, args=args, daemon=True, name="progress")
        printer.start()
        try:
            yield lines
        finally:
            stopped.set()
            printer.join()


def _rich_progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _interval() -> float:
    from refold.event_schemas import UsageError

    text = os.environ.get(INTERVAL_VARIABLE)
    if not text:
        return _INTERVAL_SECONDS
    with suppress(ValueError):
        if (seconds := float(text)) > 0:
            return seconds
    raise UsageError(f"{INTERVAL_VARIABLE} is {text!r}; expected a number of seconds above 0, such as 30.")


@contextmanager
def count_progress(phase: str, unit: str, *, quiet: bool, console: Console | None = None) -> Iterator[Report]:
    """Show work that counts up.

    Args:
        phase: what is done.
        unit: what is counted, in the plural.
        quiet: show nothing.
        console: where to; stderr by default.
    """
    started = time.monotonic()
    with display(quiet=quiet, console=console) as shown:
        shown.enter(phase)

        def report(done: int, total: int | None) -> None:
            of_total = f"/{total:,}" if total else ""
            shown.update(done, total, f"{done:,}{of_total} {unit}{_rate(done, time.monotonic() - started, unit)}")

        yield report


@contextmanager
def rebuild_progress(
    *, quiet: bool, without: str = "", console: Console | None = None
) -> Iterator[Callable[[RebuildProgress], None]]:
    """Show each phase of a rebuild: staged and planned objects, events per second, time left.

    Args:
        quiet: show nothing.
        without: a phase that is not shown.
        console: where to; stderr by default.
    """
    with display(quiet=quiet, console=console) as shown:
        phase = _Phase(shown)

        def report(progress: RebuildProgress) -> None:
            if progress.phase != without:
                phase.enter(progress.phase, done=progress.done)
                if progress.planned:
                    text = replay_text(progress, phase.resumed_from, phase.seconds)
                    shown.update(progress.done, progress.planned, text)

        yield report


@contextmanager
def import_progress(*, quiet: bool, console: Console | None = None) -> Iterator[Callable[[ImportProgress], None]]:
    """Show each phase of an import: how much of the files is read, events per second, rejected rows.

    Args:
        quiet: show nothing.
        console: where to; stderr by default.
    """
    with display(quiet=quiet, console=console) as shown:
        phase = _Phase(shown)

        def report(progress: ImportProgress) -> None:
            phase.enter(progress.phase, done=progress.done)
            text = f"{progress.events:,} events{_rate(progress.events, phase.seconds, 'events')}"
            rejected = f", {progress.rejected:,} rows rejected" if progress.rejected else ""
            if progress.total:
                shown.update(progress.done, progress.total, text + rejected if progress.events or rejected else "")

        yield report


class _Phase:
    """The present phase of some work.

    Attributes:
        resumed_from: how much of it an earlier run had done.
    """

    def __init__(self, shown: Display) -> None:
        self._shown = shown
        self._name = ""
        self._started = time.monotonic()
        self.resumed_from = 0

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self._started

    def enter(self, name: str, *, done: int) -> None:
        """Begin a phase, unless it is the present one."""
        if name != self._name:
            self._name, self._started, self.resumed_from = name, time.monotonic(), done
            self._shown.enter(name)


def replay_text(progress: RebuildProgress, resumed_from: int, seconds: float) -> str:
    """Describe how far a replay is, its speed, and the time left.

    Args:
        progress: as reported.
        resumed_from: how many objects an earlier run had staged; they do not count for the speed.
        seconds: since the replay began.

    Example:
        >>> from types import SimpleNamespace as Reported
        >>> replay_text(Reported(done=20, planned=80, events=800), 0, 10.0)
        '20/80, 20 events/s, 30 s left'
    """
    staged = progress.done - resumed_from
    left = progress.planned - progress.done
    text = f"{progress.done}/{progress.planned}"
    if staged <= 0 or seconds <= 0:
        return text
    text += _rate(round(progress.events * staged / progress.planned), seconds, "events")
    return f"{text}, {round(seconds * left / staged)} s left" if left else text


def _rate(done: int, seconds: float, unit: str) -> str:
    return f", {round(done / seconds):,} {unit}/s" if seconds > 0.5 and done else ""
