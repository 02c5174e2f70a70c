"""Dead letters: listed, retried after a fix, or discarded; never lost."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from refold.event_schemas import InvalidEventsError, UsageError
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.cli.main import cli
from refold.pipelines.rebuild.rebuild import Rebuilt, rebuild
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    create_log,
    open_log,
)
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.dead_letters.dead_letters import (
    DeadLetter,
    discard,
    published_dead_letters,
    read_dead_letters,
)
from refold.warehouse.read_models.dead_letters.retry import plan_retry
from refold.warehouse.read_models.generations.build import scratch_folder
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations
from refold.warehouse.read_models.increments.catch_up import ModelsAtCheckpoint, catch_up
from tests.pipelines.cli.letters import WRITER, Lost, Weighed

ROOT = Path(__file__).parents[3]
DOMAINS = "tests.pipelines.cli.letters"
OPEN = {("weights", 2), ("weights", 4), ("weights", 5), ("", 6)}


@dataclass(frozen=True, slots=True)
class Scales:
    """A log, and its published read models."""

    folder: Path

    @property
    def log(self) -> EventLog:
        """The log."""
        return open_log(str(self.folder / "log"))

    @property
    def generations(self) -> Generations:
        """What is published."""
        return open_generations(str(self.folder / "models"), "letters")

    @property
    def newest(self) -> Generation:
        """The newest generation."""
        found = self.generations.newest()
        assert found is not None
        return found

    def letters(self) -> list[DeadLetter]:
        """Read the dead letters that are published."""
        return published_dead_letters(self.generations, self.newest)

    def undecided(self) -> set[tuple[str, int]]:
        """Name the open letters."""
        return {n.key for n in self.letters() if n.discarded_at is None}

    def rows(self) -> dict[str, list[Any]]:
        """Read all tables."""
        with closing(duckdb.connect(str(self.generations.path(self.newest)), read_only=True)) as connection:
            names = ("weights", "seen", "losses")
            return {name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in names}

    def rebuild(self, domain: str, *only: str, models: str = "models", dead_letter: bool = False) -> Rebuilt:
        """Rebuild read models."""
        options = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
        url = str(self.folder / models)
        return rebuild(self.log, f"{DOMAINS}:{domain}", url, options, only=only, dead_letter=dead_letter)

    def where(self, domain: str) -> list[str]:
        """Give the options that lead here."""
        return [
            *("--domain", f"{DOMAINS}:{domain}", "--log", str(self.folder / "log")),
            *("--read-models", str(self.folder / "models")),
        ]

    def call(self, *arguments: str, domain: str = "BROKEN", code: int = 0) -> Result:
        """Run a command that needs no Beam, in this process."""
        result = CliRunner().invoke(cli, [*self.where(domain), "dead-letters", *arguments])
        assert result.exit_code == code, result.output
        return result

    def answer(self, *arguments: str, domain: str = "BROKEN") -> Any:
        """Run such a command with ``--json``, and parse its output."""
        return json.loads(self.call(*arguments, "--json", domain=domain).stdout)

    def retry(self, domain: str, *, code: int) -> subprocess.CompletedProcess[str]:
        """Run ``dead-letters retry`` as a process."""
        command = [sys.executable, "-m", "refold", *self.where(domain), "dead-letters", "retry", "--json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == code, done.stderr
        return done


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven events, of which three have no number and one is of an unknown type."""
    folder = tmp_path_factory.mktemp("letters")
    appender = Appender(create_log(str(folder / "log"), domain_name="letters", bucket_count=2), WRITER)
    for printed in ("10", "12 g", "14", "many 3 g", "12 g"):
        appender.append("parcel-1", [Weighed(parcel="a", printed=printed)])
    appender.append("parcel-2", [Lost(parcel="b")])
    appender.append("parcel-3", [Weighed(parcel="c", printed="7")])
    assert Scales(folder).rebuild("BROKEN", dead_letter=True).dead_letters == len(OPEN)
    return folder


@pytest.fixture
def scales(original: Path, tmp_path: Path) -> Scales:
    """A copy, to change."""
    return Scales(Path(shutil.copytree(original, tmp_path / "scales", symlinks=True)))


