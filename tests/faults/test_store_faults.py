"""The fault matrix: an action fails at any operation of its store, and nothing is lost, doubled or wrong.

After each fault the log is sound and shows what it did before, or the whole action. The action is then run again; it
completes, and the log is sound again, also after what a dead writer left is removed. ``REFOLD_FAULTS=all`` tries every
operation, a number so many of each action; ``REFOLD_FAULT_TABLE`` is a folder for the numbers of cases.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from refold.warehouse.event_log import Appender, EventLog, create_log, open_log, read_positions, verify
from refold.warehouse.object_store import ObjectStore, open_store
from tests.contracts.s3_servers import BUCKET, localbucket_server, moto_server, use_s3
from tests.faults import store_actions
from tests.faults.faulty_store import COMPLETED, COUNT, FAILED, KILLED, Case, Fault, run
from tests.warehouse.event_log.shop import REGISTRY, Placed, added, seal

pytestmark = pytest.mark.slow

SAMPLE = {"local": 3, "moto": 1, "localbucket": 1}
"""Operations of each action that fail, by store, unless all do."""
BEFORE: dict[str, tuple[str, ...]] = {
    "append": (),
    "bulk_import": (),
    "seal": (),
    "archive": ("seal",),
    "restore": ("seal", "archive"),
    "retain": ("seal", "archive"),
    "clean": ("seal",),
}
"""Each action, and what is done before it."""

Event = tuple[str, int, str, str, Any]


@pytest.fixture(scope="module", params=["local", "moto", "localbucket"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL below which the logs are; the environment is that of the store."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "local":
        yield str(folder)
        return
    server = {"moto": moto_server, "localbucket": localbucket_server}[request.param]
    with server(folder) as endpoint, pytest.MonkeyPatch.context() as environment:
        use_s3(environment, endpoint)
        environment.setenv("REFOLD_CACHE", str(folder / "cache"))
        yield f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def template(place: str) -> EventLog:
    """A log that was sealed twice, with an import, and with commits that are not sealed."""
    log = create_log(f"{place}/template", domain_name="shop", bucket_count=2)
    appender = Appender(log, REGISTRY)
    for turn in range(2):
        appender.append(f"order-{turn}", [Placed(customer="c", currency="EUR"), added()])
        seal(log)
    appender.append("order-2", [Placed(customer="c", currency="EUR")])
    appender.append("order-0", [added("mug")])
    return log


def copy_of(log: EventLog, url: str) -> EventLog:
    """Copy a log to another URL of the same store."""
    if log.store.is_local:
        shutil.copytree(log.url, url)
    else:
        target = open_store(url)
        for key in log.store.list_from(""):
            target.put(key, log.store.get(key))
    return open_log(url)


def events_of(log: EventLog) -> list[Event]:
    """Return all events, without what differs from run to run."""
    found = read_positions(log, REGISTRY, 0)
    return [(e.stream_id, e.stream_version, e.event_id, e.event_type, e.payload) for e in found]


def chosen(server: str, operations: int) -> Sequence[int]:
    """Return the operations that fail: all, as many as ``REFOLD_FAULTS`` says, or some, evenly distributed."""
    wanted = os.environ.get("REFOLD_FAULTS", str(SAMPLE[server]))
    if wanted == "all" or operations <= int(wanted):
        return range(1, operations + 1)
    return [1 + int((i + 0.5) * operations / int(wanted)) for i in range(int(wanted))]


def check(log: EventLog, *allowed: list[Event]) -> None:
    """Check that a log is sound and shows one of some histories."""
    found = verify(log, REGISTRY)
    assert (found.findings, found.unchecked) == ((), ())
    assert events_of(log) in allowed


@pytest.mark.parametrize("action", BEFORE)
def test_nothing_is_lost_doubled_or_wrong(
    template: EventLog, place: str, action: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whatever fails, the log is as before or as after, and the action completes when it is run again."""
    numbers, server = itertools.count(), request.node.callspec.params["place"]

    def prepared() -> tuple[EventLog, Path]:
        number = next(numbers)
        folder = tmp_path / str(number)
        folder.mkdir()
        log = copy_of(template, f"{place}/{action}-{number}/log")
        for name in BEFORE[action]:
            getattr(store_actions, name)(log, _beside(log, folder))
        return log, _beside(log, folder)

    def case(log: EventLog, folder: Path, operation: int, fault: Fault) -> Case:
        variables = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "REFOLD_"))}
        return Case(
            action=action,
            log_url=log.url,
            folder=str(folder),
            operation=operation,
            fault=fault,
            environment=variables,
        )

    log, folder = prepared()
    before = events_of(log)
    assert run(case(log, folder, 0, Fault.REFUSED)) == COMPLETED, (folder / "output.txt").read_text()
    after = events_of(log)
    check(log, after)
    counted: Counter[Fault] = Counter()
    for operation in chosen(server, int((folder / COUNT).read_text())):
        for fault in Fault:
            log, folder = prepared()
            assert run(case(log, folder, operation, fault)) in (COMPLETED, FAILED, KILLED), (operation, fault)
            check(log, before, after)
            getattr(store_actions, action)(log, folder)
            check(log, after)
            store_actions.clean(log, folder)
            check(log, after)
            counted[fault] += 1
            _remove(log.store, folder)
    _note(server, action, counted)


def _beside(log: EventLog, folder: Path) -> Path:
    """Return the folder of an archive: beside a local log, anywhere for another."""
    return Path(log.url).parent if log.store.is_local else folder


def _remove(store: ObjectStore, folder: Path) -> None:
    if store.is_local:
        shutil.rmtree(folder)


def _note(server: str, action: str, counted: Counter[Fault]) -> None:
    if folder := os.environ.get("REFOLD_FAULT_TABLE"):
        cases = {"action": action, "store": server, "cases": counted}
        Path(folder, f"{server}-{action}.json").write_text(json.dumps(cases))
