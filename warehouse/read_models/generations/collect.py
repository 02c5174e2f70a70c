"""Collecting generations that nobody needs any more, and what dead writers left beside them.

What stays: the newest few; those superseded not long ago; files that a kept generation names (a rollback names an older
one's file, a seeded read model the file that it started from); and on a local disk whatever a reader has open.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from refold.event_schemas import ObjectNotFoundError, UsageError
from refold.warehouse.event_log.leftovers import (
    Leftover,
    delete_leftovers,
    leftover,
    newest_of,
    staged_groups,
)
from refold.warehouse.object_store.store import TEMP_PREFIX
from refold.warehouse.read_models.generations.generations import FILES, Generation, Generations
from refold.warehouse.read_models.generations.open_files import held_files

_STAGING = "staging"
_PLANS = "plans"
_WORK = "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection removes.

    Attributes:
        generations: numbers of those to forget.
        files: files that only these needed.
        leftovers: of publishes and rebuilds that died.
        held: generations that would be removed, but a reader has their file open.
    """

    generations: tuple[int, ...]
    files: tuple[Leftover, ...]
    leftovers: tuple[Leftover, ...]
    held: tuple[int, ...]


def plan_collection(generations: Generations, *, keep: int, min_age: timedelta, leftover_age: timedelta) -> Collected:
    """Find what can be removed; nothing is, yet.

    Args:
        generations: the published read models.
        keep: how many of the newest to keep in any case.
        min_age: keep a generation for so long after it was superseded.
        leftover_age: how long nothing may have touched what counts as left over.

    Raises:
        UsageError: nothing would be kept, or an age is negative.
    """
    if keep < 1 or min(min_age, leftover_age) < timedelta(0):
        raise UsageError("A collection keeps at least one generation (--keep 1), and no age is negative.")
    found, named = generations.all(), generations.named_files()
    aged = _superseded(found, keep, datetime.now(UTC) - min_age)
    open_files = _held(generations, {key for g in aged for key in named.get(g.number, ())})
    held = tuple(g.number for g in aged if g.file in open_files)
    gone = {g.number for g in aged if g.file not in open_files}
    kept = frozenset[str]().union(*(files for number, files in named.items() if number not in gone))
    unneeded = frozenset[str]().union(*(named.get(number, frozenset()) for number in gone)) - kept - open_files
    files = [leftover(generations.store, key, "named by no generation that is kept") for key in sorted(unneeded)]
    left = list(_leftovers(generations, datetime.now(UTC) - leftover_age))
    return Collected(generations=tuple(sorted(gone)), files=tuple(files), leftovers=tuple(left), held=held)


def _superseded(found: Sequence[Generation], keep: int, before: datetime) -> list[Generation]:
    """Pick those beyond the newest few whose successor was published before a moment."""
    pairs = list(itertools.pairwise(found))[: max(len(found) - keep, 0)]
    return [g for g, following in pairs if datetime.fromisoformat(following.published_at) <= before]


def _held(generations: Generations, keys: Collection[str]) -> set[str]:
    """Pick the files that a reader has open; on a remote store none is, since readers have copies."""
    if not generations.store.is_local:
        return set()
    paths = {Path(generations.store.url) / key: key for key in keys}
    return {paths[path] for path in held_files(paths)}


def collect(generations: Generations, planned: Collected) -> int:
    """Carry out what was planned, except what was named again since.

    Generations are forgotten before files are deleted, and what is named then is looked up once more: so whoever
    published one of these files again meanwhile, a rollback, either is seen here or sees that it came too late.

    Returns:
        How many bytes were freed.
    """
    # A publisher that was killed may have left the link on a file that is collected now.
    generations.update_current_link()
    for number in planned.generations:
        generations.forget(number)
    named = frozenset[str]().union(*generations.named_files().values())
    unnamed = [left for left in (*planned.files, *planned.leftovers) if left.key not in named]
    return delete_leftovers(generations.store, unnamed)


def _leftovers(generations: Generations, before: datetime) -> Iterator[Leftover]:
    yield from _orphans(generations, before)
    yield from _staged(generations, before)
    if generations.store.is_local:
        yield from _working(generations, before)
        yield from _unfinished(generations, before)


def _orphans(generations: Generations, before: datetime) -> Iterator[Leftover]:
    """Find files that were never published; listed before what is named is looked up, so that none slips between."""
    store = generations.store
    keys = list(store.list_from(FILES))
    named = frozenset[str]().union(*generations.named_files().values())
    old = {key for key in keys if key not in named and newest_of(store, [key]) < before}
    for key in sorted(old - _held(generations, old)):
        yield leftover(store, key, "named by no generation")


def _staged(generations: Generations, before: datetime) -> Iterator[Leftover]:
    """Find what rebuilds staged that nobody went on with, and the pointers to their plans."""
    store = generations.store
    groups = staged_groups(store, _STAGING)
    pointers = groups.pop(_PLANS, [])
    dead = {name for name, keys in groups.items() if newest_of(store, keys) < before}
    for key in pointers:
        try:
            named = f"rebuild-{store.get(key).decode()}"
        except ObjectNotFoundError:
            continue
        if named in dead or (named not in groups and newest_of(store, [key]) < before):
            yield leftover(store, key, "plan of a rebuild that died")
    for name in sorted(dead):
        yield from (leftover(store, key, "staged by a rebuild that died") for key in groups[name])


def _working(generations: Generations, before: datetime) -> Iterator[Leftover]:
    """Find working databases of dead writers, by folder; one that is open is not dead, however old it is."""
    root = Path(generations.store.url)
    for folder in sorted((root / _WORK).glob("refold-*")):
        files = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
        if all(_touched(path) < before for path in [folder, *files]) and not held_files(files):
            for path in files:
                yield _file(generations, path, "working file of a writer that died")


def _unfinished(generations: Generations, before: datetime) -> Iterator[Leftover]:
    """Find objects that were being written when their writer died; no listing shows them."""
    for folder, _, names in os.walk(generations.store.url):
        for path in (Path(folder) / name for name in names if name.startswith(TEMP_PREFIX)):
            if _touched(path) < before:
                yield _file(generations, path, "not written to its end")


def _file(generations: Generations, path: Path, why: str) -> Leftover:
    key = str(path.relative_to(generations.store.url))
    size = path.stat().st_size if path.exists() else 0
    return Leftover(store_url=generations.store.url, key=key, bytes=size, why=why)


def _touched(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    except FileNotFoundError:
        return datetime.fromtimestamp(0, UTC)
