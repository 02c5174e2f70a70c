"""The command line: what each command answers, to people and to machines, and how it fails.

What runs Beam, or must be seen on a real terminal, is run as a process of its own; the rest through click's runner.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click
import duckdb
import pyarrow as pa
import pytest
from click.testing import CliRunner
from rich.console import Console

from refold.event_schemas import ConcurrencyError, UsageError
from refold.event_schemas.orders import StockReceived
from refold.pipelines.beam.parsed_options import parse_options
from refold.pipelines.cli.main import cli
from refold.pipelines.cli.progress import (
    count_progress,
    import_progress,
    rebuild_progress,
    replay_text,
)
from refold.pipelines.cli.support.invocation import Invocation
from refold.pipelines.ingest.ingest import ImportProgress
from refold.pipelines.rebuild.rebuild import RebuildProgress
from refold.warehouse.event_log.append import Appender
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.new_events import NewEvent
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.object_store.records import checked_content, encode_record
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import open_generations
from refold.warehouse.read_models.lag import checkpoint_of, find_end, lag_of
from tests.pipelines.cli.running import Call, answer, refold

EVENTS = 300
RECEIVED = StockReceived(sku="cup", quantity=3, unit_cost=Decimal("1.5"), best_before=None)


# Running it


def on_terminal(*arguments: str, folder: Path) -> str:
    """Run the command line on a terminal of 120 columns, and give all that appears there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "refold", *arguments]
    environment = {**os.environ, "COLUMNS": "120", "LINES": "50", "TERM": "xterm"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b"".join(_read_all(ours))
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())


