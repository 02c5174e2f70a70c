"""Three writers append while any command that changes something runs beside them; all are killed with ``kill -9``.

Nothing is lost, doubled or wrong. The variable ``REFOLD_KILLS`` is the number of processes to kill.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.faults.killable import (
    History,
    Outcomes,
    Place,
    check_history,
    check_rows,
    complete,
    orphans,
    run_command,
    start,
    write,
)

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("REFOLD_KILLS", "12"))
KILLS_PER_ROUND = 50
"""After so many kills all processes end, and everything is checked."""
WRITERS = 3
PAUSE = 0.15
"""Mean seconds between two appends of a writer: more would only make the checks longer."""
COMMANDS_AT_ONCE = 2
IMPORTED = 60
DAY_AND_MORE = 25 * 3600
"""Leftovers are removed after a day, and superseded objects after an hour."""

COMMANDS: dict[str, list[str]] = {
    "seal": ["seal"],
    "rebuild": ["rebuild", "--dead-letter"],
    "rebuild --all": ["rebuild", "--all", "--dead-letter"],
    "rebuild --verify": ["rebuild", "--verify", "--dead-letter"],
    "stream": ["stream", "--publish-every", "0.2"],
    "stream --once": ["stream", "--once"],
    "serve --stream": ["serve", "--stream", "--port", "0", "--publish-every", "0.5"],
    "refresh": ["refresh", "--dead-letter"],
    "reconcile": ["reconcile"],
    "ingest": ["ingest"],
    "archive": ["archive", "--before", "1s", "--to"],
    "archive restore": ["archive", "restore"],
    "log gc": ["log", "gc", "--window", "1h", "--yes"],
    "log repair": ["log", "repair"],
    "log upgrade": ["log", "upgrade"],
    "generations gc": ["generations", "gc", "--keep", "1", "--yes"],
    "generations rollback": ["generations", "rollback"],
    "dead-letters retry": ["dead-letters", "retry"],
    "dead-letters discard": ["dead-letters", "discard", "1"],
    "dead-letters discard --undo": ["dead-letters", "discard", "--undo", "1"],
}
"""All commands that change the log, its archive or its read models, and one that only reads all of them."""
CODES = {0, 1}
"""1 is a documented refusal, such as that of a command that another one has outrun."""


class Chaos:
    """Writers and commands, started and killed at random.

    Args:
        place: where they work.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.dice = random.Random(KILLS)
        self.outcomes = Outcomes()
        self.imports: dict[str, int] = {}
        self.writers: dict[int, BaseProcess] = {}
        self.writer_runs = 0
        self._commands: list[tuple[str, BaseProcess, Path]] = []
        self._sessions: set[int] = set()
        self._started = 0

    @property
    def kills(self) -> int:
        """Number of processes that were killed while they ran."""
        return self.outcomes.killed.total()

    def step(self) -> None:
        """Start what is missing, wait, and kill one of all."""
        for worker in range(WRITERS):
            if worker not in self.writers:
                self.writers[worker] = self._start(write, self.place, worker, self.dice.getrandbits(32), PAUSE)
                self.writer_runs += 1
        while len(self._commands) < COMMANDS_AT_ONCE:
            self._commands.append(self._command(self.dice.choice([*COMMANDS])))
        threading.Event().wait(self.dice.choice([0.2, 1, 2.5]) * self.dice.random())
        if self.dice.random() < 0.2:
            self._kill_writer(self.dice.randrange(WRITERS))
        else:
            self._kill_command(self.dice.randrange(COMMANDS_AT_ONCE))
        assert all(writer.exitcode is None for writer in self.writers.values()), "a writer ended"
        self._commands = [one for one in self._commands if one[1].exitcode is None or self._note(*one)]

    def kill_all(self) -> None:
        """Kill all that run."""
        for worker in list(self.writers):
            self._kill_writer(worker)
        while self._commands:
            self._kill_command(0)

    def end(self) -> None:
        """Kill all, and wait for the processes that they have started."""
        self.kill_all()
        assert orphans(self._sessions) == set()
        self._sessions.clear()

    def _start(self, *arguments: object) -> BaseProcess:
        process = start(*arguments)  # type: ignore[arg-type]
        assert process.pid is not None
        self._sessions.add(process.pid)
        return process

    def _command(self, name: str) -> tuple[str, BaseProcess, Path]:
        self._started += 1
        arguments = list(COMMANDS[name])
        if name == "ingest":
            arguments.append(self._file())
        if name == "archive":
            arguments.append(str(self.place.folder / "cold"))
        output = self.place.folder / f"output-{self._started % 100}.txt"
        return name, self._start(run_command, self.place.command(*arguments), str(output)), output

    def _file(self) -> str:
        """Return a file to import: a new one, or one whose import may have been killed."""
        if self.imports and self.dice.random() < 0.5:
            return str(self.place.folder / f"{self.dice.choice([*self.imports])}.jsonl")
        name = f"import{len(self.imports)}"
        self.imports[name] = IMPORTED
        rows = [
            {
                "stream_id": f"till-{name}-{number % 7}",
                "event_id": f"{name}/{number}",
                "event_type": "Sold",
                "occurred_at": "2026-05-01T12:00:00Z",
                "payload": {"sku": f"sku-{number % 10}", "pieces": number, "price": "0.25"},
            }
            for number in range(IMPORTED)
        ]
        path = self.place.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def _kill_writer(self, worker: int) -> None:
        process = self.writers.pop(worker)
        process.kill()
        self.outcomes.note("writer", process, Path(os.devnull))

    def _kill_command(self, index: int) -> None:
        name, process, output = self._commands.pop(index)
        process.kill()
        self._note(name, process, output)

    def _note(self, name: str, process: BaseProcess, output: Path) -> bool:
        self.outcomes.note(name, process, output)
        return False


