"""Readers of published generations and of a live database, concurrent with publishers and writers."""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from refold.event_schemas import GenerationError, RefoldError, event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Lookup
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import latest
from refold.warehouse.engine.private_folder import PrivateFolder, remove_left_over
from refold.warehouse.queries import reader as reader_module
from refold.warehouse.queries.live_reader import LiveReader
from refold.warehouse.queries.read_source import ReadPosition, digest_of
from refold.warehouse.queries.reader import Reader, lookup_indexes
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.generations.generations import (
    Generation,
    Generations,
    PublishedTable,
    open_generations,
)
from refold.warehouse.read_models.live.live_database import LiveDatabase

ROWS = 50


@event(schema_version=1)
class Stored:
    """A box was put on a shelf."""

    box: int
    shelf: int


BOXES = Projection(
    name="boxes", key={"box": "INTEGER"}, columns={"shelf": latest("INTEGER")}, on={Stored: "SELECT box, shelf"}
)
DOMAIN = Domain(
    name="boxes",
    events=(Stored,),
    read_models=(BOXES,),
    endpoints=(
        Lookup(path="/boxes/{box}", table="boxes", text="One box."),
        Lookup(path="/shelves/{shelf}", table="boxes", text="A shelf's boxes."),
    ),
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where temporary ones are made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    """Read models of which nothing is published yet."""
    return open_generations(str(tmp_path / "read-models"), "boxes")


@pytest.fixture
def reader(generations: Generations, temporary: Path) -> Iterator[Reader]:
    """A reader of them."""
    with closing(Reader(generations, DOMAIN)) as reader:
        yield reader


def filled(path: Path, position: int) -> duckdb.DuckDBPyConnection:
    """Make a database whose rows all have the position of its checkpoint."""
    connection = database.open_database(path)
    database.create_table(connection, BOXES, [])
    connection.execute(f"INSERT INTO boxes SELECT range, {position} FROM range({ROWS})")
    connection.execute(
        f"INSERT INTO refold.checkpoint VALUES ('boxes', 'a-log', {position}, 1, '2026-01-01', '2026-01-02', '')"
    )
    return connection


def generation_of(number: int, position: int, *, file: str = "", size: int = 0, checksum: str = "c") -> Generation:
    """Describe a generation."""
    return Generation(
        number=number,
        file=file,
        bytes=size,
        position=position,
        commit_number=1,
        recorded_at="2026-01-01T00:00:00+00:00",
        published_at="2026-01-03T00:00:00+00:00",
        parent=number - 1,
        log_id="a-log",
        tables={"boxes": PublishedTable(fingerprint="f", parts={}, rows=ROWS, checksum=checksum)},
    )


def publish(generations: Generations, position: int) -> Generation:
    """Publish rows that show a position."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.duckdb"
        filled(path, position).close()
        file, size = generations.upload(path)
    number = (generations.numbers() or [0])[-1] + 1
    generation = generation_of(number, position, file=file, size=size)
    assert generations.publish(generation)
    return generation


def shown(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Read which positions the rows show."""
    return [value for (value,) in connection.execute("SELECT DISTINCT shelf FROM boxes ORDER BY ALL").fetchall()]


def has_open(path: Path) -> bool:
    """Check whether this process has a file open."""
    opened = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            opened.add(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return any(name.startswith(str(path.resolve())) for name in opened)


# What is published


@pytest.mark.parametrize("indexed_rows", [1, ROWS + 1])
def test_a_query_ends_on_the_generation_that_it_began_with(
    generations: Generations, reader: Reader, temporary: Path, monkeypatch: pytest.MonkeyPatch, indexed_rows: int
) -> None:
    """Other queries use a newer generation meanwhile; then the older file and folder are released."""
    monkeypatch.setattr(reader_module, "INDEXED_ROWS", indexed_rows)
    old = publish(generations, 1)
    assert reader.adopt()
    [folder] = list(temporary.iterdir()) if indexed_rows == 1 else [None]
    file = folder or generations.path(old)
    began, adopted = threading.Event(), threading.Event()

    def slow(connection: duckdb.DuckDBPyConnection) -> tuple[list[int], list[int]]:
        before = shown(connection)
        began.set()
        assert adopted.wait(30)
        return before, shown(connection)

    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(reader.ask, slow)
        assert began.wait(30)
        publish(generations, 2)
        assert reader.adopt()
        assert reader.ask(shown)[0] == [2]
        assert has_open(file)
        adopted.set()
        rows, at = under_way.result()
    assert (rows, at.position) == (([1], [1]), 1)
    assert not has_open(file)
    assert folder is None or not folder.exists()


def test_nothing_newer_is_nothing_to_adopt(generations: Generations, reader: Reader) -> None:
    """Before the first publish a query fails; afterwards a check without a newer generation changes nothing."""
    assert not reader.adopt()
    with pytest.raises(GenerationError, match="No read models are published yet"):
        reader.ask(shown)
    generation = publish(generations, 1)
    assert [reader.adopt() for _ in range(30)] == [True] + [False] * 29
    assert reader.read_position() == ReadPosition(
        1, 1, generation.recorded_at, "2026-01-02T00:00:00+00:00", 1, digest_of(generation), frozenset({"boxes"})
    )


@pytest.mark.parametrize("indexed_rows", [1, ROWS + 1])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"no database" * 1000)])
def test_what_cannot_be_opened_leaves_the_older_answering(
    generations: Generations,
    reader: Reader,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    indexed_rows: int,
    spoil: Callable[[Path], object],
) -> None:
    """A missing or damaged file is an error each time; nothing is left over, and the next good one is adopted."""
    monkeypatch.setattr(reader_module, "INDEXED_ROWS", indexed_rows)
    publish(generations, 1)
    reader.adopt()
    before = sorted(temporary.iterdir())
    path = generations.path(publish(generations, 2))
    path.chmod(0o600)
    spoil(path)
    for _ in range(2):
        with pytest.raises((RefoldError, duckdb.Error)):
            reader.adopt()
        assert reader.ask(shown)[0] == [1]
    assert sorted(temporary.iterdir()) == before
    publish(generations, 3)
    assert reader.adopt()
    assert reader.ask(shown)[0] == [3]