def _read_all(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(descriptor, 65_536)
        except OSError:  # Linux says so when the other side is closed
            return
        if not part:
            return
        yield part


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo, made once; tests only look at it."""
    folder = tmp_path_factory.mktemp("cli")
    refold("demo", "--events", str(EVENTS), "--json", folder=folder)
    return folder / "demo-data"


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    """A demo of one's own, to change."""
    return shutil.copytree(made, tmp_path / "shop", symlinks=True)


def append(folder: Path, *events: object, stream_id: str = "stock-cup") -> EventLog:
    """Append events to a folder's log, in one commit."""
    log = open_log(str(folder / "log"))
    Appender(log, ORDERS.registry).append(stream_id, events)
    return log


# Help, and how fast it is


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Name every command and group, with what leads to it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


COMMANDS = [((), cli), *commands(cli)]


def test_the_commands_are_those_of_the_design() -> None:
    """Each command has one name, and there are no others."""
    leaves = {" ".join(path) for path, command in COMMANDS if not isinstance(command, click.Group)}
    assert leaves == {
        *(
            "demo",
            "init",
            "ingest",
            "seal",
            "plan",
            "rebuild",
            "refresh",
            "reconcile",
            "capacity",
            "status",
            "query",
            "stream",
        ),
        "serve",
        *("log head", "log upgrade", "log repair", "log gc", "log rebucket", "log rewrite"),
        "erase",
        "archive restore",
        *("events tail", "events stream", "events trace", "events stats", "events verify"),
        *("schemas list", "schemas lock", "schemas check", "schemas dry-run"),
        *("generations list", "generations show", "generations diff", "generations rollback", "generations gc"),
        *("dead-letters list", "dead-letters show", "dead-letters retry", "dead-letters discard"),
    }


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_help_has_an_example_and_machines_have_json(path: tuple[str, ...], command: click.Command) -> None:
    """The example is a command line of this very command; ``--json`` and ``--debug`` are everywhere."""
    shown = CliRunner().invoke(cli, [*path, "--help"])
    assert shown.exit_code == 0
    example = shown.output.split("Example:\n")[1]
    assert example.strip().startswith(" ".join(["refold", *path]))
    if not isinstance(command, click.Group):
        assert "--json" in shown.output
        assert "--debug" in shown.output
        assert command.help


def test_examples_name_options_that_there_are() -> None:
    """Examples use only options that the command has."""
    for path, command in COMMANDS:
        if isinstance(command, click.Group):
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        options = re.findall(r"(?<= )--[a-z][a-z-]*", (command.epilog or "").split(" -- ")[0])
        assert set(options) <= known, path


def _modules_after(code: str, folder: Path) -> set[str]:
    """Run code and return the top-level modules that it loads."""
    program = f"import sys\n{code}\nprint(*{{m.split('.')[0] for m in sys.modules}}, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """Help loads no heavy library."""
    code = "from refold.pipelines.cli.main import cli\ncli.main(['--help'], standalone_mode=False)"
    loaded = _modules_after(code, tmp_path)
    assert "click" in loaded
    assert loaded.isdisjoint({"apache_beam", "duckdb", "pyarrow", "rich", "event_schemas", "warehouse"})


@pytest.mark.slow
def test_commands_that_only_look_never_import_beam(made: Path) -> None:
    """Read-only commands do not load Beam, whose import takes most of a second."""
    looking = [
        ["status"],
        ["query", "FROM order_summary LIMIT 1"],
        ["events", "tail"],
        ["events", "stream", "order-000001"],
        ["events", "trace", "cart-000001"],
        ["events", "stats"],
        ["events", "verify"],
        ["generations", "list"],
        ["generations", "diff", "1", "1"],
        ["generations", "gc"],
        ["schemas", "list"],
        ["schemas", "dry-run"],
        ["schemas", "check", "--against", str(Path(__file__).parents[3] / "event_schemas" / "orders.lock.json")],
        ["dead-letters", "list"],
        ["plan"],
        ["rebuild"],  # there is nothing to do
        ["capacity"],
        ["capacity", "--entities", "10"],
    ]
    code = (
        "from refold.pipelines.cli.main import cli\n"
        f"for a in {looking}: cli.main([*a, '--json'], standalone_mode=False)"
    )
    loaded = _modules_after(code, made)
    assert "duckdb" in loaded
    assert "apache_beam" not in loaded


# Errors


def test_an_error_of_ours_is_one_paragraph_and_its_exit_code(tmp_path: Path) -> None:
    """An error of refold prints one paragraph, without a traceback and with nothing on stdout."""
    done = refold("status", "--json", folder=tmp_path, code=1)
    assert done.stdout == ""
    [paragraph] = done.stderr.splitlines()
    assert paragraph.startswith("Error: There is no event log at")
    assert "refold demo" in paragraph


def test_debug_shows_where_it_happened(tmp_path: Path) -> None:
    """The traceback comes first; the paragraph and the exit code stay."""
    done = refold("--debug", "status", folder=tmp_path, code=1)
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: There is no event log at")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConcurrencyError("order-1", expected_version=1, actual_version=2), 3, "Load the stream and decide again"),
        (UsageError("Not valid\n   like this."), 2, "Error: Not valid like this."),
        (
            ValueError("odd"),
            1,
            "Error: `refold status` failed with an unexpected ValueError: odd. Run it again with --debug",
        ),
        (ValueError(), 1, "`refold status` failed with an unexpected ValueError. Run it"),
        (OSError(28, "No space left on device", "/srv/x"), 1, "failed: No space left on device: /srv/x. Run it again"),
        (PermissionError(), 1, "failed: PermissionError. Run it again"),
        (
            duckdb.IOException("IO Error: no disk\n\nLINE 1: FROM x\n     ^"),
            1,
            "failed in DuckDB: IO Error: no disk. Run",
        ),
        (duckdb.Error(), 1, "failed in DuckDB: Error. Run"),
        (
            pa.ArrowInvalid("Parquet magic bytes\nnot found."),
            1,
            "on Arrow or Parquet data: Parquet magic bytes not found. Run",
        ),
        (
            RuntimeError("Traceback (most recent call last):\n  x\nKeyError: 'a'\n    ^^^\n"),
            1,
            "RuntimeError: KeyError: 'a'. Run",
        ),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, message: str, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each error has the exit code of its class; unexpected errors have 1, Ctrl-C has 130."""

    def fail(_: Invocation) -> None:
        raise error

    monkeypatch.setattr(Invocation, "open_log", fail)
    result = call("status", folder=tmp_path, code=code)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["nope"], ["status", "--nope"], ["query"], ["events", "tail", "-n", "x"]])
def test_what_click_refuses_is_a_usage_error(arguments: list[str], call: Call, tmp_path: Path) -> None:
    """Exit code 2, with a pointer to the help."""
    assert "--help" in call(*arguments, folder=tmp_path, code=2).stderr


