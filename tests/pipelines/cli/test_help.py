"""The help of the command line: every command, its example, and how fast it is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from refold.pipelines.cli.main import cli


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
