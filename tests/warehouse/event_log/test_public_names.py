"""What the event log offers by name: a change here is a change for whoever builds on it."""

from __future__ import annotations

from refold.warehouse import event_log


def test_the_public_names_are_these() -> None:
    """Each stands in ``__all__``, sorted, and is there."""
    assert event_log.__all__ == [
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
    assert all(callable(getattr(event_log, name)) for name in event_log.__all__)