def age(folder: Path) -> None:
    """Make all files a day older, while no process relies on them: so collections have something to collect."""
    now = time.time()
    for path in folder.rglob("*"):
        os.utime(path, (now, path.lstat().st_mtime - DAY_AND_MORE), follow_symlinks=False)


def test_nothing_is_lost_doubled_or_wrong(tmp_path: Path) -> None:
    """The log is sound after each round, and read models show each event once; at the end nothing is left over."""
    place = Place(tmp_path)
    place.create()
    chaos = Chaos(place)
    complete(place, *COMMANDS["rebuild"])
    events: History = []
    try:
        while chaos.kills < KILLS:
            goal = min(KILLS, chaos.kills + KILLS_PER_ROUND)
            while chaos.kills < goal:
                chaos.step()
            chaos.end()
            events = check_history(place, chaos.imports, chaos.writer_runs)
            complete(place, *COMMANDS["stream --once"])
            check_rows(place, events)
            age(tmp_path)
    finally:
        chaos.kill_all()
        report(chaos, len(events))
    complete(place, *COMMANDS["generations gc"])
    complete(place, *COMMANDS["log gc"])
    assert check_history(place, chaos.imports, chaos.writer_runs) == events
    assert staged(tmp_path) == []
    complete(place, *COMMANDS["rebuild --all"])
    complete(place, "reconcile", "--independent")
    check_rows(place, events)
    assert not any("unexpected" in said for errors in chaos.outcomes.errors.values() for said in errors)
    assert {code for _, code in chaos.outcomes.ended} <= CODES


def staged(folder: Path) -> list[Path]:
    """List what dead processes have left: staged and unfinished objects."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in found if "staging" in path.parts or path.name.startswith(".refold-tmp-")]


def report(chaos: Chaos, events: int) -> None:
    """Write the counts to the file that ``REFOLD_KILLS_REPORT`` names."""
    if path := os.environ.get("REFOLD_KILLS_REPORT"):
        ended: Counter[str] = Counter()
        for (name, code), times in chaos.outcomes.ended.items():
            ended[f"{name}: exit {code}"] += times
        counts = {"kills": chaos.kills, "events": events, "writers": chaos.writer_runs, "imports": len(chaos.imports)}
        found = {**counts, "killed": chaos.outcomes.killed, "ended": ended, "errors": chaos.outcomes.errors}
        Path(path).write_text(json.dumps(found, indent=1))
