"""The form of refold's batch pipelines: units are staged, grouped by name, and merged.

::

    Create(units) ── stage ──> (group, name of a staged object) ── GroupByKey ── merge ──> staged results

Only descriptors and names travel through Beam; rows go through staged objects with deterministic names. A unit or group
that finds its result staged skips the work, so a killed run resumes, and a runner may repeat any of it.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import apache_beam as beam
import duckdb
from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import ObjectNotFoundError, RefoldError, errors
from refold.event_schemas.errors import DamagedStagingError
from refold.pipelines.beam.local_runner import WORKER_DIED, EmbeddedPipeline
from refold.pipelines.beam.runners import make_runner
from refold.warehouse.engine.sql import first_line
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.digests import DigestError
from refold.warehouse.object_store.records import RecordError, decode_record, encode_record

Named = tuple[str, str]
"""A group, and the name of a staged object that belongs to it."""

_ERRORS = "errors"
_COUNT_EVERY = 0.25
"""Seconds between counts of staged objects; each lists a folder, and a progress bar needs no more."""
_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt)\b.*")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Work:
    """What a staged pipeline does.

    Attributes:
        staging_url: where staged objects go.
        units: picklable descriptors, more than there are workers, and of even size.
        stage: takes a unit, and returns the names of what it staged, each under its group. Must be importable.
        merge: takes a group and all its names, and stages the result. Must be importable.
        name: what errors call the pipeline.
    """

    staging_url: str
    units: Sequence[Any]
    stage: Callable[[Any], Iterable[Named]]
    merge: Callable[[str, list[str]], None]
    name: str = "pipeline"


@dataclass(frozen=True, slots=True)
class ReportedError:
    """An error of a worker, as it is staged for the driver.

    Attributes:
        kind: name of its class.
        message: its message.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: RefoldError) -> ReportedError:
        """Describe an error."""
        return cls(type(error).__name__, str(error))

    def error(self) -> RefoldError:
        """Return the error; one of another class than those of :mod:`refold.event_schemas.errors` is a RefoldError."""
        kind = getattr(errors, self.kind, RefoldError)
        is_error = isinstance(kind, type) and issubclass(kind, RefoldError)
        found: RefoldError = kind.__new__(kind) if is_error else RefoldError()
        found.args = (self.message,)
        return found


class _Stage(beam.DoFn):  # type: ignore[misc]
    """Stage one unit."""

    def __init__(self, work: Work) -> None:
        self._work, self._staging_url, self._name = work.stage, work.staging_url, work.name

    def process(self, unit: Any) -> Iterator[Named]:
        """Stage a unit, and yield the names of what it staged."""
        doing = f"{self._name}, stage of {unit}"
        yield from run_reported(self._staging_url, lambda: list(self._work(unit)), doing=doing)


class _Merge(beam.DoFn):  # type: ignore[misc]
    """Merge one group."""

    def __init__(self, work: Work) -> None:
        self._work, self._staging_url, self._name = work.merge, work.staging_url, work.name

    def process(self, group: tuple[str, Iterable[str]]) -> Iterator[str]:
        """Merge a group; a runner that repeated a unit gives a name twice."""
        name, staged = group
        doing = f"{self._name}, merge of {name}"
        run_reported(self._staging_url, lambda: self._work(name, sorted(set(staged))), doing=doing)
        yield name


class _Repeated(beam.DoFn):  # type: ignore[misc]
    """Do the only piece of work of a pipeline."""

    def __init__(self, staging_url: str, work: Callable[[], object], name: str) -> None:
        self._staging_url, self._work, self._name = staging_url, work, name

    def process(self, _impulse: bytes) -> None:
        """Do it."""
        run_reported(self._staging_url, self._work, doing=self._name)


def run_reported(staging_url: str, work: Callable[[], _T], *, doing: str) -> _T:
    """Run work in a worker; if it fails, stage the error for the driver, since runners only pass on a traceback.

    Args:
        staging_url: where the error goes.
        work: what to run.
        doing: what it is, for the message of an unexpected error.
    """
    try:
        return work()
    except Exception as error:
        if isinstance(error, DigestError | RecordError):
            reported: RefoldError = damaged_staging(error, doing=doing)
        else:
            reported = error if isinstance(error, RefoldError) else _unexpected(error, doing)
        open_store(staging_url).put(f"{_ERRORS}/{uuid.uuid4()}", encode_record(ReportedError.of(reported)))
        raise


def damaged_staging(error: DigestError | RecordError | ObjectNotFoundError, *, doing: str) -> DamagedStagingError:
    """Return the error for a staged object that was changed: those of a log have errors of their own."""
    return DamagedStagingError(f"A staged object is damaged ({doing}): {error}. Nothing was published; try again.")


def _unexpected(error: Exception, doing: str) -> RefoldError:
    sentence = first_line(error) if isinstance(error, duckdb.Error) else f"{type(error).__name__}: {error}"
    return RefoldError(f"A pipeline worker failed ({doing}): {sentence}")


def run_staged(work: Work, options: PipelineOptions) -> None:
    """Run a staged pipeline to its end.

    Raises:
        RefoldError: a worker raised it, or failed otherwise.
    """
    staging = open_store(work.staging_url)
    staging.delete_prefix(_ERRORS)
    pipeline = beam.Pipeline(runner=make_runner(options), options=options)
    (
        pipeline
        | "Units" >> beam.Create(list(work.units))
        | "Stage" >> beam.ParDo(_Stage(work)).with_output_types(tuple[str, str])
        | "Group" >> beam.GroupByKey()
        | "Merge" >> beam.ParDo(_Merge(work)).with_output_types(str)
    )
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:
        raise _worker_error(staging, error) from error


class RepeatedPipeline:
    """A pipeline of one piece of work, which is built once and runs in this process, any number of times.

    Args:
        staging_url: where the work finds what to do, and leaves its result.
        work: takes no arguments. Must be importable.
        name: what errors call the pipeline.
    """

    def __init__(self, staging_url: str, work: Callable[[], object], *, name: str) -> None:
        self._staging = open_store(staging_url)
        stage = beam.ParDo(_Repeated(staging_url, work, name)).with_output_types(str)
        self._pipeline = EmbeddedPipeline("Impulse" >> beam.Impulse() | "Stage" >> stage)

    def run(self) -> None:
        """Run it to its end.

        Raises:
            RefoldError: the work raised it, or failed otherwise.
        """
        try:
            self._pipeline.run()
        except Exception as error:
            raise _worker_error(self._staging, error) from error


def _worker_error(staging: ObjectStore, error: Exception) -> RefoldError:
    """Return the error that a worker staged; else describe how Beam says that it failed."""
    for key in staging.list_from(_ERRORS):
        return decode_record(staging.get(key), ReportedError).error()
    text = str(error)
    if any(sign in text for sign in WORKER_DIED):
        return RefoldError(
            "A worker process of the pipeline died without an error: it was killed, ran out of memory, or crashed. Run "
            "the command again, with fewer workers (-- --direct_num_workers=1) if memory is short; what a rebuild has "
            "staged is kept."
        )
    named = [line for line in text.splitlines() if _EXCEPTION.match(line)] or [f"{type(error).__name__}: {text}"]
    return RefoldError(f"A pipeline worker failed: {named[-1].strip()}")


class StagedCount:
    """Count staged objects while a pipeline runs, since no local runner reports its progress.

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
        while not self._stop.wait(_COUNT_EVERY):
            self._report(self._count())

    def _count(self) -> int:
        return sum(1 for _ in self._staging.list_from(self._prefix))
