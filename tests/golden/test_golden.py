"""Logs and published databases of former releases: the current code must read them and build the same rows."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import duckdb
import orjson
import pytest

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.upgrade_log import upgrade_log
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.event_log import (
    EventLog,
    open_log,
    read_positions,
    read_stream,
    verify,
)
from refold.warehouse.read_models.generations.generations import open_generations
from tests.golden.reading import PACKED, event_lines, read_lines, table_lines, unpack

HERE = Path(__file__).parent
SETS = sorted(path.parent.relative_to(HERE).as_posix() for path in HERE.glob("*/*/events.jsonl"))
"""Every frozen set of files: release and domain."""


@pytest.fixture(scope="module", params=SETS)
def frozen(request: pytest.FixtureRequest) -> Path:
    """A set in the repository."""
    return Path(HERE, request.param)


@pytest.fixture
def domain(frozen: Path) -> Domain:
    """The current domain."""
    return load_domain(frozen.name)


@pytest.fixture
def folder(frozen: Path, tmp_path: Path) -> Path:
    """A copy in another folder than the one where the set was made."""
    return unpack(frozen / PACKED, tmp_path / "copy")


@pytest.fixture
def log(folder: Path) -> EventLog:
    """The copied log, opened."""
    return open_log(str(folder / "log"))


def test_both_domains_are_frozen() -> None:
    """The first set is there: without it, none of the tests below would run."""
    assert {"0.1/orders", "0.1/trading"} <= set(SETS)


def test_every_shape_is_in_segments_and_in_commits(log: EventLog, domain: Domain) -> None:
    """The set has every schema declared at that time in all four forms, and the current domain knows them all."""
    head = log.head()
    by_import = [info for info in head.tail if info.import_id is not None]
    tail = read_positions(log, domain.registry, head.sealed.sealed_position)
    held = {
        "sealed": {s.schema_key for s in head.sealed.segments},
        "imported": {s.schema_key for info in by_import for s in info.segments},
        "appended": {
            (e.event_type, e.schema_version) for e in tail if e.commit_number not in {i.number for i in by_import}
        },
    }
    assert {len(schema_keys) for schema_keys in held.values()} == {{"orders": 16, "trading": 5}[domain.name]}
    assert head.sealed.imports, "no import was sealed"
    for schema_keys in held.values():
        assert not [schema_key for schema_key in schema_keys if not domain.registry.knows(schema_key)]


def test_all_events_are_read_as_recorded(log: EventLog, domain: Domain, frozen: Path) -> None:
    """Envelope and payload of every position, from segments, commits and imports alike."""
    assert event_lines(read_positions(log, domain.registry, 0)) == read_lines(frozen / "events.jsonl")


def test_every_stream_is_read_as_recorded(log: EventLog, domain: Domain, frozen: Path) -> None:
    """Streams that were sealed and continued afterwards are complete."""
    lines = sorted(read_lines(frozen / "events.jsonl"), key=_stream_of)
    for stream_id, expected in groupby(lines, key=_stream_of):
        assert event_lines(read_stream(log, domain.registry, stream_id)) == list(expected), stream_id


def _stream_of(line: str) -> str:
    return str(orjson.loads(line)["stream_id"])


def test_nothing_is_wrong_with_the_log(log: EventLog, domain: Domain, frozen: Path) -> None:
    """Verification has no findings and leaves nothing unchecked."""
    found = verify(log, domain.registry)
    assert found.findings == ()
    assert found.unchecked == ()
    assert found.events == len(read_lines(frozen / "events.jsonl"))


def test_read_models_come_out_as_they_did(log: EventLog, domain: Domain, frozen: Path, tmp_path: Path) -> None:
    """A rebuild today gives the frozen rows; one that differs on purpose is frozen again, see ``make.py``."""
    options = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
    url = str(tmp_path / "rebuilt")
    published = rebuild(upgrade_log(log, domain.name, options), domain.name, url, options).generation
    assert table_lines(open_generations(url, domain.name).path(published)) == read_lines(frozen / "rebuilt.jsonl")


def test_a_published_database_is_read_as_it_was(folder: Path, frozen: Path, domain: Domain) -> None:
    """The generation is found, its file opens read-only, and it has the published rows."""
    generations = open_generations(str(folder / "read-models"), domain.name)
    generation = generations.newest()
    assert generation is not None
    path = generations.path(generation)
    assert path.stat().st_size == generation.bytes
    published = read_lines(frozen / "published.jsonl")
    assert table_lines(path) == published
    with duckdb.connect(str(path), read_only=True) as connection:
        checkpoint = connection.execute("SELECT domain, log_id, position FROM refold.checkpoint").fetchall()
    assert checkpoint == [(domain.name, generation.log_id, generation.position)]
