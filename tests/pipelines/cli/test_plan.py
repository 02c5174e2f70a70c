"""A plan, and that a rebuild without names does exactly that."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from click.testing import CliRunner

from refold.event_schemas import Upcaster, event, upcaster
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.cli.main import cli
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.seal import seal
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import (
    Fold,
    Projection,
    ReadModel,
    View,
)
from refold.warehouse.declarations.reducers import (
    count,
    latest,
    maximum,
    total,
)
from refold.warehouse.event_log import Appender, EventLog, create_log
from refold.warehouse.event_log.new_events import NewEvent
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.read_models.generations.generations import (
    Generation,
    Generations,
    Measured,
    open_generations,
)
from refold.warehouse.read_models.planning.plan import RebuildPlan, Verdict, plan_rebuild
from refold.warehouse.read_models.planning.rate import DEFAULT_EVENTS_PER_SECOND, Rate, rate_of

HERE = "tests.pipelines.cli.test_plan"


@event(schema_version=2)
class Sold:
    """Pieces of an article went over a stall's counter."""

    sku: str
    quantity: int
    currency: str


@event(schema_version=1)
class Closed:
    """A stall was closed."""

    why: str


V1 = pa.schema([pa.field("sku", pa.string(), nullable=False), pa.field("quantity", pa.int64(), nullable=False)])
V1_WIDER = V1.append(pa.field("till", pa.string()))


@upcaster(Sold, from_version=1, schema=V1)
def add_currency() -> str:
    """Add euros as the currency."""
    return "SELECT *, 'EUR' AS currency FROM event"


@upcaster(Sold, from_version=1, schema=V1)
def add_dollars() -> str:
    """Add dollars as the currency."""
    return "SELECT *, 'USD' AS currency FROM event"


@upcaster(Sold, from_version=1, schema=V1_WIDER)
def add_currency_wider() -> str:
    """Forget the till."""
    return "SELECT sku, quantity, 'EUR' AS currency FROM event"


def remember(state: dict[str, Any] | None, sold: Any) -> dict[str, Any]:
    """Depend on the order of sales."""
    return {"path": ((state or {"path": 7})["path"] * 31 + sold.quantity) % 1_000_003}


def remember_otherwise(state: dict[str, Any] | None, sold: Any) -> dict[str, Any]:
    """Depend on it in another way."""
    return {"path": ((state or {"path": 7})["path"] * 37 + sold.quantity) % 1_000_003}


SKUS = Projection(
    name="skus",
    key={"sku": "VARCHAR"},
    columns={"pieces": total("BIGINT"), "currency": latest("VARCHAR")},
    on={Sold: "SELECT sku, quantity AS pieces, currency"},
)
STALLS = Projection(
    name="stalls",
    key={"stall": "VARCHAR"},
    columns={"why": latest("VARCHAR")},
    on={Closed: "SELECT stream_id AS stall, why"},
)
PATHS = Fold(
    name="paths", key={"sku": "VARCHAR"}, columns={"path": "BIGINT"}, on={Sold: "SELECT sku, quantity"}, fold=remember
)
SALES = Projection(
    name="sales", key={"sku": "VARCHAR"}, columns={"sales": count()}, on={Sold: "SELECT sku, 1 AS sales"}
)
BEST = View("best", "SELECT sku FROM skus ORDER BY pieces DESC LIMIT 1")


def _domain(*read_models: ReadModel, views: tuple[View, ...] = (BEST,), step: Upcaster = add_currency) -> Domain:
    return Domain(name="stall", events=(Sold, Closed), upcasters=(step,), read_models=read_models, views=views)


BASE = _domain(SKUS, STALLS, PATHS)
OTHER_HANDLER = dataclasses.replace(SKUS, on={Sold: "SELECT sku, 2 * quantity AS pieces, currency"})
CHANGED = _domain(OTHER_HANDLER, STALLS, PATHS, SALES)
FEWER = _domain(SKUS, STALLS, views=())
OTHER_VIEW = _domain(SKUS, STALLS, PATHS, views=(View("best", "SELECT sku FROM skus ORDER BY pieces LIMIT 1"),))


