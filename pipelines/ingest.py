"""``refold ingest``: files of events into the log, checked, resumable, without doubles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.ingesting.mapping import ColumnMapping, read_mapping
from warehouse.event_log.log import EventLog

__all__ = ["ColumnMapping", "Ingested", "Progress", "ingest", "read_mapping"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is.

    Attributes:
        phase: ``identify``, ``read``, ``build``, ``publish`` or ``commit``.
        done: bytes of the source read (``read``), buckets built (``build``), events committed (``commit``).
        total: what ``done`` will be at the end of the phase.
        events: events accepted so far.
        rejected: rows rejected so far.
    """

    phase: str
    done: int = 0
    total: int = 0
    events: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an import did.

    Attributes:
        events: events that this call made part of the log.
        rejected: rows that could not be.
        commits: commits that this call made part of the log.
        mode: ``segments``: one commit named typed segments; ``commits``: ordinary commits.
        already: this very import was done before; nothing was changed.
        rejects: the file with the rejected rows; None if there are none.
        unused_columns: columns of a table (Parquet, CSV) that nothing was taken from.
    """

    events: int
    rejected: int
    commits: int
    mode: Literal["segments", "commits"]
    already: bool = False
    rejects: Path | None = None
    unused_columns: tuple[str, ...] = ()


def ingest(
    log: EventLog,
    domain_ref: str,
    files: Sequence[str],
    *,
    mapping: ColumnMapping | None = None,
    format: str | None = None,
    strict: bool = False,
    rejects: Path | None = None,
    options: PipelineOptions | None = None,
    report: Callable[[Progress], None] = lambda _: None,
) -> Ingested:
    """Bring the events of files into the log, in the order of files and rows."""
    raise NotImplementedError
