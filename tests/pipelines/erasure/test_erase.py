"""``refold erase`` and its proof: nothing readable is left of those erased, and everything else is equal."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold import (
    CommandHandler,
    EventLog,
    RecordedEvent,
    UsageError,
    erase,
    open_generations,
    prove_erasure,
    read_positions,
    read_stream,
    rebuild,
    rebuild_as_of,
    reconcile,
    seal,
    stream,
    verify,
)
from refold.event_schemas.erasure import ERASURES
from refold.pipelines.rebuild.independent import reconcile_independently
from refold.warehouse.read_models.generations.generations import Generations
from tests.pipelines.cli.running import Call, answer, refold
from tests.pipelines.erasure.histories import OPTIONS, REF, SECRET, holding_files, make_history, name_of
from tests.warehouse.personal.customers import CUSTOMERS, RenameCustomer

OF_LOG = ("--domain", REF, "--log", "log")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
ARGUMENTS = (*OF_LOG, "--read-models", "models")


def published(folder: Path) -> Generations:
    """Return the published generations of a folder."""
    return open_generations(str(folder / "models"), "customers")


def tables_of(folder: Path) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Return the rows of the newest generation by customer."""
    newest = published(folder).newest()
    assert newest is not None
    with closing(duckdb.connect(str(published(folder).path(newest)), read_only=True)) as connection:
        return {
            table: {row[0]: row[1:] for row in connection.execute(f"FROM {table}").fetchall()}
            for table in ("people", "revenue", "names")
        }


def events_of(log: EventLog) -> list[RecordedEvent]:
    """Return all events as readers see them."""
    log.personal_data.forget_keys()
    return list(read_positions(log, CUSTOMERS.registry, 0))


def without_personal(event: RecordedEvent) -> RecordedEvent:
    """Return an event without its personal fields."""
    names = {f.name for f in CUSTOMERS.registry.personal((event.event_type, event.schema_version))}
    return replace(event, payload={k: v for k, v in event.payload.items() if k not in names})


