"""Retention: what a log no longer needs is removed after a window, safely against readers and writers.

Commits whose events have been sealed for longer than the window are removed, and so are older manifests, and the
segments and stream heads that only these name. No event is lost: it is in the newer segments.

A reader that began within the window has read a manifest that seals these commits. An appender may have slept longer:
it asks the newest manifest before it relies on a commit number again (``stream_index``). The number below which commits
may be gone is in a manifest before the first of them is removed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from refold.event_schemas import LogError, ObjectNotFoundError, UsageError
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.layout import COMMITS, MANIFESTS, PARTS, commit_key, manifest_key, number_of, numbered
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.orphaned_objects import Leftover, leftover, objects_of
from refold.warehouse.object_store import open_store

MIN_WINDOW = timedelta(hours=1)
"""A shorter one could remove a commit under a reader or an appender that relies on it."""

WINDOW = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Retention:
    """What can be removed from a log.

    Attributes:
        removed_before: number below which commits are removed; 0 if none are.
        objects: the objects, in the order in which they are removed.
    """

    removed_before: int
    objects: tuple[Leftover, ...]


def plan_retention(log: EventLog, *, window: timedelta = WINDOW, now: datetime | None = None) -> Retention:
    """Find what can be removed, without removing it.

    Args:
        log: the log.
        window: for how long commits are kept after they were sealed, and other objects after they were superseded.
        now: the current time; by default that of the clock.

    Raises:
        UsageError: the window is too short.
    """
    if window < MIN_WINDOW:
        raise UsageError(
            f"The window is {window}. Give an hour or more: readers and writers rely that long on what they have read."
        )
    store, before = log.store, (now or datetime.now(UTC)) - window
    numbers = [number_of(key) for key in numbered(store.list_from(MANIFESTS))]
    old = next((i for i in reversed(range(len(numbers))) if _modified(log, numbers[i]) < before), None)
    if old is None:
        return Retention(0, ())
    kept = [log.manifest(number) for number in numbers[old:]]
    superseded = [_old_manifest(log, number) for number in numbers[:old]]
    needed = objects_of(log, kept)
    sealed = kept[0]
    imports = set(kept[-1].imports.values())
    commits = (number_of(key) for key in numbered(store.list_from(COMMITS)))
    removable = [n for n in commits if n <= sealed.sealed_commit and n not in imports]
    objects = [leftover(store, commit_key(n), "its events are in segments") for n in removable]
    replaced = [
        leftover(open_store(url), key, "newer objects replaced it")
        for url, key in sorted(objects_of(log, superseded) - needed)
    ]
    # A manifest goes before its parts, so that the next run can read those that a killed one has left.
    objects += [left for left in replaced if not left.key.startswith(f"{PARTS}/")]
    objects += [leftover(store, manifest_key(m.number), "a newer manifest replaced it") for m in superseded]
    objects += [left for left in replaced if left.key.startswith(f"{PARTS}/")]
    return Retention(sealed.sealed_commit + 1 if removable else 0, tuple(objects))


def apply_retention(log: EventLog, planned: Retention) -> int:
    """Remove what was planned, and return the bytes that are free now. A killed run is completed by the next.

    Raises:
        LogError: another process sealed the log meanwhile; nothing was removed.
    """
    log.check_writable()
    newest = log.manifest()
    if planned.removed_before > newest.removed_before:
        following = dataclasses.replace(newest, number=newest.number + 1, removed_before=planned.removed_before)
        if not manifests.publish(log.store, following):
            raise LogError(f"Another process sealed the log {log.url} meanwhile; nothing was removed. Try again.")
    for left in planned.objects:
        open_store(left.store_url).delete(left.key)
    return sum(left.bytes for left in planned.objects)


def _modified(log: EventLog, number: int) -> datetime:
    return log.store.modified(manifest_key(number))


def _old_manifest(log: EventLog, number: int) -> Manifest:
    try:
        return log.manifest(number)
    except ObjectNotFoundError:  # removed meanwhile
        return Manifest(number=number)