@pytest.mark.parametrize(
    ("runner", "arguments", "message"),
    [
        (None, ["--direct_num_workers=many"], "direct_num_workers"),
        (None, ["--no_such_option=1"], "no option --no_such_option"),
        ("NoSuchRunner", [], "NoSuchRunner"),
        (None, ["--runner=NoSuchRunner"], "NoSuchRunner"),
    ],
)
def test_beams_options_are_checked_before_anything_runs(runner: str | None, arguments: list[str], message: str) -> None:
    """Invalid options are a usage error; Beam would print its usage, or ignore them."""
    with pytest.raises(UsageError, match=message):
        parse_options(runner, arguments)


# Settings


def test_options_work_before_and_after_the_command(call: Call, made: Path, tmp_path: Path) -> None:
    """An option after the command overrides the same option before it."""
    where = ["--log", str(made / "log"), "--read-models", str(made / "read-models")]
    before = answer(call("--json", *where, "status", folder=tmp_path))
    after = answer(call("--log", "/nowhere", "status", "--json", *where, folder=tmp_path))
    assert before["log"] == after["log"]


def test_a_log_of_another_domain_is_refused(call: Call, made: Path) -> None:
    """Positions of one domain are not valid in another."""
    assert "belongs to domain 'orders'" in call("status", "--domain", "trading", folder=made, code=1).stderr


def test_a_domain_in_the_current_folder_is_found_by_its_path(tmp_path: Path) -> None:
    """A user's own package needs no installation; a settings file further up names it just as well."""
    package = tmp_path / "my_shop"
    package.mkdir()
    (package / "domain.py").write_text(
        "from refold.event_schemas import event\n"
        "from refold.warehouse.declarations.domain import Domain\n"
        "@event(schema_version=1)\n"
        "class DoorOpened:\n"
        "    door: str\n"
        'SHOP = Domain(name="my_shop", events=(DoorOpened,))\n'
    )
    found = answer(refold("schemas", "list", "--json", "--domain", "my_shop.domain:SHOP", folder=tmp_path))
    assert [s["event_type"] for s in found["schemas"]] == ["DoorOpened"]
    (tmp_path / "refold.toml").write_text('domain = "my_shop.domain:SHOP"')
    below = tmp_path / "notes"
    below.mkdir()
    assert answer(refold("--json", "schemas", "list", folder=below)) == found


# status


def test_status_of_what_is_caught_up(call: Call, made: Path) -> None:
    """Head, generation, no lag, and every read model at the generation's position."""
    document = answer(call("status", "--json", folder=made))
    head = document["log"]["position"]
    assert head >= EVENTS
    assert document["lag"] == {"events": 0, "seconds": 0.0}
    assert document["generation"]["number"] == 1
    assert {m["position"] for m in document["read_models"]} == {document["generation"]["position"]} == {head}
    assert {m["name"] for m in document["read_models"]} == {m.name for m in ORDERS.read_models}
    assert document["read_models"][0]["last_updated"] == document["generation"]["last_updated"]
    shown = call("status", folder=made).stdout
    assert "Lag         none" in shown
    assert "order_summary" in shown


def test_status_before_anything_is_published(call: Call, shop: Path) -> None:
    """Status is not an error without read models: it names the next step."""
    document = answer(call("status", "--json", "--read-models", "elsewhere", folder=shop))
    assert document["generation"] is None
    assert document["lag"]["events"] == document["log"]["position"]
    assert document["lag"]["seconds"] > 0
    assert "nothing is published yet" in call("status", "--read-models", "elsewhere", folder=shop).stdout


def test_the_lag_is_the_age_of_the_oldest_event_that_is_not_shown(shop: Path) -> None:
    """The age is read from the footer of the first commit that the generation lacks."""
    newest = open_generations(str(shop / "read-models"), "orders").newest()
    assert newest is not None
    append(shop, RECEIVED)
    log = append(shop, RECEIVED, RECEIVED)
    first = log.commit_info(newest.commit_number + 1)
    assert first is not None
    least = (datetime.now(UTC) - first.recorded_at).total_seconds()
    lag = lag_of(log, find_end(log), checkpoint_of(newest))
    most = (datetime.now(UTC) - first.recorded_at).total_seconds()
    assert lag.events == 3
    assert lag.seconds is not None
    assert least - 0.001 <= lag.seconds <= most + 0.001


