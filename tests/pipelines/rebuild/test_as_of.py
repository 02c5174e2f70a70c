"""As-of rebuilds: positions, times, and an output file that is complete or absent."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import EmptyLogError, InvalidEventsError, UsageError
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.as_of import AsOf, rebuild_as_of
from refold.pipelines.rebuild.replay import RebuildProgress
from refold.warehouse.event_log import Appender, EventLog, create_log
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.reads import seek
from refold.warehouse.event_log.reads.seek import find_place, find_position, find_time
from tests.pipelines.rebuild.test_rebuild import HERE, MARKET, Market, at
from tests.warehouse.event_log.shop import REGISTRY, Placed, bulk_import, seal, write_commit

OPTIONS = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
PLACED = Placed(customer="c1", currency="EUR")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Twenty-four sealed commits of two sales, then as many that are not; 96 events, one generation published."""
    folder = tmp_path_factory.mktemp("as-of")
    log = create_log(str(folder / "log"), domain_name="market", bucket_count=4)
    market = Market(folder, log, Appender(log, MARKET.registry))
    market.sell()
    market.rebuild()
    market.sell()
    return market


@pytest.fixture
def market(template: Market, tmp_path: Path) -> Market:
    """A copy of it."""
    shutil.copytree(template.folder, tmp_path / "copy", symlinks=True)
    log = create_log(str(tmp_path / "copy" / "log"), domain_name="market", bucket_count=4)
    return Market(tmp_path / "copy", log, Appender(log, MARKET.registry))


def build(market: Market, position: int, to: Path, **more: Any) -> AsOf:
    """Build a file as of a position."""
    url = market.generations.store.url
    return rebuild_as_of(market.log, f"{HERE}:MARKET", OPTIONS, position=position, to=to, staging_url=url, **more)


def sold(path: Path) -> int:
    """Return the pieces sold according to a file."""
    with closing(duckdb.connect(str(path), read_only=True)) as connection:
        [(pieces,)] = connection.execute("SELECT sum(sold) FROM stalls").fetchall()
    return int(pieces)


