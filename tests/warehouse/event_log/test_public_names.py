"""The public names of the event log: a change here is a change for every user."""

from __future__ import annotations

from refold.warehouse import event_log


def test_the_public_names_are_these() -> None:
    """Each is in ``__all__``, sorted, and can be imported."""
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
