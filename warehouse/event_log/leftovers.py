"""What dead writers left in a log: staged objects of seals, and segments and heads that nobody names.

Every segment that a manifest or a commit names is part of the log's history and is never touched. What is not named may
belong to a seal or an import that is under way: its age tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from refold.event_schemas import ObjectNotFoundError
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.layout import HEADS, MANIFESTS, SEGMENTS
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.object_store import ObjectStore

_STAGING = "staging"
_SEALS = "seal-"
_INGESTS = "ingest-"
_DEAD_FOLDERS = ("seal-", "rebuild-", "refold-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An object that nobody needs.

    Attributes:
        store_url: of its store.
        key: in that store.
        bytes: its size.
        why: what it was.
    """

    store_url: str
    key: str
    bytes: int
    why: str


def log_leftovers(log: EventLog, *, before: datetime) -> list[Leftover]:
    """Find the leftovers of a log that were last touched before a moment.

    While an import is under way, which shows by what it stages, no segment counts as left over.

    Args:
        log: the log.
        before: the moment; early enough that no seal or import that is under way is so old.
    """
    store = log.store
    groups = staged_groups(store, _STAGING)
    found: list[Leftover] = []
    for name, keys in groups.items():
        if name.startswith(_SEALS) and newest_of(store, keys) < before:
            found += [leftover(store, key, "staged by a seal that died") for key in keys]
    importing = any(n.startswith(_INGESTS) and newest_of(store, keys) >= before for n, keys in groups.items())
    return found if importing else [*found, *_unnamed(log, before)]


def _unnamed(log: EventLog, before: datetime) -> Iterator[Leftover]:
    """Find segments and heads without a name; they are listed first, so that none that is published now is among."""
    store = log.store
    candidates = {key for folder in (SEGMENTS, HEADS) for key in store.list_from(folder)}
    newest = log.head()
    candidates -= _keys(newest.sealed)
    for info in newest.tail:
        candidates -= {s.key for s in info.segments} | {h.key for h in info.heads_runs}
    old = {key for key in candidates if _is_before(store, key, before)}
    for key in reversed(list(store.list_from(MANIFESTS))):
        if not old:
            break
        old -= _keys(manifests.decode(store.get(key), where=f"{store.url}/{key}"))
    for number in newest.sealed.imports.values() if old else ():
        if (imported := log.commit_info(number)) is not None:
            old -= {s.key for s in imported.segments} | {h.key for h in imported.heads_runs}
    yield from (leftover(store, key, "written by a seal or an import that died") for key in sorted(old))


def _keys(manifest: manifests.Manifest) -> set[str]:
    return {s.key for s in manifest.segments} | {h.key for h in manifest.heads}


def _is_before(store: ObjectStore, key: str, moment: datetime) -> bool:
    try:
        return store.modified(key) < moment
    except ObjectNotFoundError:
        return False


def staged_groups(store: ObjectStore, folder: str) -> dict[str, list[str]]:
    """Give the keys below a folder by the name that follows it."""
    groups: dict[str, list[str]] = {}
    for key in store.list_from(folder):
        groups.setdefault(key.removeprefix(f"{folder}/").split("/")[0], []).append(key)
    return groups


def newest_of(store: ObjectStore, keys: list[str]) -> datetime:
    """Tell when the last of some objects was written; those that are gone meanwhile do not count."""
    found = []
    for key in keys:
        try:
            found.append(store.modified(key))
        except ObjectNotFoundError:
            continue
    return max(found, default=datetime.fromtimestamp(0, UTC))


def leftover(store: ObjectStore, key: str, why: str) -> Leftover:
    """Describe an object that nobody needs; one that is gone meanwhile has no bytes."""
    try:
        size = store.size(key)
    except ObjectNotFoundError:
        size = 0
    return Leftover(store_url=store.url, key=key, bytes=size, why=why)


def delete_leftovers(store: ObjectStore, found: Iterable[Leftover]) -> int:
    """Delete objects that nobody needs, and on a local disk the folders of dead writers; give the bytes freed."""
    freed = 0
    for left in found:
        freed += left.bytes
        if store.is_local:
            path = Path(store.url) / left.key
            path.unlink(missing_ok=True)  # a store would refuse the names of unfinished files
            _remove_folders(store, left.key)
        else:
            store.delete(left.key)
    return freed


def _remove_folders(store: ObjectStore, key: str) -> None:
    """Remove the folder of a dead writer once it is empty; no others, which somebody may be about to write into."""
    parts = key.split("/")[:-1]
    while len(parts) >= 2 and parts[1].startswith(_DEAD_FOLDERS):
        try:
            Path(store.url, *parts).rmdir()
        except OSError:  # not empty
            return
        parts.pop()
