"""Leftovers of writers that died: what seals and imports staged, unreferenced segments and heads, unfinished files.

A segment that any manifest or commit references is part of the log's history and is never removed. An unreferenced one
may belong to a seal or import that is under way; only its age distinguishes the two.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from refold.event_schemas import ObjectNotFoundError
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import HEADS, MANIFESTS, PARTS, SEGMENTS, numbered
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.store import TEMP_PREFIX

_STAGING = "staging"
_INGESTS = "ingest-"
_STAGED_BY = {"seal-": "a seal", _INGESTS: "an import"}
_DEAD_FOLDERS = (*_STAGED_BY, "rebuild-", "refold-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An object that is no longer needed.

    Attributes:
        store_url: URL of its store.
        key: its key in that store.
        bytes: its size.
        why: why it is not needed.
    """

    store_url: str
    key: str
    bytes: int
    why: str


def log_leftovers(log: EventLog, *, before: datetime) -> list[Leftover]:
    """Find the leftovers of a log that were last modified before a given time.

    While an import is under way, which its staged objects show, no segment is a leftover.

    Args:
        log: the log.
        before: the time; it must precede the start of every seal and import that is under way.
    """
    store = log.store
    groups = staged_groups(store, _STAGING)
    found: list[Leftover] = []
    for name, keys in groups.items():
        writer = next((what for start, what in _STAGED_BY.items() if name.startswith(start)), None)
        if writer and newest_of(store, keys) < before:
            found += [leftover(store, key, f"staged by {writer} that died") for key in keys]
    for url in {log.url, *_archives(log)}:
        found += unfinished(open_store(url), before)
    importing = any(n.startswith(_INGESTS) and newest_of(store, keys) >= before for n, keys in groups.items())
    return found if importing else [*found, *_unreferenced(log, before)]


def _unreferenced(log: EventLog, before: datetime) -> Iterator[Leftover]:
    """Find unreferenced segments and heads; the listing comes first, so that it has no object published meanwhile."""
    store = log.store
    candidates = {(log.url, key) for folder in (SEGMENTS, HEADS, PARTS) for key in store.list_from(folder)}
    candidates |= {(url, key) for url in _archives(log) for key in open_store(url).list_from(SEGMENTS)}
    newest = log.head()
    candidates -= objects_of(log, [newest.sealed, *newest.tail])
    old = {(url, key) for url, key in candidates if _is_before(open_store(url), key, before)}
    for key in reversed(list(numbered(store.list_from(MANIFESTS)))):
        if not old:
            break
        old -= objects_of(log, [manifests.load(store, key)])
    for number in newest.sealed.imports.values() if old else ():
        if (imported := log.commit_info(number)) is not None:
            old -= objects_of(log, [imported])
    for url, key in sorted(old):
        yield leftover(open_store(url), key, "written by a seal, an import or an archiving that died")


def _archives(log: EventLog) -> set[str]:
    return {s.archive for s in log.manifest().segments if s.archive}


def unfinished(store: ObjectStore, before: datetime) -> Iterator[Leftover]:
    """Find files on a disk whose writers died before they had their names; listings omit them."""
    for folder, _, names in os.walk(store.url) if store.is_local else ():
        for path in (Path(folder) / name for name in names if name.startswith(TEMP_PREFIX)):
            try:
                found = path.lstat()
            except FileNotFoundError:  # it has its name now
                continue
            if datetime.fromtimestamp(found.st_mtime, UTC) < before:
                key = str(path.relative_to(store.url))
                yield Leftover(store_url=store.url, key=key, bytes=found.st_size, why="incomplete: its writer died")


def objects_of(log: EventLog, named_in: Iterable[Manifest | CommitInfo]) -> set[tuple[str, str]]:
    """Return the objects that some manifests or commits name: URL of the store, and key."""
    found: set[tuple[str, str]] = set()
    for one in named_in:
        found |= {(s.archive or log.url, s.key) for s in one.segments}
        if isinstance(one, Manifest):
            found |= {(log.url, named) for named in (*(h.key for h in one.heads), *(p.key for p in one.parts))}
        else:
            found |= {(log.url, h.key) for h in one.heads_runs}
    return found


def _is_before(store: ObjectStore, key: str, time: datetime) -> bool:
    try:
        return store.modified(key) < time
    except ObjectNotFoundError:
        return False


def staged_groups(store: ObjectStore, folder: str) -> dict[str, list[str]]:
    """Return the keys below a folder, grouped by the next part of their path."""
    groups: dict[str, list[str]] = {}
    for key in store.list_from(folder):
        groups.setdefault(key.removeprefix(f"{folder}/").split("/")[0], []).append(key)
    return groups


def newest_of(store: ObjectStore, keys: list[str]) -> datetime:
    """Return when the newest of some objects was written; objects deleted meanwhile are ignored."""
    found = []
    for key in keys:
        try:
            found.append(store.modified(key))
        except ObjectNotFoundError:
            continue
    return max(found, default=datetime.fromtimestamp(0, UTC))


def leftover(store: ObjectStore, key: str, why: str) -> Leftover:
    """Describe an object that is not needed; one deleted meanwhile has size 0."""
    try:
        size = store.size(key)
    except ObjectNotFoundError:
        size = 0
    return Leftover(store_url=store.url, key=key, bytes=size, why=why)


def delete_leftovers(found: Iterable[Leftover]) -> int:
    """Delete leftovers, and on a local disk the empty folders of dead writers; return the bytes freed."""
    freed = 0
    for left in found:
        freed += left.bytes
        store = open_store(left.store_url)
        if store.is_local:
            path = Path(store.url) / left.key
            path.unlink(missing_ok=True)  # names of unfinished files are not valid keys
            _remove_folders(store, left.key)
        else:
            store.delete(left.key)
    return freed


def _remove_folders(store: ObjectStore, key: str) -> None:
    """Remove the folder of a dead writer once it is empty; a live writer may need any other folder."""
    parts = key.split("/")[:-1]
    while len(parts) >= 2 and parts[1].startswith(_DEAD_FOLDERS):
        try:
            Path(store.url, *parts).rmdir()
        except OSError:  # not empty
            return
        parts.pop()
