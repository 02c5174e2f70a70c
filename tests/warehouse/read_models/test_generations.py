"""Publishing, rolling back and collecting generations, beside readers in other processes."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from refold.event_schemas import GenerationError, UsageError
from refold.warehouse.object_store.records import encode_record
from refold.warehouse.object_store.store import TEMP_PREFIX
from refold.warehouse.read_models.generations.garbage_collection import Collected, collect, plan_collection
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations
from refold.warehouse.read_models.generations.open_files import held_files
from refold.warehouse.read_models.generations.rollback import roll_back
from tests.warehouse.read_models.published import aged, publish, reading, shown

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LONG_AGO = 3 * DAY


@pytest.fixture(params=["local", "memory"])
def generations(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generations:
    """Read models of which nothing is published yet, on a local and on a remote store."""
    monkeypatch.setenv("REFOLD_CACHE_DIR", str(tmp_path / "cache"))
    local = request.param == "local"
    return open_generations(str(tmp_path / "rm") if local else f"memory://{uuid.uuid4().hex}", "shop")


@pytest.fixture
def local(tmp_path: Path) -> Generations:
    """Read models on a local store."""
    return open_generations(str(tmp_path / "rm"), "shop")


def numbers(generations: Generations) -> list[int]:
    """Return the numbers of the generations."""
    return generations.numbers()


def planned(generations: Generations, **more: Any) -> Collected:
    """Plan a collection that keeps only the newest by default."""
    return plan_collection(generations, **{"keep": 1, "min_age": HOUR, "leftover_age": DAY, **more})


def files(generations: Generations) -> set[str]:
    """Return the names of the database files."""
    return set(generations.store.list_from("files"))


# Publishing


def test_who_loses_the_number_never_takes_a_file_from_others(generations: Generations, tmp_path: Path) -> None:
    """Its own file is deleted; one that another generation references, as after a rollback, is kept."""
    first, second = publish(generations, tmp_path), publish(generations, tmp_path)
    assert not generations.publish(dataclasses.replace(first, number=2, kind="rollback"))
    assert files(generations) == {first.file, second.file}
    own = generations.store.child("files")
    own.put("own.duckdb", b"")
    assert not generations.publish(dataclasses.replace(first, number=2, file="files/own.duckdb"))
    assert files(generations) == {first.file, second.file}


def test_a_lost_answer_is_no_lost_race(generations: Generations, tmp_path: Path) -> None:
    """A publisher that finds its own object has published."""
    first = publish(generations, tmp_path)
    assert generations.publish(first)
    assert files(generations) == {first.file}


def test_a_generation_of_a_former_release_has_a_kind(generations: Generations, tmp_path: Path) -> None:
    """A generation of refold 0.1.0 has neither a kind, nor digests."""
    publish(generations, tmp_path)
    [key] = generations.store.list_from("generations")
    document = orjson.loads(generations.store.get(key))
    for name in ("kind", "digest", "commit_digest"):
        del document[name]
    generations.store.put(key, orjson.dumps(document))
    assert generations.get(1).kind == "rebuild"


def test_a_generation_without_its_digest_is_refused(generations: Generations, tmp_path: Path) -> None:
    """Only those of refold 0.1.0 have none."""
    publish(generations, tmp_path)
    [key] = generations.store.list_from("generations")
    document = orjson.loads(generations.store.get(key))
    generations.store.put(key, orjson.dumps({**document, "position": 94_016}))
    with pytest.raises(GenerationError, match="was changed after it was written"):
        generations.newest()
    del document["digest"]
    generations.store.put(key, orjson.dumps(document))
    with pytest.raises(GenerationError, match="it has no digest"):
        generations.newest()


def test_a_stray_file_is_passed_over(generations: Generations, tmp_path: Path) -> None:
    """Whatever lies behind the numbers is no generation."""
    publish(generations, tmp_path)
    generations.store.put("generations/zz-notes.json", b"hello")
    assert generations.numbers() == [1]
    assert generations.newest() is not None


def test_a_damaged_file_is_refused(local: Generations, tmp_path: Path) -> None:
    """A published file is checked before it is read."""
    generation = publish(local, tmp_path)
    path = Path(local.store.url, generation.file)
    path.chmod(0o644)
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(GenerationError, match="is damaged"):
        local.path(generation)


# Rolling back


def test_an_older_generation_is_published_again(generations: Generations, tmp_path: Path) -> None:
    """By default the one before the newest; it references the same file, and copies nothing."""
    first, second = publish(generations, tmp_path), publish(generations, tmp_path)
    publish(generations, tmp_path)
    third = roll_back(generations)
    assert (third.number, third.kind, third.parent, third.file) == (4, "rollback", 2, second.file)
    assert (third.position, shown(generations)) == (20, 2)
    assert roll_back(generations, 1).file == first.file
    assert (numbers(generations), shown(generations)) == ([1, 2, 3, 4, 5], 1)
    assert len(files(generations)) == 3


def test_the_link_follows(local: Generations, tmp_path: Path) -> None:
    """After a rollback, ``current.duckdb`` links to the older file."""
    first = publish(local, tmp_path)
    publish(local, tmp_path)
    roll_back(local)
    assert (Path(local.store.url) / "current.duckdb").readlink() == Path(first.file)


def test_invalid_rollbacks(generations: Generations, tmp_path: Path) -> None:
    """A rollback without a target, or to the newest, an unknown or a deleted one, is an error."""
    with pytest.raises(GenerationError, match="Nothing is published"):
        roll_back(generations)
    first = publish(generations, tmp_path)
    with pytest.raises(GenerationError, match="the only one"):
        roll_back(generations)
    with pytest.raises(UsageError, match="is the newest"):
        roll_back(generations, 1)
    with pytest.raises(GenerationError, match="no generation 7"):
        roll_back(generations, 7)
    publish(generations, tmp_path)
    generations.store.delete(first.file)
    with pytest.raises(GenerationError, match="which is missing"):
        roll_back(generations)
    assert numbers(generations) == [1, 2]


def beside(generations: Generations, act: Callable[[], object]) -> Generations:
    """Return the same read models; just before their first publish, another process acts."""
    waiting = [act]

    class Beside(Generations):
        """Generations on which another process acts."""

        def claim(self, generation: Generation) -> bool:
            """Let the other process act first."""
            if waiting:
                waiting.pop()()
            return super().claim(generation)

    return Beside(generations.store)


def test_who_publishes_meanwhile_is_followed(generations: Generations, tmp_path: Path) -> None:
    """The rollback takes the next number, and publishes the requested generation."""
    first, _ = publish(generations, tmp_path), publish(generations, tmp_path)
    made = roll_back(beside(generations, lambda: publish(generations, tmp_path)), 1)
    assert (made.number, made.file) == (4, first.file)
    assert shown(generations) == 1


def test_one_that_is_collected_at_this_moment_is_not_shown(generations: Generations, tmp_path: Path) -> None:
    """The collector planned before the rollback and deletes after it: then the newest is published again."""
    for _ in range(3):
        publish(generations, tmp_path, ago=LONG_AGO)
    collection = planned(generations)
    with pytest.raises(GenerationError, match=r"collected .* during the rollback, so generation 3 was published again"):
        roll_back(beside(generations, lambda: collect(generations, collection)), 1)
    assert shown(generations) == 3


def test_one_that_was_rolled_back_to_meanwhile_is_not_collected(generations: Generations, tmp_path: Path) -> None:
    """References are read again before a file is deleted."""
    for _ in range(3):
        publish(generations, tmp_path, ago=LONG_AGO)
    collection = planned(generations)
    roll_back(generations, 1)
    collect(generations, collection)
    assert (numbers(generations), shown(generations)) == ([3, 4], 1)


# Collecting


def test_the_newest_stay_and_those_superseded_lately(generations: Generations, tmp_path: Path) -> None:
    """Its age since publishing does not matter: readers may have opened it until it was superseded."""
    made = [publish(generations, tmp_path, ago=ago) for ago in (LONG_AGO, DAY, DAY / 2, HOUR / 2, HOUR / 3)]
    for keep, gone in ((5, ()), (4, (1,)), (3, (1, 2)), (1, (1, 2))):
        assert planned(generations, keep=keep).generations == gone
    collection = planned(generations)
    assert [f.key for f in collection.files] == sorted(g.file for g in made[:2])
    assert numbers(generations) == [1, 2, 3, 4, 5], "planning removes nothing"
    freed = collect(generations, collection)
    assert freed == made[0].bytes + made[1].bytes
    assert numbers(generations) == [3, 4, 5]
    assert files(generations) == {g.file for g in made[2:]}
    assert shown(generations) == 5


def test_at_least_one_stays(generations: Generations) -> None:
    """The newest generation stays, for any arguments."""
    for wrong in ({"keep": 0}, {"min_age": -HOUR}, {"leftover_age": -HOUR}):
        with pytest.raises(UsageError):
            planned(generations, **wrong)


def test_shared_files_stay(generations: Generations, tmp_path: Path) -> None:
    """A rollback needs an older generation's file."""
    made = [publish(generations, tmp_path, ago=LONG_AGO) for _ in range(4)]
    rolled = roll_back(generations, 1)
    collection = planned(generations, min_age=timedelta(0))
    assert {f.key for f in collection.files} == {g.file for g in made[1:4]}
    collect(generations, collection)
    assert (numbers(generations), files(generations)) == ([5], {rolled.file})


