"""The fault matrix: an action fails at any operation of its store, and nothing is lost, doubled or wrong.

After each fault the log is sound, and log and read models show what they did before, or the whole action. The action is
then run again; it completes, and all is sound again, also after what a dead writer left is removed. ``REFOLD_FAULTS``
is the number of cases of each action, or ``all``; ``REFOLD_FAULT_TABLE`` is a folder for their numbers.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.pipelines.rebuild.independent import reconcile_independently
from refold.warehouse.event_log import Appender, create_log, read_positions, verify
from refold.warehouse.read_models.generations.generations import CURRENT
from tests.contracts.s3_servers import BUCKET, localbucket_server, moto_server, use_s3
from tests.faults import store_actions
from tests.faults.faulty_store import APPLIES, AWAY, COMPLETED, COUNT, FAILED, KILLED, Case, Fault, run
from tests.faults.places import Place, Saved
from tests.faults.store_actions import DOMAIN, SHOP
from tests.warehouse.event_log.shop import Placed, added, seal

pytestmark = pytest.mark.slow

SAMPLE = {"local": 12, "moto": 3, "localbucket": 3}
"""Cases of each action, by store, unless all are wanted."""
BEFORE: dict[str, tuple[str, ...]] = {
    "append": (),
    "bulk_import": (),
    "seal": (),
    "archive": ("seal",),
    "restore": ("seal", "archive"),
    "retain": ("seal", "archive"),
    "clean": ("seal",),
    "rebuild": ("build",),
    "stream": ("build",),
    "publish": ("build",),
    "roll_back": ("build",),
    "collect": ("build",),
    "erase": ("visit", "build"),
}
"""Each action, and what is done before it."""
REMOVALS = ("retain", "clean", "collect")
"""They act on what is a day old, as no listing is."""

State = tuple[list[Any], list[Any]]
"""All events, and the rows that are published."""


@pytest.fixture(scope="module", params=["local", "moto", "localbucket"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL below which the places are; the environment is that of the store."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "local":
        yield str(folder)
        return
    server = {"moto": moto_server, "localbucket": localbucket_server}[request.param]
    with server(folder) as endpoint, pytest.MonkeyPatch.context() as environment:
        use_s3(environment, endpoint)
        environment.setenv("REFOLD_CACHE_DIR", str(folder / "cache"))
        yield f"s3://{BUCKET}/{uuid.uuid4().hex}"


def prepared(url: str, action: str) -> Place:
    """Make a log that was sealed twice, with an import, and with commits that are not sealed; prepare an action."""
    place = Place(f"{url}/{action}")
    log = create_log(f"{place.url}/log", domain_name="shop", bucket_count=2)
    appender = Appender(log, SHOP.registry)
    for turn in range(2):
        appender.append(f"order-{turn}", [Placed(customer="c", currency="EUR"), added()])
        seal(log)
    appender.append("order-2", [Placed(customer="c", currency="EUR")])
    appender.append("order-0", [added("mug")])
    for name in BEFORE[action]:
        getattr(store_actions, name)(place)
    return place


def state_of(place: Place) -> State:
    """Check that a log is sound, and return all events, without what differs from run to run, and what is published."""
    log = place.log
    log.personal_data.forget_keys()  # another process may have destroyed them
    found = verify(log, SHOP.registry)
    assert (found.findings, found.unchecked) == ((), ())
    events = read_positions(log, SHOP.registry, 0)
    known = [(e.stream_id, e.stream_version, e.event_id, e.event_type, e.payload) for e in events]
    return known, published(place)


def allowed(action: str, before: State, after: State) -> list[State]:
    """Return what there may be after a fault: what was before, what is after, and what is between steps."""
    if action != "erase":
        return [before, after]
    events = [before[0], after[0][:-1], after[0]]  # the keys are destroyed before the event that says so is appended
    return [(found, rows) for found in events for rows in (before[1], after[1])]


def published(place: Place) -> list[Any]:
    """Check that all generations have their files, and return the rows of the newest."""
    generations = place.generations
    paths = {g.number: generations.path(g) for g in generations.all()}
    if not paths:
        return []
    if generations.store.is_local:
        assert (Path(generations.store.url) / CURRENT).resolve() in paths.values()
    with closing(duckdb.connect(str(paths[max(paths)]), read_only=True)) as connection:
        tables = [model.name for model in SHOP.read_models]
        rows = [connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in tables]
        return [*connection.execute("SELECT position FROM refold.checkpoint").fetchall(), *rows]


def bring_back(place: Place) -> None:
    """Put the folder of a place back, in place of what was made there while it was gone."""
    shutil.rmtree(place.url, ignore_errors=True)
    Path(f"{place.url}{AWAY}").rename(place.url)


def cases_of(action: str, server: str, operations: Sequence[str]) -> Sequence[tuple[int, Fault]]:
    """Return the operations that fail, and how: all, as many as ``REFOLD_FAULTS`` says, or some."""
    kind = "disk" if server == "local" else "s3"
    numbered = enumerate(operations, start=1)
    found = [(n, f) for (n, name), f in itertools.product(numbered, Fault) if happens(f, name, kind, action)]
    wanted = os.environ.get("REFOLD_FAULTS", str(SAMPLE[server]))
    if wanted == "all" or len(found) <= int(wanted):
        return found
    return random.Random(f"{action} {server}").sample(found, int(wanted))


def happens(fault: Fault, operation: str, kind: str, action: str) -> bool:
    """Check whether a fault can happen at an operation."""
    operations, kinds = APPLIES[fault]
    stale = fault is Fault.STALE_LISTING and action in REMOVALS
    return operation in operations and kind in kinds and not stale


@pytest.mark.parametrize("action", BEFORE)
def test_nothing_is_lost_doubled_or_wrong(
    url: str, action: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whatever fails, all is as before or as after, and the action completes when it is run again."""
    server = request.node.callspec.params["url"]
    place = prepared(url, action)
    saved, before = Saved(place, tmp_path / "saved"), state_of(place)
    variables = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "REFOLD_"))}

    def ran(operation: int = 0, fault: Fault = Fault.KILLED_BEFORE) -> int:
        folder = tmp_path / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        case = Case(
            action=action, url=place.url, folder=str(folder), operation=operation, fault=fault, environment=variables
        )
        return run(case)

    assert ran() == COMPLETED, (tmp_path / "case" / "output.txt").read_text()
    operations = json.loads((tmp_path / "case" / COUNT).read_text())
    after = state_of(place)
    if after[1]:
        assert reconcile_independently(place.log, DOMAIN, place.read_models).differences == ()
    between, counted = allowed(action, before, after), Counter[Fault]()
    for operation, fault in cases_of(action, server, operations):
        where = f"{fault} at operation {operation} of {action}, {operations[operation - 1]}"
        saved.put_back()
        ended = ran(operation, fault)
        output = (tmp_path / "case" / "output.txt").read_text()
        assert ended in (COMPLETED, FAILED, KILLED), f"{where}: {output}"
        if fault is Fault.FOLDER_GONE:
            bring_back(place)
        assert state_of(place) in ([after] if ended == COMPLETED else between), f"{where}: {output}"
        assert ran() == COMPLETED, f"{where}: {output}"
        store_actions.clean(place)
        assert state_of(place) == after, f"{where}: {output}"
        counted[fault] += 1
        _note(server, action, counted)


def _note(server: str, action: str, counted: Counter[Fault]) -> None:
    if folder := os.environ.get("REFOLD_FAULT_TABLE"):
        cases = {"action": action, "store": server, "cases": counted}
        Path(folder, f"{server}-{action}.json").write_text(json.dumps(cases))
