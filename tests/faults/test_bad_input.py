"""Bad events, damaged logs and places that cannot be written: a helpful error, and no lost or partial state."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import (
    DamagedLogError,
    EmptyLogError,
    InvalidEventsError,
    LogError,
    PayloadError,
    RefoldError,
    Registry,
    StoreError,
    UnknownEventTypeError,
    UnknownSchemaVersionError,
    event,
    schema_of,
    upcaster,
)
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import Rebuilt, rebuild
from refold.pipelines.seal import seal
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    NewEvent,
    create_log,
    open_log,
    read_positions,
    verify,
)
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.read_models.generations.generations import Generation, open_generations
from tests.faults import fragile
from tests.faults.fragile import SHOP, Money, Noted, Opened, Sold

DOMAINS = "tests.faults.fragile"
TILLS = 3
LETTERS = "SELECT * FROM refold.dead_letters ORDER BY position, read_model"


def older_code() -> Registry:
    """Return contracts of older code that the current code does not know."""

    @event(schema_version=1)
    class Stolen:
        sku: str

    @event(schema_version=1)
    class Sold:
        sku: str
        pieces: str
        price: Money

    return Registry(events=[Stolen, Sold])


def newer_code() -> Registry:
    """Return contracts of code that is one version newer."""

    @event(schema_version=2)
    class Opened:
        owner: str
        city: str

    @upcaster(Opened, from_version=1, schema=schema_of(fragile.Opened))
    def add_city() -> str:
        return "SELECT *, '' AS city FROM event"

    return Registry(events=[Opened], upcasters=[add_city])


@dataclass(frozen=True, slots=True)
class Shop:
    """A log and its read models."""

    log: EventLog
    read_models: str

    def append(self, stream_id: str, *events: object, registry: Registry = SHOP.registry) -> int:
        """Append in one commit, and return the last position."""
        return Appender(self.log, registry).append(stream_id, events).last_position

    def rebuild(self, domain: str = "SHOP", *, dead_letter: bool = False) -> Rebuilt:
        """Rebuild all read models of a domain."""
        options = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
        return rebuild(self.log, f"{DOMAINS}:{domain}", self.read_models, options, dead_letter=dead_letter)

    def seal(self) -> None:
        """Seal the log with the current code."""
        seal(self.log, f"{DOMAINS}:SHOP", beam_options(None, ["--direct_running_mode=in_memory"]))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the published file."""
        path = Path(self.read_models) / "fragile" / "current.duckdb"
        with closing(duckdb.connect(str(path), read_only=True)) as connection:
            return connection.execute(sql).fetchall()

    def tills(self) -> list[tuple[Any, ...]]:
        """Read one of the tables."""
        return self.query("SELECT till, owner, pieces, worth FROM tills ORDER BY till")

    def events(self) -> list[Any]:
        """Read the full log."""
        return list(read_positions(self.log, SHOP.registry, 0))

    def generations(self) -> list[Generation]:
        """List the published generations."""
        return open_generations(self.read_models, "fragile").all()

    def files(self, *folders: str) -> dict[Path, bytes]:
        """Return all files in some folders of the log."""
        roots = [Path(self.log.url) / folder for folder in folders]
        return {path: path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()}

    def database_files(self) -> set[Path]:
        """List the files of the read models, including leftovers."""
        root = Path(self.read_models) / "fragile"
        return {path for folder in ("files", "work") for path in (root / folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tills, sealed and published."""
    folder = tmp_path_factory.mktemp("original")
    log = create_log(str(folder / "log"), domain_name="fragile", bucket_count=2)
    shop = Shop(log, str(folder / "read-models"))
    for number in range(TILLS):
        sales = [Sold(sku=f"sku-{n}", pieces=n + 1, price=Decimal("2.50")) for n in range(3)]
        shop.append(f"till-{number}", Opened(owner="Ada"), *sales, Noted(note=str(number)))
    shop.rebuild()
    return folder


@pytest.fixture
def shop(original: Path, tmp_path: Path) -> Shop:
    """A copy of them, to damage."""
    shutil.copytree(original, tmp_path, symlinks=True, dirs_exist_ok=True)
    return Shop(open_log(str(tmp_path / "log")), str(tmp_path / "read-models"))


@contextmanager
def nothing_changes(shop: Shop, *, folders: tuple[str, ...] = ("commits", "segments", "manifests")) -> Iterator[None]:
    """Check that a block leaves the log and the published read models as they were, and readable."""
    before = (shop.files(*folders), shop.generations(), shop.tills(), shop.database_files())
    yield
    assert (shop.files(*folders), shop.generations(), shop.tills(), shop.database_files()) == before


def says(error: pytest.ExceptionInfo[RefoldError], *parts: str) -> None:
    """Check that an error's text has all of these parts."""
    missing = [part for part in parts if part not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"


GIVEN: dict[str, tuple[NewEvent, type[RefoldError], tuple[str, ...]]] = {
    "unknown event type": (
        NewEvent(payload={"sku": "a"}, event_type="Stolen", schema_version=1),
        UnknownEventTypeError,
        ("'Stolen'", "Noted, Opened, Sold", "Declare it with @event"),
    ),
    "unknown schema version": (
        NewEvent(payload={"owner": "a", "city": "b"}, event_type="Opened", schema_version=2),
        UnknownSchemaVersionError,
        ("schema version 2", "'Opened'", "known: [1]", "add an upcaster"),
    ),
    "payload that does not fit": (
        NewEvent(payload={"sku": "a", "pieces": "many", "price": "1"}, event_type="Sold", schema_version=1),
        PayloadError,
        ("Sold v1", "pieces", "int", "'many'", "Nothing was appended"),
    ),
}


@pytest.mark.parametrize("what", GIVEN)
def test_a_bad_event_is_refused_at_append(shop: Shop, what: str) -> None:
    """An invalid event rejects the events of its own append, and nothing else."""
    bad, kind, parts = GIVEN[what]
    with nothing_changes(shop), pytest.raises(kind) as error:
        shop.append("till-1", Opened(owner="Eve"), bad)
    says(error, *parts)
    assert shop.append("till-1", Opened(owner="Eve")) == TILLS * 5 + 1


OTHERS: dict[str, tuple[Callable[[], Registry], NewEvent, str]] = {
    "unknown event type": (
        older_code,
        NewEvent(payload={"sku": "a"}, event_type="Stolen", schema_version=1),
        "Unknown event type 'Stolen'",
    ),
    "unknown schema version": (
        newer_code,
        NewEvent(payload={"owner": "a", "city": "b"}, event_type="Opened", schema_version=2),
        "Unknown schema version 2 of event type 'Opened'",
    ),
    "payload that does not fit": (
        older_code,
        NewEvent(payload={"sku": "a", "pieces": "many", "price": "1"}, event_type="Sold", schema_version=1),
        "pieces: expected int64, found 'many'",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("sealed", [False, True], ids=["in a commit", "in an untyped segment"])
@pytest.mark.parametrize("what", OTHERS)
def test_a_stored_event_that_today_s_code_does_not_know_stops_a_rebuild(shop: Shop, what: str, sealed: bool) -> None:
    """An event stored by other code stays in the log; a rebuild names it or collects it as a dead letter."""
    code, stored, reason = OTHERS[what]
    position = shop.append("till-9", stored, registry=code())
    shop.append("till-9", Opened(owner="Bob"))
    if sealed:
        shop.seal()
        assert [s.rows for s in shop.log.manifest().segments if s.untyped] == [1]
    before = shop.tills()
    with nothing_changes(shop, folders=("commits",)), pytest.raises(InvalidEventsError) as error:
        shop.rebuild()
    schema_key = (stored.event_type, stored.schema_version)
    says(
        error,
        "cannot apply some events: 1",
        reason,
        f"position {position}",
        "till-9",
        "{} v{}".format(*schema_key),
        "Nothing was published",
    )
    says(error, "Fix the upcaster, the handler or the contract", "--dead-letter")
    assert shop.rebuild(dead_letter=True).dead_letters == 1
    [letter] = shop.query(LETTERS)
    assert letter[:5] == ("", position, "till-9", *schema_key)
    assert reason in letter[5]
    assert (
        letter[6] == shop.query(f"SELECT payload FROM '{commit_of(shop, position)}' WHERE position = {position}")[0][0]
    )
    assert shop.tills() == [*before, ("till-9", "Bob", 0, Decimal(0))]
    assert verify(shop.log, SHOP.registry).events == TILLS * 5 + 2


def commit_of(shop: Shop, position: int) -> Path:
    """Return the path of the commit that contains a position."""
    infos = [i for i in shop.log.commits_after(shop.log.start) if i.first_position <= position <= i.last_position]
    return shop.log.commit_paths(infos)[0]


def test_an_event_that_a_handler_cannot_cast(shop: Shop) -> None:
    """Only the events that fail are named, or become dead letters of the read model that cannot apply them."""
    position = shop.append("till-1", Noted(note="many"))
    shop.append("till-1", Noted(note="40"))
    with nothing_changes(shop, folders=("commits",)), pytest.raises(InvalidEventsError) as error:
        shop.rebuild("CASTING")
    says(
        error,
        "cannot apply some events: 1",
        f"position {position}",
        "till-1",
        "Noted v1",
        "'many'",
        "INT64",
        "--dead-letter",
    )
    tills = shop.tills()
    assert shop.rebuild("CASTING", dead_letter=True).dead_letters == 1
    [letter] = shop.query(LETTERS)
    assert letter[:5] == ("notes", position, "till-1", "Noted", 1)
    assert "'many'" in letter[5]
    assert letter[6] == '{"note":"many"}'
    assert shop.query('SELECT till, "sum" FROM notes ORDER BY till') == [("till-0", 0), ("till-1", 41), ("till-2", 2)]
    assert shop.tills() == tills


def test_a_fold_that_raises(shop: Shop) -> None:
    """The event at which it raises is named, or becomes a dead letter; the others are folded without it."""
    paths = "SELECT till, path FROM paths ORDER BY till"
    before = shop.query(paths)
    position = shop.append("till-1", Sold(sku="sku-1", pieces=13, price=Decimal(1)))
    with nothing_changes(shop, folders=("commits",)), pytest.raises(InvalidEventsError) as error:
        shop.rebuild("RAISING")
    says(
        error,
        "cannot apply some events: 1",
        f"position {position}",
        "till-1",
        "Sold v1",
        "thirteen pieces bring bad luck",
    )
    assert shop.rebuild("RAISING", dead_letter=True).dead_letters == 1
    [letter] = shop.query(LETTERS)
    assert letter[:5] == ("paths", position, "till-1", "Sold", 1)
    assert "ValueError" in letter[5]
    assert "thirteen pieces" in letter[5]
    assert shop.query(paths) == before
    assert shop.tills()[1] == ("till-1", "Ada", 19, Decimal("28.00"))


def cut(path: Path) -> None:
    """Truncate a file to its first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    """Fill the first half of a file with zeros."""
    half = path.stat().st_size // 2
    path.write_bytes(bytes(half) + path.read_bytes()[half:])


DAMAGES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "truncated": (cut, ("bytes, expected", "truncated", "Restore it from a backup")),
    "overwritten": (overwrite, ("is damaged", "its SHA-256 is", "refold log repair")),
    "missing": (Path.unlink, ("is missing, but the manifest names it", "Sold v1", "Restore it from a backup")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_stops_a_rebuild(shop: Shop, damage: str) -> None:
    """The error names the file, verification finds it, readers continue, and after a restore the rebuild works."""
    harm, parts = DAMAGES[damage]
    segment = shop.log.manifest().segments_of({("Sold", 1)})[0]
    path = Path(shop.log.url) / segment.key
    whole, before = path.read_bytes(), shop.tills()
    harm(path)
    with nothing_changes(shop), pytest.raises(DamagedLogError) as error:
        shop.rebuild()
    says(error, *parts, segment.key)
    assert segment.key in " ".join(map(str, verify(shop.log, SHOP.registry).findings))
    path.write_bytes(whole)
    assert shop.rebuild().generation.number == 2
    assert shop.tills() == before


def test_a_missing_commit_stops_a_rebuild(shop: Shop) -> None:
    """A missing commit is an error: the commits after it are not silently left out."""
    for number in range(3):
        shop.append(f"till-{number}", Opened(owner="Bob"))
    path = shop.log.store.local_path(commit_key(TILLS + 2))
    whole = path.read_bytes()
    path.unlink()
    with nothing_changes(shop), pytest.raises(DamagedLogError) as error:
        shop.rebuild()
    says(error, "commits/00000000000000000005.parquet", "missing", "Restore it from a backup")
    assert any(f.kind == "commit" for f in verify(shop.log, SHOP.registry).findings)
    path.write_bytes(whole)
    assert shop.rebuild().generation.position == TILLS * 5 + 3


def test_a_truncated_commit_stops_a_rebuild(shop: Shop) -> None:
    """The error names the damaged commit, which does not count as the end of the log."""
    shop.append("till-1", Opened(owner="Bob"))
    path = shop.log.store.local_path(commit_key(TILLS + 1))
    cut(path)
    with nothing_changes(shop), pytest.raises(DamagedLogError) as error:
        shop.rebuild()
    says(error, str(path), "truncated", "a backup of the store")
    with nothing_changes(shop), pytest.raises(DamagedLogError):
        shop.append("till-1", Opened(owner="Eve"))


@pytest.mark.parametrize("content", [b"", b"{", b'{"number": 1}', b"\xff\xfe"])
def test_a_corrupted_manifest_stops_everything_but_readers(shop: Shop, content: bytes) -> None:
    """Without the manifest nothing knows the live segments: rebuild and append fail, and verification reports it."""
    path = max((Path(shop.log.url) / "manifests").iterdir())
    path.write_bytes(content)
    for work in (shop.rebuild, lambda: shop.append("till-1", Opened(owner="Eve"))):
        with nothing_changes(shop), pytest.raises(DamagedLogError, match=re.escape(str(path))) as error:
            work()
        says(error, "is not a manifest", "refold events verify")
    assert any(path.name in str(f) for f in verify(shop.log, SHOP.registry).findings)


def test_another_bucket_count_is_refused(shop: Shop) -> None:
    """A changed bucket count is an error: streams would hash to other buckets."""
    with nothing_changes(shop), pytest.raises(LogError) as error:
        create_log(shop.log.url, domain_name="fragile", bucket_count=3)
    says(error, shop.log.url, "has 2 buckets, not 3", "Leave the bucket count out")
    with nothing_changes(shop), pytest.raises(LogError, match="belongs to domain 'fragile', not 'orders'"):
        open_log(shop.log.url, domain_name="orders")


def test_places_that_cannot_be_written(shop: Shop, tmp_path: Path) -> None:
    """The error names the place; no log is partially created, and a rebuild leaves the published files alone."""
    (tmp_path / "file").write_text("no folder")
    below = str(tmp_path / "file" / "below")
    with pytest.raises(StoreError, match=re.escape(below)) as error:
        create_log(below, domain_name="fragile")
    says(error, "Cannot write", "Not a directory")
    with nothing_changes(shop), pytest.raises(StoreError, match=re.escape(below)) as error:
        Shop(shop.log, below).rebuild()
    says(error, "Cannot write", "Not a directory")
    assert (tmp_path / "file").read_text() == "no folder"


def test_an_empty_log_has_nothing_to_rebuild(tmp_path: Path) -> None:
    """A rebuild of an empty log is an error, not an empty generation."""
    log = create_log(str(tmp_path / "log"), domain_name="fragile", bucket_count=2)
    empty = Shop(log, str(tmp_path / "read-models"))
    with pytest.raises(EmptyLogError) as error:
        empty.rebuild()
    says(error, log.url, "holds no events", "refold ingest")
    assert (empty.generations(), empty.database_files()) == ([], set())
