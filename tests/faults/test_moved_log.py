"""A log that is gone, was replaced, or restored from an older copy: refused, and nothing is acknowledged elsewhere."""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path

import pytest

from refold.event_schemas import DamagedLogError, GenerationError, StoreError, StoreUnavailableError
from refold.event_schemas.trading import CashDeposited
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.publisher import republish
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log import Appender, EventLog, create_log, open_log, verify
from refold.warehouse.read_models.generations.generations import open_generations
from refold.warehouse.read_models.lag import checkpoint_of, find_end, lag_of

TRADING = load_domain("trading")
OPTIONS = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])


def deposit(amount: int = 1) -> CashDeposited:
    """Make an event."""
    return CashDeposited(trader_id="ada", amount=Decimal(amount))


def a_log(folder: Path) -> EventLog:
    """Create a log with one event."""
    log = create_log(str(folder), domain_name="trading")
    Appender(log, TRADING.registry).append("ada", [deposit()])
    return log


def test_a_log_that_is_gone(tmp_path: Path) -> None:
    """An unmounted volume leaves an empty folder, or none: nothing is written there."""
    appender = Appender(a_log(tmp_path / "log"), TRADING.registry)
    appender.append("ada", [deposit()])
    shutil.move(tmp_path / "log", tmp_path / "moved")
    with pytest.raises(StoreError, match="is gone"):
        appender.append("ada", [deposit()])
    assert not (tmp_path / "log").exists()
    (tmp_path / "log").mkdir()
    with pytest.raises(StoreError, match="is gone"):
        appender.append("ada", [deposit()])
    assert list((tmp_path / "log").iterdir()) == []
    (tmp_path / "log").rmdir()
    shutil.move(tmp_path / "moved", tmp_path / "log")
    assert appender.append("ada", [deposit()]).last_position == 3


def test_another_log_in_its_place(tmp_path: Path) -> None:
    """Both identities are named, and the other log stays as it was."""
    appender = Appender(a_log(tmp_path / "log"), TRADING.registry)
    appender.append("ada", [deposit()])
    shutil.move(tmp_path / "log", tmp_path / "moved")
    other = a_log(tmp_path / "log")
    with pytest.raises(DamagedLogError, match=other.log_id):
        appender.append("ada", [deposit()])
    assert open_log(other.url).head().commit == 1


def test_a_check_that_fails_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer after a commit was written leaves it there: others may have appended behind it."""
    log = a_log(tmp_path / "log")
    appender, other = (Appender(open_log(log.url), TRADING.registry) for _ in range(2))
    other.append("ada", [deposit()])
    checks = iter([None, "unavailable"])

    def check() -> None:
        if next(checks, None):
            other.append("ada", [deposit()])
            raise StoreUnavailableError("The store does not answer: this is a test.")

    monkeypatch.setattr(appender._same, "check", check)
    with pytest.raises(StoreUnavailableError):
        appender.append("ada", [deposit()])
    assert verify(log, TRADING.registry).findings == ()
    assert log.head().position == 4
    assert appender.append("ada", [deposit()], expected_version=4).last_position == 5


def test_read_models_of_a_newer_copy(tmp_path: Path) -> None:
    """A log that was restored from a backup ends before its read models, or goes on otherwise: both are refused."""
    log = a_log(tmp_path / "log")
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    Appender(log, TRADING.registry).append("ada", [deposit(5)])
    url = str(tmp_path / "read-models")
    rebuild(log, "trading", url, OPTIONS)
    shutil.rmtree(tmp_path / "log")
    shutil.move(tmp_path / "backup", tmp_path / "log")
    restored = open_log(log.url)
    newest = open_generations(url, "trading").newest()
    with pytest.raises(GenerationError, match="it is an older copy"):
        lag_of(restored, find_end(restored), checkpoint_of(newest))
    with pytest.raises(GenerationError, match="it is an older copy"):
        republish(restored, "trading", url, OPTIONS)
    Appender(restored, TRADING.registry).append("ada", [deposit(7), deposit(8)])
    with pytest.raises(GenerationError, match="another history"):
        lag_of(restored, find_end(restored), checkpoint_of(newest))
    with pytest.raises(GenerationError, match="another history"):
        republish(restored, "trading", url, OPTIONS)
    assert rebuild(restored, "trading", url, OPTIONS).generation.position == 3


def test_an_appender_that_slept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others appended, sealed, and removed what was sealed: it reads the log again and does not take a number again."""
    from refold.warehouse.event_log import append, stream_index
    from tests.properties.engine import seal

    log = a_log(tmp_path / "log")
    sleeper = Appender(log, TRADING.registry)
    sleeper.append("ada", [deposit()])
    awake = Appender(open_log(log.url), TRADING.registry)
    for _ in range(3):
        awake.append("ada", [deposit()])
    seal(log, TRADING.registry)
    for path in (tmp_path / "log" / "commits").iterdir():
        path.unlink()
    later = stream_index.clock() + 2 * stream_index.IDLE
    monkeypatch.setattr(stream_index, "clock", lambda: later)
    monkeypatch.setattr(append, "clock", lambda: later)
    assert sleeper.append("ada", [deposit()]).last_position == 6
    assert log.head().position == 6


def test_a_log_that_goes_while_it_is_read_is_not_empty(tmp_path: Path) -> None:
    """Without its folder there is no manifest and no commit, but that is not what a new log looks like."""
    log = a_log(tmp_path / "log")
    Appender(log, TRADING.registry).append("ada", [deposit()])
    (tmp_path / "log").rename(tmp_path / "away")
    with pytest.raises(StoreError, match="is gone"):
        log.head()
    with pytest.raises(StoreError, match="is gone"):
        rebuild(log, "trading", str(tmp_path / "read-models"), OPTIONS)
