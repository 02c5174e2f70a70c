"""The domain of a command: the named one, else that of the log or the read models, else an error."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import pytest

from refold.event_schemas.orders import StockReceived
from refold.warehouse.event_log.append import Appender
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.opening import create_log, open_log
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import open_generations
from tests.pipelines.cli.letters import WRITER, Weighed
from tests.pipelines.cli.running import Call, answer
from tests.warehouse.read_models.published import publish

LETTERS = "tests.pipelines.cli.letters:BROKEN"
"""A domain named ``letters`` that no package has installed."""

WAYS = ("--domain NAME", "--domain my_shop.domain:SHOP", "REFOLD_DOMAIN", "domain = ", "refold.toml", "orders, trading")
"""The message about a missing domain."""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REFOLD_DOMAIN", "REFOLD_LOG", "REFOLD_READ_MODELS"):
        monkeypatch.delenv(name, raising=False)


def log_of_orders(folder: Path) -> EventLog:
    """Make a log of an installed domain, with one event."""
    log = create_log(str(folder), domain_name="orders", bucket_count=1)
    received = StockReceived(sku="cup", quantity=3, unit_cost=Decimal("1.5"), best_before=None)
    Appender(log, ORDERS.registry).append("stock-cup", [received])
    return log


def log_of_letters(folder: Path) -> EventLog:
    """Make a log of a domain that is not installed, with one event."""
    log = create_log(str(folder), domain_name="letters", bucket_count=1)
    Appender(log, WRITER).append("p-1", [Weighed(parcel="p-1", printed="7")])
    return log


def test_a_log_says_its_domain(call: Call, tmp_path: Path) -> None:
    """``refold --log URL events tail`` needs no ``--domain``."""
    log_of_orders(tmp_path / "shop")
    found = answer(call("--log", "shop", "events", "tail", "--json", folder=tmp_path))
    assert [event["event_type"] for event in found["events"]] == ["StockReceived"]
    assert answer(call("status", "--log", "shop", "--json", folder=tmp_path))["domain"] == "orders"
    assert answer(call("--log", "shop", "schemas", "list", "--json", folder=tmp_path))["domain"] == "orders"


def test_read_models_say_their_domain(call: Call, tmp_path: Path) -> None:
    """The generations' folder has the domain's name; neither the log nor the domain's code is read."""
    publish(open_generations(str(tmp_path / "models"), "letters"), tmp_path)
    (tmp_path / "models" / "notes").mkdir()
    (tmp_path / "models" / "readme.txt").touch()
    log_of_orders(tmp_path / "refold-data" / "log")
    listed = answer(call("generations", "list", "--read-models", "models", "--json", folder=tmp_path))
    assert [g["number"] for g in listed["generations"]] == [1]


def test_read_models_of_several_domains_need_a_name(call: Call, tmp_path: Path) -> None:
    """Several domains without a name are an error."""
    for name in ("letters", "orders"):
        publish(open_generations(str(tmp_path), name), tmp_path)
    where = ("generations", "list", "--read-models", ".")
    stderr = call(*where, folder=tmp_path, code=2).stderr
    assert "belong to several domains: letters, orders" in stderr
    assert all(way in stderr for way in WAYS[:-1])
    call(*where, "--domain", "orders", folder=tmp_path)


@pytest.mark.parametrize("command", [["query", "SELECT 1"], ["schemas", "list"], ["generations", "list"]])
def test_without_log_and_read_models_a_domain_must_be_named(command: list[str], call: Call, tmp_path: Path) -> None:
    """The error shows how, and lists the installed domains."""
    stderr = call(*command, folder=tmp_path, code=2).stderr
    assert all(way in stderr for way in WAYS)
    assert len(stderr.splitlines()) == 1


def test_ingest_creates_no_log_of_a_domain_that_nobody_named(call: Call, tmp_path: Path) -> None:
    """The import is an error, and creates no files."""
    (tmp_path / "history.jsonl").touch()
    stderr = call("ingest", "history.jsonl", folder=tmp_path, code=2).stderr
    assert "no domain is named for a new one" in stderr
    assert all(way in stderr for way in WAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


def test_a_log_whose_domain_is_not_installed(call: Call, tmp_path: Path) -> None:
    """Commands that need the domain's code report that; the others work."""
    log_of_letters(tmp_path)
    stderr = call("--log", ".", "events", "tail", folder=tmp_path, code=2).stderr
    assert "belong to domain 'letters', and no installed domain has that name" in stderr
    assert all(way in stderr for way in WAYS)
    assert answer(call("--log", ".", "events", "stats", "--json", folder=tmp_path))["events"] == 1
    assert answer(call("--log", ".", "events", "tail", "--json", "--domain", LETTERS, folder=tmp_path))["events"]


def test_a_named_domain_that_is_not_the_logs_is_an_error(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By option, by variable, or by the settings file that names the log, too."""
    log_of_orders(tmp_path / "refold-data" / "log")
    refused = "belongs to domain 'orders', not 'trading'"
    assert refused in call("events", "stats", "--domain", "trading", folder=tmp_path, code=1).stderr
    (tmp_path / "refold.toml").write_text('domain = "trading"')
    assert refused in call("events", "stats", folder=tmp_path, code=1).stderr
    (tmp_path / "refold.toml").unlink()
    monkeypatch.setenv("REFOLD_DOMAIN", "trading")
    assert refused in call("events", "stats", folder=tmp_path, code=1).stderr


def test_a_settings_file_names_a_domain_of_its_own_log(call: Call, tmp_path: Path) -> None:
    """Another log on the command line is found by its own name, be that the file's domain or an installed one."""
    (tmp_path / "refold.toml").write_text(f'domain = "{LETTERS}"')
    log_of_letters(tmp_path / "letters")
    log_of_orders(tmp_path / "orders")
    for name in ("letters", "orders"):
        found = answer(call("status", "--log", name, "--json", folder=tmp_path))
        assert (found["domain"], found["log"]["position"]) == (name, 1)


def test_an_installed_domain_may_have_another_entry_point(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that cannot be imported does not stop the search."""
    package = tmp_path / "site" / "parcels-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: parcels\nVersion: 1.0\n")
    points = f"[refold.domains]\na-broken-one = no_such_module:DOMAIN\nparcel-service = {LETTERS}\n"
    (package / "entry_points.txt").write_text(points)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    log = log_of_letters(tmp_path / "log")
    assert answer(call("--log", "log", "events", "tail", "--json", folder=tmp_path))["events"]
    assert open_log(log.url).domain_name == "letters"
