"""Two checkouts of refold, measured by the same benchmarks, one after the other, several times.

``python -m benchmarks.compare --before ../refold-0.1 --after . --rounds 5 commands "rebuild --events 2000000"`` runs
each benchmark alternately in both folders, each with its own ``.venv`` and data. It prints the median of every number
and the ratio after/before; the last line is one JSON object. Alternating runs see the same load on the machine,
so the ratio varies less than the numbers.
"""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from benchmarks.sides import Measurement, print_result

DEFAULTS = ("rebuild --events 20000000", "stream", "commands", "serve")

Numbers = dict[str, float]
"""Key to value; the keys of nested objects are joined by dots."""


def run(checkout: Path, benchmark: str) -> Measurement:
    """Run a benchmark in a checkout, and read the JSON object on the last line of its output.

    Args:
        checkout: a folder with ``benchmarks`` and a virtual environment in ``.venv``.
        benchmark: its name, with any options.
    """
    name, *options = shlex.split(benchmark)
    command = [str(checkout.absolute() / ".venv" / "bin" / "python"), "-m", f"benchmarks.{name}", *options, "--json"]
    done = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def numbers(measurement: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a measurement.

    Example:
        >>> dict(numbers({"agree": True, "p50_ms": 2, "latency": {"p99_ms": 7.5}}))
        {'p50_ms': 2, 'latency.p99_ms': 7.5}
    """
    for key, value in measurement.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", value


def compare(before: Sequence[Numbers], after: Sequence[Numbers]) -> dict[str, dict[str, float]]:
    """Return the medians and their ratio, for every key that all runs have.

    Example:
        >>> compare([{"p50_ms": 2.0}, {"p50_ms": 4.0}], [{"p50_ms": 1.5}, {"p50_ms": 1.5}])
        {'p50_ms': {'before': 3.0, 'after': 1.5, 'ratio': 0.5}}
    """
    result = {}
    for key in before[0]:
        if all(key in one for one in (*before, *after)):
            old, new = (statistics.median(one[key] for one in runs) for runs in (before, after))
            result[key] = {"before": old, "after": new, **({"ratio": round(new / old, 3)} if old else {})}
    return result


def measure(
    before: Path, after: Path, benchmark: str, rounds: int, renamed: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Run a benchmark alternately in both checkouts and compare; the order is reversed every second round."""
    found: dict[Path, list[Numbers]] = {before: [], after: []}
    for number in range(rounds):
        for checkout in (before, after) if number % 2 == 0 else (after, before):
            measured = run(checkout, benchmark)
            if measured.get("agree") is False:
                raise click.ClickException(f"{benchmark} in {checkout}: the results do not agree.")
            found[checkout].append({renamed.get(key, key): value for key, value in numbers(measured)})
            click.echo(f"{benchmark}, round {number + 1} of {rounds}: {checkout} is done.", err=True)
    return compare(found[before], found[after])


@click.command()
@click.argument("benchmarks", nargs=-1)
@click.option("--before", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--after", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--renamed", multiple=True, metavar="OLD=NEW", help="A key that has another name in --after.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
def main(
    benchmarks: tuple[str, ...], before: Path, after: Path, rounds: int, renamed: tuple[str, ...], as_json: bool
) -> None:
    """Compare two checkouts by BENCHMARKS, such as commands or "rebuild --events 2000000"."""
    if before.resolve() == after.resolve():
        raise click.UsageError("--before and --after are the same folder.")
    names = dict(one.split("=", 1) for one in renamed)
    result: Measurement = {"rounds": rounds}
    for benchmark in benchmarks or DEFAULTS:
        result[benchmark] = measure(before, after, benchmark, rounds, names)
        if not as_json:
            click.echo(f"{benchmark:48} {'before':>14} {'after':>14} {'ratio':>8}")
            for key, row in result[benchmark].items():
                click.echo(f"  {key:46} {row['before']:14,.3f} {row['after']:14,.3f} {row.get('ratio', ''):>8}")
    print_result(result, as_json=True)


if __name__ == "__main__":
    main()
