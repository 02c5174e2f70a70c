"""Concurrent appends and reads of versions by several processes, some of which are killed, are linearizable.

``REFOLD_OPERATIONS`` is the number of operations that each of them does.
"""

from __future__ import annotations

import json
import os
import random
import threading
import uuid
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic

import pytest

from refold.event_schemas import ConcurrencyError, StoreError
from refold.warehouse.event_log import Appender, create_log, open_log, read_stream, verify
from tests.contracts.s3_servers import BUCKET, Faults, faulty_proxy, localbucket_server, use_s3
from tests.faults.fragile import CASTING, Opened
from tests.faults.killable import start
from tests.faults.linearizability import Operation, Outcome, is_linearizable

OPERATIONS = int(os.environ.get("REFOLD_OPERATIONS", "100"))
PROCESSES = 3
THREADS = 2
STREAMS = 3
READ, APPENDED, REFUSED = Outcome.READ, Outcome.APPENDED, Outcome.REFUSED


def read(called: float, answered: float, version: int) -> Operation:
    """Make a read."""
    return Operation(called=called, answered=answered, outcome=READ, version=version)


def append(called: float, answered: float, outcome: Outcome, expected: int | None, version: int) -> Operation:
    """Make an append of one event."""
    return Operation(called=called, answered=answered, outcome=outcome, version=version, count=1, expected=expected)


