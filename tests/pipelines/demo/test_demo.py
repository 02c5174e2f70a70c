"""The demo: a sample history in a log, appended once, even after a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refold.event_schemas import LogError, UsageError, event
from refold.pipelines.demo.demo import Demo, make_history, prepare
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log.new_events import NewEvent, StreamAppend
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.event_log.reads.read import read_positions
from refold.warehouse.orders import ORDERS
from refold.warehouse.orders.sample_history import sample_history

pytestmark = pytest.mark.slow


def test_prepare_writes_settings_and_finds_the_demo_again(tmp_path: Path) -> None:
    """Without --events and --seed, a second run uses the demo in the folder."""
    first = prepare(tmp_path / "demo", events=200, seed=3)
    assert prepare(tmp_path / "demo") == first == Demo(tmp_path / "demo", 200, 3)
    assert 'domain = "orders"' in (tmp_path / "demo" / "refold.toml").read_text()


@pytest.mark.parametrize("other", [{"events": 300}, {"seed": 4}, {"domain_ref": "trading"}])
def test_prepare_refuses_another_demo_in_the_same_folder(tmp_path: Path, other: dict[str, Any]) -> None:
    """Nothing is overwritten."""
    prepare(tmp_path / "demo", events=200, seed=3)
    with pytest.raises(UsageError, match="holds a demo of 200 events of domain orders with seed 3"):
        prepare(tmp_path / "demo", **other)


def test_prepare_rejects_a_log_that_is_no_demo(tmp_path: Path) -> None:
    """A log that may have real events is not used."""
    (tmp_path / "log").mkdir()
    with pytest.raises(UsageError, match="do not belong to a demo"):
        prepare(tmp_path)


def test_prepare_refuses_a_description_that_it_cannot_read(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "demo.json").write_text('{"events": 3, "more": 1}')
    with pytest.raises(UsageError, match="is invalid"):
        prepare(tmp_path)


class Killed(Exception):
    """Simulates a crash."""


def contents(demo: Demo) -> list[tuple[str, int, str]]:
    """List the events of a demo's log, by stream."""
    log = open_log(demo.log_url)
    found = [(e.stream_id, e.stream_version, e.event_id) for e in read_positions(log, ORDERS.registry, 0)]
    return sorted(found)


def test_a_killed_demo_resumes(tmp_path: Path) -> None:
    """After a resume the log has the exact history: no event is lost or duplicated."""
    demo = prepare(tmp_path / "demo", events=400, seed=3)

    def kill(there: int) -> None:
        if there > 200:
            raise Killed

    with pytest.raises(Killed):
        make_history(demo, report=kill)
    assert prepare(tmp_path / "demo").made == 0
    made = make_history(prepare(tmp_path / "demo"))
    expected = [
        (a.stream_id, (a.expected_version or 0) + index, e.event_id)
        for appends in sample_history(400, 3)
        for a in appends
        for index, e in enumerate(a.events, 1)
        if isinstance(e, NewEvent)
    ]
    assert contents(made) == sorted(expected)
    assert made.made == len(expected)
    assert prepare(tmp_path / "demo") == made == make_history(made)


@event(schema_version=1)
class DoorOpened:
    """A door was opened."""

    door: str


def open_doors(events: int, seed: int) -> Iterator[list[StreamAppend]]:
    """Open one door again and again."""
    for number in range(events):
        yield [StreamAppend("door-1", [DoorOpened(door=f"{seed}")], number)]


DOORS = Domain(name="doors", events=(DoorOpened,), sample_history=open_doors)


def test_any_domain_may_bring_a_sample_history(tmp_path: Path) -> None:
    """The demo appends it, and its settings name the domain."""
    reference = "tests.pipelines.demo.test_demo:DOORS"
    made = make_history(prepare(tmp_path / "demo", events=5, domain_ref=reference))
    assert [e.payload for e in read_positions(open_log(made.log_url), DOORS.registry, 0)] == [{"door": "7"}] * 5
    assert f'domain = "{reference}"' in (tmp_path / "demo" / "refold.toml").read_text()
    assert make_history(prepare(tmp_path / "demo")) == made


def test_a_domain_without_a_sample_history_has_no_demo(tmp_path: Path) -> None:
    """The error says what to declare."""
    with pytest.raises(UsageError, match=r"Domain trading has no sample history: .*sample_history="):
        make_history(prepare(tmp_path / "demo", domain_ref="trading"))


def test_a_finished_demo_whose_log_is_gone_is_an_error(tmp_path: Path) -> None:
    """The demo is not created again."""
    with pytest.raises(LogError, match="fewer events"):
        make_history(Demo(tmp_path / "demo", 400, 3, made=400))


def test_the_command_makes_rebuilds_and_shows_and_does_so_again(tmp_path: Path) -> None:
    """The second run keeps the history and publishes the next generation; what it shows stays the same."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "refold", "demo", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)

    first = run("--events", "200")
    assert (first.returncode, first.stderr) == (0, "")
    for part in ("Orders by customer", "Revenue dashboard", "Inventory status", "last updated", "refold query"):
        assert part in first.stdout
    again = run("--json", "--", "--direct_num_workers=1")
    assert (again.returncode, again.stderr) == (0, "")
    document = json.loads(again.stdout)
    assert document["generation"] == 2
    assert document["position"] == document["events"] >= 200
    assert document["read_models"]["inventory_status"][0]["sku"] in first.stdout
