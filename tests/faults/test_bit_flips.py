"""One flipped bit in a log or its read models: nobody reads a wrong value, and verification names the object."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import GenerationError, RefoldError
from refold.event_schemas.trading import CashDeposited
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log import Appender, create_log, open_log, read_positions, verify
from refold.warehouse.event_log.layout import CONFIG_KEY
from refold.warehouse.read_models.generations.generations import open_generations

FLIPS = int(os.environ.get("REFOLD_FLIPS", "40"))
"""Flips of each kind of object; ``make test-long`` has more."""

TRADING = load_domain("trading")


class World:
    """A log with sealed and unsealed events, and what was published from it."""

    def __init__(self, folder: Path) -> None:
        self.url = str(folder / "log")
        self.models = str(folder / "read-models")
        appender = Appender(create_log(self.url, domain_name="trading", bucket_count=2), TRADING.registry)
        for number in range(6):
            deposits = [CashDeposited(trader_id=f"t-{number % 3}", amount=Decimal(f"{number}.25")) for _ in range(3)]
            appender.append(f"t-{number % 3}", deposits)
        options = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
        rebuild(open_log(self.url), "trading", self.models, options)
        for number in range(3):
            appender.append(f"t-{number}", [CashDeposited(trader_id=f"t-{number}", amount=Decimal(7))])

    def events(self) -> list[Any]:
        """Read all events."""
        return list(read_positions(open_log(self.url), TRADING.registry, 0))

    def append_as_if_new(self) -> None:
        """Append to streams that have events, as if they had none."""
        for number in range(3):
            deposit = CashDeposited(trader_id=f"t-{number}", amount=Decimal(1))
            Appender(open_log(self.url), TRADING.registry).append(f"t-{number}", [deposit], expected_version=0)

    def findings(self) -> list[str]:
        """Verify the log."""
        return [f.where for f in verify(open_log(self.url), TRADING.registry).findings]

    def rows(self) -> list[Any]:
        """Read the published rows."""
        generations = open_generations(self.models, "trading")
        newest = generations.newest()
        assert newest is not None
        with duckdb.connect(str(generations.path(newest)), read_only=True) as connection:
            tables = sorted(newest.tables)
            rows = [sorted(connection.execute(f"FROM {name}").fetchall(), key=str) for name in tables]
        return [newest.position, newest.commit_number, *rows]

    def files(self, kind: str) -> list[Path]:
        """Return the files of one kind."""
        if kind == CONFIG_KEY:
            return [Path(self.url, kind)]
        root = Path(self.url if kind in ("commits", "manifests", "segments", "heads") else f"{self.models}/trading")
        return sorted(p for p in (root / kind).rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One world, in which each flip is undone."""
    return World(tmp_path_factory.mktemp("world"))


def outcome(read: Callable[[], list[Any]]) -> Any:
    """Return what a reader returns, or the message of its error."""
    try:
        return read()
    except RefoldError as error:
        return str(error)


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """Flip one bit of a file meanwhile."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.chmod(0o644)
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CONFIG_KEY, "commits", "manifests", "segments", "heads"])
def test_a_log(world: World, kind: str) -> None:
    """Readers refuse the object or do not need it, no wrong append is accepted, and verification names the object."""
    chance = random.Random(kind)
    events = world.events()
    for _ in range(FLIPS):
        path = chance.choice(world.files(kind))
        bit = chance.randrange(8 * path.stat().st_size)
        with flipped(path, bit):
            read = outcome(world.events)
            assert read == events or path.name in read, f"bit {bit} of {path}"
            with pytest.raises(RefoldError):
                world.append_as_if_new()
            assert path.name in str(outcome(world.findings)), f"bit {bit} of {path}"
    assert world.events() == events
    assert verify(open_log(world.url), TRADING.registry).sound


@pytest.mark.parametrize("kind", ["generations", "files"])
def test_read_models(world: World, kind: str) -> None:
    """What was published is refused by name."""
    chance = random.Random(kind)
    rows = world.rows()
    for _ in range(FLIPS):
        path = chance.choice(world.files(kind))
        with flipped(path, chance.randrange(8 * path.stat().st_size)), pytest.raises(GenerationError, match=path.name):
            world.rows()
    assert world.rows() == rows
