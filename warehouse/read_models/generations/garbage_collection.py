"""Collecting superseded generations, and the leftovers of writers that died.

A collection keeps: the newest few generations; recently superseded ones; files that a kept generation references (a
rollback references an older file, a seeded read model the file of its seed); and on a local disk all open files.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from refold.event_schemas import ObjectNotFoundError, UsageError
from refold.warehouse.event_log.orphaned_objects import (
    Leftover,
    delete_leftovers,
    leftover,
    newest_of,
    staged_groups,
    unfinished,
)
from refold.warehouse.read_models.generations.generations import FILES, Generation, Generations
from refold.warehouse.read_models.generations.open_files import held_files

_STAGING = "staging"
_PLANS = "plans"
_WORK = "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection removes.

    Attributes:
        generations: numbers of the generations to remove.
        files: files that only these reference.
        leftovers: objects of publishes and rebuilds that died.
        held: generations that are kept only because a reader has their file open.
    """

    generations: tuple[int, ...]
    files: tuple[Leftover, ...]
    leftovers: tuple[Leftover, ...]
    held: tuple[int, ...]


def plan_collection(generations: Generations, *, keep: int, min_age: timedelta, leftover_age: timedelta) -> Collected:
    """Find what can be removed, without removing it.

    Args:
        generations: the generations.
        keep: number of newest generations to keep in any case.
        min_age: time to keep a generation after it was superseded.
        leftover_age: age of the last change from which an unreferenced object is a leftover.

    Raises:
        UsageError: ``keep`` is less than 1, or an age is negative.
    """
    if keep < 1 or min(min_age, leftover_age) < timedelta(0):
        raise UsageError("Give --keep 1 or more, and ages that are not negative.")
    found, referenced = generations.all(), generations.referenced_files()
    aged = _superseded(generations, found, keep, datetime.now(UTC) - min_age)
    open_files = _held(generations, {key for g in aged for key in referenced.get(g.number, ())})
    held = tuple(g.number for g in aged if g.file in open_files)
    gone = {g.number for g in aged if g.file not in open_files}
    kept = frozenset[str]().union(*(files for number, files in referenced.items() if number not in gone))
    unneeded = frozenset[str]().union(*(referenced.get(number, frozenset()) for number in gone)) - kept - open_files
    files = [leftover(generations.store, key, "referenced by no generation that is kept") for key in sorted(unneeded)]
    left = list(_leftovers(generations, datetime.now(UTC) - leftover_age))
    return Collected(generations=tuple(sorted(gone)), files=tuple(files), leftovers=tuple(left), held=held)


def _superseded(generations: Generations, found: Sequence[Generation], keep: int, before: datetime) -> list[Generation]:
    """Return those beyond the newest few whose successor was published before a given time."""
    pairs = list(itertools.pairwise(found))[: max(len(found) - keep, 0)]
    times = [(g, generations.superseded_at(following)) for g, following in pairs]
    return [g for g, time in times if time is not None and time <= before]


def _held(generations: Generations, keys: Collection[str]) -> set[str]:
    """Return the files that a reader has open; none on a remote store, whose readers have copies."""
    if not generations.store.is_local:
        return set()
    paths = {Path(generations.store.url) / key: key for key in keys}
    return {paths[path] for path in held_files(paths)}


def collect(generations: Generations, planned: Collected) -> int:
    """Remove what was planned, except files that are referenced again.

    Generations are removed before files, and references are read again in between. So a concurrent rollback to one of
    these files is either seen here, or sees that its generation is gone.

    Returns:
        The number of bytes freed.
    """
    # A publisher that was killed may have left the link on a file that is collected now.
    generations.update_current_link()
    for number in planned.generations:
        generations.forget(number)
    referenced = frozenset[str]().union(*generations.referenced_files().values())
    unreferenced = [left for left in (*planned.files, *planned.leftovers) if left.key not in referenced]
    return delete_leftovers(unreferenced)


def _leftovers(generations: Generations, before: datetime) -> Iterator[Leftover]:
    yield from _orphans(generations, before)
    yield from _staged(generations, before)
    if generations.store.is_local:
        yield from _working(generations, before)
    yield from unfinished(generations.store, before)


def _orphans(generations: Generations, before: datetime) -> Iterator[Leftover]:
    """Find files that were never published; the listing comes before the references, so that none is missed."""
    store = generations.store
    keys = list(store.list_from(FILES))
    referenced = frozenset[str]().union(*generations.referenced_files().values())
    old = {key for key in keys if key not in referenced and newest_of(store, [key]) < before}
    for key in sorted(old - _held(generations, old)):
        yield leftover(store, key, "referenced by no generation")


def _staged(generations: Generations, before: datetime) -> Iterator[Leftover]:
    """Find what abandoned rebuilds staged, and the pointers to their plans."""
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
    """Find working databases of dead writers, by folder; a writer whose database is open is alive, whatever its age."""
    root = Path(generations.store.url)
    for folder in sorted((root / _WORK).glob("refold-*")):
        files = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
        if all(_modified(path) < before for path in [folder, *files]) and not held_files(files):
            for path in files:
                yield _file(generations, path, "working file of a writer that died")


def _file(generations: Generations, path: Path, why: str) -> Leftover:
    key = str(path.relative_to(generations.store.url))
    size = path.stat().st_size if path.exists() else 0
    return Leftover(store_url=generations.store.url, key=key, bytes=size, why=why)


def _modified(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    except FileNotFoundError:
        return datetime.fromtimestamp(0, UTC)