def test_the_lag_is_known_when_the_commit_is_collected(shop: Path) -> None:
    """If the sealed commit is deleted, status reports a lower bound of the lag."""
    newest = open_generations(str(shop / "read-models"), "orders").newest()
    assert newest is not None
    log = append(shop, RECEIVED)
    end = find_end(log)
    log.store.delete(commit_key(end.commit_number))
    lag = lag_of(log, end, checkpoint_of(newest))
    assert lag.events == 1
    assert lag.seconds is not None
    assert lag.seconds > 0


def test_a_lag_beyond_the_objective_has_an_exit_code(call: Call, shop: Path) -> None:
    """The exit code is 4, for alerts of a scheduler."""
    call("status", "--max-lag", "0", folder=shop)
    append(shop, RECEIVED)
    call("status", "--max-lag", "3600", folder=shop)
    assert "above --max-lag" in call("status", "--max-lag", "0", "--json", folder=shop, code=4).stderr


def test_read_models_of_another_log_are_not_compared(call: Call, shop: Path) -> None:
    """Status shows no lag: the positions belong to another log."""
    path = shop / "log" / "refold.json"
    config = json.loads(checked_content(path.read_bytes()))
    path.unlink()
    path.write_bytes(encode_record({**config, "log_id": "another"}))
    result = call("status", "--json", folder=shop)
    assert answer(result)["lag"]["seconds"] is None
    assert "another log" in result.stderr


# query


def test_query_as_json_has_its_position(call: Call, made: Path) -> None:
    """Position and last_updated beside the rows; decimals as text, exactly."""
    document = answer(call("query", "--json", "SELECT 1.10::DECIMAL(9,2) AS a, 2 AS b, 3 AS b", folder=made))
    status = answer(call("status", "--json", folder=made))
    assert document["columns"] == ["a", "b", "b_2"]
    assert document["rows"] == [{"a": "1.10", "b": 2, "b_2": 3}]
    assert document["position"] == status["generation"]["position"]
    assert document["last_updated"] == status["generation"]["last_updated"]
    assert answer(call("query", "--json", "FROM order_summary WHERE false", folder=made))["rows"] == []
    odd = "SELECT (2**100)::HUGEINT AS huge, 'a'::BLOB AS bytes, TIMESTAMPTZ '2025-01-01 00:00+01' AS at, [1.5] AS list"
    assert answer(call("query", "--json", odd, folder=made))["rows"] == [
        {"huge": str(2**100), "bytes": "61", "at": "2024-12-31T23:00:00+00:00", "list": ["1.5"]}
    ]


def test_query_in_a_pipe_gives_every_row_and_the_footer_on_stderr(call: Call, made: Path) -> None:
    """Rows and values are complete, at any width and length."""
    result = call("query", "SELECT i, repeat('x', 300) AS wide FROM range(1500) r(i)", folder=made)
    lines = result.stdout.splitlines()
    assert len(lines) == 1501
    assert lines[-1].split() == ["1,499", "x" * 300]
    assert re.fullmatch(r"position [\d,]+, last updated \S+ \S+Z, generation 1\n", result.stderr)


def test_query_on_a_terminal_shows_a_screenful(made: Path) -> None:
    """The table is cut to the screen, and the footer says how to see all rows."""
    shown = on_terminal("query", "SELECT 'row-' || i AS name FROM range(250) r(i)", folder=made)
    assert len(re.findall(r"row-\d+", shown)) == 100
    assert "--limit 0" in shown
    assert (
        len(
            re.findall(
                r"row-\d+", on_terminal("query", "--limit", "0", "FROM range(9) r(i) SELECT 'row-' || i", folder=made)
            )
        )
        == 9
    )


def test_query_as_csv(call: Call, made: Path) -> None:
    """CSV has plain values, and lists as JSON."""
    result = call(
        "query", "--csv", "SELECT 1234.50::DECIMAL(9,2) AS a, 'x,y' AS b, [1, 2] AS c, NULL AS d", folder=made
    )
    assert list(csv.reader(io.StringIO(result.stdout))) == [["a", "b", "c", "d"], ["1234.50", "x,y", "[1,2]", ""]]
    call("query", "--csv", "--json", "SELECT 1", folder=made, code=2)


def test_a_limit_is_reported(call: Call, made: Path) -> None:
    """A truncated result is marked as such."""
    result = call("query", "--limit", "2", "--csv", "FROM range(3)", folder=made)
    assert len(result.stdout.splitlines()) == 3
    assert "The first 2 rows" in result.stderr
    assert "The first" not in call("query", "--limit", "3", "--csv", "FROM range(3)", folder=made).stderr


