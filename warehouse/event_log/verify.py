"""Verifying a log: every object is what the manifest and the commits say, and no event is missing, double or out of place.

Commits first, by their footers; then bucket by bucket the segments, the streams in them and the stream heads; then
positions and event ids of the whole log. Memory stays bounded: what is large is sorted and grouped by DuckDB, which
spills to disk. A damaged object is one finding, and what cannot be checked without it is told, not guessed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from event_schemas import DamagedLogError, RefoldError, Registry
from event_schemas.registry import Shape
from warehouse.duck import connect
from warehouse.event_log import manifest as manifests
from warehouse.event_log.commit import CommitInfo
from warehouse.event_log.heads import files_literal, heads_path
from warehouse.event_log.layout import COMMITS, MANIFESTS, commit_key, manifest_key, number_of
from warehouse.event_log.log import EventLog, Head
from warehouse.event_log.manifest import HeadsRun, Manifest, Segment
from warehouse.event_log.reading import live_segments, overlaps
from warehouse.event_log.segments import SEGMENT_ENVELOPE, check_segment
