"""Two processes of eight threads are sent each command twice, in random order: each has one effect and one answer.

Run as a program, this file is one of those processes. A third process is killed while it handles commands, which are
then sent again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

from refold.event_schemas import RecordedEvent
from refold.event_schemas.orders import ReceiveStock
from refold.warehouse.commands.decisions import Handled
from refold.warehouse.commands.handler import CommandHandler
from refold.warehouse.event_log import (
    EventLog,
    create_log,
    open_log,
    read_positions,
    verify,
)
from refold.warehouse.orders.domain import ORDERS

COMMANDS = int(os.environ.get("REFOLD_TEST_COMMANDS", "400"))
"""The number of different commands."""
THREADS = 8
STREAMS = 25
KILLED_AFTER = 40


def command(number: int) -> ReceiveStock:
    """Make one of the commands."""
    return ReceiveStock(sku=f"sku{number % STREAMS}", quantity=number + 1, unit_cost=Decimal(1))


def work(url: str, numbers: list[int]) -> None:
    """Handle commands from eight threads and print each answer."""
    handler = CommandHandler(open_log(url), ORDERS, snapshot_every=10, attempts=100)

    def one(number: int) -> None:
        answer = handler.handle(command(number), command_id=f"c{number}")
        assert isinstance(answer, Handled)
        result = [number, answer.position, answer.stream_id, answer.stream_version, answer.events, answer.repeated]
        os.write(sys.stdout.fileno(), json.dumps(result).encode() + b"\n")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, numbers))


def start(url: str, numbers: list[int]) -> subprocess.Popen[str]:
    """Start a process that handles these commands."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, __file__, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(numbers) + "\n")
    process.stdin.close()
    return process


def answers_of(process: subprocess.Popen[str]) -> Iterator[list[Any]]:
    """Read the answers that a process prints."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            yield json.loads(line)


def events_by_command(log: EventLog) -> dict[str, RecordedEvent]:
    """Read the log and map each command to its only event."""
    events = list(read_positions(log, ORDERS.registry, 0))
    found = {str(e.causation_id): e for e in events}
    assert len(found) == len(events)
    return found


def test_each_command_has_one_effect_and_one_answer(tmp_path: Path) -> None:
    """The log holds one event per command; both answers name that event, and exactly one is not marked as repeated."""
    log = create_log(str(tmp_path / "log"), domain_name="orders", bucket_count=4)
    sent = [*range(COMMANDS)] * 2
    random.Random(7).shuffle(sent)
    processes = [start(log.url, sent[side::2]) for side in range(2)]
    with ThreadPoolExecutor(2) as pool:
        answers = [a for received in pool.map(lambda p: list(answers_of(p)), processes) for a in received]
    assert [process.wait() for process in processes] == [0, 0]
    events = events_by_command(log)
    assert sorted(events) == sorted(f"c{n}" for n in range(COMMANDS))
    assert len(answers) == 2 * COMMANDS
    for number, position, stream_id, stream_version, count, _ in answers:
        event = events[f"c{number}"]
        assert (position, stream_id, stream_version, count) == (
            event.position,
            event.stream_id,
            event.stream_version,
            1,
        )
    assert sorted(number for number, *_, repeated in answers if not repeated) == list(range(COMMANDS))
    assert verify(log, ORDERS.registry).findings == ()


def test_commands_of_a_killed_process_take_effect_once(tmp_path: Path) -> None:
    """A client without an answer resends its command; a command that already took effect is not applied again."""
    log = create_log(str(tmp_path / "log"), domain_name="orders", bucket_count=4)
    process = start(log.url, [*range(1000)])
    acknowledged: dict[int, list[Any]] = {}
    for number, *answer in answers_of(process):
        acknowledged[number] = answer
        if len(acknowledged) == KILLED_AFTER:
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    handler = CommandHandler(log, ORDERS)
    answers = [handler.handle(command(n), command_id=f"c{n}") for n in range(200)]
    events = events_by_command(log)
    assert {f"c{n}" for n in range(200)} <= set(events)
    for number, handled in enumerate(answers):
        assert isinstance(handled, Handled)
        assert handled.position == events[f"c{number}"].position
    for number, (position, _, _, _, _) in acknowledged.items():
        assert position == events[f"c{number}"].position


if __name__ == "__main__":
    work(sys.argv[1], json.loads(sys.stdin.readline()))
