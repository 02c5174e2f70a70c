"""Micro-batches of the stream: Beam's workers reduce the events of some commits to contributions to read models.

::

    slots ── stage ──> one staged object a slot

What a micro-batch does is staged under a fixed name, and is not part of the graph. So the graph of a small micro-batch
is built once, runs again for each, in this process, and stages in memory. A micro-batch that is worth more workers, or
goes to another engine, runs as a staged pipeline, as a rebuild does.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions

from refold.pipelines.beam.runners import is_local, workers_of
from refold.pipelines.beam.staged_pipeline import Named, RepeatedPipeline, Work, run_staged
from refold.pipelines.beam.worker_connections import close_idle_connections, worker_connection
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.records import decode_record, encode_record
from refold.warehouse.read_models.increments.increment import Staged, stage
from refold.warehouse.read_models.increments.spans import Span
from refold.warehouse.read_models.increments.staged_bytes import decode_staged, encode_staged
from refold.warehouse.replay.contributions import Compiled, compile_model

_TASK = "task"
_NAME = "micro-batch"


@dataclass(frozen=True, slots=True)
class Task:
    """What one micro-batch does.

    Attributes:
        number: of the micro-batch; names what it stages.
        log_url: the log.
        keys_url: the key store of its personal data.
        domain_ref: the domain, by entry-point name or dotted path.
        models: names of the read models.
        spans: what each slot reads; together the events of whole commits.
        workers: how many share the machine.
    """

    number: int
    log_url: str
    keys_url: str
    domain_ref: str
    models: tuple[str, ...]
    spans: tuple[Span, ...]
    workers: int


class MicroBatches:
    """Run micro-batches, one after the other.

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
        self._memory = open_store("memory://refold")
        self._small_staging = self._memory.child(self._folder)
        self._small = _small_pipeline(self._small_staging.url) if is_local(options) else None

    def run(self, task: Task) -> list[Staged]:
        """Run one micro-batch, and return what its slots staged.

        Raises:
            RefoldError: a worker raised it, or failed otherwise.
        """
        if len(task.spans) == 1 and self._small:
            staging = self._small_staging
            staging.put(_TASK, encode_record(task))
            self._small.run()
        else:
            staging = self._staging
            staging.put(_TASK, encode_record(task))
            work = functools.partial(_stage_and_name, staging.url)
            run_staged(Work(staging.url, range(len(task.spans)), stage=work, merge=_nothing, name=_NAME), self._options)
        return [_take(staging, _result(task.number, slot)) for slot in range(len(task.spans))]

    def close(self) -> None:
        """Remove what is staged, and free the memory of idle connections."""
        close_idle_connections()
        self._memory.delete_prefix(self._folder)
        self._store.delete_prefix(self._folder)


def _small_pipeline(staging_url: str) -> RepeatedPipeline:
    return RepeatedPipeline(staging_url, functools.partial(_stage_slot, staging_url, 0), name=_NAME)


def _take(staging: ObjectStore, key: str) -> Staged:
    staged = decode_staged(staging.get(key), where=f"{staging.url}/{key}")
    staging.delete(key)
    return staged


def _stage_and_name(staging_url: str, slot: int) -> Iterator[Named]:
    yield _NAME, _stage_slot(staging_url, slot)


def _nothing(_group: str, _names: list[str]) -> None:
    """Merge nothing: the driver reads what the slots staged."""


def _stage_slot(staging_url: str, slot: int) -> str:
    staging = open_store(staging_url)
    task = decode_record(staging.get(_TASK), Task)
    key = _result(task.number, slot)
    if staging.exists(key):  # a runner may repeat any work
        return key
    log, span = open_log(task.log_url, keys_url=task.keys_url), task.spans[slot]
    domain, compiled = _compiled(staging_url, task.domain_ref, task.models)
    models = [c.model for c in compiled]
    with worker_connection(task.workers) as connection:
        staged = stage(connection, domain, compiled, span.events(connection, log, domain, models))
    staging.put(key, encode_staged(staged))
    return key


@functools.lru_cache(maxsize=8)
def _compiled(_staging_url: str, domain_ref: str, names: tuple[str, ...]) -> tuple[Domain, list[Compiled]]:
    """Compile read models once for each stream and process: a micro-batch is short.

    The staging URL is the stream's own, so a later stream in the process sees the domain as it is declared by then.
    """
    domain = load_domain(domain_ref)
    return domain, [compile_model(domain.read_model(name), domain) for name in names]


def _result(number: int, slot: int) -> str:
    return f"staged/{number}-{slot}"