def test_letters_are_listed_by_read_model_and_reason(scales: Scales) -> None:
    """Groups have counts and first positions; the group with most open letters is first."""
    report = scales.answer("list")
    assert (report["open"], report["discarded"]) == (4, 0)
    groups = {(g["read_model"], tuple(g["positions"])): g["events"] for g in report["groups"]}
    assert groups == {("weights", (2, 5)): 2, ("weights", (4,)): 1, ("", (6,)): 1}
    assert report["groups"][0]["positions"] == [2, 5]
    assert [g["positions"] for g in scales.answer("list", "--read-model", "weights")["groups"]] == [[2, 5], [4]]
    shown = scales.call("list", "--limit", "1")
    assert "'12 g'" in shown.stdout
    assert "'many 3 g'" not in shown.stdout
    assert "first 1 of 3 reasons" in shown.stderr
    assert "no read model 'nope'" in scales.call("list", "--read-model", "nope", code=2).stderr


def test_a_letter_is_shown_with_its_event(scales: Scales) -> None:
    """The envelope as the log has it, the reasons, and the payload as it was stored; also of an unknown type."""
    [event] = [letter for letter in scales.letters() if letter.position == 6]
    report = scales.answer("show", "6")
    assert (report["event_type"], report["stream_version"], report["payload"]) == ("Lost", 1, '{"parcel":"b"}')
    assert report["letters"] == [{"read_model": "", "reason": event.reason, "discarded_at": None}]
    shown = scales.call("show", "4").stdout
    for part in ("recorded_at", "parcel-1", "weights: ", "'many 3 g'", '{"parcel":"a","printed":"many 3 g"}'):
        assert part in shown
    assert "no dead letter at position 1" in scales.call("show", "1", code=2).stderr


def test_a_discarded_event_stops_no_strict_rebuild(scales: Scales) -> None:
    """The decision survives rebuilds of some or all read models, until it is undone."""
    before = scales.rows()
    report = scales.answer("discard", "2", "4", "5", "6")
    assert {(n["read_model"], n["position"]) for n in report["changed"]} == OPEN
    assert (scales.newest.number, scales.newest.parent, scales.rows()) == (2, 1, before)
    assert scales.rebuild("BROKEN").dead_letters == 0
    assert scales.rebuild("BROKEN", "seen").generation.number == 4
    assert scales.rebuild("BROKEN", "weights", dead_letter=True).dead_letters == 0
    assert {n.key for n in scales.letters()} == OPEN
    assert (scales.undecided(), scales.rows()) == (set(), before)
    assert "discarded at" in scales.call("show", "2").stdout
    scales.call("discard", "--undo", "4")
    assert scales.undecided() == {("weights", 4)}
    with pytest.raises(InvalidEventsError, match=r"cannot apply some events: 1\. .* position 4"):
        scales.rebuild("BROKEN")


@pytest.mark.slow
def test_a_discarded_event_stops_no_strict_build_as_of_a_position(scales: Scales, tmp_path: Path) -> None:
    """A decision on an event holds for a private file too, which says so; without it, the build is refused."""
    to = tmp_path / "then.duckdb"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "refold", *scales.where("BROKEN"), "rebuild", "--as-of", "7", "--to", str(to)]
    run = functools.partial(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=120)
    refused = run(check=False)
    assert (refused.returncode, to.exists()) == (1, False)
    assert "cannot apply some events" in refused.stderr
    scales.answer("discard", "2", "4", "5", "6")
    run(check=True)
    with closing(duckdb.connect(str(to), read_only=True)) as connection:
        letters = connection.execute("SELECT read_model, position, discarded_at FROM refold.dead_letters").fetchall()
    assert {(name, position) for name, position, discarded_at in letters if discarded_at} == OPEN


def test_an_event_that_can_be_applied_is_no_letter_any_more(scales: Scales) -> None:
    """After a fix the event is applied, and its letter is gone, even if it was discarded."""
    scales.call("discard", "2", "4", "5", "6")
    assert scales.rebuild("FIXED").generation.number == 3
    assert scales.letters() == []
    assert scales.rows()["weights"] == [("a", 10 + 12 + 14 + 3 + 12), ("c", 7)]


