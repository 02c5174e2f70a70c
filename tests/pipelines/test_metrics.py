"""Metrics of pipelines, scraped over HTTP as Prometheus does it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from refold.event_schemas import UsageError
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.cli.support.metrics_port import measure_generation, metered
from refold.pipelines.metrics import Metrics, serve_metrics
from refold.pipelines.rebuild.rebuild import RebuildProgress, rebuild
from refold.warehouse.event_log import Appender, EventLog, create_log
from refold.warehouse.read_models.generations.generations import open_generations
from tests.pipelines.cli.letters import WRITER, Weighed

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
REF = "tests.pipelines.cli.letters:FIXED"
NAMES = {
    *("refold_log_position", "refold_log_last_recorded_timestamp_seconds", "refold_log_unsealed_events"),
    *("refold_read_model_position", "refold_read_model_lag_events", "refold_read_model_lag_seconds"),
    *("refold_stream_micro_batches_total", "refold_stream_events_total", "refold_stream_micro_batch_seconds_count"),
    *("refold_published_generation", "refold_publish_seconds"),
    *("refold_rebuild_units_done", "refold_rebuild_units_planned", "refold_rebuild_events", "refold_dead_letters"),
}
Samples = dict[tuple[str, str], float]
"""Name and read model to value."""


def scrape(port: int | None) -> Samples:
    """Fetch metrics, and parse them as Prometheus would."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (s.name, s.labels.get("read_model", "")): s.value for f in families for s in f.samples if "le" not in s.labels
    }


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """Three events, not sealed."""
    log = create_log(str(tmp_path / "log"), domain_name="letters", bucket_count=2)
    for printed in ("1", "2", "3"):
        Appender(log, WRITER).append("parcel-1", [Weighed(parcel="a", printed=printed)])
    return log


def test_every_recorded_value_is_served() -> None:
    """Each value is served under its documented name."""
    metrics = serve_metrics(0)
    try:
        metrics.log_moved(12, "2025-03-01T12:00:00+00:00", 5)
        metrics.read_models_at(9, 3, 1.5, ["seen", "weights"])
        metrics.read_models_at(0, 12, None, ["losses"])
        metrics.micro_batch(4, 0.02)
        metrics.micro_batch(2, 0.2)
        metrics.published(7, 0.4)
        metrics.report(RebuildProgress("replay", done=2, planned=8, events=100))
        metrics.dead_letters({"weights": 2, "": 1})
        metrics.dead_letters({"weights": 1})
        samples = scrape(metrics.port)
    finally:
        metrics.close()
    assert {name for name, _ in samples} >= NAMES
    assert samples["refold_log_position", ""] == 12
    assert samples["refold_log_last_recorded_timestamp_seconds", ""] == 1740830400
    assert samples["refold_log_unsealed_events", ""] == 5
    assert samples["refold_read_model_position", "weights"] == 9
    assert samples["refold_read_model_lag_events", "seen"] == 3
    assert samples["refold_read_model_lag_seconds", "seen"] == 1.5
    assert math.isnan(samples["refold_read_model_lag_seconds", "losses"])
    assert (samples["refold_stream_micro_batches_total", ""], samples["refold_stream_events_total", ""]) == (2, 6)
    assert samples["refold_stream_micro_batch_seconds_sum", ""] == pytest.approx(0.22)
    assert (samples["refold_published_generation", ""], samples["refold_publish_seconds", ""]) == (7, 0.4)
    assert (samples["refold_rebuild_units_done", ""], samples["refold_rebuild_units_planned", ""]) == (2, 8)
    assert {k: v for k, v in samples.items() if k[0] == "refold_dead_letters"} == {
        ("refold_dead_letters", "weights"): 1
    }


def test_several_live_side_by_side_and_end() -> None:
    """Each has its own values; closing frees the port, and a port in use is an error."""
    one, other = serve_metrics(0), serve_metrics(0)
    one.micro_batch(1, 0.1)
    assert scrape(one.port)["refold_stream_micro_batches_total", ""] == 1
    assert scrape(other.port)["refold_stream_micro_batches_total", ""] == 0
    port = one.port
    assert port is not None
    with pytest.raises(UsageError, match=f"127.0.0.1:{port}.*--metrics-port"):
        serve_metrics(port)
    one.close()
    one.close()
    again = serve_metrics(port)
    assert scrape(port)["refold_stream_micro_batches_total", ""] == 0
    for served in (again, other):
        served.close()
    Metrics().close()


def test_a_rebuild_reports_its_progress(log: EventLog, tmp_path: Path) -> None:
    """A scrape while it runs shows the planned objects, and at the end all of them done."""
    metrics, seen = serve_metrics(0), []

    def report(progress: RebuildProgress) -> None:
        metrics.report(progress)
        seen.append((progress.phase, scrape(metrics.port)))

    options = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
    rebuild(log, REF, str(tmp_path / "models"), options, report=report)
    metrics.close()
    last = [samples for phase, samples in seen if phase == "publish"][-1]
    assert last["refold_rebuild_units_planned", ""] == last["refold_rebuild_units_done", ""] > 0
    assert last["refold_rebuild_events", ""] == 9


def test_a_command_prints_the_address_of_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    """The metrics are served until the command ends."""
    with metered(0) as metrics:
        metrics.micro_batch(3, 0.1)
        address = re.fullmatch(r"Metrics at http://127\.0\.0\.1:(\d+)/metrics\n", capsys.readouterr().err)
        assert address
        assert scrape(int(address[1]))["refold_stream_events_total", ""] == 3
    with pytest.raises(OSError, match="refused"):
        scrape(int(address[1]))
    with metered(None) as metrics:
        assert metrics.port is None
    assert capsys.readouterr().err == ""


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "refold", "--domain", REF, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("command", ["seal", "rebuild"])
def test_commands_that_can_be_scraped(command: str, log: EventLog, tmp_path: Path) -> None:
    """Each command prints the address and completes."""
    where = ("--log", log.url, "--read-models", str(tmp_path / "models"))
    done = run(*where, command, "--metrics-port", "0", "--json")
    assert re.fullmatch(r"Metrics at http://127\.0\.0\.1:\d+/metrics\n", done.stderr)
    assert json.loads(done.stdout)["position"] == 3


def test_the_metrics_of_a_generation(log: EventLog, tmp_path: Path) -> None:
    """The position and lag of every read model, and the number of open dead letters."""
    Appender(log, WRITER).append("parcel-2", [Weighed(parcel="b", printed="12 g")])
    options = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
    url = str(tmp_path / "models")
    ref = "tests.pipelines.cli.letters:BROKEN"
    generation = rebuild(log, ref, url, options, dead_letter=True).generation
    Appender(log, WRITER).append("parcel-2", [Weighed(parcel="b", printed="7")])
    metrics = Metrics()
    measure_generation(metrics, log, open_generations(url, "letters"), generation)
    value = metrics.registry.get_sample_value
    assert (value("refold_log_position"), value("refold_log_unsealed_events")) == (5, 1)
    assert value("refold_read_model_position", {"read_model": "seen"}) == 4
    assert value("refold_read_model_lag_events", {"read_model": "losses"}) == 1
    assert value("refold_dead_letters", {"read_model": "weights"}) == 1


def test_a_port_in_use_stops_a_command_before_it_does_anything(log: EventLog) -> None:
    """The exit code is 2, and the log is not sealed."""
    metrics = serve_metrics(0)
    done = run("--log", log.url, "seal", "--metrics-port", str(metrics.port), code=2)
    metrics.close()
    assert "Give another --metrics-port" in done.stderr
    assert log.manifest().sealed_position == 0