@pytest.mark.parametrize(
    ("sql", "code", "message"),
    [
        ("SELEC 1", 2, "syntax error"),
        ("FROM nowhere", 2, "nowhere does not exist"),
        ("SELECT nothing FROM order_summary", 2, "nothing"),
        ("DELETE FROM order_summary", 2, "read-only"),
        ("CREATE TABLE more (i INTEGER)", 2, "read-only"),
        ("SELECT CAST(city AS INTEGER) FROM order_summary", 1, "Could not convert"),
        ("SELECT error('late') FROM range(5000) r(i) WHERE i = 4999", 1, "late"),
    ],
)
def test_a_query_that_fails_says_why(sql: str, code: int, message: str, call: Call, made: Path) -> None:
    """The error is one paragraph on stderr, with nothing on stdout."""
    result = call("query", "--json", sql, folder=made, code=code)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_query_without_anything_published_is_an_error(call: Call, made: Path, tmp_path: Path) -> None:
    """The error names the command to run."""
    result = call("query", "SELECT 1", "--read-models", str(tmp_path), folder=made, code=1)
    assert "Nothing is published" in result.stderr
    assert "refold rebuild" in result.stderr


# events


def test_tail_shows_the_last_events(call: Call, made: Path) -> None:
    """The newest last, every column of the log."""
    document = answer(call("events", "tail", "--count", "3", "--json", folder=made))
    positions = [event["position"] for event in document["events"]]
    assert positions == [document["position"] - 2, document["position"] - 1, document["position"]]
    assert set(document["events"][0]) >= {"stream_id", "event_type", "schema_version", "correlation_id", "payload"}
    assert len(call("events", "tail", "-n", "3", folder=made).stdout.splitlines()) == 3


def test_stream_shows_one_stream_or_a_part_of_it(call: Call, made: Path) -> None:
    """By stream version; a stream that is not there has no events."""
    whole = answer(call("events", "stream", "order-000001", "--json", folder=made))["events"]
    assert [event["stream_version"] for event in whole] == list(range(1, len(whole) + 1))
    part = answer(call("events", "stream", "order-000001", "--from", "2", "--to", "3", "--json", folder=made))["events"]
    assert part == whole[1:3]
    nothing = call("events", "stream", "nobody", folder=made)
    assert (nothing.stdout, nothing.stderr) == ("", "No events.\n")


def test_trace_follows_a_correlation(call: Call, made: Path) -> None:
    """Across streams, with what caused each event."""
    found = answer(call("events", "trace", "cart-000001", "--json", folder=made))["events"]
    assert {event["correlation_id"] for event in found} == {"cart-000001"}
    assert found[0]["event_type"] == "OrderPlaced"
    assert f"caused by {found[0]['causation_id']}" in call("events", "trace", "cart-000001", folder=made).stdout


def test_tail_follows_new_commits_until_ctrl_c(shop: Path) -> None:
    """Each event is one JSON document on a line; Ctrl-C is how it ends, not an error."""
    command = [sys.executable, "-m", "refold", "events", "tail", "-n", "1", "--follow", "--json"]
    with subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        last = json.loads(process.stdout.readline())["position"]
        append(shop, RECEIVED, RECEIVED)
        append(shop, RECEIVED)
        followed = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
    assert [event["position"] for event in followed] == [last + 1, last + 2, last + 3]
    assert followed[0]["payload"]["unit_cost"] == "1.5000"


def test_stats_count_events_by_shape(call: Call, made: Path) -> None:
    """Counts per schema add up to the events of the log."""
    document = answer(call("events", "stats", "--json", folder=made))
    assert sum(schema_key["events"] for schema_key in document["schemas"]) == document["events"]
    assert "OrderPlaced v1" in call("events", "stats", folder=made).stdout


def test_verify_finds_damage(call: Call, shop: Path) -> None:
    """Exit code 1, and each finding says where."""
    assert answer(call("events", "verify", "--json", folder=shop))["sound"]
    [segment, *_] = (shop / "log" / "segments").rglob("*.parquet")
    damaged = segment.read_bytes()[:-8]
    segment.unlink()
    segment.write_bytes(damaged)
    document = answer(call("events", "verify", "--json", folder=shop, code=1))
    assert not document["sound"]
    assert segment.name in call("events", "verify", folder=shop, code=1).stdout