def test_discarding_twice_publishes_once(scales: Scales) -> None:
    """A position without a letter changes nothing, nor one of another read model."""
    assert scales.answer("discard", "2")["generation"] == 2
    again = scales.answer("discard", "2")
    assert (again["generation"], again["changed"]) == (2, [])
    for arguments in (["2", "3"], ["2", "--read-model", "seen"]):
        assert "no dead letter" in scales.call("discard", *arguments, code=2).stderr
    assert scales.newest.number == 2


def test_decisions_that_race_are_all_kept(scales: Scales) -> None:
    """Each decision is applied again on top of the generation that was published first."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda position: discard(scales.generations, [position]), (2, 4, 5, 6)))
    assert scales.undecided() == set()
    assert [g.number for g in scales.generations.all()] == [1, 2, 3, 4, 5]
    files = {Path(key).name for key in scales.generations.store.list_from("files")}
    assert files == {Path(g.file).name for g in scales.generations.all()}


def test_a_file_that_was_published_before_letters_could_be_discarded(scales: Scales) -> None:
    """An old file without the column is readable; the first decision adds the column."""
    generations, newest = scales.generations, scales.newest
    with scratch_folder(generations.store) as folder:
        path = generations.working_copy(newest, folder)
        with closing(database.open_database(path)) as connection:
            connection.execute("ALTER TABLE refold.dead_letters DROP COLUMN discarded_at; CHECKPOINT")
        file, size = generations.upload(path)
    old = Generation(**{**{f: getattr(newest, f) for f in newest.__slots__}, "number": 2, "file": file, "bytes": size})
    assert generations.publish(old)
    assert scales.undecided() == OPEN
    assert scales.answer("discard", "6")["generation"] == 3
    assert scales.undecided() == OPEN - {("", 6)}


def test_catching_up_skips_discarded_events(scales: Scales) -> None:
    """A catch-up stops only at events that are not discarded."""
    domain = load_domain(f"{DOMAINS}:BROKEN")
    decided = dict.fromkeys(OPEN, datetime(2025, 3, 1, tzinfo=UTC))
    with closing(database.open_database(scales.folder / "private.duckdb")) as connection:
        for model in domain.read_models:
            database.create_table(connection, model, [])
        standing = [ModelsAtCheckpoint(domain.read_models, Checkpoint(0, 0, ""))]
        some = {key: at for key, at in decided.items() if key != ("", 6)}
        with pytest.raises(InvalidEventsError, match=r"cannot apply some events: 1\. .* position 6"):
            catch_up(connection, scales.log, domain, standing, discarded=some)
        catch_up(connection, scales.log, domain, standing, discarded=decided)
        assert {n.key: n.discarded_at for n in read_dead_letters(connection)} == decided
        assert connection.execute("SELECT grams FROM weights ORDER BY ALL").fetchall() == [(7,), (24,)]


def test_letters_on_a_remote_store(scales: Scales) -> None:
    """Decisions work the same on a remote store."""
    url = f"memory://letters-{uuid.uuid4()}"
    options = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
    rebuild(scales.log, f"{DOMAINS}:BROKEN", url, options, dead_letter=True)
    generations = open_generations(url, "letters")
    discard(generations, [2, 4, 5, 6])
    assert rebuild(scales.log, f"{DOMAINS}:BROKEN", url, options).generation.number == 3
    newest = generations.newest()
    assert newest is not None
    assert {n.key for n in published_dead_letters(generations, newest) if n.discarded_at} == OPEN


def test_a_decision_is_atomic(scales: Scales) -> None:
    """After a kill the partial file is unreferenced, and the decision can be repeated."""
    before, command = scales.rows(), [sys.executable, "-m", "refold", *scales.where("BROKEN")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    work = scales.folder / "models" / "letters" / "work"
    with subprocess.Popen([*command, "dead-letters", "discard", "2"], env=environment) as process:
        while process.poll() is None and not list(work.glob("*/working.duckdb")):
            pass
        process.kill()
    made = {1: OPEN, 2: OPEN - {("weights", 2)}}
    assert scales.undecided() == made[scales.newest.number]
    assert scales.rows() == before
    scales.call("discard", "2")
    assert (scales.newest.number, scales.undecided()) == (2, made[2])


def test_a_lost_file_stops_no_rebuild(scales: Scales) -> None:
    """A rebuild replaces a missing file; the decisions in it are lost."""
    scales.call("discard", "2", "4", "5", "6")
    scales.generations.path(scales.newest).unlink()
    with pytest.raises(InvalidEventsError, match="cannot apply some events: 4"):
        scales.rebuild("BROKEN")
    assert scales.rebuild("BROKEN", dead_letter=True).generation.number == 3
    assert scales.undecided() == OPEN


def test_nothing_to_discard_where_nothing_is_published(tmp_path: Path) -> None:
    """The error says what to do."""
    result = CliRunner().invoke(
        cli, ["--domain", f"{DOMAINS}:BROKEN", "--read-models", str(tmp_path), "dead-letters", "discard", "1"]
    )
    assert result.exit_code == 1
    assert "refold rebuild" in result.stderr


@pytest.mark.slow
def test_a_retry_gives_what_a_rebuild_gives(scales: Scales) -> None:
    """A retry with the fixed domain removes all letters; the tables equal those of a full rebuild."""
    done = scales.retry("FIXED", code=0)
    report = json.loads(done.stdout)
    assert "Retrying 4 dead letters: this replays 13 events to rebuild weights, losses." in done.stderr
    assert {(n["read_model"], n["position"]) for n in report["gone"]} == OPEN
    assert (report["remaining"], report["new"], report["generation"]) == ([], [], 2)
    retried = scales.rows()
    fresh = scales.rebuild("FIXED", models="fresh").generation
    assert fresh.tables == scales.newest.tables
    with pytest.raises(UsageError, match="no dead letter"):
        discard(scales.generations, [2])
    assert retried["losses"] == [("b", 1)]


@pytest.mark.slow
def test_letters_without_a_fix_remain(scales: Scales) -> None:
    """The exit code is 1, and the report lists them; a discarded letter is not retried."""
    scales.call("discard", "4")
    report = json.loads(scales.retry("HALF_FIXED", code=1).stdout)
    assert report["read_models"] == ["weights"]
    assert {n["position"] for n in report["gone"]} == {2, 5}
    assert [(n["read_model"], n["position"]) for n in report["remaining"]] == [("", 6)]
    assert scales.undecided() == {("", 6)}


def planned(scales: Scales, domain: str, *letters: DeadLetter) -> tuple[tuple[str, ...], int]:
    """Plan a retry; return the read models that it would rebuild and the events that it would replay."""
    made = plan_retry(scales.log, load_domain(f"{DOMAINS}:{domain}"), scales.newest, letters)
    return made.read_models, made.events


def test_only_what_can_change_is_rebuilt(scales: Scales) -> None:
    """For an untyped event, the read models that handle its type; none for an unknown type."""
    invalid = DeadLetter("", 9, "parcel-1", "Weighed", 1, "printed is missing", "{}", None)
    [lost] = [letter for letter in scales.letters() if letter.position == 6]
    failed = DeadLetter("weights", 2, "parcel-1", "Weighed", 1, "no number", "{}", None)
    assert planned(scales, "BROKEN", invalid) == (("weights", "seen", "losses"), 18)
    assert planned(scales, "BROKEN", lost) == ((), 0)
    assert planned(scales, "BROKEN", failed) == (("weights",), 6)
    assert planned(scales, "HALF_FIXED", lost) == ((), 0)
    assert planned(scales, "FIXED", failed) == (("weights", "losses"), 13)
    assert planned(scales, "BROKEN", replace(failed, discarded_at=datetime(2025, 3, 1, tzinfo=UTC))) == ((), 0)


def test_an_event_that_fits_now_and_nobody_reads(scales: Scales) -> None:
    """The first read model is rebuilt, since any rebuild detects that the event is valid now."""
    [lost] = [letter for letter in scales.letters() if letter.position == 6]
    assert planned(scales, "KNOWING", lost) == (("weights",), 6)
    scales.rebuild("KNOWING", "weights", dead_letter=True)
    assert scales.undecided() == OPEN - {("", 6)}


def test_a_removed_read_model_is_dropped(scales: Scales) -> None:
    """A removed read model cannot be copied, so a retry rebuilds all the others."""
    failed = DeadLetter("weights", 2, "parcel-1", "Weighed", 1, "no number", "{}", None)
    assert planned(scales, "SMALLER", failed) == (("weights", "seen"), 12)
    assert scales.rebuild("SMALLER", "weights", "seen", dead_letter=True).generation.tables.keys() == {
        "weights",
        "seen",
    }
