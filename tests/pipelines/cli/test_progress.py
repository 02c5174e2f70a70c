"""Progress: bars on a terminal, lines in a pipe."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path

import pytest
from rich.console import Console

from refold.event_schemas import UsageError
from refold.pipelines.cli.progress import (
    count_progress,
    import_progress,
    rebuild_progress,
    replay_text,
)
from refold.pipelines.ingest.ingest import ImportProgress
from refold.pipelines.rebuild.rebuild import RebuildProgress
from tests.pipelines.cli.running import answer, refold


def terminal() -> Console:
    """Return a terminal that records its output."""
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def shown_on(console: Console) -> str:
    """Return the recorded output, without colours."""
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


class Pipe(io.StringIO):
    """A pipe on which a test can wait for a text."""

    def __init__(self) -> None:
        super().__init__()
        self._written = threading.Condition()

    def write(self, text: str) -> int:
        """Write, and wake the test."""
        with self._written:
            count = super().write(text)
            self._written.notify_all()
            return count

    def wait_for(self, text: str) -> None:
        """Wait until a text is there."""
        with self._written:
            assert self._written.wait_for(lambda: text in self.getvalue(), timeout=60)


def test_a_pipe_gets_a_line_at_every_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines appear even if the work reports no progress, and no bar does; --quiet turns them off."""
    monkeypatch.setenv("REFOLD_PROGRESS_SECONDS", "0.001")
    pipe = Pipe()
    with rebuild_progress(quiet=False, console=Console(file=pipe)) as report:
        pipe.wait_for("start: working (0.")
        report(RebuildProgress("replay", 1, 2, 30))
        pipe.wait_for("replay: 1/2 (0.")
        report(RebuildProgress("load"))
        pipe.wait_for("load: working (0.")
    end = pipe.getvalue()
    assert re.fullmatch(r"((start|replay|load): (working|1/2.*) \([^)]+ s\)\n)+", end)
    with count_progress("seal", "events", quiet=True, console=Console(file=pipe)) as report_count:
        report_count(1, 2)
    assert pipe.getvalue() == end


def test_a_short_command_prints_no_line() -> None:
    """By default the first one comes after half a minute."""
    pipe = Console(file=io.StringIO())
    with rebuild_progress(quiet=False, console=pipe) as report:
        report(RebuildProgress("replay", 1, 2, 3))
    assert shown_on(pipe) == ""


@pytest.mark.parametrize("interval", ["often", "0", "-1"])
def test_an_invalid_interval_is_refused(interval: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid interval is a usage error."""
    monkeypatch.setenv("REFOLD_PROGRESS_SECONDS", interval)
    with (
        pytest.raises(UsageError, match="REFOLD_PROGRESS_SECONDS is"),
        rebuild_progress(quiet=False, console=Console(file=io.StringIO())),
    ):
        pass


@pytest.mark.slow
def test_a_command_in_a_pipe_shows_its_progress(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is on stderr, so that stdout is one JSON document."""
    monkeypatch.setenv("REFOLD_PROGRESS_SECONDS", "0.01")
    done = refold("rebuild", "inventory_status", "--json", folder=shop)
    assert answer(done)["generation"] == 2
    assert re.search(r"^replay: \S+.* \([^)]+ s\)$", done.stderr, re.MULTILINE)
    assert refold("rebuild", "inventory_status", "--json", "--quiet", folder=shop).stderr == ""


def test_bars_show_how_far_an_import_is() -> None:
    """The bar shows events and rejected rows."""
    console = terminal()
    with import_progress(quiet=False, console=console) as report:
        report(ImportProgress("identify", 10, 10))
        report(ImportProgress("read", 5, 10, 1_000, 2))
    shown = shown_on(console)
    assert "identify" in shown
    assert "1,000 events, 2 rows rejected" in shown


def test_the_speed_of_a_resumed_rebuild_is_that_of_this_run() -> None:
    """Objects of an earlier run do not count: 30 of 80 objects in 10 s are 30 events a second, and 10 s to go."""
    progress = RebuildProgress("replay", done=50, planned=80, events=800)
    assert replay_text(progress, 20, 10.0) == "50/80, 30 events/s, 10 s left"
    assert replay_text(progress, 50, 10.0) == "50/80", "nothing is known yet"