def _options() -> Any:
    return beam_options(None, ["--direct_num_workers=2"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stall with sales in both versions, published; tests only look at it."""
    folder = tmp_path_factory.mktemp("plan")
    log = create_log(str(folder / "log"), domain_name="stall", bucket_count=4)
    appender = Appender(log, BASE.registry)
    for number in range(40):
        old = NewEvent(payload={"sku": f"sku-{number % 5}", "quantity": number}, event_type="Sold", schema_version=1)
        new = Sold(sku="cup", quantity=1, currency="CHF")
        appender.append(f"stall-{number % 8}", [old, new, Closed(why="rain")])
    rebuild(log, f"{HERE}:BASE", str(folder / "read-models"), _options())
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of the stall, to change."""
    return shutil.copytree(built, tmp_path / "stall", symlinks=True)


def the_log(folder: Path) -> EventLog:
    """Open a folder's log."""
    return open_log(str(folder / "log"))


def the_generations(folder: Path) -> Generations:
    """Open a folder's published read models."""
    return open_generations(str(folder / "read-models"), "stall")


def the_newest(folder: Path) -> Generation:
    """Load a folder's newest generation."""
    found = the_generations(folder).newest()
    assert found is not None
    return found


def planned(folder: Path, domain: Domain, *, everything: bool = False) -> RebuildPlan:
    """Plan a rebuild."""
    return plan_rebuild(the_log(folder), domain, the_generations(folder), everything=everything)


def reasons(plan: RebuildPlan) -> dict[str, tuple[str, ...]]:
    """Return the reasons of each rebuild or drop."""
    return {m.name: m.reasons for m in plan.read_models if m.verdict is not Verdict.UNCHANGED}


def test_what_is_published_as_it_is_declared_is_no_work(built: Path) -> None:
    """The plan has no events, no time and no disk space."""
    plan = planned(built, BASE)
    assert {m.verdict for m in plan.read_models} == {Verdict.UNCHANGED}
    assert (plan.work, plan.events, plan.seconds, plan.disk_bytes, plan.behind) == (False, 0, 0.0, 0, 0)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (CHANGED, {"skus": ("handler Sold changed",), "sales": ("it was never built",)}),
        (FEWER, {"paths": ("it is no longer declared",)}),
        (
            _domain(dataclasses.replace(SKUS, columns={**SKUS.columns, "pieces": maximum("BIGINT")}), STALLS, PATHS),
            {"skus": ("declaration changed",)},
        ),
        (
            _domain(dataclasses.replace(SKUS, on={**SKUS.on, Closed: "SELECT why AS sku, 0 AS pieces"}), STALLS, PATHS),
            {"skus": ("handler Closed is new", "schema Closed v1 is new")},
        ),
        (
            _domain(SKUS, STALLS, PATHS, step=add_dollars),
            {"skus": ("upcaster Sold v1 changed",), "paths": ("upcaster Sold v1 changed",)},
        ),
        (
            _domain(dataclasses.replace(SKUS, on={Closed: "SELECT why AS sku, 0 AS pieces"}), STALLS, PATHS),
            {
                "skus": (
                    "handler Closed is new",
                    "schema Closed v1 is new",
                    "handler Sold is gone",
                    "schema Sold v1 is gone",
                    "upcaster Sold v1 is gone",
                    "schema Sold v2 is gone",
                )
            },
        ),
        (
            _domain(SKUS, STALLS, dataclasses.replace(PATHS, fold=remember_otherwise)),
            {"paths": ("declaration changed",)},
        ),
    ],
    ids=["handler", "removed", "column", "new handler", "upcaster", "other event", "fold"],
)
def test_each_change_is_reported_with_its_part(
    built: Path, domain: Domain, expected: dict[str, tuple[str, ...]]
) -> None:
    """Each changed read model has its reason, and unchanged ones are not in the plan."""
    plan = planned(built, domain)
    assert reasons(plan) == expected
    assert plan.work


def test_a_stored_schema_that_changes_is_a_change(built: Path) -> None:
    """A changed stored schema, which determines how events are read, is a reason to rebuild."""
    changed = reasons(planned(built, _domain(SKUS, STALLS, PATHS, step=add_currency_wider)))
    assert changed["skus"] == ("schema Sold v1 changed", "upcaster Sold v1 changed")


def test_a_view_change_is_separate(built: Path) -> None:
    """A changed view needs a publish, but no replay."""
    plan = planned(built, OTHER_VIEW)
    assert ([(v.name, v.verdict) for v in plan.views], plan.to_rebuild, plan.work) == (
        [("best", Verdict.CHANGED)],
        (),
        True,
    )


