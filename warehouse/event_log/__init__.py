"""The event log: commits, stream heads, segments, sealing; appending, reading, checking and counting."""

from refold.warehouse.event_log.append import (
    Appended,
    Appender,
    NewEvent,
    StreamAppend,
)
from refold.warehouse.event_log.log import EventLog, create_log, open_log
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