# schemas, generations


def test_schemas_list_says_what_old_events_become(call: Call, made: Path) -> None:
    """Each shape, by which upcaster, with its fields."""
    found = answer(call("schemas", "list", "--json", folder=made))["schemas"]
    by_schema_key = {(s["event_type"], s["schema_version"]): s for s in found}
    assert set(by_schema_key) == set(ORDERS.registry.schema_keys)
    assert by_schema_key["OrderPlaced", 1]["becomes"] == ["OrderPlaced v2"]
    assert by_schema_key["OrderDispatched", 1]["becomes"] == ["OrderShipped v1"]
    assert by_schema_key["StreetChanged", 1] == {
        "event_type": "StreetChanged",
        "schema_version": 1,
        "newest": False,
        "becomes": ["ShippingAddressUpdated v1"],
        "upcaster": "join_address",
        "form": "merge",
        "fields": [{"name": "street", "type": "string", "nullable": False}],
    }
    assert by_schema_key["OrderPlaced", 3]["newest"]


def test_dry_run_counts_what_upcasters_make_of_the_log(call: Call, shop: Path) -> None:
    """A dry run counts no invalid event, until the log has one that an upcaster rejects."""
    document = answer(call("schemas", "dry-run", "--json", folder=shop))
    assert document["invalid"] == 0
    append(shop, HALF, stream_id="order-half")
    document = answer(call("schemas", "dry-run", "--json", folder=shop, code=1))
    assert document["invalid"] == 1
    assert "CityChanged is missing" in call("schemas", "dry-run", folder=shop, code=1).stdout


def test_generations_list_and_show(call: Call, made: Path, tmp_path: Path) -> None:
    """``list`` has a row per generation, ``show`` a row per read model; an empty list is no error."""
    [generation] = answer(call("generations", "list", "--json", folder=made))["generations"]
    assert generation["number"] == 1
    assert generation["bytes"] > 0
    assert generation["tables"].keys() == {m.name for m in ORDERS.read_models}
    columns, row = call("generations", "list", folder=made).stdout.splitlines()
    assert columns.endswith("read models  rows")
    assert row.split()[-2:] == [str(len(ORDERS.read_models)), f"{sum(generation['tables'].values()):,}"]
    assert answer(call("generations", "show", "--json", folder=made)) == generation
    shown = call("generations", "show", "1", folder=made).stdout
    assert shown.startswith("Generation 1 (rebuild) at position")
    assert re.search(rf"^order_summary +{generation['tables']['order_summary']:,}$", shown, re.MULTILINE)
    assert "no generation 7" in call("generations", "show", "7", folder=made, code=1).stderr
    empty = ["generations", "list", "--read-models", str(tmp_path)]
    assert answer(call(*empty, "--json", folder=made)) == {"generations": []}
    assert "Nothing is published" in call(*empty, folder=made).stdout


def test_generations_are_compared_rolled_back_and_collected(call: Call, shop: Path) -> None:
    """A generation with changed rows is compared, rolled back, and collected."""
    published = open_generations(str(shop / "read-models"), "orders")
    first = published.newest()
    assert first is not None
    path = published.working_copy(first, shop)
    with duckdb.connect(str(path)) as connection:
        [(sku, on_hand)] = connection.execute("FROM (SELECT sku, on_hand FROM inventory_status) LIMIT 1").fetchall()
        connection.execute("UPDATE inventory_status SET on_hand = on_hand + 1 WHERE sku = ?", [sku])
    file, size = published.upload(path)
    assert published.publish(dataclasses.replace(first, number=2, file=file, bytes=size, parent=1))

    document = answer(call("generations", "diff", "1", "2", "--json", folder=shop))
    [difference] = document["differences"]
    example = {"key": {"sku": sku}, "a": {"on_hand": on_hand}, "b": {"on_hand": on_hand + 1}}
    assert difference["by_column"]["on_hand"] == 1
    assert example["a"].items() <= difference["examples"][0]["a"].items()
    assert f"{sku}" in call("generations", "diff", "1", "2", folder=shop).stdout
    assert "hold the same rows" in call("generations", "diff", "2", "2", folder=shop).stdout

    assert answer(call("generations", "rollback", "--json", folder=shop))["shows"] == 1
    assert "rollback to 1" in call("generations", "list", folder=shop).stdout
    assert "Published generation 4, which is generation 2 again" in call("generations", "rollback", folder=shop).stdout
    call("generations", "rollback", "1", folder=shop)

    ages = ("--keep", "1", "--min-age", "0s")
    assert "nothing to remove" in call("generations", "gc", folder=shop).stdout
    planned = answer(call("generations", "gc", *ages, "--json", folder=shop))
    assert (planned["done"], planned["generations"], planned["bytes"]) == (False, [1, 2, 3, 4], size)
    assert "Nothing is removed without --yes" in call("generations", "gc", *ages, folder=shop).stdout
    assert len(published.all()) == 5
    assert "Removed generations: 1, 2, 3, 4; 1 object" in call("generations", "gc", *ages, "--yes", folder=shop).stdout
    assert [g.number for g in published.all()] == [5]
    assert "no log at" in call("generations", "gc", "--log", str(shop / "nowhere"), folder=shop).stderr