def test_before_the_first_publish_all_are_new(built: Path, tmp_path: Path) -> None:
    """Events are counted from the log; speed and sizes are defaults."""
    plan = plan_rebuild(the_log(built), BASE, open_generations(str(tmp_path), "stall"))
    assert plan.to_rebuild == ("skus", "stalls", "paths")
    assert {m.verdict for m in plan.read_models} == {Verdict.NEW}
    assert (plan.generation, plan.rate.measured) == (None, False)
    assert plan.disk_bytes > plan.bytes_read > 0


def test_read_models_of_another_log_must_all_be_rebuilt(built: Path, tmp_path: Path) -> None:
    """All are rebuilt, and the plan has the reason."""
    other = create_log(str(tmp_path / "log"), domain_name="stall", bucket_count=2)
    plan = plan_rebuild(other, BASE, the_generations(built))
    assert (plan.other_log, plan.to_rebuild) == (True, ("skus", "stalls", "paths"))
    assert {m.reasons for m in plan.read_models} == {("generation 1 was built from another log",)}


def test_events_and_bytes_are_those_that_a_rebuild_then_reads(folder: Path) -> None:
    """The numbers are exact if the log is sealed."""
    plan = planned(folder, BASE, everything=True)
    done = rebuild(the_log(folder), f"{HERE}:BASE", str(folder / "read-models"), _options())
    assert (plan.events, plan.bytes_read) == (done.events, done.bytes_read)
    assert [m.events for m in plan.read_models] == [80, 40, 80]


def test_no_event_is_read_for_it(folder: Path) -> None:
    """Without segments and published files a plan is the same."""
    before = planned(folder, CHANGED)
    shutil.rmtree(folder / "log" / "segments")
    shutil.rmtree(folder / "read-models" / "stall" / "files")
    assert planned(folder, CHANGED) == before


def test_what_is_not_sealed_is_counted_by_its_footers(folder: Path) -> None:
    """Unsealed events count for every read model, since a footer has no event types."""
    appender = Appender(the_log(folder), BASE.registry)
    appender.append("stall-1", [Closed(why="sun"), Closed(why="wind")])
    plan = planned(folder, CHANGED)
    assert (plan.unsealed_events, plan.behind) == (2, 2)
    assert {m.name: m.events for m in plan.read_models if m.to_rebuild} == {"skus": 82, "sales": 82}


def measured(folder: Path, **values: Any) -> Generation:
    """Return the newest generation with another measurement."""
    return dataclasses.replace(the_newest(folder), measured=Measured(**values))


def test_seconds_come_from_what_the_last_rebuild_took(built: Path) -> None:
    """A rebuild records its time; a short one gives the start-up, a long one the speed and serial share."""
    noted = the_newest(built).measured
    assert noted is not None
    assert (noted.events, noted.workers) == (200, 2)
    assert 0 < (noted.serial_seconds or 0) < noted.seconds
    short = rate_of(the_newest(built))
    assert (short.measured, short.events_per_second) == (False, 2 * DEFAULT_EVENTS_PER_SECOND)
    assert short.seconds(noted.events) == pytest.approx(noted.seconds)
    long = rate_of(measured(built, events=10_000_000, bytes_read=1, seconds=21.0, workers=4, serial_seconds=5.25))
    assert long == Rate(
        events_per_second=500_000.0,
        startup_seconds=1.0,
        workers=4,
        serial_share=0.25,
        measured=True,
        serial_measured=True,
    )
    assert (long.seconds(1_000_000), long.seconds(1_000_000, 1), long.seconds(1_000_000, 8)) == (3.0, 7.5, 2.25)
    assert long.seconds(10_000_000) == 21.0


def test_a_measurement_is_carried_on(folder: Path) -> None:
    """A publish without a replay keeps it, and so does a rebuild of far fewer events."""
    large = measured(folder, events=10_000_000, bytes_read=1, seconds=20.0, workers=4)
    store = the_generations(folder).store
    shutil.copyfile(store.local_path(large.file), folder / "copy.duckdb")
    file, _ = the_generations(folder).upload(folder / "copy.duckdb")
    assert the_generations(folder).publish(dataclasses.replace(large, number=2, file=file))
    rebuild(the_log(folder), f"{HERE}:CHANGED", str(folder / "read-models"), _options())
    assert the_newest(folder).measured == large.measured


# Rebuilding by plan, through the command line


