"""Each kind of file is opened in one place, where nothing is taken from a path that is not meant."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("event_schemas", "warehouse", "pipelines")

OPENERS: dict[str, tuple[str, frozenset[str]]] = {
    "Parquet in DuckDB": (r"\b(read_parquet|parquet_scan|parquet_\w*metadata|parquet_schema)\s*\(", frozenset()),
    "a file named in FROM": (r"(?i)\b(FROM|JOIN)\s+'", frozenset()),
    "COPY from or to a file": (r"(?i)\bCOPY\b.*\b(TO|FROM)\s+['{]", frozenset()),
    "a database": (r"(?i)\bATTACH\s+('|\{|IF|DATABASE|OR)", frozenset()),
    "other files in DuckDB": (
        r"(?i)\b(read_(csv|csv_auto|json|json_auto|json_objects|ndjson\w*|text|blob|xlsx|duckdb)|sniff_csv|glob)\s*\(",
        frozenset(),
    ),
    "a folder in DuckDB": (r"(?i)\b(EXPORT|IMPORT) DATABASE\b", frozenset()),
}
"""What opens files in SQL; a docstring or a message may name it."""

ARROW = frozenset({"parquet", "dataset", "feather", "orc", "csv", "json"})
"""Modules of Arrow that open files by path."""

PARQUET_FILES = "warehouse/engine/parquet_files.py"
CONNECTIONS = "warehouse/engine/connections.py"
ALLOWED = {
    "Parquet in DuckDB": {PARQUET_FILES},
    "COPY from or to a file": {PARQUET_FILES},
    "a database": {CONNECTIONS},
}
CONNECTING = {
    CONNECTIONS: "every other connection",
    "pipelines/serving/sandbox/sandbox_child.py": "a program without refold, which is given the path to open",
}
READING_ARROW = {PARQUET_FILES: "every Parquet file"}


def _sources() -> list[Path]:
    return sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py") if "template" not in p.parts)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _texts(tree: ast.Module) -> Iterator[str]:
    """Yield the text of each string, with ``{}`` for what an f-string inserts; no docstrings."""
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


def _calls(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            yield node.func.value.id, node.func.attr


@pytest.mark.parametrize("kind", OPENERS)
def test_sql_opens_files_in_one_place(kind: str) -> None:
    """SQL that opens a file is text of one module; what users write in SQL is checked elsewhere."""
    pattern = re.compile(OPENERS[kind][0])
    found = {_name(p) for p in _sources() for text in _texts(ast.parse(p.read_text())) if pattern.search(text)}
    found |= {_name(p) for room in ROOMS for p in (ROOT / room).rglob("*.sql") if pattern.search(p.read_text())}
    assert found == ALLOWED.get(kind, set())


def test_databases_are_opened_in_one_place() -> None:
    """Only these modules call ``duckdb.connect``."""
    found = {_name(p) for p in _sources() if ("duckdb", "connect") in _calls(ast.parse(p.read_text()))}
    assert found == set(CONNECTING)


def test_arrow_opens_files_in_one_place() -> None:
    """Other modules import only types from the modules of Arrow that open files."""
    found = {_name(p) for p in _sources() if any(_opens(node) for node in ast.walk(ast.parse(p.read_text())))}
    assert found == set(READING_ARROW)


def _opens(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(a.name.startswith("pyarrow.") and a.name.split(".")[1] in ARROW for a in node.names)
    if isinstance(node, ast.ImportFrom) and node.module == "pyarrow":
        return any(a.name in ARROW for a in node.names)
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyarrow."):
        types = {"FileMetaData", "ParquetFile"} if node.module == "pyarrow.parquet" else set()
        return str(node.module).split(".")[1] in ARROW and any(a.name not in types for a in node.names)
    return False
