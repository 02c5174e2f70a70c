"""What is done to a log while its store fails; each action may be run again, and completes what it began."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from refold.event_schemas import ConcurrencyError
from refold.warehouse.event_log import Appender, EventLog, NewEvent, read_stream
from refold.warehouse.event_log.archive import archive as archive_segments
from refold.warehouse.event_log.archive import restore as restore_segments
from refold.warehouse.event_log.orphaned_objects import delete_leftovers, log_leftovers
from refold.warehouse.event_log.repair import repair as repair_log
from refold.warehouse.event_log.retention import MIN_WINDOW, apply_retention, plan_retention
from tests.warehouse.event_log import shop

LATER = timedelta(days=30)


def append(log: EventLog, _: Path) -> None:
    """Append an event at a version, as a writer does that cannot know whether its last attempt succeeded."""
    event = NewEvent(payload=shop.added(), event_id="appended")
    try:
        Appender(log, shop.REGISTRY).append("order-1", [event], expected_version=2)
    except ConcurrencyError:
        if [e.event_id for e in read_stream(log, shop.REGISTRY, "order-1")][2:] != ["appended"]:
            raise


def bulk_import(log: EventLog, _: Path) -> None:
    """Import two streams as segments."""
    placed = shop.Placed(customer="c", currency="EUR")
    shop.bulk_import(log, "visit", [("order-7", placed), ("order-7", shop.added()), ("order-9", placed)])


def seal(log: EventLog, _: Path) -> None:
    """Seal what is not sealed."""
    if log.head().tail:
        shop.seal(log)


def archive(log: EventLog, folder: Path) -> None:
    """Move all sealed events to an archive beside the log."""
    archive_segments(log, before=datetime.now(UTC) + LATER, to=_archive_of(log, folder))


def restore(log: EventLog, _: Path) -> None:
    """Move all archived events back."""
    restore_segments(log)


def retain(log: EventLog, _: Path) -> None:
    """Remove what has not been needed for a while, seen from a month later."""
    apply_retention(log, plan_retention(log, window=MIN_WINDOW, now=datetime.now(UTC) + LATER))


def clean(log: EventLog, _: Path) -> None:
    """Remove what writers left that died, seen from a month later."""
    delete_leftovers(log_leftovers(log, before=datetime.now(UTC) + LATER))


def repair(log: EventLog, _: Path) -> None:
    """Make damaged segments again."""
    repair_log(log, shop.REGISTRY)


def _archive_of(log: EventLog, folder: Path) -> str:
    return str(folder / "cold") if log.store.is_local else f"{log.url}-cold"
