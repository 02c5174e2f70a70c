"""The event log: commits, stream heads, segments, sealing; appending, reading, checking and counting."""

from warehouse.event_log.append import Appended, Appender, NewEvent, StreamAppend
from warehouse.event_log.findings import Finding
from warehouse.event_log.log import EventLog, create_log, open_log
from warehouse.event_log.reading import read_category, read_correlation, read_positions, read_stream, tail
from warehouse.event_log.stats import LogStats, ShapeStats, stats
from warehouse.event_log.verify import Verification, verify

__all__ = [
    "Appended",
    "Appender",
    "EventLog",
    "Finding",
    "LogStats",
    "NewEvent",
    "ShapeStats",
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