@pytest.mark.slow
def test_a_hundred_of_ten_thousand_leave_no_trace(tmp_path: Path) -> None:
    """By proof and by a search of every byte and every stored value; all else is equal, also every other customer."""
    log = make_history(tmp_path, 10_000, changed=150)
    models = str(tmp_path / "models")
    rebuild(log, REF, models, OPTIONS)
    seal(log, REF, OPTIONS)
    rebuild(log, REF, models, OPTIONS, only=["people"])  # a copy of a file, in which tables were replaced
    random.seed(7)
    gone = sorted({f"customer-{n}" for n in random.sample(range(10_000), 90)} | {f"customer-{n}" for n in range(20)})
    gone = gone[:100]
    numbers = [int(g.split("-")[1]) for g in gone]
    texts = [name_of(n, of) for n in numbers for of in ("imported", "appended", "first", "last", "commanded")]
    texts += [f"{n}@{SECRET}.example" for n in numbers if n >= 1000]  # "1@…" is part of "11@…"
    before, rows, end = events_of(log), tables_of(tmp_path), log.head().end
    assert holding_files(tmp_path, texts)
    assert prove_erasure(log, REF, models, gone[0]).traces

    done = erase(log, REF, models, gone, OPTIONS, reason="request 1", now=True)
    assert (len(done.subjects), done.appended, done.holding) == (100, 100, ())
    assert done.rebuilt == ("people", "names")

    assert holding_files(tmp_path, texts) == {}
    for customer in gone[:: len(gone) // 10]:
        proof = prove_erasure(log, REF, models, customer)
        assert proof.traces == ()
        assert proof.events >= 1
        assert proof.values >= 1
    assert prove_erasure(log, REF, models, "customer-9999").traces or "customer-9999" in gone

    after = events_of(log)
    assert list(map(without_personal, after[: len(before)])) == list(map(without_personal, before))
    assert [e for e in after[: len(before)] if e.payload["customer_id"] not in gone] == [
        e for e in before if e.payload["customer_id"] not in gone
    ]
    assert [e.stream_id for e in after[len(before) :]] == [ERASURES] * 100
    assert not verify(log, CUSTOMERS.registry, known=(end.commit_number, end.digest)).findings
    assert not reconcile(log, REF, models, OPTIONS).differences
    now = tables_of(tmp_path)
    assert now["revenue"] == rows["revenue"]
    for table in ("people", "names"):
        assert now[table].keys() == rows[table].keys()
        kept = rows[table].keys() - set(gone)
        assert {c: now[table][c] for c in kept} == {c: rows[table][c] for c in kept}
    assert {now["people"][c][:4] for c in gone} <= {
        ("[erased]", None, None, -1),
        ("[erased]", None, None, 0),
    }
    assert {name for c in gone for name in now["names"][c][0]} <= {"[erased]", "[erased] [erased]"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published history of 40 customers, made once."""
    folder = tmp_path_factory.mktemp("made")
    log = make_history(folder, 40, changed=10)
    rebuild(log, REF, str(folder / "models"), OPTIONS)
    return folder


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    """The same history, of one's own. Its key store is beside it, so that the copy has it, too."""
    return shutil.copytree(made, tmp_path / "shop", symlinks=True)


@pytest.mark.slow
def test_the_command_line_erases_and_proves(shop: Path, call: Call) -> None:
    """Before, the proof lists where the data is; generations hold it until they are removed; all can be repeated."""
    listed = answer(call("erase", "--prove", "customer-3", "--json", *ARGUMENTS, folder=shop, code=1))
    assert {t["kind"] for t in listed["traces"]} == {"key", "event", "snapshot", "generation"}
    events = answer(call("events", "stream", "customer-3", "--json", *OF_LOG, folder=shop))
    done = answer(call("erase", "--subject", "customer-3", "--reason", "by mail", "--json", *ARGUMENTS, folder=shop))
    assert done["holding"] == [1]
    left = call("erase", "--prove", "customer-3", *ARGUMENTS, folder=shop, code=1).stdout
    assert "generation 1, read models people, names: it was made before the erasure" in left
    again = call("erase", "--subject", "customer-3", "--reason", "by mail", "--now", *ARGUMENTS, folder=shop).stdout
    assert "Appended 0 events, removed 0 snapshots, rebuilt no read model." in again
    assert "Removed the generations 1." in again
    assert "Nothing readable is left." in call("erase", "--prove", "customer-3", *ARGUMENTS, folder=shop).stdout
    erased = answer(call("events", "stream", "customer-3", "--json", *OF_LOG, folder=shop))
    assert len(erased["events"]) == len(events["events"])
    assert "[erased]" in str(erased)
    assert SECRET not in str(erased)
    shown = call("events", "stream", ERASURES, *OF_LOG, folder=shop).stdout
    assert "by mail" in shown
    call("events", "verify", *OF_LOG, folder=shop)


def test_usage(shop: Path, call: Call) -> None:
    """A wrong id, a wrong field, a missing reason and a domain without personal data change nothing."""
    assert (
        "No personal data of 'customer-x' was ever written"
        in call("erase", "--subject", "customer-x", "--reason", "r", *ARGUMENTS, folder=shop, code=2).stderr
    )
    wrong = ("erase", "--subject", "customer-1", "--field", "user_id", "--reason", "r")
    assert "No personal field has the subject 'user_id'" in call(*wrong, *ARGUMENTS, folder=shop, code=2).stderr
    assert "Give --subject and --reason" in call("erase", *ARGUMENTS, folder=shop, code=2).stderr
    both = ("erase", "--prove", "customer-1", "--now")
    assert "--prove only searches" in call(*both, *ARGUMENTS, folder=shop, code=2).stderr
    with pytest.raises(UsageError, match="The reason is empty"):
        erase(_log(shop), REF, str(shop / "models"), ["customer-1"], OPTIONS, reason=" ")
    orders = ("--domain", "orders", "--log", "other", "--read-models", "models")
    from refold import create_log

    create_log(str(shop / "other"), domain_name="orders")
    none = call("erase", "--prove", "c", *orders, folder=shop, code=2).stderr
    assert "has no personal fields" in none
    assert prove_erasure(_log(shop), REF, str(shop / "models"), "customer-1").traces


def _log(folder: Path) -> EventLog:
    from refold import open_log

    return open_log(str(folder / "log"))


@pytest.mark.slow
def test_a_customer_who_comes_back_has_a_new_key(shop: Path) -> None:
    """A process that has the old state forgets it; new data is readable until it is erased, too."""
    log, models = _log(shop), str(shop / "models")
    handler = CommandHandler(log, CUSTOMERS, snapshot_every=1)
    handler.handle(RenameCustomer(customer_id="customer-2", name=name_of(2, "known")), command_id="1")
    erase(log, REF, models, ["customer-2"], OPTIONS, reason="r", now=True)
    handler.handle(RenameCustomer(customer_id="customer-1", name=name_of(1, "other")), command_id="2")
    handler.handle(RenameCustomer(customer_id="customer-2", name=name_of(2, "back")), command_id="3")
    assert list(holding_files(shop, [name_of(2, "known"), name_of(2, "commanded")])) == []
    events = list(read_stream(log, CUSTOMERS.registry, "customer-2"))
    assert [e.payload.get("name") for e in events[-2:]] == ["[erased]", name_of(2, "back")]
    stream(log, REF, models, OPTIONS, once=True)
    assert tables_of(shop)["people"]["customer-2"][0] == name_of(2, "back")
    assert {t.kind for t in prove_erasure(log, REF, models, "customer-2").traces} >= {"key", "event"}
    done = erase(log, REF, models, ["customer-2"], OPTIONS, reason="again", now=True)
    assert (len(done.key_ids), done.appended) == (2, 1)
    assert prove_erasure(log, REF, models, "customer-2").traces == ()
    assert not reconcile_independently(log, REF, models).differences
    assert not holding_files(shop, [name_of(2, "back")])


@pytest.mark.slow
def test_a_killed_rebuild_leaves_nothing_staged(shop: Path) -> None:
    """Rows that were staged before an erasure are deleted by it, and no later rebuild uses them."""
    log, models = _log(shop), str(shop / "models")
    with pytest.raises(_KilledError):
        rebuild(log, REF, models, OPTIONS, report=_kill_when_loading)
    assert list((shop / "models").glob("customers/staging/rebuild-*"))
    assert "staging" in {t.kind for t in prove_erasure(log, REF, models, "customer-4").traces}
    erase(log, REF, models, ["customer-4"], OPTIONS, reason="r", now=True)
    assert not list((shop / "models").glob("customers/staging/rebuild-*"))
    assert prove_erasure(log, REF, models, "customer-4").traces == ()
    past, staging = shop / "as-of.duckdb", str(shop / "models" / "customers")
    rebuild_as_of(log, REF, OPTIONS, position=log.head().position - 1, to=past, staging_url=staging)
    assert name_of(4) not in str(holding_files(shop, [name_of(4)]))


class _KilledError(Exception):
    """In place of a kill."""


def _kill_when_loading(progress: Any) -> None:
    if progress.phase == "load":
        raise _KilledError


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_time_it_is_completed_by_the_next_run(shop: Path, seed: int) -> None:
    """A run that was killed with -9 leaves a sound log; the next one ends with nothing left."""
    chosen = random.Random(seed)
    command = [
        sys.executable,
        "-m",
        "refold",
        "erase",
        "--subject",
        "customer-5",
        "--reason",
        "r",
        "--now",
        "--quiet",
        *ARGUMENTS,
    ]
    keys = shop / "log-keys" / "destroyed"
    for _ in range(3):
        process = subprocess.Popen(command, cwd=shop, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        _wait_for(keys, process)
        time.sleep(chosen.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not verify(_log(shop), CUSTOMERS.registry).findings
    refold(*command[3:], folder=shop, environment=ENVIRONMENT)
    log, models = _log(shop), str(shop / "models")
    proof = prove_erasure(log, REF, models, "customer-5")
    assert {t.kind for t in proof.traces} <= {"working file"}  # of a run that was killed; its age lets gc remove it
    assert len(list(read_stream(log, CUSTOMERS.registry, ERASURES))) == 1
    assert holding_files(shop, [name_of(5), name_of(5, "first"), name_of(5, "commanded")]).keys() <= {
        t.where.removeprefix(f"{shop}/") for t in proof.traces
    }


@pytest.mark.slow
def test_two_processes_erase_the_same_subject(shop: Path) -> None:
    """One event is appended, both succeed, and nothing is left."""
    command = [sys.executable, "-m", "refold", "erase", "--subject", "customer-6", "--reason", "r", *ARGUMENTS]
    both = [subprocess.Popen(command, cwd=shop, env=ENVIRONMENT, stderr=subprocess.PIPE) for _ in range(2)]
    ended = [process.communicate(timeout=120)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    log = _log(shop)
    assert len(list(read_stream(log, CUSTOMERS.registry, ERASURES))) == 1
    erase(log, REF, str(shop / "models"), ["customer-6"], OPTIONS, reason="r", now=True)
    assert prove_erasure(log, REF, str(shop / "models"), "customer-6").traces == ()


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until there is a file, or a process has ended."""
    until = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
