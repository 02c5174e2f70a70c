"""Rebuild of a read model that reads an encrypted field, against the same domain without the mark.

The two domains and their logs differ in the mark alone. Rebuilds alternate, each in a process of its own; the fastest
of each side counts. ``python -m benchmarks.personal --events 200000 --customers 10000 --json``.
"""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import click
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.sides import Measurement, differences, measured, rebuild_side, run_side
from refold import Domain, Personal, Projection, beam_options, create_log, event, ingest, latest, open_generations


@event(schema_version=1, name="NoteTaken")
class Plain:
    """A note, without a mark."""

    customer_id: str
    number: int
    note: str


@event(schema_version=1, name="NoteTaken")
class Marked:
    """The same note, encrypted."""

    customer_id: str
    number: int
    note: Annotated[str, Personal(subject="customer_id")]


def _domain(name: str, cls: type) -> Domain:
    notes = Projection(
        name="notes",
        key={"customer_id": "VARCHAR"},
        columns={"number": latest("BIGINT"), "note": latest("VARCHAR")},
        on={cls: "SELECT customer_id, number, note"},
    )
    return Domain(name=name, events=(cls,), read_models=(notes,))


PLAIN = _domain("plain", Plain)
MARKED = _domain("marked", Marked)


def _ref(side: str) -> str:
    return f"benchmarks.personal:{side.upper()}"


def _make_log(folder: Path, side: str, events: int, customers: int) -> None:
    source = folder / "source.parquet"
    customer = [f"customer-{n % customers}" for n in range(events)]
    columns = {
        "stream_id": customer,
        "event_id": [f"e-{n}" for n in range(events)],
        "event_type": ["NoteTaken"] * events,
        "schema_version": pa.array([1] * events, pa.int32()),
        "occurred_at": pa.array([1_700_000_000_000_000 + n for n in range(events)], pa.timestamp("us", tz="UTC")),
        "customer_id": customer,
        "number": list(range(events)),
        "note": [f"a note of {n % 997} on customer {n}" for n in range(events)],
    }
    pq.write_table(pa.table(columns), source)
    log = create_log(str(folder / "log"), domain_name=side)
    ingest(log, _ref(side), [str(source)], options=beam_options(None, ["--direct_num_workers=1"]))


def _side(folder: Path, side: str) -> Measurement:
    found = measured(lambda: rebuild_side(folder, _ref(side), 1))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {**found, "cpu_seconds": used.ru_utime + used.ru_stime}


@click.command()
@click.option("--events", type=int, default=200_000, show_default=True)
@click.option("--customers", type=int, default=10_000, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; a temporary folder by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
@click.option("--side", type=click.Choice(["plain", "marked"]), hidden=True)
def main(events: int, customers: int, rounds: int, folder: Path | None, as_json: bool, side: str | None) -> None:
    """Measure what an encrypted field costs a rebuild."""
    if side is not None:
        assert folder is not None
        print(json.dumps(_side(folder, side)))
        return
    with tempfile.TemporaryDirectory(dir=folder) as place:
        sides = {name: Path(place) / name for name in ("plain", "marked")}
        imports = {}
        for name, own in sides.items():
            own.mkdir()
            imports[name] = measured(lambda own=own, name=name: _make_log(own, name, events, customers))["seconds"]  # type: ignore[misc]
        found: dict[str, list[Measurement]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, own in sides.items():
                shutil.rmtree(own / "read-models", ignore_errors=True)
                found[name].append(run_side("benchmarks.personal", name, own))
        plain, marked = (_published(own, name) for name, own in sides.items())
        stored = {
            name: sum(f.stat().st_size for f in own.rglob("segments/**/*.parquet")) for name, own in sides.items()
        }
        agree = not any(differences(plain, marked, PLAIN.read_models).values())
    best = {name: min(m["seconds"] for m in runs) for name, runs in found.items()}
    cpu = {name: min(m["cpu_seconds"] for m in runs) for name, runs in found.items()}
    result = {
        "events": events,
        "customers": customers,
        "rebuild_seconds": round(best["marked"], 2),
        "plain_seconds": round(best["plain"], 2),
        "ratio": round(best["marked"] / best["plain"], 2),
        "cpu_ratio": round(cpu["marked"] / cpu["plain"], 2),
        "extra_cpu_microseconds_per_value": round((cpu["marked"] - cpu["plain"]) / events * 1e6, 1),
        "import_seconds": {name: round(seconds, 2) for name, seconds in imports.items()},
        "segment_bytes_per_event": {name: round(size / events, 1) for name, size in stored.items()},
        "agree": agree,
    }
    print(json.dumps(result) if as_json else "\n".join(f"{key}: {value}" for key, value in result.items()))


def _published(folder: Path, side: str) -> Path:
    generations = open_generations(str(folder / "read-models"), side)
    newest = generations.newest()
    assert newest is not None
    return generations.path(newest)


if __name__ == "__main__":
    main()
