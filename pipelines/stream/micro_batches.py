"""Turns of the stream: the events of some commits, reduced by Beam's workers to what they contribute to read models.

::

    slots ── stage ──> one staged object a slot

What is to be done lies in staging, under a fixed name, and not in the graph: so the graph of a small turn is built once
and run again for every turn, in this process, and stages in memory. A turn that is worth more workers, or goes to
another engine, runs as the staged pipelines of a rebuild do.
"""

from __future__ import annotations

import functools
import pickle
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms import environments

from refold.pipelines.beam.runners import is_local, workers_of
from refold.pipelines.beam.staged import (
    Named,
    Work,
    run_staged,
    told,
    worker_error,
)
from refold.pipelines.beam.worker_connections import close_idle_connections, worker_connection
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.event_log.log import open_log
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.read_models.increments.increment import Staged, stage
from refold.warehouse.read_models.increments.spans import Span
from refold.warehouse.replay.contributions import Compiled, compile_model

_TASK = "task"


@dataclass(frozen=True, slots=True)
class Task:
    """What one turn does.

    Attributes:
        number: of the turn, which names what it stages.
        log_url: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        models: names of the read models.
        spans: what each slot reads; together the events of whole commits.
        workers: how many share the machine.
    """

    number: int
    log_url: str
    domain_ref: str
    models: tuple[str, ...]
    spans: tuple[Span, ...]
    workers: int


class MicroBatches:
    """Runs turns, one after the other.

    Args:
        store: tasks and results go into a folder of it.
        options: Beam's options.
    """

    def __init__(self, store: ObjectStore, options: PipelineOptions) -> None:
        self._store = store
        self._folder = f"staging/stream-{uuid.uuid4()}"
        self._staging = store.child(self._folder)
        self._options = options
        self._workers = workers_of(options)
        self._small = _KeptGraph(f"memory://{self._folder}") if is_local(options) else None

    def run(self, task: Task) -> list[Staged]:
        """Run one turn, and give what its slots staged.

        Raises:
            RefoldError: what a worker raised, or that a worker failed otherwise.
        """
        if len(task.spans) == 1 and self._small:
            return [self._small.run(task)]
        self._staging.put(_TASK, pickle.dumps(task))
        work = functools.partial(_stage_and_name, self._staging.url)
        run_staged(Work(self._staging.url, range(len(task.spans)), stage=work, merge=_nothing), self._options)
        return [_taken(self._staging, _result(task.number, slot)) for slot in range(len(task.spans))]

    def close(self) -> None:
        """Remove what is staged, and give memory back."""
        close_idle_connections()
        self._store.delete_prefix(self._folder)


class _KeptGraph:
    """The graph of one slot, built once, and run in this process.

    Args:
        staging_url: in memory, since only this process looks at it.
    """

    def __init__(self, staging_url: str) -> None:
        self._staging = open_store(staging_url)
        here = environments.EmbeddedPythonEnvironment.default()
        self._runner = FnApiRunner(default_environment=here)
        self._options = PipelineOptions(["--direct_running_mode=in_memory", "--direct_num_workers=1"])
        pipeline = beam.Pipeline(runner=self._runner, options=self._options)
        _ = pipeline | "Slot" >> beam.Impulse() | "Stage" >> beam.ParDo(_OneSlot(staging_url)).with_output_types(str)
        self._graph = pipeline.to_runner_api(default_environment=here)

    def run(self, task: Task) -> Staged:
        self._staging.put(_TASK, pickle.dumps(task))
        try:
            self._runner.run_via_runner_api(self._graph, self._options).wait_until_finish()
        except Exception as error:
            raise worker_error(self._staging, error) from error
        return _taken(self._staging, _result(task.number, 0))


class _OneSlot(beam.DoFn):  # type: ignore[misc]
    """Do all of the present task."""

    def __init__(self, staging_url: str) -> None:
        self._staging_url = staging_url

    def process(self, _impulse: bytes) -> Iterator[str]:
        """Stage the only slot."""
        yield told(self._staging_url, lambda: _stage_slot(self._staging_url, 0))


def _taken(staging: ObjectStore, key: str) -> Staged:
    staged: Staged = pickle.loads(staging.get(key))
    staging.delete(key)
    return staged


def _stage_and_name(staging_url: str, slot: int) -> Iterator[Named]:
    yield "turn", _stage_slot(staging_url, slot)


def _nothing(_group: str, _names: list[str]) -> None:
    """Merge nothing: the driver reads what the slots staged."""


def _stage_slot(staging_url: str, slot: int) -> str:
    staging = open_store(staging_url)
    task: Task = pickle.loads(staging.get(_TASK))
    key = _result(task.number, slot)
    if staging.exists(key):  # a runner may repeat what it likes
        return key
    log, span = open_log(task.log_url), task.spans[slot]
    domain, compiled = _compiled(task.domain_ref, task.models)
    models = [c.model for c in compiled]
    with worker_connection(task.workers) as connection:
        staged = stage(connection, domain, compiled, span.events(connection, log, domain, models))
    staging.put(key, pickle.dumps(staged))
    return key


@functools.lru_cache(maxsize=8)
def _compiled(domain_ref: str, names: tuple[str, ...]) -> tuple[Domain, list[Compiled]]:
    """Make read models ready to run, once a process: a turn is short."""
    domain = load_domain(domain_ref)
    return domain, [compile_model(domain.read_model(name), domain) for name in names]


def _result(number: int, slot: int) -> str:
    return f"staged/{number}-{slot}"