# What runs Beam: processes of their own

HALF = NewEvent(payload={"street": "1 Mill Lane"}, event_type="StreetChanged", schema_version=1)


@pytest.mark.slow
def test_from_a_file_to_an_answer(tmp_path: Path) -> None:
    """Import into a new log, seal, rebuild and query work in pipes, with nothing on stderr."""
    adjusted = {"stream_id": "stock-cup", "event_type": "StockAdjusted", "occurred_at": "2025-01-01T00:00:00Z"}
    lines = [{**adjusted, "payload": {"sku": "cup", "quantity": n, "reason": "counted"}} for n in (5, -2)]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, lines)))
    beam = ("--quiet", "--", "--direct_num_workers=1")
    imported = refold(
        "ingest", "history.jsonl", "--domain", "orders", "--buckets", "2", "--json", *beam, folder=tmp_path
    )
    assert (answer(imported)["events"], imported.stderr) == (2, "")
    append(tmp_path / "refold-data", RECEIVED)
    sealed = refold("seal", "--json", *beam, folder=tmp_path)
    assert (answer(sealed)["events"], sealed.stderr) == (1, "")
    rebuilt = refold("rebuild", "--json", *beam, folder=tmp_path)
    assert (answer(rebuilt)["position"], rebuilt.stderr) == (3, "")
    stock = answer(refold("query", "--json", "FROM inventory_status", folder=tmp_path))
    assert [row["on_hand"] for row in stock["rows"]] == [6]


def test_a_misspelt_file_leaves_no_log_behind(tmp_path: Path) -> None:
    """A failed import creates no log."""
    assert "There is no file 'nope.jsonl'" in refold("ingest", "nope.jsonl", folder=tmp_path, code=2).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_some_read_models_are_rebuilt_beside_the_others(shop: Path) -> None:
    """Selected by name or --only; the generation has all read models at one position."""
    append(shop, RECEIVED)
    document = answer(refold("rebuild", "inventory_status", "--only", "purchase_cost", "--json", folder=shop))
    assert (document["generation"], document["dead_letters"]) == (2, 0)
    assert document["tables"].keys() == {m.name for m in ORDERS.read_models}
    stock = answer(refold("query", "--json", "FROM inventory_status WHERE sku = 'cup'", folder=shop))
    assert stock["position"] == document["position"]
    assert stock["rows"][0]["on_hand"] == 3


def test_rebuild_refuses_a_name_that_is_no_read_model_before_it_starts_beam(call: Call, made: Path) -> None:
    """The error lists the read models."""
    assert "order_summary" in call("rebuild", "orders", folder=made, code=2).stderr


@pytest.mark.slow
def test_an_invalid_event_stops_a_rebuild_or_becomes_a_dead_letter(shop: Path) -> None:
    """A stopped rebuild publishes nothing; with dead letters, all other events are applied."""
    append(shop, HALF, stream_id="order-half")
    stopped = refold("rebuild", "order_summary", "--quiet", folder=shop, code=1)
    assert "CityChanged is missing" in stopped.stderr
    assert len(stopped.stderr.splitlines()) == 1
    kept = refold("rebuild", "order_summary", "--dead-letter", folder=shop)
    assert "1 open dead letter: see" in kept.stderr
    letters = answer(refold("query", "--json", "FROM refold.dead_letters", folder=shop))
    assert {row["stream_id"] for row in letters["rows"]} == {"order-half"}
    assert letters["generation"] == 2


