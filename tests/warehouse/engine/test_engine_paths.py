"""Files below names that DuckDB or Arrow would interpret: each is opened as what it is."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from refold.event_schemas import UsageError
from refold.warehouse.engine.connections import attach, connect
from refold.warehouse.engine.engine_paths import can_write_databases, engine_path, real_paths
from refold.warehouse.engine.parquet_files import (
    copy_to_parquet,
    open_parquet,
    parquet_footer,
    parquet_relation,
    parquet_schema,
    write_table,
)
from refold.warehouse.engine.sql import first_line

NAMES = [
    "plain",
    *("a*b", "a?b", "[a]", "[!a]", "a[b", "{a,b}", "**", "*"),
    *("back\\slash", "\\", "\\*", "'", '"', "`", "''", ";--", "%20", "%2e%2e", "#", "&", "a\nb", "a\tb"),
    *("~", "~root", "$HOME", "${HOME}", "-x", "-", "s3:", "file:", "http:", "duckdb:", ":memory:", "C:"),
    *("region=emea", "bucket=0", "filename=x", "é", "e\u0301", "日本", "😀", "\u202e", "\xa0", os.fsdecode(b"\xff")),
    "n" * 255,
]


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with such a name, and a sibling that a pattern would take for it."""
    for sibling in ("axb", "a", "b", "xyz"):
        write_table(pa.table({"region": [f"of the sibling {sibling}"]}), _made(tmp_path / sibling) / "f.parquet")
    return _made(tmp_path / request.param)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_parquet(folder: Path) -> None:
    """DuckDB and Arrow read the file itself, and nothing of its path; DuckDB writes it."""
    table = pa.table({"region": ["latam"], "bucket": [7], "filename": ["own"]})
    write_table(table, folder / "f.parquet")
    with connect() as connection:
        read = connection.execute(f"SELECT * FROM {parquet_relation([folder / 'f.parquet'])}")
        assert read.fetchall() == [("latam", 7, "own")]
        copy_to_parquet(connection, "SELECT 1 AS one", folder / "copy.parquet", "COMPRESSION lz4")
    assert parquet_footer(folder / "copy.parquet").num_rows == 1
    assert parquet_schema(folder / "copy.parquet").names == ["one"]
    with open_parquet(folder / "f.parquet") as file:
        assert file.read().equals(table)


def test_a_file_with_such_a_name(folder: Path) -> None:
    """The last name of a path may be such a name too, if it is there to read."""
    path = folder / folder.name[:200]
    path.write_bytes(b"")
    write_table(pa.table({"n": [1]}), folder / "f.parquet")
    os.replace(folder / "f.parquet", path)
    with connect() as connection:
        assert connection.execute(f"FROM {parquet_relation([path])}").fetchall() == [(1,)]


def test_databases(folder: Path) -> None:
    """A database is written where it can be, and read everywhere."""
    place = folder if can_write_databases(folder) else _made(folder.parent / "work")
    with closing(connect()) as connection:
        attach(connection, place / "x.duckdb", "models", storage_version="v1.4.0")
        connection.execute("CREATE TABLE models.t AS SELECT 1 AS n")
    os.rename(place / "x.duckdb", folder / "x.duckdb")
    with closing(connect(folder / "x.duckdb", read_only=True, temp_directory=folder / "spill")) as connection:
        assert connection.execute("FROM t").fetchall() == [(1,)]
        assert connection.cursor().execute("FROM t").fetchall() == [(1,)]
    with closing(connect()) as connection:
        attach(connection, folder / "x.duckdb", "it's", read_only=True)
        assert connection.execute('FROM "it\'s".t').fetchall() == [(1,)]


def test_spilling(tmp_path: Path) -> None:
    """A query that needs more memory writes there."""
    folder = _made(tmp_path / "?*[a]\\#'")
    with closing(connect(threads=1, memory_limit="64MB", temp_directory=folder)) as connection:
        connection.execute("CREATE TEMP TABLE t AS SELECT md5(range::VARCHAR) AS x FROM range(1_000_000) ORDER BY x")
        assert list(folder.iterdir())


def test_a_message_has_the_real_path(tmp_path: Path) -> None:
    """An error of DuckDB names the file, not the link through which it was opened."""
    folder = _made(tmp_path / "a*b")
    (folder / "f.parquet").write_text("no Parquet")
    with connect() as connection, pytest.raises(Exception, match="small") as error:
        connection.execute(f"FROM {parquet_relation([folder / 'f.parquet'])}")
    assert str(folder / "f.parquet") in first_line(error.value)
    assert real_paths("nothing to replace") == "nothing to replace"


def test_a_removed_link_is_made_again(tmp_path: Path) -> None:
    """Cleaners of temporary files remove what a long-lived process still needs."""
    link = Path(engine_path(_made(tmp_path / "a*b")))
    link.unlink()
    assert Path(engine_path(tmp_path / "a*b")) == link
    assert link.is_dir()


def test_a_name_that_does_not_exist_cannot_be_linked(tmp_path: Path) -> None:
    """DuckDB would create it under another name."""
    with pytest.raises(UsageError, match="does not exist"):
        engine_path(tmp_path / "no*such" / "f.parquet")
    with pytest.raises(UsageError, match="does not exist"):
        engine_path(tmp_path / "new?.parquet")


def test_links_end_with_their_process(tmp_path: Path) -> None:
    """A process removes its links, and not what they point to."""
    folder = _made(tmp_path / "a*b")
    (folder / "kept").write_text("")
    code = "import sys; from refold.warehouse.engine.engine_paths import engine_path; print(engine_path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() != str(folder)
    assert not os.path.lexists(done.stdout.strip())
    assert (folder / "kept").exists()


def test_a_forked_process_has_links_of_its_own(tmp_path: Path) -> None:
    """Those of its parent end with the parent."""
    folder = _made(tmp_path / "a*b")
    code = """
import os, sys
from refold.warehouse.engine.engine_paths import engine_path
mine = engine_path(sys.argv[1])
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert engine_path(sys.argv[1]) != mine
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(folder)], check=True)
