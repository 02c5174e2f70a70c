"""The one shape that refold's batch pipelines have: units are staged, grouped by name, and merged.

::

    Create(units) ── stage ──> (group, name of a staged object) ── GroupByKey ── merge ──> staged results

Only descriptors and names travel through Beam; rows go through staged objects of deterministic name. A unit or a group
that finds its result staged skips the work: so a killed run resumes, and a runner may repeat what it likes.
"""

from __future__ import annotations

import pickle
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import RefoldError
from refold.pipelines.beam.runners import make_runner
from refold.pipelines.beam.watched_worker import DIED
from refold.warehouse.object_store import ObjectStore, open_store

Named = tuple[str, str]
"""A group, and the name of a staged object that belongs to it."""

_ERRORS = "errors"
_DIED = (DIED, "Channel closed prematurely")
"""How a dead worker shows: by the watch's answer, or by Beam's data channel, whichever is noticed first."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a staged pipeline does.

    Attributes:
        staging_url: where staged objects go.
        units: picklable descriptors, more of them than workers and of even size.
        stage: one unit to the names of what it staged, each under its group. Must be importable.
        merge: one group and all its names to its staged result. Must be importable.
    """

    staging_url: str
    units: Sequence[Any]
    stage: Callable[[Any], Iterable[Named]]
    merge: Callable[[str, list[str]], None]


class _Stage(beam.DoFn):  # type: ignore[misc]
    """Run one unit."""

    def __init__(self, work: Callable[[Any], Iterable[Named]], staging_url: str) -> None:
        self._work = work
        self._staging_url = staging_url

    def process(self, unit: Any) -> Iterator[Named]:
        """Stage a unit, and yield what came of it."""
        yield from told(self._staging_url, lambda: list(self._work(unit)))


class _Merge(beam.DoFn):  # type: ignore[misc]
    """Merge one group."""

    def __init__(self, work: Callable[[str, list[str]], None], staging_url: str) -> None:
        self._work = work
        self._staging_url = staging_url

    def process(self, group: tuple[str, Iterable[str]]) -> Iterator[str]:
        """Merge a group; a runner that repeated a unit gives a name twice."""
        name, staged = group
        told(self._staging_url, lambda: self._work(name, sorted(set(staged))))
        yield name


def told(staging_url: str, work: Callable[[], Any]) -> Any:
    """Run work, and leave an error of ours where the driver finds it whole, whatever the runner makes of it."""
    try:
        return work()
    except RefoldError as error:
        open_store(staging_url).put(f"{_ERRORS}/{uuid.uuid4()}", pickle.dumps(error))
        raise


def run_staged(work: Work, options: PipelineOptions) -> None:
    """Run a staged pipeline to its end.

    Raises:
        RefoldError: what a worker raised, or that a worker failed otherwise.
    """
    staging = open_store(work.staging_url)
    staging.delete_prefix(_ERRORS)
    pipeline = beam.Pipeline(runner=make_runner(options), options=options)
    (
        pipeline
        | "Units" >> beam.Create(list(work.units))
        | "Stage" >> beam.ParDo(_Stage(work.stage, work.staging_url)).with_output_types(tuple[str, str])
        | "Group" >> beam.GroupByKey()
        | "Merge" >> beam.ParDo(_Merge(work.merge, work.staging_url)).with_output_types(str)
    )
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:
        raise worker_error(staging, error) from error


def worker_error(staging: ObjectStore, error: Exception) -> Exception:
    """Give what a worker raised, as far as it left word; else say that it failed."""
    for key in staging.list_from(_ERRORS):
        found = pickle.loads(staging.get(key))
        if isinstance(found, RefoldError):
            return found
    if any(sign in str(error) for sign in _DIED):
        return RefoldError(
            "A worker process of the pipeline died without a word: it was killed, ran out of memory, or crashed. Run "
            "the command again, with fewer workers (-- --direct_num_workers=1) if memory is short; what a rebuild has "
            "staged is kept."
        )
    text = str(error).strip().splitlines()
    return RefoldError(f"A worker of the pipeline failed: {text[-1] if text else type(error).__name__}")


class StagedCount:
    """Counts staged objects while a pipeline runs, since no local runner tells its progress.

    Args:
        staging: where staged objects go.
        prefix: the folder to count in.
        report: called with the count, a few times a second.
    """

    def __init__(self, staging: ObjectStore, prefix: str, report: Callable[[int], None]) -> None:
        self._staging = staging
        self._prefix = prefix
        self._report = report
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="staged-count", daemon=True)

    def __enter__(self) -> StagedCount:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._report(self._count())

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self._report(self._count())

    def _count(self) -> int:
        return sum(1 for _ in self._staging.list_from(self._prefix))
