"""The comparison of two checkouts: medians and ratios of what their benchmarks print."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.compare import main


@pytest.fixture
def checkouts(tmp_path: Path) -> list[str]:
    """Two checkouts whose only benchmark prints the next of their values."""
    options = []
    for name, key, values in (("before", "turn_ms", [40, 10, 20]), ("after", "micro_batch_ms", [5, 30, 10])):
        folder = tmp_path / name
        (folder / "benchmarks").mkdir(parents=True)
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
        (folder / "benchmarks" / "fake.py").write_text(
            "import json, pathlib, sys\n"
            "runs = pathlib.Path('runs')\n"
            "number = len(runs.read_text()) if runs.exists() else 0\n"
            "runs.write_text('x' * (number + 1))\n"
            "print('progress')\n"
            f"value = {values}[number]\n"
            f"print(json.dumps({{'agree': '--wrong' not in sys.argv, 'latency': {{'{key}': value}}, 'list': [1]}}))\n"
        )
        options += [f"--{name}", str(folder)]
    return options


def test_medians_and_ratio(checkouts: list[str]) -> None:
    """Medians cover all rounds, with nested and renamed keys; the last line is JSON."""
    renamed = "latency.turn_ms=latency.micro_batch_ms"
    done = CliRunner().invoke(main, [*checkouts, "--rounds", "3", "--renamed", renamed, "fake"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "rounds": 3,
        "fake": {"latency.micro_batch_ms": {"before": 20, "after": 10, "ratio": 0.5}},
    }
    assert "round 3 of 3" in done.stderr


def test_a_benchmark_whose_results_differ_ends_it(checkouts: list[str]) -> None:
    """The comparison fails if a benchmark's results are wrong."""
    done = CliRunner().invoke(main, [*checkouts, "fake --wrong"])
    assert done.exit_code == 1
    assert "do not agree" in done.stderr


def test_a_checkout_is_not_compared_with_itself(checkouts: list[str]) -> None:
    """Comparing a checkout with itself is a usage error."""
    done = CliRunner().invoke(main, ["--before", checkouts[1], "--after", checkouts[1], "fake"])
    assert done.exit_code == 2
