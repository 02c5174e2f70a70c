"""The standard formulas with exact figures, and forecasts from an existing log."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from refold.event_schemas import EmptyLogError, UsageError
from refold.event_schemas.orders import StockAdjusted
from refold.pipelines.cli.main import cli
from refold.warehouse.capacity.forecast import Observed, forecast, observe
from refold.warehouse.capacity.formulas import Sizing, estimate
from refold.warehouse.event_log import Appender, create_log
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import open_generations
from refold.warehouse.read_models.planning.rate import Rate

MEASURED = Rate(
    events_per_second=1_000_000.0,
    startup_seconds=0.0,
    workers=2,
    serial_share=0.25,
    measured=True,
    serial_measured=True,
)
SEEN = Observed(
    events=5_000_000,
    stored_bytes=300_000_000,
    raw_bytes=2_000_000_000,
    replayed_events=10_000_000,
    generation=3,
    read_model_bytes=50_000_000,
    rows=400_000,
    rate=MEASURED,
)


def test_the_textbook_order_system() -> None:
    """10M orders of 20 events of 500 + 100 bytes give the textbook's figures."""
    sizing = Sizing(
        entities=10_000_000,
        events_per_entity=20,
        payload_bytes=500,
        envelope_bytes=100,
        duplication_factor=1.3,
        seconds_per_event=0.001,
        workers=10,
        row_bytes=2000,
    )
    assert sizing == Sizing()
    found = estimate(sizing)
    assert found.events == 200_000_000
    assert found.raw_bytes == 120 * 10**9
    assert found.stored_bytes == 156 * 10**9
    assert found.rebuild_seconds == pytest.approx(20_000)
    assert int(found.rebuild_seconds / 3600 * 10) / 10 == 5.5
    assert found.read_model_bytes == 20 * 10**9


@pytest.mark.parametrize(("name", "value"), [("entities", 0), ("workers", -1), ("duplication_factor", float("nan"))])
def test_invalid_sizes(name: str, value: Any) -> None:
    """The error names each invalid size."""
    with pytest.raises(UsageError, match=f"{name} is .*; expected a number above 0"):
        dataclasses.replace(Sizing(), **{name: value})


def test_a_forecast_scales_by_amdahls_law() -> None:
    """A quarter of 10 s stays; the rest is divided among the workers, relative to the two it was measured with."""
    foreseen = forecast(SEEN, workers=6)
    assert foreseen.rebuild_seconds == {1: 17.5, 2: 10.0, 4: 6.25, 6: 5.0}


def test_a_history_ten_times_as_long_takes_ten_times_as_much() -> None:
    """Events, bytes, rows and seconds scale by ten, and the assumptions are listed."""
    foreseen = forecast(SEEN, workers=2, times=10)
    assert (foreseen.events, foreseen.stored_bytes, foreseen.read_model_bytes) == (50_000_000, 3 * 10**9, 5 * 10**8)
    assert foreseen.rebuild_seconds == {1: 175.0, 2: 100.0}
    assert "seconds, bytes and rows grow as events do" in foreseen.assumptions
    assert any("25% of a rebuild" in text and "measured" in text for text in foreseen.assumptions)


@pytest.mark.parametrize(("workers", "times"), [(0, 1.0), (2, 0.0), (2, float("inf"))])
def test_invalid_forecasts(workers: int, times: float) -> None:
    """A forecast without workers or growth is an error."""
    with pytest.raises(UsageError, match="expected"):
        forecast(SEEN, workers=workers, times=times)


def _log(folder: Path, appends: int) -> None:
    log = create_log(str(folder / "log"), domain_name="orders", bucket_count=2)
    appender = Appender(log, ORDERS.registry)
    for number in range(appends):
        appender.append(f"stock-{number}", [StockAdjusted(sku=f"sku-{number}", quantity=1, reason="found")])


def test_a_log_is_observed_before_anything_is_sealed_or_published(tmp_path: Path) -> None:
    """Sizes come from commits and their JSON; speed and serial share are defaults, and marked as such."""
    _log(tmp_path, 10)
    log = create_log(str(tmp_path / "log"), domain_name="orders", bucket_count=2)
    seen = observe(log, ORDERS, open_generations(str(tmp_path / "read-models"), "orders"))
    commits = sum(path.stat().st_size for path in (tmp_path / "log" / "commits").iterdir())
    assert seen.events == 10
    assert seen.stored_bytes == pytest.approx(commits, rel=0.05)  # by a sample of the last
    assert 200 < seen.raw_bytes / seen.events < 600
    assert (seen.generation, seen.read_model_bytes, seen.rate.measured) == (None, 0, False)
    assert any("a default" in text for text in forecast(seen, workers=1).assumptions)


def test_an_empty_log_gives_no_forecast(tmp_path: Path) -> None:
    """The error names the alternative."""
    _log(tmp_path, 0)
    log = create_log(str(tmp_path / "log"), domain_name="orders", bucket_count=2)
    with pytest.raises(EmptyLogError, match="refold capacity --entities"):
        observe(log, ORDERS, open_generations(str(tmp_path / "read-models"), "orders"))


def test_the_command_works_out_the_formulas_when_any_size_is_given() -> None:
    """Sizes that are not given are the textbook's; ``--times`` multiplies the entities."""
    result = CliRunner().invoke(cli, ["capacity", "--entities", "1000000", "--times", "10", "--json"])
    assert json.loads(result.stdout)["estimate"] == dataclasses.asdict(estimate(Sizing()))
    shown = CliRunner().invoke(cli, ["capacity", "--entities", "10000000"]).stdout
    assert all(text in shown for text in ("200,000,000", "120.0 GB", "156.0 GB", "5 h 33 min", "20.0 GB"))


def test_the_command_forecasts_from_the_log_otherwise(tmp_path: Path) -> None:
    """The report has observed and forecast values, and the assumptions."""
    _log(tmp_path, 10)
    where = ["--log", str(tmp_path / "log"), "--read-models", str(tmp_path / "read-models")]
    result = CliRunner().invoke(cli, ["capacity", "--times", "10", "--workers", "3", "--json", *where])
    document = json.loads(result.stdout)
    assert (document["kind"], document["observed"]["events"], document["forecast"]["events"]) == ("forecast", 10, 100)
    assert list(document["forecast"]["rebuild_seconds"]) == ["1", "2", "3"]
    shown = CliRunner().invoke(cli, ["capacity", *where]).stdout
    assert "Assumed: seconds, bytes and rows grow as events do." in shown