@pytest.mark.slow
def test_a_rebuild_shows_its_phases_on_a_terminal(shop: Path) -> None:
    """Bars with staged and planned objects; nothing of Beam's own."""
    shown = on_terminal("rebuild", "inventory_status", folder=shop)
    for part in ("seal", "replay", "load", "catch up", "publish", "Published generation 2"):
        assert part in shown
    done, planned = re.findall(r"(\d+)/(\d+)", shown)[-1]
    assert done == planned
    assert "apitools" not in shown


@pytest.mark.slow
def test_nothing_of_beam_is_heard_from_worker_processes(shop: Path) -> None:
    """Workers write to descriptor 2 directly, before their logging can be configured."""
    beam = ("--quiet", "--", "--direct_running_mode=multi_processing", "--direct_num_workers=1")
    assert refold("rebuild", "inventory_status", "--json", *beam, folder=shop).stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_rebuild_that_is_stopped_leaves_what_was_published(shop: Path, number: signal.Signals) -> None:
    """It prints one word, exits with the code of Ctrl-C and leaves no scratch file; the next run publishes."""
    command = [sys.executable, "-m", "refold", "rebuild", "inventory_status", "--quiet"]
    staging = shop / "read-models" / "orders" / "staging"
    with subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(staging.glob("*/plan.json")):
            assert process.poll() is None
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "Stopped.\n")
    assert not list((shop / "read-models" / "orders").glob("work/*"))
    assert [g.number for g in open_generations(str(shop / "read-models"), "orders").all()] == [1]


# Progress


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


@pytest.mark.slow
def test_an_import_that_loses_rows_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    """Code 6, each time, with the reasons on the screen and in JSON; 0 within --max-rejects; beyond it nothing."""
    adjusted = {"stream_id": "stock-cup", "event_type": "StockAdjusted", "occurred_at": "2025-01-01T00:00:00"}
    lines = [{**adjusted, "payload": {"sku": "cup", "quantity": n, "reason": "counted"}} for n in (5, "NA")]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "none.jsonl").write_text(json.dumps(lines[1]))
    (tmp_path / "empty.jsonl").write_text("")
    given = ("--domain", "orders", "--buckets", "2", "--quiet")
    beam = ("--", "--direct_num_workers=1")
    limited = refold("ingest", "some.jsonl", "--max-rejects", "0", *given, *beam, folder=tmp_path, code=6)
    assert "1 of 2 rows are invalid, more than --max-rejects 0 allows" in limited.stderr
    assert "'NA'" in limited.stderr
    nothing = refold("ingest", "none.jsonl", *given, *beam, folder=tmp_path, code=6)
    assert "1 row: quantity: expected int64; first at none.jsonl, line 1" in " ".join(nothing.stderr.split())
    some = answer(refold("ingest", "some.jsonl", "--json", *given, *beam, folder=tmp_path, code=6))
    assert [(r["reason"], r["rows"], r["line"]) for r in some["reasons"]] == [("quantity: expected int64", 1, 2)]
    assert some["local_times"] == 2
    again = refold("ingest", "some.jsonl", *given, *beam, folder=tmp_path, code=6)
    assert "already in the log" in again.stdout
    assert "1 row: quantity: expected int64; first at some.jsonl, line 2" in " ".join(again.stderr.split())
    within = refold("ingest", "some.jsonl", "--max-rejects", "50%", "--json", *given, *beam, folder=tmp_path)
    assert (answer(within)["already"], answer(within)["rejected"]) == (True, 1)
    beyond = refold("ingest", "some.jsonl", "--max-rejects", "49%", *given, *beam, folder=tmp_path, code=6)
    assert "1 of 2 rows are invalid, more than --max-rejects 49% allows" in beyond.stderr
    assert "These files were imported without them" in beyond.stderr
    empty = refold("ingest", "empty.jsonl", "--max-rejects", "0", *given, *beam, folder=tmp_path)
    assert "the files have no rows" in empty.stdout


def test_a_demo_needs_a_folder_on_this_machine(call: Call, tmp_path: Path) -> None:
    """A URL makes no folder of that name."""
    assert (
        "needs a folder on this machine" in call("demo", "--folder", "s3://bucket/demo", folder=tmp_path, code=2).stderr
    )
    assert not list(tmp_path.iterdir())