LOST = Operation(called=1, count=1, expected=0)
"""An append whose answer was lost."""
LINEARIZABLE = {
    "nothing": [],
    "one after the other": [append(1, 2, APPENDED, 0, 1), append(3, 4, REFUSED, 0, 1), read(5, 6, 1)],
    "a read beside an append sees it": [append(1, 4, APPENDED, 0, 1), read(2, 3, 1)],
    "a read beside an append does not see it": [append(1, 4, APPENDED, 0, 1), read(2, 3, 0)],
    "one of two wins": [append(1, 3, REFUSED, 0, 1), append(2, 4, APPENDED, 0, 1)],
    "a lost append had no effect": [LOST, read(2, 3, 0), append(4, 5, APPENDED, 0, 1)],
    "a lost append had its effect late": [LOST, read(2, 3, 0), read(4, 5, 1)],
}
NOT_LINEARIZABLE = {
    "a read of what is not there": [read(1, 2, 1)],
    "a stale read": [append(1, 2, APPENDED, 0, 1), read(3, 4, 0)],
    "a lost update": [append(1, 2, APPENDED, 0, 1), append(3, 4, APPENDED, 0, 1)],
    "both of two win": [append(1, 4, APPENDED, 0, 1), append(2, 3, APPENDED, 0, 1)],
    "a false conflict": [append(1, 2, APPENDED, 0, 1), append(3, 4, REFUSED, 1, 0)],
    "a conflict with what it expects": [append(1, 2, APPENDED, 0, 1), append(3, 4, REFUSED, 1, 1)],
    "a doubled append": [append(1, 2, APPENDED, 0, 1), read(3, 4, 2)],
    "reads that go back": [append(1, 9, APPENDED, 0, 1), read(2, 3, 1), read(4, 5, 0)],
    "a lost append had its effect, and then had not": [LOST, read(2, 3, 1), read(4, 5, 0)],
    "a lost append had its effect twice": [LOST, read(2, 3, 1), read(4, 5, 2)],
    "a lost append had its effect at another version": [LOST, append(0, 0.5, APPENDED, 0, 1), read(2, 3, 2)],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_the_checker_accepts(name: str) -> None:
    """What one log may answer is accepted."""
    assert is_linearizable(LINEARIZABLE[name])


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_the_checker_refuses(name: str) -> None:
    """What no log may answer is refused."""
    assert not is_linearizable(NOT_LINEARIZABLE[name])


def record(url: str, journal: str, seed: int) -> None:
    """Append to streams, and read their versions, from threads with an appender each; journal calls and answers.

    They expect the version that any of them saw last, so their own appender may not have read it yet.
    """
    seen: dict[str, int] = defaultdict(int)
    descriptor = os.open(journal, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def note(identity: str, stream_id: str, operation: Operation) -> None:
        line = {"id": identity, "stream": stream_id, **asdict(operation)}
        os.write(descriptor, json.dumps(line).encode() + b"\n")

    def work(dice: random.Random) -> None:
        appender = Appender(open_log(url), CASTING.registry)
        for _ in range(OPERATIONS):
            identity, stream_id = uuid.uuid4().hex, f"till-{dice.randrange(STREAMS)}"
            if dice.random() < 0.4:
                called = monotonic()
                seen[stream_id] = version = appender.version(stream_id)
                note(identity, stream_id, read(called, monotonic(), version))
                continue
            events = [Opened(owner=identity) for _ in range(dice.randint(1, 3))]
            expected = None if dice.random() < 0.2 else seen[stream_id]
            call = Operation(called=monotonic(), count=len(events), expected=expected)
            note(identity, stream_id, call)
            try:
                version = appender.append(stream_id, events, expected_version=expected).stream_version
                outcome = APPENDED
            except ConcurrencyError as error:
                version, outcome = error.actual_version, REFUSED
            except StoreError:
                continue
            seen[stream_id] = version
            note(identity, stream_id, replace(call, answered=monotonic(), outcome=outcome, version=version))

    threads = [threading.Thread(target=work, args=(random.Random(f"{seed}-{n}"),)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def histories(folder: Path) -> dict[str, list[Operation]]:
    """Read the journals: the last line of each operation is how it ended, as far as its process could know."""
    found: dict[str, dict[str, Operation]] = defaultdict(dict)
    for path in folder.glob("journal-*"):
        for line in path.read_text().splitlines():
            values = json.loads(line)
            stream_id, identity, outcome = values.pop("stream"), values.pop("id"), Outcome(values.pop("outcome"))
            found[stream_id][identity] = Operation(outcome=outcome, **values)
    return {stream_id: list(operations.values()) for stream_id, operations in found.items()}


def check(url: str, folder: Path, faults: Faults | None = None) -> None:
    """Run processes on a log, kill one after the other, and check what they saw and what is in the log."""
    log = create_log(url, domain_name=CASTING.name, bucket_count=2)
    dice, numbers = random.Random(OPERATIONS), iter(range(100))

    def started() -> BaseProcess:
        number = next(numbers)
        return start(record, url, str(folder / f"journal-{number}"), number)

    running = [started() for _ in range(PROCESSES)]
    try:
        for victim in running[:]:
            victim.join(dice.uniform(0.5, 2))
            if faults is not None:
                faults.lost_answers += 1
            victim.kill()
            running.append(started())
        for process in running[PROCESSES:]:
            process.join(300)
            assert process.exitcode == 0
    finally:
        for process in running:
            process.kill()
            process.join()
    recorded = histories(folder)
    outcomes = Counter(o.outcome for operations in recorded.values() for o in operations)
    assert min(outcomes[outcome] for outcome in (READ, APPENDED, REFUSED)) > 0
    assert verify(log, CASTING.registry).sound
    for stream_id, operations in recorded.items():
        last = read(monotonic(), monotonic(), len(list(read_stream(log, CASTING.registry, stream_id))))
        assert is_linearizable([*operations, last]), stream_id


@pytest.mark.slow
def test_on_a_disk(tmp_path: Path) -> None:
    """Processes on one disk."""
    check(str(tmp_path / "log"), tmp_path)


@pytest.mark.slow
def test_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes on an S3 server that loses answers now and then."""
    with localbucket_server(tmp_path) as endpoint, faulty_proxy(endpoint) as (proxy, faults):
        use_s3(monkeypatch, proxy)
        monkeypatch.setenv("REFOLD_CACHE", str(tmp_path / "cache"))
        check(f"s3://{BUCKET}/{uuid.uuid4().hex}", tmp_path, faults)
