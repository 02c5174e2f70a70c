"""Helpers for the tests of imports: files of rows, and the resulting events and rejects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from refold.pipelines.ingest.file_reader import ReadPlan, read_into
from refold.pipelines.ingest.ingest import ColumnMapping, ImportLimits
from refold.pipelines.ingest.mapping import CLOUDEVENTS, OWN
from refold.pipelines.ingest.rejects import RejectFile
from refold.pipelines.ingest.sources import for_file, inspect
from refold.warehouse.event_log import EventLog, read_positions
from refold.warehouse.event_log.bulk_import.spool import Spool, read_spool
from refold.warehouse.personal.personal_data import personal_data
from tests.pipelines.ingest.parcels import PARCELS

BUCKETS = 4
TIME = "2024-05-01T12:00:00Z"


@dataclass(frozen=True, slots=True)
class Read:
    """The result of reading files into a spool.

    Attributes:
        events: accepted events in order, envelope and payload in one mapping; fields that are None are left out.
        rejects: lines of the reject file.
        chunks: number of chunks in the spool.
    """

    events: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    chunks: int

    @property
    def reasons(self) -> dict[int, str]:
        """Line to reason."""
        return {r["line"]: r["reason"] for r in self.rejects}


def row(**changes: Any) -> dict[str, Any]:
    """Make a good row, some columns changed; a value of ``...`` leaves the column out."""
    made = {"stream_id": "p-1", "event_type": "Described", "occurred_at": TIME, "payload": {"name": "cup"}} | changes
    return {name: value for name, value in made.items() if value is not ...}


def lines(*rows: Any) -> str:
    """Write rows as JSON lines; text is written as it is."""
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)


def read(
    folder: Path,
    file: Path,
    *,
    mapping: ColumnMapping | None = None,
    format: str | None = None,
    limits: ImportLimits | None = None,
    strict: bool = False,
    workers: int = 2,
) -> Read:
    """Read one file as an import does, without making it part of a log."""
    source = inspect(str(file), format=format, report=lambda *_: None)
    source, mapping = for_file(source, mapping or (CLOUDEVENTS if source.cloudevents else OWN))
    spool = Spool(folder / "spool", bucket_count=BUCKETS)
    progress = spool.journal.source
    rejects = RejectFile(folder / "rejects", size=progress.get("rejects_size", 0), count=progress.get("rejected", 0))
    plan = ReadPlan(
        sources=[(source, mapping)],
        registry=PARCELS.registry,
        bucket_count=BUCKETS,
        workers=workers,
        limits=limits or ImportLimits(),
        strict=strict,
        personal=personal_data("memory://keys", "of no log"),
    )
    read_into(spool, rejects, plan, lambda *_: None)
    rejected = (folder / "rejects").read_text().splitlines() if rejects.count else []
    return Read(spooled_events(folder / "spool"), [json.loads(r) for r in rejected], len(spool.journal.chunks))


def spooled_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a spool in order."""
    spooled = read_spool(folder)
    found = []
    for chunk in spooled.journal.chunks:
        for (event_type, version), table in spooled.read_chunk(chunk.number).items():
            schema = {"event_type": event_type, "schema_version": version}
            found += [schema | {k: v for k, v in r.items() if v is not None} for r in table.to_pylist()]
    return sorted(found, key=lambda event: int(event["position"]))


def payloads(found: Read) -> list[dict[str, Any]]:
    """Return the payloads alone."""
    envelope = {"position", "stream_id", "event_id", "event_type", "schema_version", "occurred_at"}
    return [{k: v for k, v in e.items() if k not in envelope} for e in found.events]


def history(log: EventLog) -> list[dict[str, Any]]:
    """Return all events of a log in order, without the time at which they were recorded."""
    return [
        {k: v for k, v in dataclasses.asdict(e).items() if k != "recorded_at"}
        for e in read_positions(log, PARCELS.registry, 0)
    ]


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any] | pa.Array], **options: Any) -> Path:
    """Write columns as a Parquet file."""
    pq.write_table(pa.table(dict(columns)), path, **options)
    return path