def test_a_seeded_table_needs_the_file_that_it_started_from(generations: Generations, tmp_path: Path) -> None:
    """The generation references both files."""
    first, second = publish(generations, tmp_path), publish(generations, tmp_path)
    key = list(generations.store.list_from("generations"))[-1]
    document = orjson.loads(generations.store.get(key))
    of_table = {"fingerprint": "f", "parts": {}, "rows": 0, "checksum": "c"}
    seed = {"generation": 1, "position": 10, "file": first.file}
    document["tables"] = {"t": {**of_table, "seed": seed}, "u": {**of_table, "seed": None}}
    del document["digest"]
    generations.store.put(key, encode_record(document))
    assert generations.referenced_files() == {1: {first.file}, 2: {first.file, second.file}}


def test_readers_in_other_processes_read_on(local: Generations, tmp_path: Path) -> None:
    """Readers continue during a rollback and a collection; an open generation is kept and reported."""
    first, second, third = (publish(local, tmp_path, ago=LONG_AGO) for _ in range(3))
    with reading(local.path(first), local.path(third)) as (old, new):
        assert roll_back(local, 2).file == second.file
        assert (old.read(), new.read()) == (1, 3)
        collection = planned(local, min_age=timedelta(0))
        assert (collection.held, collection.generations) == ((1, 3), (2,))
        collect(local, collection)
        assert numbers(local) == [1, 3, 4]
        assert (old.read(), new.read()) == (1, 3)
    collection = planned(local, min_age=timedelta(0))
    assert (collection.held, collection.generations) == ((), (1, 3))
    collect(local, collection)
    assert files(local) == {second.file}
    assert shown(local) == 2


