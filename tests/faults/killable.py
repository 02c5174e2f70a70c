"""Processes that may be killed at any time, writers and commands, and what must hold of a log after that.

They come from a fork server that has imported refold, so that nearly all of their time is work on the log.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import duckdb

from refold.event_schemas import ConcurrencyError, RecordedEvent
from refold.pipelines.cli.main import main
from refold.warehouse.event_log import Appender, NewEvent, create_log, open_log, read_positions, verify
from tests.faults.fragile import CASTING, Noted, Opened, Sold

ROOT = Path(__file__).parents[2]
TABLES = ("tills", "skus", "notes")
BAD_NOTE = "many"
"""A note that the read model ``notes`` cannot cast: its event becomes a dead letter."""
PATIENCE = 120
"""Seconds that a command may take once nothing else runs."""
ORPHAN_SECONDS = 60
"""Time in which the children of a killed process must end."""

History = Sequence[RecordedEvent]


def start(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a function in a process and a session of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "refold.pipelines.stream.stream", "refold.pipelines.rebuild.reconcile"])
    process = context.Process(target=_run, args=(dict(os.environ), function, *arguments))
    process.start()
    return process


def _run(environment: dict[str, str], function: Callable[..., object], *arguments: object) -> None:
    os.setsid()
    os.environ.update(environment, PYTHONPATH=str(ROOT))
    function(*arguments)


def run_command(arguments: Sequence[str], output: str) -> None:
    """Run the command line in this process, with its output in a file."""
    descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["refold", *arguments]
    main()


def complete(place: Place, *arguments: str) -> None:
    """Run a command to its end; nothing that was killed before may hinder it."""
    output = place.folder / "completed.txt"
    process = start(run_command, place.command(*arguments), str(output))
    process.join(PATIENCE)
    process.kill()
    process.join()
    assert process.exitcode == 0, output.read_text()


def orphans(sessions: set[int]) -> set[int]:
    """Wait until all processes of some sessions have ended; return those that have not."""
    give_up = monotonic() + ORPHAN_SECONDS
    while (left := processes_of(sessions)) and monotonic() < give_up:
        sleep(0.1)  # nobody reports the end of a process that is no child of this one
    return left


def processes_of(sessions: set[int]) -> set[int]:
    """Return the ids of all processes of some sessions."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = entry.read_text().rpartition(")")[2].split()[:4]
            if int(session) in sessions and state != "Z":
                found.add(int(entry.parent.name))
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with a log, its read models and archive, the journals of writers, and files to import.

    Attributes:
        folder: the folder.
        domain: path of the domain, which is :data:`CASTING` with or without endpoints.
    """

    folder: Path
    domain: str = "tests.faults.fragile:CASTING"

    @property
    def log(self) -> str:
        """URL of the log."""
        return str(self.folder / "log")

    @property
    def read_models(self) -> str:
        """URL of the read models."""
        return str(self.folder / "read-models")

    def create(self) -> None:
        """Create the log; its first event is a dead letter."""
        log = create_log(self.log, domain_name=CASTING.name, bucket_count=4)
        Appender(log, CASTING.registry).append("till-0", [Noted(note=BAD_NOTE)])

    def command(self, *arguments: str) -> list[str]:
        """Return a command line for this folder."""
        places = ["--domain", self.domain, "--log", self.log, "--read-models", self.read_models]
        return [*places, *arguments]

    def journal(self, worker: int) -> Path:
        """Return the journal of a writer."""
        return self.folder / f"journal-{worker}.jsonl"

    def acknowledged(self) -> Iterator[tuple[str, list[str], int, int]]:
        """Read stream, event ids, first position and stream version of each append that a writer journaled."""
        for path in self.folder.glob("journal-*.jsonl"):
            for line in path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    yield tuple(json.loads(line))

    def events(self) -> History:
        """Read the log."""
        return list(read_positions(open_log(self.log), CASTING.registry, 0))

    def rows(self) -> dict[str, list[Any]]:
        """Read the published tables as an analyst does."""
        path = self.folder / "read-models" / CASTING.name / "current.duckdb"
        with closing(duckdb.connect(str(path), read_only=True)) as connection:
            found = {name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in TABLES}
            letters = "SELECT position FROM refold.dead_letters ORDER BY ALL"
            return {**found, "dead letters": connection.execute(letters).fetchall()}


def write(place: Place, worker: int, seed: int, pause: float) -> None:
    """Append without end, half of the time with an expected version, and journal each acknowledged append."""
    dice, run = random.Random(seed), uuid.uuid4().hex[:12]
    appender = Appender(open_log(place.log), CASTING.registry)
    journal = os.open(place.journal(worker), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for number in count():
        stream_id = f"till-{dice.choice([f'shared-{dice.randrange(3)}', f'{worker}-{dice.randrange(20)}'])}"
        events = [
            NewEvent(payload=_payload(dice), event_id=f"{worker}:{run}:{number}:{part}")
            for part in range(dice.randint(1, 3))
        ]
        expected = appender.version(stream_id) if dice.random() < 0.5 else None
        with suppress(ConcurrencyError):
            done = appender.append(stream_id, events, expected_version=expected)
            line = [stream_id, [e.event_id for e in events], done.first_position, done.stream_version]
            os.write(journal, json.dumps(line).encode() + b"\n")
            os.fsync(journal)
        threading.Event().wait(dice.expovariate(1 / pause))


def _payload(dice: random.Random) -> object:
    kind = dice.random()
    if kind < 0.1:
        return Opened(owner=f"owner-{dice.randrange(5)}")
    if kind < 0.2:
        return Noted(note=BAD_NOTE if kind < 0.105 else str(dice.randrange(100)))
    return Sold(sku=f"sku-{dice.randrange(10)}", pieces=dice.randint(1, 9), price=Decimal(dice.randrange(999)) / 100)


def fold(events: History) -> dict[str, list[Any]]:
    """Compute the published tables from the events, in plain Python."""
    owners: dict[str, str | None] = {}
    sales: dict[str, list[Any]] = {}
    skus: dict[str, list[Any]] = {}
    notes: Counter[str] = Counter()
    letters = []
    for e in events:
        till, payload = e.stream_id, e.payload
        if e.event_type == "Noted":
            if payload["note"] == BAD_NOTE:
                letters.append((e.position,))
            else:
                notes[till] += int(payload["note"])
            continue
        owners.setdefault(till, None)
        if e.event_type == "Opened":
            owners[till] = payload["owner"]
            continue
        pieces, worth = sales.get(till, (0, Decimal(0)))
        sales[till] = [pieces + payload["pieces"], worth + payload["pieces"] * payload["price"]]
        skus[payload["sku"]] = [skus.get(payload["sku"], [0])[0] + payload["pieces"], till]
    return {
        "tills": sorted((till, owner, *sales.get(till, (0, Decimal(0)))) for till, owner in owners.items()),
        "skus": sorted((sku, *found) for sku, found in skus.items()),
        "notes": sorted(notes.items()),
        "dead letters": letters,
    }


def check_history(place: Place, imports: dict[str, int], runs: int) -> History:
    """Check that a log is sound, and that nothing in it is lost, doubled or wrong; return its events.

    Args:
        place: the log.
        imports: file to the number of its events; a file is imported as a whole, or not at all.
        runs: number of writers that were started; the last append of each may lack its acknowledgement.
    """
    found = verify(open_log(place.log), CASTING.registry)
    assert (found.findings, found.unchecked) == ((), ())
    events = place.events()
    assert [e.position for e in events] == list(range(1, len(events) + 1))
    versions: dict[str, int] = defaultdict(int)
    for e in events:
        versions[e.stream_id] += 1
        assert e.stream_version == versions[e.stream_id]
    by_id = {e.event_id: e for e in events}
    assert len(by_id) == len(events)
    acknowledged = set()
    for stream_id, event_ids, first, version in place.acknowledged():
        acknowledged.update(event_ids)
        appended = [by_id[event_id] for event_id in event_ids]
        assert [e.position for e in appended] == list(range(first, first + len(appended)))
        assert {e.stream_id for e in appended} == {stream_id}
        assert appended[-1].stream_version == version
    written = {i.rpartition(":")[0] for i in by_id if i.count(":") == 3 and i not in acknowledged}
    assert len(written) == len({append.rpartition(":")[0] for append in written}) <= runs
    imported = Counter(i.partition("/")[0] for i in by_id if "/" in i)
    assert {name: imports[name] for name in imported} == imported
    return events


def check_rows(place: Place, events: History) -> None:
    """Check that the published tables are those of the events, and name the rows that are not."""
    found, expected = place.rows(), fold(events)
    differing = {name: sorted(set(found[name]) ^ set(expected[name]), key=str) for name in expected}
    assert not any(differing.values()), differing
    assert found == expected


@dataclass(slots=True)
class Outcomes:
    """How processes ended: by command and exit code, with what those said that failed."""

    killed: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, int]] = field(default_factory=Counter)
    errors: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def note(self, name: str, process: BaseProcess, output: Path) -> None:
        """Note how a process ended."""
        process.join()
        code = process.exitcode
        assert code is not None
        if code == -9:
            self.killed[name] += 1
            return
        self.ended[name, code] += 1
        if code:
            self.errors[name][output.read_text()[-600:]] += 1