def refold(*arguments: str, folder: Path, domain: str = f"{HERE}:BASE", code: int = 0) -> Any:
    """Run the command line as a process, and give its JSON document."""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "refold", *arguments, *_settings(folder, domain)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def call(*arguments: str, folder: Path, domain: str = f"{HERE}:BASE", code: int = 0) -> Any:
    """Run a command that starts no pipeline in this process, and give its JSON document, or else its error."""
    result = CliRunner().invoke(cli, [*arguments, *_settings(folder, domain)])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if result.stdout else result.stderr


def _settings(folder: Path, domain: str) -> list[str]:
    return ["--domain", domain, "--json", "--log", str(folder / "log"), "--read-models", str(folder / "read-models")]


def published(folder: Path) -> set[str]:
    """Name the tables and views of the newest file."""
    path = str(the_generations(folder).path(the_newest(folder)))
    with closing(duckdb.connect(path, read_only=True)) as connection:
        return {row[0] for row in connection.execute("SHOW TABLES").fetchall()}


@pytest.mark.slow
def test_a_rebuild_does_what_the_plan_says_and_only_that(folder: Path) -> None:
    """Changed and new read models are rebuilt and the others copied; a second rebuild does nothing."""
    domain = f"{HERE}:CHANGED"
    plan = call("plan", folder=folder, domain=domain, code=5)
    assert [m["name"] for m in plan["read_models"] if m["verdict"] != "unchanged"] == ["skus", "sales"]
    before = the_newest(folder)
    done = refold("rebuild", folder=folder, domain=domain)
    assert (done["published"], done["rebuilt"], done["events"]) == (True, ["skus", "sales"], plan["events"])
    after = the_newest(folder)
    assert after.tables["stalls"] == before.tables["stalls"]
    assert after.tables["skus"].checksum != before.tables["skus"].checksum
    assert call("plan", folder=folder, domain=domain)["work"] is False
    assert call("rebuild", folder=folder, domain=domain)["published"] is False
    assert the_newest(folder) == after
    assert refold("rebuild", "--all", folder=folder, domain=domain)["rebuilt"] == ["skus", "stalls", "paths", "sales"]


@pytest.mark.slow
def test_what_is_no_longer_declared_is_dropped(folder: Path) -> None:
    """Table and view go from the file, without a replay."""
    assert published(folder) == {"skus", "stalls", "paths", "best"}
    done = refold("rebuild", folder=folder, domain=f"{HERE}:FEWER")
    assert (done["rebuilt"], done["removed"], done["views"]) == ([], ["paths"], ["best"])
    assert published(folder) == {"skus", "stalls"}
    assert call("plan", folder=folder, domain=f"{HERE}:FEWER")["work"] is False


@pytest.mark.slow
def test_a_changed_view_is_published(folder: Path) -> None:
    """A changed view is published without a replay."""
    refold("rebuild", folder=folder, domain=f"{HERE}:OTHER_VIEW")
    path = str(the_generations(folder).path(the_newest(folder)))
    with closing(duckdb.connect(path, read_only=True)) as connection:
        assert connection.execute("FROM best").fetchall() == [("cup",)]
    assert the_newest(folder).tables["skus"] == the_generations(folder).get(1).tables["skus"]


def test_a_lag_is_no_reason_to_rebuild(folder: Path) -> None:
    """The plan reports the lag, and leaves it to a catch-up."""
    Appender(the_log(folder), BASE.registry).append("stall-1", [Closed(why="sun")])
    done = call("rebuild", folder=folder)
    assert (done["published"], done["behind"]) == (False, 1)


def test_the_printed_plan_has_reasons_and_costs(folder: Path) -> None:
    """The plan is a table and a sentence; without work it reports that, and the lag."""
    where = ["--log", str(folder / "log"), "--read-models", str(folder / "read-models")]
    shown = CliRunner().invoke(cli, ["plan", "--domain", f"{HERE}:CHANGED", *where])
    assert shown.exit_code == 5
    assert re.search(r"^skus +changed +80 .* handler Sold changed$", shown.stdout, re.MULTILINE)
    assert re.search(r"^sales +new +80 .* it was never built$", shown.stdout, re.MULTILINE)
    assert "To rebuild: 2 read models, 160 events to replay" in shown.stdout
    Appender(the_log(folder), BASE.registry).append("stall-1", [Closed(why="sun")])
    shown = CliRunner().invoke(cli, ["rebuild", "--domain", f"{HERE}:BASE", *where])
    assert "Nothing to rebuild: generation 1 has every read model as declared." in shown.stdout
    assert "Generation 1 is 1 event behind the log; `refold refresh` catches it up" in shown.stdout