def test_checking_the_locks_of_a_file_releases_none(local: Generations, tmp_path: Path) -> None:
    """The sessions of the checking process keep their locks, which closing a descriptor here would drop."""
    path = local.path(publish(local, tmp_path))
    with duckdb.connect(str(path), read_only=True):
        assert held_files([path]) == {path}
        assert held_files([path]) == {path}
    assert held_files([path, tmp_path / "missing"]) == set()


def test_the_link_never_leads_to_a_collected_file(local: Generations, tmp_path: Path) -> None:
    """The link is valid even if a publisher is killed before it replaces the link."""
    first, second = (publish(local, tmp_path, ago=LONG_AGO) for _ in range(2))
    link = Path(local.store.url) / "current.duckdb"
    link.unlink()
    link.symlink_to(first.file)
    collect(local, planned(local))
    assert link.readlink() == Path(second.file)
    assert link.exists()


def test_leftovers_of_dead_writers(local: Generations, tmp_path: Path) -> None:
    """Unpublished files, staged objects, working folders and partial writes that are older than a day."""
    generation = publish(local, tmp_path)
    root = Path(local.store.url)
    left = {
        "files/orphan.duckdb": b"orphan",
        "staging/plans/identity": b"dead",
        "staging/plans/lost": b"gone",
        "staging/rebuild-dead/plan.json": b"{}",
        "staging/rebuild-dead/staged/rows": b"rows",
        "work/refold-dead/working.duckdb": b"half",
        f"files/{TEMP_PREFIX}1": b"temporary",
    }
    alive = {
        "staging/plans/other": b"alive",
        "staging/rebuild-alive/plan.json": b"{}",
        "staging/rebuild-alive/staged/rows": b"rows",
        "work/refold-alive/working.duckdb": b"half",
    }
    for key, data in (left | alive).items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    assert planned(local).leftovers == ()
    for path in [root / key for key in (left | alive) if not key.endswith("alive/staged/rows")]:
        aged(path, 2 * DAY)
    for folder in ("work/refold-dead", "work/refold-alive"):
        aged(root / folder, 2 * DAY)
    (root / "work/refold-alive/spill").write_bytes(b"")
    collection = planned(local)
    assert {f.key for f in collection.leftovers} == set(left)
    assert all(f.why for f in collection.leftovers)
    assert collect(local, collection) == sum(map(len, left.values()))
    kept = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and not p.is_symlink()}
    assert kept == {*alive, "work/refold-alive/spill", generation.file, f"generations/{1:020d}.json"}
    assert not (root / "staging/rebuild-dead").exists()
    assert not (root / "work/refold-dead").exists()


