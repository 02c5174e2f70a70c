"""The event log: an append-only history as numbered commits, sealed into typed segments.

================ ======================================================================================================
module           holds
================ ======================================================================================================
``log``          the log itself: its identity, its commits, its end
``commit``       one atomic append as one Parquet object
``append``       appending with optimistic concurrency and group commit, with ``new_events`` and ``stream_index``
``seal``         commits become segments: ``segments``, ``columns``, ``heads`` and ``manifest`` are what it writes
``reads``        one stream, a category, a correlation, positions; statistics; places by position or time
``bulk_import``  a history written as segments directly
``verification`` checks of a whole log; ``repair`` makes damaged segments again
``retention``    what is no longer needed; ``orphaned_objects`` are what writers left when they died
``archive``      old segments, moved to another store
================ ======================================================================================================
"""

from refold.warehouse.event_log.append import Appended, Appender
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.new_events import NewEvent, StreamAppend
from refold.warehouse.event_log.opening import create_log, open_log
from refold.warehouse.event_log.reads.read import (
    read_category,
    read_correlation,
    read_positions,
    read_stream,
    tail,
)
from refold.warehouse.event_log.reads.stats import LogStats, SchemaStats, stats
from refold.warehouse.event_log.verification.findings import Finding
from refold.warehouse.event_log.verification.verify import Verification, verify

__all__ = [
    "Appended",
    "Appender",
    "EventLog",
    "Finding",
    "LogStats",
    "NewEvent",
    "SchemaStats",
    "StreamAppend",
    "Verification",
    "create_log",
    "open_log",
    "read_category",
    "read_correlation",
    "read_positions",
    "read_stream",
    "stats",
    "tail",
    "verify",
]
