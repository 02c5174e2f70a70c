"""Damage to any kind of object: nobody reads a wrong value, no wrong append is accepted, and verification names it.

``REFOLD_FLIPS`` is the number of single-bit flips of each kind of object; the other damages happen a tenth as often.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import ConcurrencyError, RefoldError
from refold.event_schemas.decider import Rejected
from refold.pipelines.rebuild.rebuild import RebuildProgress, rebuild
from refold.warehouse.commands.handler import CommandHandler
from refold.warehouse.event_log import Appender, create_log, read_positions, verify
from refold.warehouse.read_models.lag import checkpoint_of, find_end, lag_of
from tests.faults import store_actions
from tests.faults.places import Place, Saved
from tests.faults.store_actions import DOMAIN, OPTIONS, SHOP, Fill
from tests.warehouse.event_log.shop import REGISTRY, Placed

FLIPS = int(os.environ.get("REFOLD_FLIPS", "20"))
LOG = ("findings", "appended", "events", "states")
REBUILD = ("rebuilt_rows",)
STREAMS = [f"order-{number}" for number in range(3)]

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "description": ("log/refold.json", (*LOG, "rows")),
    "commit": ("log/commits/*", (*LOG, "rows")),
    "manifest": ("log/manifests/*", (*LOG, "rows")),
    "part": ("log/parts/*", (*LOG, "rows")),
    "segment": ("log/segments/**/*", LOG),
    "heads": ("log/heads/**/*", LOG),
    "archived segment": ("archive/segments/**/*", LOG),
    "archive description": ("archive/archive.json", ("archived",)),
    "snapshot": ("log/snapshots/**/*", ("states",)),
    "generation": ("read-models/shop/generations/*", ("rows",)),
    "published file": ("read-models/shop/files/*", ("rows",)),
    "plan pointer": ("read-models/shop/staging/plans/*", REBUILD),
    "plan": ("read-models/shop/staging/rebuild-*/plan.json", REBUILD),
    "staged rows": ("read-models/shop/staging/rebuild-*/staged/rows/**/*", REBUILD),
    "staged result": ("read-models/shop/staging/rebuild-*/staged/done/*", REBUILD),
}
"""Kinds of objects: where they are, and who reads them. Verification names those of a log."""

Change = Mapping[Path, bytes | None]
"""Files to their new bytes; None removes one."""


class World(Place):
    """A log with archived, sealed and unsealed events, what was published from it, and what a killed rebuild left."""

    __slots__ = ()

    def make(self, backup: Path) -> None:
        """Make it, with a backup from half the way."""
        create_log(f"{self.url}/log", domain_name="shop", bucket_count=2)
        self.fill()
        store_actions.seal(self)
        store_actions.archive(self)
        self.fill()
        store_actions.rebuild(self)
        shutil.copytree(self.url, backup, symlinks=True)
        self.fill()
        with pytest.raises(KeyboardInterrupt):
            rebuild(self.log, DOMAIN, self.read_models, OPTIONS, report=break_off)
        self.fill()
        store_actions.publish(self)

    def fill(self) -> None:
        """Append to all streams, in a commit each."""
        for stream in STREAMS:
            CommandHandler(self.log, SHOP, snapshot_every=1).handle(
                Fill(order_id=stream, is_full=False), command_id=str(uuid.uuid4())
            )

    def events(self) -> list[Any]:
        """Read all events."""
        return list(read_positions(self.log, REGISTRY, 0))

    def states(self) -> list[Any]:
        """Read the states that commands see."""
        handler = CommandHandler(self.log, SHOP)
        answers = [handler.handle(Fill(order_id=s, is_full=True), command_id=str(uuid.uuid4())) for s in STREAMS]
        return [a.reason for a in answers if isinstance(a, Rejected)]

    def rows(self) -> list[Any]:
        """Read the published rows, as a reader that compares them with the log."""
        log, newest = self.log, self.generations.newest()
        assert newest is not None
        lag_of(log, find_end(log), checkpoint_of(newest))
        with closing(duckdb.connect(str(self.generations.path(newest)), read_only=True)) as connection:
            tables = [model.name for model in SHOP.read_models]
            return [newest.position, *(connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in tables)]

    def rebuilt_rows(self) -> list[Any]:
        """Read the rows after another rebuild."""
        store_actions.rebuild(self)
        return self.rows()

    def archived(self) -> list[Any]:
        """Read all events after another archiving."""
        store_actions.archive(self)
        return self.events()

    def appended(self) -> list[str]:
        """Append to streams that have events, as if they had none; return those that took it."""
        appender, placed, taken = Appender(self.log, REGISTRY), Placed(customer="c", currency="EUR"), []
        for stream in STREAMS:
            with suppress(ConcurrencyError):
                appender.append(stream, [placed], expected_version=0)
                taken.append(stream)
        return taken

    def findings(self) -> list[str]:
        """Verify the log."""
        return [f"{f.where}: {f.what}" for f in verify(self.log, REGISTRY).findings]

    def files(self, kind: str) -> list[Path]:
        """Return the files of one kind; of segments those that are in use: originals of archived ones are not."""
        found = sorted(path for path in Path(self.url).glob(KINDS[kind][0]) if path.is_file())
        used = {Path(self.log.url, s.key) for s in self.log.manifest().segments} if kind == "segment" else set(found)
        return [path for path in found if path in used]


def break_off(progress: RebuildProgress) -> None:
    """End a rebuild when all is staged."""
    if progress.phase == "load":
        raise KeyboardInterrupt


class Damages:
    """Ways to damage an object of one kind.

    Args:
        world: has the objects.
        other: another log and its read models.
        backup: folder of an older copy of the world.
        kind: of the objects.
        chance: chooses.
    """

    def __init__(self, world: World, other: World, backup: Path, kind: str, chance: random.Random) -> None:
        self._world, self._other, self._backup = world, other, backup
        self._kind, self._chance = kind, chance

    def flip(self, path: Path) -> Change:
        """Flip one bit."""
        data = bytearray(path.read_bytes())
        bit = self._chance.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        return {path: bytes(data)}

    def truncate(self, path: Path) -> Change:
        """Cut off the end."""
        data = path.read_bytes()
        return {path: data[: self._chance.randrange(1, len(data))]}

    def empty(self, path: Path) -> Change:
        """Leave no byte."""
        return {path: b""}

    def remove(self, path: Path) -> Change:
        """Remove it."""
        return {path: None}

    def swap(self, path: Path) -> Change:
        """Exchange it with another one, or replace it by one of another log."""
        data, files = path.read_bytes(), self._world.files(self._kind)
        others = [p for p in files + self._other.files(self._kind) if p.read_bytes() != data]
        if not others:
            return {}
        other = self._chance.choice(others)
        return {path: other.read_bytes()} | ({other: data} if other in files else {})

    def older(self, path: Path) -> Change:
        """Restore all objects of the kind from an older backup."""
        found = {p: self._backup / p.relative_to(self._world.url) for p in self._world.files(self._kind)}
        old = {p: b.read_bytes() if b.exists() else None for p, b in found.items()}
        return {p: data for p, data in old.items() if data != p.read_bytes()}


TIMES = {
    Damages.flip: FLIPS,
    Damages.truncate: FLIPS // 10,
    Damages.empty: FLIPS // 10,
    Damages.remove: FLIPS // 10,
    Damages.swap: FLIPS // 10,
    Damages.older: 1,
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, World, Path]:
    """Two worlds, and a backup of the first."""
    folder = tmp_path_factory.mktemp("worlds")
    world, other = World(str(folder / "world")), World(str(folder / "other"))
    world.make(folder / "backup")
    other.make(folder / "other-backup")
    return world, other, folder / "backup"


def outcome(read: Callable[[], Any]) -> Any:
    """Return what a reader returns, or the message of its error."""
    try:
        return read()
    except RefoldError as error:
        return str(error)


def apply(change: Change) -> None:
    """Write or remove files."""
    for path, data in change.items():
        path.unlink()
        if data is not None:
            path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_wrong_is_read(worlds: tuple[World, World, Path], kind: str, tmp_path: Path) -> None:
    """Each reader returns what was there or names the object; verification names what is damaged in a log."""
    world, other, backup = worlds
    chance, counted = random.Random(kind), Counter[str]()
    damages = Damages(world, other, backup, kind, chance)
    saved, readers = Saved(world, tmp_path / "saved"), KINDS[kind][1]
    right = read_all(world, readers)
    saved.put_back()
    for damage, times in TIMES.items():
        for _ in range(times):
            if change := damage(damages, chance.choice(world.files(kind))):
                apply(change)
                read = read_all(world, readers)
                saved.put_back()
                check(damage.__name__, change, read, right)
                counted[damage.__name__] += 1
    assert read_all(world, readers) == right
    saved.put_back()
    if folder := os.environ.get("REFOLD_FAULT_TABLE"):
        Path(folder, f"damage-{kind.replace(' ', '-')}.json").write_text(json.dumps({"kind": kind, "damages": counted}))


def read_all(world: World, readers: Sequence[str]) -> dict[str, Any]:
    """Return what each reader returns, or the message of its error."""
    return {name: outcome(getattr(world, name)) for name in readers}


def check(damage: str, change: Change, read: dict[str, Any], right: dict[str, Any]) -> None:
    """Check that each reader returned what is right or an error, and that somebody named the object.

    That the newest commits are missing is seen by those who know a later one, as read models do; without the newest
    generation, the one before it is the newest, and says where it stands.
    """
    where = f"{damage} of {', '.join(path.name for path in change)}"
    wrong = {name: got for name, got in read.items() if got != right[name]}
    is_older = "older copy" in str(wrong.get("rows")) or (
        damage in ("remove", "older") and "generations" in str([*change])
    )
    values = {name: got for name, got in wrong.items() if name != "findings" and not isinstance(got, str)}
    assert not values or (is_older and "appended" not in values), f"{where}: {values}, expected {right}"
    named = any(path.name in str(got) for got in wrong.values() for path in change)
    is_valid = is_older or damage in ("swap", "older")  # but of another log or time, which is what the error then says
    assert named or is_valid or not wrong, f"{where}: {wrong}"
    if "findings" in read and damage in ("flip", "truncate", "empty"):
        assert any(path.name in str(read["findings"]) for path in change), f"{where}: {read['findings']}"