def test_leftovers_on_a_remote_store(generations: Generations, tmp_path: Path) -> None:
    """The age of remote leftovers is that of the store."""
    publish(generations, tmp_path)
    generations.store.put("files/orphan.duckdb", b"orphan")
    generations.store.put("staging/rebuild-dead/plan.json", b"{}")
    assert planned(generations).leftovers == ()
    collection = planned(generations, leftover_age=timedelta(0))
    assert {f.key for f in collection.leftovers} == {"files/orphan.duckdb", "staging/rebuild-dead/plan.json"}
    collect(generations, collection)
    assert len(files(generations)) == 1


def test_a_working_database_that_is_open_is_not_left_over(local: Generations, tmp_path: Path) -> None:
    """A working database is kept at any age while its writer holds a lock."""
    publish(local, tmp_path)
    folder = Path(local.store.url) / "work" / "refold-slow"
    folder.mkdir(parents=True)
    made = publish(open_generations(str(tmp_path / "other"), "shop"), tmp_path)
    working = folder / "working.duckdb"
    working.write_bytes((tmp_path / "other" / "shop" / made.file).read_bytes())
    with reading(working):
        for path in (working, folder):
            aged(path, 2 * DAY)
        assert planned(local).leftovers == ()
    assert [f.key for f in planned(local).leftovers] == ["work/refold-slow/working.duckdb"]


def test_a_gap_in_the_numbers_is_no_harm(local: Generations, tmp_path: Path) -> None:
    """Open generations leave gaps when later ones are collected."""
    for _ in range(3):
        publish(local, tmp_path)
    local.forget(2)
    assert [g.number for g in local.all()] == [1, 3]
    assert roll_back(local).parent == 1
