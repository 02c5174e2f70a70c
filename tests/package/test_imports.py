"""Imports: no heavy library before it is needed, no package of refold by its bare name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"event_schemas", "warehouse", "pipelines"}
FOLDERS = ("src", "event_schemas", "warehouse", "pipelines", "tests", "benchmarks", ".ci")


def loaded_by(*arguments: str) -> set[str]:
    """Run Python, and return the modules that it has imported when it ends."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_importing_refold_loads_no_heavy_library() -> None:
    """Names are loaded at their first use, those of a name's own module only."""
    loaded = loaded_by("-c", "import refold; refold.__version__; dir(refold)")
    assert "refold" in loaded
    assert not loaded & {"apache_beam", "duckdb", "pyarrow", "numpy", "click"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["rebuild", "--help"], ["serve", "--help"]])
def test_help_loads_neither_beam_nor_duckdb(arguments: list[str]) -> None:
    """Help imports no heavy library."""
    loaded = loaded_by("-m", "refold", *arguments)
    assert "click" in loaded
    assert not loaded & {"apache_beam", "duckdb", "fastapi", "distributed"}


def imported_names(file: Path) -> Iterator[str]:
    """Name the modules that a file imports absolutely."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def test_no_file_imports_a_room_by_its_bare_name() -> None:
    """``import warehouse`` would import a user's package, or fail."""
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 300
    bare = [(file, name) for file in files for name in imported_names(file) if name.partition(".")[0] in ROOMS]
    assert bare == []
