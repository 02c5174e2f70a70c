"""``refold stream``: read models follow the log, a fraction of a second behind it.

look for commits after the checkpoint -> Beam: their contributions to each read model -> rows and checkpoint in one
transaction of the live database -> every few seconds a copy of it is published as a generation.

After a crash, the stream resumes from the newest generation's checkpoint; no event is lost or applied twice. Others may
publish too, above all a rebuild: the stream then takes over their generation, catches up, and publishes after them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import UsageError
from refold.pipelines.beam.runners import beam_options, workers_of
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.stream.micro_batches import MicroBatches, Task
from refold.pipelines.stream.pace import HeartbeatTimer, Outage, Wait
from refold.pipelines.stream.publisher import StreamPublisher
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations
from refold.warehouse.read_models.increments.spans import Step, next_step
from refold.warehouse.read_models.lag import (
    Lag,
    LogEnd,
    find_end,
    lag_of,
)
from refold.warehouse.read_models.live.indexes import NO_INDEXES, Indexes, check_indexes
from refold.warehouse.read_models.live.live_database import LiveDatabase, check_followable, open_live
from refold.warehouse.read_models.live.publisher_process import PublishingProcess
from refold.warehouse.read_models.planning.backlog import rebuild_first

_LOOK_FOR_GENERATIONS_EVERY = 0.25
"""Seconds: one look is a request to the store, and other publishers are rare."""
_LOOK_FOR_SEGMENTS_EVERY = 5.0
"""Seconds between reads of the manifest while nothing is appended: it may be large."""
MAX_OUTAGE = 600.0
"""Seconds for which a store may be unavailable, by default."""
_RETRY_CHECKPOINT_AFTER = 0.05
"""Seconds until a reader that keeps the last checkpoint from being made has probably ended."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a stream did.

    Attributes:
        position: of its tables in the log.
        generation: the newest that it published or took over.
        events: how many events it applied.
        micro_batches: in how many micro-batches.
        dead_letters: how many dead letters it made: events that it could not apply, each counted once a read model, and
            those since which rows are withheld.
        rebuilt: how often it rebuilt, because that was needed or cheaper.
        seconds: from start to end.
    """

    position: int
    generation: int
    events: int
    micro_batches: int
    dead_letters: int
    rebuilt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """What a stream reports while it runs.

    Attributes:
        what: ``rebuild``, ``open``, ``micro_batch``, ``publish``, ``take_over``, ``heartbeat`` (about once a second),
            ``outage`` (of a store: its begin, and its end) or ``drain``.
        position: of the tables in the log.
        events: how many events the micro-batch had; 0 for anything else.
        seconds: how long it took.
        text: a sentence for people; empty for a micro-batch and a heartbeat.
        recorded_at: when the last event that the tables show was recorded, RFC 3339.
        generation: the newest that the stream published or took over.
        invalid_events: how many events of the micro-batch could not be applied.
        end: where the log ends; only of a heartbeat.
        lag: how far the tables are behind it; only of a heartbeat.
    """

    what: str
    position: int = 0
    events: int = 0
    seconds: float = 0.0
    text: str = ""
    recorded_at: str = ""
    generation: int = 0
    invalid_events: int = 0
    end: LogEnd | None = None
    lag: Lag | None = None


def stream(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    options: PipelineOptions | None = None,
    *,
    once: bool = False,
    until: int | None = None,
    publish_every: float = 10.0,
    max_outage: float = MAX_OUTAGE,
    rebuild_if_cheaper: bool = True,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[ProgressReport], None] = lambda _: None,
    on_open: Callable[[LiveDatabase], None] = lambda _: None,
    indexes: Indexes = NO_INDEXES,
) -> Streamed:
    """Apply new events to the read models until told to stop, then publish what is not published yet.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        options: Beam's options; the local runner by default.
        once: stop at the end of the log.
        until: stop when the tables show this position.
        publish_every: seconds between two publishes, if anything changed; the one before must have ended.
        max_outage: seconds for which a store may be unavailable before the stream ends with an error. Meanwhile it
            tries again, at growing intervals; queries of the live database are answered.
        rebuild_if_cheaper: rebuild first if the backlog is so large that a rebuild takes less time.
        stop: called between micro-batches; the stream ends when it returns True.
        report: called with what happens.
        on_open: called with each live database that is opened, for queries from other threads.
        indexes: read model to the columns that these queries look up; live databases have an index of each.

    Raises:
        UsageError: log or read models are in this process's memory, which the publishing process can't see; or there is
            no such column to index.
        GenerationError: another publisher's read models cannot be followed by this domain's code.
        DamagedLogError: the log misses an object; what was applied before is published.
        StoreUnavailableError: a store is unavailable at the start, or for longer than ``max_outage``. What was not
            published is applied again by the next stream.

    Example:
        >>> from tempfile import mkdtemp
        >>> from refold import Appender, create_log, load_domain, stream
        >>> from refold.event_schemas.trading import CashDeposited
        >>> from decimal import Decimal
        >>> log = create_log(mkdtemp(), domain_name="trading")
        >>> deposit = CashDeposited(trader_id="ada", amount=Decimal("100.00"))
        >>> _ = Appender(log, load_domain("trading").registry).append("ada", [deposit])
        >>> stream(log, "trading", mkdtemp(), once=True).position
        1
    """
    for url in (log.url, read_models_url):
        if url.startswith("memory://"):
            raise UsageError(
                f"{url} is in the memory of this process, but a process of its own publishes generations. Give a "
                "folder or a remote store, or use `refold rebuild`."
            )
    check_indexes(indexes, load_domain(domain_ref).read_models)
    follower = _Follower(
        log,
        domain_ref,
        read_models_url,
        options or beam_options(),
        publish_every,
        Outage(max_outage, stop, lambda text: report(ProgressReport("outage", text=text))),
        rebuild_if_cheaper,
        report,
        on_open,
        indexes,
    )
    return follower.run(stop, once=once, until=until)


class _Follower:
    """One stream while it runs."""

    def __init__(
        self,
        log: EventLog,
        domain_ref: str,
        read_models_url: str,
        options: PipelineOptions,
        publish_every: float,
        outage: Outage,
        rebuild_if_cheaper: bool,
        report: Callable[[ProgressReport], None],
        on_open: Callable[[LiveDatabase], None],
        indexes: Indexes,
    ) -> None:
        self._log = log
        self._domain_ref = domain_ref
        self._domain: Domain = load_domain(domain_ref)
        self._url = read_models_url
        self._generations: Generations = open_generations(read_models_url, self._domain.name)
        self._options = options
        self._workers = workers_of(options)
        self._outage = outage
        self._rebuild_if_cheaper = rebuild_if_cheaper
        self._report = report
        self._on_open = on_open
        self._indexes = indexes
        self._batches = MicroBatches(self._generations.store, options)
        self._publisher = StreamPublisher(
            PublishingProcess(log.url, domain_ref, read_models_url),
            self._generations,
            publish_every,
            lambda text, seconds: self._say("publish", text, seconds=seconds),
        )
        self._heartbeat = HeartbeatTimer(self._generations)
        self._live: LiveDatabase
        self._looked_for_generations = self._looked_for_segments = 0.0
        self._events = self._number = self._invalid_events = self._rebuilt = 0

    def run(self, stop: Callable[[], bool], *, once: bool, until: int | None) -> Streamed:
        started = time.monotonic()
        with ExitStack() as cleanup:
            cleanup.callback(self._heartbeat.stop)
            cleanup.callback(self._batches.close)
            self._live = self._open()
            cleanup.callback(lambda: self._live.close())
            cleanup.callback(self._publisher.close)
            self._publisher.start()
            self._follow_log(stop, once=once, until=until)
            self._outage.repeat(self._drain)
            return Streamed(
                self._live.at.position,
                self._live.generation.number,
                self._events,
                self._number,
                self._invalid_events,
                self._rebuilt,
                time.monotonic() - started,
            )

    def _follow_log(self, stop: Callable[[], bool], *, once: bool, until: int | None) -> None:
        wait = Wait(local=self._log.store.is_local)
        while not stop() and (until is None or self._live.at.position < until):
            if self._outage.repeat(self._apply_next):
                wait.reset()
            elif once:
                break
            else:
                wait.idle()
            if self._heartbeat.is_due():
                self._outage.repeat(self._write_heartbeat)

    def _apply_next(self) -> bool:
        """Run the next micro-batch, and return whether there was one; look after generations before."""
        self._take_over()
        self._publisher.look(self._live)
        step = self._next_step()
        if step is not None:
            self._apply(step)
        return step is not None

    def _open(self) -> LiveDatabase:
        """Open the newest generation, after a rebuild if that is needed or cheaper than catching up."""
        newest = self._generations.newest()
        first = rebuild_first(
            self._log, self._domain, newest, workers=self._workers, if_cheaper=self._rebuild_if_cheaper
        )
        if first is not None:
            self._say("rebuild", first.reason)
            done = rebuild(self._log, self._domain_ref, self._url, self._options, only=first.names, dead_letter=True)
            newest = done.generation
            self._rebuilt += 1
        assert newest is not None
        return self._follow(newest)

    def _follow(self, generation: Generation) -> LiveDatabase:
        live = open_live(
            self._log, self._domain, self._generations, generation, threads=self._workers, indexes=self._indexes
        )
        self._publisher.opened(live)
        self._on_open(live)
        self._live = live
        self._say("open", f"Following from position {live.at.position:,} (generation {generation.number}).")
        return live

    def _next_step(self) -> Step | None:
        """Look for commits, and sometimes in the manifest too: commits may be deleted once they are sealed."""
        step = next_step(self._log, self._live.at, workers=self._workers)
        idle = step is None and time.monotonic() - self._looked_for_segments > _LOOK_FOR_SEGMENTS_EVERY
        if idle or (step and step.full):
            self._looked_for_segments = time.monotonic()
            sealed = self._log.manifest()
            step = next_step(self._log, self._live.at, workers=self._workers, sealed=sealed) or step
        return step

    def _apply(self, step: Step) -> None:
        """Run one micro-batch."""
        started = time.perf_counter()
        self._number += 1
        names = tuple(c.model.name for c in self._live.models)
        task = Task(self._number, self._log.url, self._log.keys_url, self._domain_ref, names, step.parts, self._workers)
        invalid = self._live.apply(self._batches.run(task), step.span)
        self._events += step.events
        self._invalid_events += invalid
        self._report(
            ProgressReport(
                "micro_batch",
                self._live.at.position,
                step.events,
                time.perf_counter() - started,
                recorded_at=self._live.at.recorded_at,
                generation=self._live.generation.number,
                invalid_events=invalid,
            )
        )

    def _write_heartbeat(self) -> None:
        """Publish and report the position of the tables, and how far they are behind the log."""
        live = self._live
        self._heartbeat.write(live, self._events)
        end = find_end(self._log)
        lag = lag_of(self._log, end, live.at)
        self._report(ProgressReport("heartbeat", live.at.position, recorded_at=live.at.recorded_at, end=end, lag=lag))

    def _take_over(self) -> None:
        """Continue from a generation that another publisher published meanwhile, if there is one."""
        now = time.monotonic()
        looked = now - self._looked_for_generations < _LOOK_FOR_GENERATIONS_EVERY and not self._publisher.lost_race
        if self._publisher.busy or looked:
            return
        self._looked_for_generations = now
        if not self._generations.is_published(self._live.generation.number + 1):
            return
        newest = self._generations.newest()
        assert newest is not None
        behind = self._live
        check_followable(self._log, self._domain, newest)
        self._say("take_over", f"Taking over generation {newest.number}, which is at position {newest.position:,}.")
        self._follow(newest)
        behind.close()

    def _drain(self) -> None:
        """Publish what is not published yet, after other publishers if need be."""
        self._say("drain", "Draining.")
        while self._publisher.busy or self._publisher.is_behind(self._live):
            if self._publisher.busy:
                self._publisher.end(self._live, block=True)
                continue
            self._take_over()
            if self._publisher.is_behind(self._live) and not self._publisher.request(self._live):
                time.sleep(_RETRY_CHECKPOINT_AFTER)

    def _say(self, what: str, text: str, *, seconds: float = 0.0) -> None:
        live = getattr(self, "_live", None)
        self._report(
            ProgressReport(
                what,
                live.at.position if live else 0,
                text=text,
                seconds=seconds,
                recorded_at=live.at.recorded_at if live else "",
                generation=live.generation.number if live else 0,
            )
        )
