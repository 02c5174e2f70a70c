"""Staged pipelines: results are grouped and merged, and a failed worker reports what it was doing and why it failed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from refold.event_schemas import PayloadError, RefoldError
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.beam.staged_pipeline import Named, RepeatedPipeline, Work, run_staged
from refold.warehouse.object_store import open_store

MODES = ["in_memory", "multi_threading"]


def stage(unit: int) -> Iterator[Named]:
    """Name two results, in groups of even and odd units."""
    yield "odd" if unit % 2 else "even", f"{unit}"
    yield "all", f"{unit}"


def merge(folder: str, group: str, names: list[str]) -> None:
    """Write the names of a group."""
    (Path(folder) / group).write_text(" ".join(names))


def nothing(_group: str, _names: list[str]) -> None:
    """Merge nothing."""


def fail_in_sql(unit: int) -> Iterator[Named]:
    """Run a query that does not bind."""
    duckdb.sql("SELECT no_such_column FROM range(3)")
    yield "all", f"{unit}"


def fail() -> None:
    """Run a query that does not bind."""
    list(fail_in_sql(0))


def fail_in_merge(_group: str, _names: list[str]) -> None:
    """Fail as a full disk does."""
    raise OSError(28, "No space left on device")


def refuse(_unit: int) -> Iterator[Named]:
    """Raise an error of refold's own."""
    raise PayloadError("position 7: no such field")


def run(folder: Path, mode: str, **work: object) -> None:
    """Run a pipeline of four units."""
    options = beam_options(None, [f"--direct_running_mode={mode}", "--direct_num_workers=1"])
    given = {"stage": stage, "merge": nothing, **work}
    run_staged(Work(str(folder), range(4), name="test", **given), options)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_each_group_is_merged_once_with_all_its_names(tmp_path: Path, mode: str) -> None:
    """Names are merged in order."""
    run(tmp_path, mode, merge=functools.partial(merge, str(tmp_path)))
    assert [(tmp_path / group).read_text() for group in ("all", "even", "odd")] == ["0 1 2 3", "0 2", "1 3"]


@pytest.mark.parametrize("mode", MODES)
def test_an_error_of_duckdb_is_its_sentence(tmp_path: Path, mode: str) -> None:
    """The message lacks DuckDB's excerpt of the query and its carets."""
    with pytest.raises(RefoldError) as caught:
        run(tmp_path, mode, stage=fail_in_sql)
    message = str(caught.value)
    assert message.startswith("A pipeline worker failed (test, stage of ")
    assert 'Binder Error: Referenced column "no_such_column" not found' in message
    assert "^" not in message


def test_an_error_of_the_system_says_what_was_being_done(tmp_path: Path) -> None:
    """The message has the unit of work and the system's error."""
    expected = r"A pipeline worker failed \(test, merge of all\): OSError: \[Errno 28\] No space left on device"
    with pytest.raises(RefoldError, match=expected):
        run(tmp_path, "in_memory", stage=lambda unit: [("all", str(unit))], merge=fail_in_merge)


@pytest.mark.parametrize("mode", MODES)
def test_an_error_of_refold_arrives_as_it_was_raised(tmp_path: Path, mode: str) -> None:
    """The error keeps its type and message."""
    with pytest.raises(PayloadError, match=r"^position 7: no such field$"):
        run(tmp_path, mode, stage=refuse)


def count(url: str) -> None:
    """Count the runs."""
    store = open_store(url)
    store.put("count", bytes([1 + (store.get("count")[0] if store.exists("count") else 0)]))


def test_a_repeated_pipeline_runs_as_often_as_it_is_called(tmp_path: Path) -> None:
    """The pipeline's graph is built once, for any number of runs."""
    pipeline = RepeatedPipeline(str(tmp_path), functools.partial(count, str(tmp_path)), name="test")
    for _ in range(3):
        pipeline.run()
    assert (tmp_path / "count").read_bytes() == bytes([3])


def test_a_repeated_pipeline_reports_its_error(tmp_path: Path) -> None:
    """A repeated pipeline reports errors as a staged pipeline does."""
    pipeline = RepeatedPipeline(str(tmp_path), fail, name="micro-batch")
    with pytest.raises(RefoldError, match=r"A pipeline worker failed \(micro-batch\): Binder Error: Referenced"):
        pipeline.run()
