"""Every command line that the code quotes, in a message, a help page or a docstring, is one that can be run."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from refold.pipelines.cli.main import cli

ROOT = Path(__file__).parents[3]
QUOTED = re.compile(r"`refold( [^`]*)?`")


def texts(file: Path) -> Iterator[str]:
    """Yield the text of every string of a module; what an f-string fills in is a word."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "NAME" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def quoted() -> set[str]:
    """Collect the command lines that the rooms quote, without ``refold``."""
    files = [
        file for room in ("event_schemas", "warehouse", "pipelines", "src") for file in (ROOT / room).rglob("*.py")
    ]
    return {" ".join((m[1] or "").split()) for file in files for text in texts(file) for m in QUOTED.finditer(text)}


LINES = sorted(quoted())


def check(line: str) -> None:
    """Follow a command line through the commands and their options.

    Raises:
        LookupError: there is no such command, or it has no such option.
    """
    command: click.Command = cli
    context = click.Context(cli)
    for word in shlex.split(line):
        if isinstance(command, click.Group) and not word.startswith("-"):
            found = command.get_command(context, word)
            if found is None:
                raise LookupError(f"no command {word!r}")
            command = found
        elif word == "--":
            return
        elif word.startswith("--") and word not in {o for p in command.get_params(context) for o in p.opts}:
            raise LookupError(f"no option {word} of {command.name}")


@pytest.mark.parametrize("line", LINES)
def test_a_quoted_command_line_exists(line: str) -> None:
    """Each command line that a message quotes is valid."""
    check(line)


def test_the_search_finds_command_lines() -> None:
    """The search also finds an invalid command line."""
    assert {"rebuild", "events verify", "dead-letters list", "schemas lock"} <= set(LINES)
    for wrong in ("events get", "rebuild --everything", "nope"):
        with pytest.raises(LookupError):
            check(wrong)