def pieces_until(position: int) -> int:
    """Say what ``Market.sell`` sold in its first events: n pieces of something, then one cup."""
    return sum((e // 2) % 24 if e % 2 == 0 else 1 for e in range(position))


@pytest.mark.slow
@pytest.mark.parametrize("position", [1, 17, 48, 49, 95, 96])
def test_it_holds_the_events_up_to_there(market: Market, tmp_path: Path, position: int) -> None:
    """The file has all events up to the position: sealed or not, at the end of a commit or within it."""
    built = build(market, position, tmp_path / "then.duckdb")
    assert sold(built.path) == pieces_until(position)
    assert (built.at.position, built.at.commit_number) == (position, (position + 1) // 2)


def test_nothing_is_published_and_nothing_left(market: Market, tmp_path: Path) -> None:
    """What is published stays as it is, and neither staged objects nor working files remain."""
    before = {p: p.stat().st_mtime_ns for p in Path(market.url).rglob("*.*") if p.is_file()}
    to = tmp_path / "files" / "then.duckdb"
    to.parent.mkdir()
    build(market, 60, to)
    assert {p: p.stat().st_mtime_ns for p in Path(market.url).rglob("*.*") if p.is_file()} == before
    assert [p.name for p in to.parent.iterdir()] == ["then.duckdb"]
    assert [p for p in Path(market.url).rglob("*") if "staging/" in str(p) and p.is_file()] == []


def test_the_file_has_the_metadata_of_a_published_one(market: Market, tmp_path: Path) -> None:
    """The file has the checkpoint, projections with rows and checksum, and views."""
    built = build(market, 30, tmp_path / "then.duckdb")
    info = market.log.commit_info(15)
    assert info is not None
    with closing(duckdb.connect(str(built.path), read_only=True)) as connection:
        checkpoint = connection.execute("SELECT log_id, position, commit_number, recorded_at FROM refold.checkpoint")
        assert checkpoint.fetchall() == [(market.log.log_id, 30, 15, info.recorded_at)]
        listed = connection.execute("SELECT name, position, rows, checksum IS NOT NULL FROM refold.projections")
        assert sorted(listed.fetchall()) == [(name, 30, rows, True) for name, rows in sorted(built.rows.items())]
        assert connection.execute("SELECT count(*) FROM skus_by_name").fetchall() == [(built.rows["skus"],)]


def test_only_some_read_models(market: Market, tmp_path: Path) -> None:
    """The file has only the selected read models."""
    assert build(market, 30, tmp_path / "then.duckdb", only=["paths"]).rows.keys() == {"paths"}


def test_an_existing_file_is_not_overwritten(market: Market, tmp_path: Path) -> None:
    """This includes a file that appears during the build."""
    to = tmp_path / "then.duckdb"
    to.write_text("mine")
    with pytest.raises(UsageError, match=r"then\.duckdb exists"):
        build(market, 30, to)
    to.unlink()
    with pytest.raises(UsageError, match=r"then\.duckdb exists"):
        build(market, 30, to, report=at("load", lambda: to.write_text("mine")))
    assert to.read_text() == "mine"
    with pytest.raises(UsageError, match="does not exist"):
        build(market, 30, tmp_path / "nowhere" / "then.duckdb")


def test_an_interrupted_build_is_resumed(market: Market, tmp_path: Path) -> None:
    """A build as of the same position resumes it; one of another position is separate."""

    class BrokenOff(Exception):
        """The build was interrupted."""

    def stop(progress: RebuildProgress) -> None:
        if progress.phase == "load":
            raise BrokenOff

    with pytest.raises(BrokenOff):
        build(market, 40, tmp_path / "then.duckdb", report=stop)
    assert list(tmp_path.glob("*.duckdb")) == []
    assert build(market, 41, tmp_path / "other.duckdb").resumed == 0
    again = build(market, 40, tmp_path / "then.duckdb")
    assert again.resumed > 0
    assert sold(again.path) == pieces_until(40)


@pytest.mark.slow
def test_a_killed_one_leaves_no_file(market: Market, tmp_path: Path) -> None:
    """A build that is killed while it loads leaves no file; the next run writes it."""
    to = tmp_path / "then.duckdb"
    command = [sys.executable, "-m", "tests.pipelines.rebuild.test_as_of", str(market.folder), str(to)]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not to.exists()
    assert build(market, 33, to).resumed > 0
    assert sold(to) == pieces_until(33)


def test_invalid_events_after_the_position_do_not_matter(tmp_path: Path) -> None:
    """Before the position they stop the build or become dead letters; after it they are not read."""
    log = create_log(str(tmp_path / "log"), domain_name="market", bucket_count=1)
    market = Market(tmp_path, log, Appender(log, MARKET.registry))
    market.sell()
    write_commit(log, [("stall-99", "Sold", 1, '{"sku": "cup"}')])
    market.sell()
    write_commit(log, [("stall-98", "Sold", 1, '{"sku": "cup"}')])
    assert sold(build(market, 48, tmp_path / "before.duckdb").path) == pieces_until(48)
    with pytest.raises(InvalidEventsError, match="position 49"):
        build(market, 49, tmp_path / "behind.duckdb")
    built = build(market, 60, tmp_path / "behind.duckdb", dead_letter=True)
    assert built.dead_letters == 1
    assert sold(built.path) == pieces_until(48) + pieces_until(11)


def test_there_is_no_such_position(market: Market, tmp_path: Path) -> None:
    """The error names the positions that exist."""
    for position in (0, 97):
        with pytest.raises(UsageError, match=f"no position {position}: give one from 1 to 96"):
            build(market, position, tmp_path / "then.duckdb")


def test_an_empty_log_has_no_place(tmp_path: Path) -> None:
    """Any position or time of an empty log is an error."""
    log = create_log(str(tmp_path / "log"), domain_name="market", bucket_count=2)
    for text in ("1", "2030-01-01T00:00:00Z"):
        with pytest.raises(EmptyLogError, match="has no events"):
            find_place(log, MARKET.registry, text)


# What a time means


def test_a_time_is_the_last_commit_recorded_by_then(market: Market) -> None:
    """A time at, between or after commits maps to the last commit recorded by then."""
    infos = list(market.log.commits_after(market.log.start))
    for info, following in itertools.pairwise(infos):
        if info.recorded_at < following.recorded_at:
            assert find_time(market.log, info.recorded_at).commit_number == info.number
            before = following.recorded_at - timedelta(microseconds=1)
            assert find_time(market.log, before).position == info.last_position
    assert find_place(market.log, MARKET.registry, "2999-01-01T00:00:00+01:00").position == 96


FAR = datetime(2099, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def recorded(log: EventLog, *times: datetime) -> None:
    """Write a commit of one event at each time, as programs do whose clocks may be wrong."""
    for number, time in enumerate(times, start=1):
        write_commit(log, [(f"order-{number}", "Closed", 1, "{}")], recorded_at=time)


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_clock_far_ahead_hides_nothing(tmp_path: Path, place: str) -> None:
    """What honest clocks recorded after it is found, and so is the commit itself, between its neighbours."""
    url = str(tmp_path / "log") if place == "local" else f"memory://{uuid.uuid4()}"
    log = create_log(url, domain_name="shop", bucket_count=2)
    started = datetime.now(UTC)
    appender = Appender(log, REGISTRY)
    appender.append("order-1", [PLACED])
    write_commit(log, [("order-2", "Closed", 1, "{}")], recorded_at=FAR)
    assert find_time(log, datetime.now(UTC)).position == 1
    appender.append("order-3", [PLACED])
    appender.append("order-4", [PLACED])
    assert find_time(log, datetime.now(UTC)).position == 4
    infos = list(log.commits_after(log.start))
    assert find_time(log, infos[2].recorded_at).position == 3
    with pytest.raises(UsageError, match="has no events recorded"):
        find_time(log, started)


@pytest.mark.parametrize(
    ("offsets", "at", "position"),
    [
        ([0, 1, 2, 3], 1, 2),
        ([0, 26_000, 2, 3], 1, 1),
        ([0, 26_000, 2, 3], 2, 3),
        ([26_000, 1, 2, 3], 1, 2),  # the first commit of the log
        ([26_000, 26_000, 26_000, 3], 3, 4),  # more wrong than right: none of them can be
        ([0, 1, 2, 26_000], 99, 3),  # the last one
        ([0, 1, -20_000, 3, 4], 2, 2),  # behind: it is not all that was there in 1970
        ([0, 1, -20_000, 3, 4], 3, 4),
        ([0, 9, 10, 11, 3, 12], 5, 1),  # three against one
        ([0, 9, 3, 4, 5], 4, 4),  # one against three, and not in the future
        ([0, 5, 3], 4, 3),
    ],
)
@pytest.mark.parametrize("sample", [3, 4, 1_000])
def test_the_fewest_clocks_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offsets: list[int], at: int, position: int, sample: int
) -> None:
    """Commits whose times contradict those of more others are passed over; a sample that has none right is no end."""
    monkeypatch.setattr(seek, "_SAMPLE", sample)
    log = create_log(str(tmp_path / "log"), domain_name="shop", bucket_count=2)
    recorded(log, *(NOON + offset * DAY for offset in offsets))
    assert find_time(log, NOON + at * DAY).position == position


NOON = datetime.now(UTC) - timedelta(days=400)


@pytest.mark.slow
def test_a_long_log_with_wrong_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Single commits and a long run of a wrong clock, of which samples see some, hide no place."""
    monkeypatch.setattr(seek, "_SAMPLE", 16)
    log = create_log(str(tmp_path / "log"), domain_name="shop", bucket_count=2)
    wrong = {7: 20_000, 50: -300, 51: 300, 100: -20_000, **dict.fromkeys(range(60, 75), 30)}
    recorded(log, *(NOON + timedelta(hours=n) + wrong.get(n, 0) * DAY for n in range(1, 121)))
    for n in set(range(1, 121)) - set(wrong):
        assert find_time(log, NOON + timedelta(hours=n)).position == n


def test_a_time_before_the_first_commit(market: Market) -> None:
    """The error names the time of the first commit."""
    with pytest.raises(UsageError, match=r"has no events recorded .* commit 1 was recorded at"):
        find_place(market.log, MARKET.registry, "1999-12-31T23:59:59Z")


@pytest.mark.parametrize(("text", "message"), [("yesterday", "neither a position nor a time"), ("2026-01-31", "zone")])
def test_an_invalid_time_is_an_error(market: Market, text: str, message: str) -> None:
    """A date without a time zone is ambiguous, so it is an error."""
    with pytest.raises(UsageError, match=message):
        find_place(market.log, MARKET.registry, text)


def test_an_import_counts_from_when_its_commit_was_recorded(tmp_path: Path) -> None:
    """Its rows carry its start, which may lie before commits that came first."""
    log = create_log(str(tmp_path / "log"), domain_name="shop", bucket_count=2)
    appender = Appender(log, REGISTRY)
    appender.append("order-1", [PLACED])
    started = datetime.now(UTC)
    appender.append("order-2", [PLACED])
    imported = bulk_import(log, "old", [("order-8", PLACED), ("order-9", PLACED)], recorded_at=started)
    appender.append("order-3", [PLACED])
    assert find_time(log, started).position == 1
    assert find_time(log, imported.recorded_at).position == 4
    assert imported.recorded_at > started
    for sealed in (False, True):
        if sealed:
            seal(log)
        assert find_time(log, imported.recorded_at - timedelta(microseconds=1)).position == 2
        assert find_position(log, REGISTRY, 3).commit_number == 3


@pytest.fixture
def pruned(tmp_path: Path) -> EventLog:
    """A log whose first three commits, all sealed, were deleted; two more were sealed, and one was not."""
    log = create_log(str(tmp_path / "log"), domain_name="shop", bucket_count=2)
    appender = Appender(log, REGISTRY)
    for number in range(6):
        if number == 5:
            seal(log)
        appender.append(f"order-{number}", [PLACED, PLACED])
    return log


def test_a_time_in_deleted_commits_is_an_error(pruned: EventLog) -> None:
    """The error names the earliest usable time; positions are still found in segments."""
    infos = list(pruned.commits_after(pruned.start))
    for info in infos[:3]:
        pruned.store.delete(commit_key(info.number))
    with pytest.raises(UsageError, match=r"commits up to 3 were deleted .* commit 4 was recorded at"):
        find_time(pruned, infos[1].recorded_at)
    assert find_time(pruned, infos[3].recorded_at).position == 8
    assert [find_position(pruned, REGISTRY, p).commit_number for p in range(1, 13)] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
        5,
        6,
        6,
    ]


def test_the_end_of_the_seal_is_known_without_its_commit(pruned: EventLog) -> None:
    """The manifest has the end of the sealed log."""
    infos = list(pruned.commits_after(pruned.start))
    for info in infos[:5]:
        pruned.store.delete(commit_key(info.number))
    assert find_time(pruned, infos[4].recorded_at).position == 10
    assert find_position(pruned, REGISTRY, 10).recorded_at == infos[4].recorded_at.isoformat()
    assert find_position(pruned, REGISTRY, 12).commit_number == 6


@pytest.mark.parametrize("after", [0, 5])
def test_the_last_commit_is_found_by_galloping(tmp_path: Path, after: int) -> None:
    """For any number of them, from the start or from a commit that is not there any more."""
    log = create_log(str(tmp_path / "log"), domain_name="shop", bucket_count=2)
    appender = Appender(log, REGISTRY)
    for number in range(1, 20):
        appender.append(f"order-{number}", [PLACED])
        found = log.last_commit(after)
        assert (found.number if found else None) == (number if number > after else None)


def main(folder: str, to: str) -> None:
    """Build a file as of position 33, and be killed on the way."""
    log = create_log(f"{folder}/log", domain_name="market", bucket_count=4)
    market = Market(Path(folder), log, Appender(log, MARKET.registry))
    build(market, 33, Path(to), report=at("load", lambda: os.kill(os.getpid(), signal.SIGKILL)))


if __name__ == "__main__":
    main(*sys.argv[1:])