def test_names_and_all_exclude_each_other(folder: Path) -> None:
    """Both together are a usage error."""
    assert "--all" in call("rebuild", "skus", "--all", folder=folder, code=2)


DESK = '''
"""A support desk."""
import pyarrow as pa
from refold.event_schemas import event, upcaster
from refold import Domain, Fold, Projection, latest


@event(schema_version=2)
class Opened:
    customer: str
    priority: str


@upcaster(Opened, from_version=1, schema=pa.schema([pa.field("customer", pa.string(), nullable=False)]))
def add_priority():
    return "SELECT *, 'normal' AS priority FROM event"


def remember(state, opened):
    return {"tickets": (state or {"tickets": 0})["tickets"] + 1}


FOLD = Fold(name="counted", key={"customer": "VARCHAR"}, columns={"tickets": "BIGINT"},
            on={Opened: "SELECT customer"}, fold=remember)
LAST = Projection(name="last", key={"customer": "VARCHAR"}, columns={"priority": latest("VARCHAR")},
                  on={Opened: "SELECT customer, priority"})
DESK = Domain(name="desk", events=(Opened,), upcasters=(add_priority,), read_models=(FOLD, LAST))
'''
LAID_OUT = (
    DESK.replace(
        "def remember(state, opened):\n", 'def remember(state, opened):\n    """Count tickets."""\n    # one each\n'
    )
    .replace('(state or {"tickets": 0})["tickets"] + 1', '(state or {"tickets": 0})[\n        "tickets"\n    ] + 1')
    .replace('"SELECT customer, priority"', '"""\n  select customer,  -- who\n         priority\n"""')
    .replace("\"SELECT *, 'normal' AS priority FROM event\"", "\"select *, 'normal' as priority   from event\"")
    .replace("class Opened:\n", 'class Opened:\n    """A ticket was opened."""\n\n')
)
CHANGED_DESK = DESK.replace("'normal'", "'low'").replace("+ 1}", "+ 2}")


@pytest.mark.slow
def test_format_comments_and_docstrings_are_no_change(tmp_path: Path) -> None:
    """In SQL and in Python, as files on disk; another upcaster and another fold are."""
    (tmp_path / "desk.py").write_text(DESK)
    row = {
        "stream_id": "t-1",
        "event_type": "Opened",
        "schema_version": 1,
        "event_id": "a",
        "payload": {"customer": "ada"},
    }
    (tmp_path / "t.jsonl").write_text(json.dumps({**row, "occurred_at": "2026-01-05T09:00:00Z"}))
    ingest = [sys.executable, "-m", "refold", "--domain", "desk:DESK", "--log", "log", "ingest", "t.jsonl"]
    subprocess.run(ingest, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    refold("rebuild", folder=tmp_path, domain="desk:DESK")
    (tmp_path / "desk.py").write_text(LAID_OUT)
    assert LAID_OUT.count("\n") == DESK.count("\n") + 9
    assert refold("plan", folder=tmp_path, domain="desk:DESK")["work"] is False
    (tmp_path / "desk.py").write_text(CHANGED_DESK)
    plan = refold("plan", folder=tmp_path, domain="desk:DESK", code=5)
    assert {m["name"]: m["reasons"] for m in plan["read_models"]} == {
        "counted": ["declaration changed", "upcaster Opened v1 changed"],
        "last": ["upcaster Opened v1 changed"],
    }


@pytest.mark.slow
def test_a_killed_rebuild_by_plan_is_resumed(folder: Path) -> None:
    """The next run has the same plan, and uses the staged objects."""

    def break_off(progress: Any) -> None:
        if progress.phase == "load":
            raise KeyboardInterrupt

    log, url = the_log(folder), str(folder / "read-models")
    seal(log, f"{HERE}:CHANGED", _options())
    names = planned(folder, CHANGED).to_rebuild
    with pytest.raises(KeyboardInterrupt):
        rebuild(log, f"{HERE}:CHANGED", url, _options(), only=names, report=break_off)
    assert planned(folder, CHANGED).to_rebuild == names
    assert refold("rebuild", folder=folder, domain=f"{HERE}:CHANGED")["resumed"] > 0