def test_a_reader_that_was_slow_finds_what_came_after_collected_generations(
    generations: Generations, reader: Reader
) -> None:
    """If the next generation is already collected, the reader finds the newest within a few checks."""
    publish(generations, 1)
    reader.adopt()
    publish(generations, 2)
    publish(generations, 3)
    generations.forget(2)
    assert [reader.adopt() for _ in range(20)].count(True) == 1
    assert reader.ask(shown)[0] == [3]


def test_indexes_are_made_in_a_private_copy(
    generations: Generations, reader: Reader, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published file is neither changed nor opened; the copy is deleted when the reader closes."""
    monkeypatch.setattr(reader_module, "INDEXED_ROWS", ROWS)
    path = generations.path(publish(generations, 1))
    before = path.read_bytes()
    reader.adopt()
    assert not has_open(path)
    [copy] = temporary.glob("refold-serve-*/working.duckdb")
    assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    names, _ = reader.ask(lambda c: c.execute("SELECT expressions FROM duckdb_indexes() ORDER BY ALL").fetchall())
    assert [name for (name,) in names] == ["[box]", "[shelf]"]
    plan, _ = reader.ask(lambda c: c.execute("EXPLAIN ANALYZE FROM boxes WHERE box IN (7)").fetchall()[0][1])
    assert "Index Scan" in plan
    with duckdb.connect(str(path), read_only=True) as other:
        assert other.execute("FROM duckdb_indexes()").fetchall() == []
    reader.close()
    assert path.read_bytes() == before
    assert list(temporary.iterdir()) == []


def test_small_read_models_are_read_where_they_are(generations: Generations, reader: Reader, temporary: Path) -> None:
    """The published file is opened read-only, concurrent with other readers."""
    path = generations.path(publish(generations, 1))
    reader.adopt()
    assert (has_open(path), list(temporary.iterdir())) == (True, [])
    with pytest.raises(duckdb.InvalidInputException, match="read-only"):
        reader.ask(lambda connection: connection.execute("DELETE FROM boxes"))
    assert reader.ask(shown)[0] == [1]
    reader.close()
    assert not has_open(path)
    with pytest.raises(GenerationError):
        reader.ask(shown)


def test_a_failed_query_releases_its_connection(generations: Generations, reader: Reader) -> None:
    """The generation can be closed, and its file deleted."""
    path = generations.path(publish(generations, 1))
    reader.adopt()
    for _ in range(3):
        with pytest.raises(duckdb.CatalogException):
            reader.ask(lambda connection: connection.execute("FROM attic"))
    publish(generations, 2)
    reader.adopt()
    assert not has_open(path)


def test_copies_of_processes_that_were_killed_are_removed(
    generations: Generations, reader: Reader, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new copy removes copies that are no longer locked, but none that is in use or was just made."""
    monkeypatch.setattr(reader_module, "INDEXED_ROWS", 1)
    killed, fresh, used = temporary / "refold-serve-1", temporary / "refold-serve-2", PrivateFolder("refold-serve-")
    for folder in (killed, fresh):
        folder.mkdir()
        (folder / "working.duckdb").write_bytes(b"large")
    for old in (killed, used.path):
        os.utime(old, (0, 0))
    publish(generations, 1)
    reader.adopt()
    assert (killed.exists(), fresh.exists(), used.path.exists()) == (False, True, True)
    used.remove()
    remove_left_over("refold-serve-")
    assert reader.ask(shown)[0] == [1]


def test_generations_with_equal_positions_are_distinguished() -> None:
    """Retried dead letters, or other code, give other rows for the same events."""
    one = generation_of(1, 10)
    table = one.tables["boxes"]
    digests = [
        digest_of(one),
        digest_of(replace(one, tables={"boxes": replace(table, checksum="other")})),
        digest_of(replace(one, tables={"boxes": replace(table, fingerprint="other")})),
        digest_of(replace(one, views={"best": "v"})),
    ]
    assert len(set(digests)) == 4
    assert digest_of(replace(one, number=2, file="other", position=20)) == digests[0]


def test_columns_that_endpoints_look_up_by_are_indexed() -> None:
    """The columns of both lookups have an index."""
    assert lookup_indexes(DOMAIN) == {"boxes": ("box", "shelf")}


# What is live


@pytest.fixture
def make_live(tmp_path: Path) -> Iterator[Callable[[int], LiveDatabase]]:
    """Make live databases at a position; they are closed at the end."""
    made = []

    def make(position: int) -> LiveDatabase:
        folder = tempfile.TemporaryDirectory(dir=tmp_path)
        path = Path(folder.name) / "working.duckdb"
        live = LiveDatabase(
            log=None,  # type: ignore[arg-type]  # the log is not read here
            domain=DOMAIN,
            generation=generation_of(position, position),
            models=(),
            at=Checkpoint(position, 1, ""),
            path=path,
            connection=filled(path, position),
            indexes={},
            _folder=folder,
        )
        made.append(live)
        return live

    yield make
    for live in made:
        live.close()


def move(live: LiveDatabase, position: int) -> None:
    """Update rows and checkpoint in one transaction, as a micro-batch does."""
    with live.changing():
        live.connection.execute("BEGIN")
        live.connection.execute(f"UPDATE boxes SET shelf = {position}")
        live.connection.execute(f"UPDATE refold.checkpoint SET position = {position}")
        live.connection.execute("COMMIT")


def twice(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Look at the rows by two queries, as a query may."""
    return shown(connection) + shown(connection)


def test_rows_and_position_of_an_answer_agree(make_live: Callable[[int], LiveDatabase]) -> None:
    """Micro-batches applied between its queries do not matter: the rows are those of the position returned."""
    live = make_live(1)
    reader = LiveReader()
    reader.adopt(live)
    moved = threading.Event()

    def ask() -> list[tuple[list[int], int]]:
        found = []
        while not moved.is_set():
            rows, at = reader.ask(twice)
            found.append((rows, at.position))
        return found

    def slow(connection: duckdb.DuckDBPyConnection) -> list[int]:
        before = shown(connection)
        move(live, 2)
        reader.moved()
        return before + shown(connection)

    rows, at = reader.ask(slow)
    assert (rows, at.position) == ([2, 2], 2)  # run again, in a transaction, which no micro-batch changed
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for position in range(3, 40):
            move(live, position)
            reader.moved()
        moved.set()
        answers = [answer for future in asking for answer in future.result()]
    assert [(rows, at) for rows, at in answers if rows != [at, at]] == []
    now = reader.read_position()
    assert now is not None
    assert now.position == 39


def test_another_live_database_is_adopted_during_queries(make_live: Callable[[int], LiveDatabase]) -> None:
    """No query fails, a running query ends on its own database, and waiting requests are notified."""
    positions: list[int] = []
    reader = LiveReader()
    reader.updated = lambda: positions.append(at.position if (at := reader.read_position()) else 0)
    adopted = threading.Event()

    def ask() -> list[tuple[list[int], int]]:
        found = []
        while not adopted.is_set():
            rows, at = reader.ask(twice)
            found.append((rows, at.generation))
        return found

    lives = [make_live(position) for position in range(1, 5)]
    reader.adopt(lives[0])
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for behind, live in itertools.pairwise(lives):
            reader.adopt(live)
            behind.close()
        adopted.set()
        answers = [answer for future in asking for answer in future.result()]
    assert [(rows, generation) for rows, generation in answers if rows != [generation] * 2] == []
    assert positions == [1, 2, 3, 4]


def test_a_live_reader_that_is_not_open_says_so(make_live: Callable[[int], LiveDatabase]) -> None:
    """It is an error before the stream opens its database and after it ends, even if a micro-batch ends late."""
    reader = LiveReader()
    reader.moved()
    assert reader.read_position() is None
    with pytest.raises(GenerationError, match="has not opened its database yet, or has ended"):
        reader.ask(shown)
    reader.adopt(make_live(1))
    reader.close()
    reader.close()
    reader.moved()
    with pytest.raises(GenerationError, match="has not opened its database yet, or has ended"):
        reader.ask(shown)


def test_a_failed_query_leaves_no_transaction(make_live: Callable[[int], LiveDatabase]) -> None:
    """The next query on the connection sees later micro-batches, and the writer can checkpoint."""
    live = make_live(1)
    reader = LiveReader()
    reader.adopt(live)
    with pytest.raises(duckdb.Error):
        reader.ask(lambda connection: connection.execute("SELECT error('no')").fetchall())
    move(live, 2)
    assert reader.ask(shown)[0] == [2]
    assert live.checkpoint()
