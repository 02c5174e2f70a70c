"""``refold stream``: read models follow the log, a fraction of a second behind it.

look for commits after the checkpoint -> Beam: what they contribute to each read model -> rows and checkpoint in one
transaction of the live database -> now and then a copy of it is published as a generation.

A stream that is killed goes on from the newest generation's checkpoint: nothing is lost or applied twice. Others may
publish too, a rebuild above all: the stream then takes over their generation, catches up, and publishes after them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import GenerationError, UsageError
from refold.pipelines.beam.runners import workers_of
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.stream.micro_batches import MicroBatches, Task
from refold.pipelines.stream.pace import HeartbeatTimer, Wait
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
_LOOK_FOR_SEGMENTS_EVERY = 5.0
_FAILED_PUBLISHES = 5


@dataclass(frozen=True, slots=True)
class Streamed:
    """What a stream did.

    Attributes:
        position: where its tables stand.
        generation: the newest that it published or took over.
        events: how many events it applied.
        turns: in how many turns.
        dead_letters: how many events it could not apply, each counted once a read model.
        rebuilt: how often it rebuilt, since that was cheaper or needed.
        seconds: from start to end.
    """

    position: int
    generation: int
    events: int
    turns: int
    dead_letters: int
    rebuilt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """What a stream reports while it runs.

    Attributes:
        what: ``rebuild``, ``open``, ``turn``, ``publish``, ``adopt``, ``beat`` (about once a second) or ``drain``.
        position: where its tables stand.
        events: how many events the turn had; 0 for anything else.
        seconds: how long it took.
        text: a sentence for people; empty for a turn.
        recorded_at: when the last event that its tables show was recorded, RFC 3339.
        generation: the newest that it published or took over.
        broken: how many events of the turn could not be applied.
        end: where the log ends; only of a beat.
        lag: how far the tables are behind it; only of a beat.
    """

    what: str
    position: int = 0
    events: int = 0
    seconds: float = 0.0
    text: str = ""
    recorded_at: str = ""
    generation: int = 0
    broken: int = 0
    end: LogEnd | None = None
    lag: Lag | None = None


def stream(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    options: PipelineOptions,
    *,
    once: bool = False,
    until: int | None = None,
    publish_every: float = 10.0,
    rebuild_if_cheaper: bool = True,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[ProgressReport], None] = lambda _: None,
    on_open: Callable[[LiveDatabase], None] = lambda _: None,
    indexes: Indexes = NO_INDEXES,
) -> Streamed:
    """Follow the log until told to stop, and publish what there is at the end.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        options: Beam's options.
        once: stop when the end of the log is reached.
        until: stop when the tables show this position.
        publish_every: seconds between two publishes, if anything changed; the one before must have ended.
        rebuild_if_cheaper: rebuild first when the backlog is so large that this is the shorter way.
        stop: asked between turns; once it says so, all is published, and the stream ends.
        report: called with what happens.
        on_open: called with each live database that is opened, for queries from other threads.
        indexes: read model to the columns that these queries look for; live databases have an index of each.

    Raises:
        UsageError: log or read models are in this process's memory, which the one that publishes can't see; or there is
            no such column to make an index of.
        GenerationError: another publisher's read models cannot be followed by this domain's code.
        DamagedLogError: the log misses an object; what was applied before is published.
    """
    for url in (log.url, read_models_url):
        if url.startswith("memory://"):
            raise UsageError(
                f"{url} is in the memory of this process, and generations are published by a process of their own. "
                "Give a folder or a remote store, or use `refold rebuild`."
            )
    check_indexes(indexes, load_domain(domain_ref).read_models)
    follower = _Follower(
        log, domain_ref, read_models_url, options, publish_every, rebuild_if_cheaper, report, on_open, indexes
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
        self._publish_every = publish_every
        self._rebuild_if_cheaper = rebuild_if_cheaper
        self._report = report
        self._on_open = on_open
        self._indexes = indexes
        self._turns = MicroBatches(self._generations.store, options)
        self._publisher = PublishingProcess(log.url, domain_ref, read_models_url)
        self._heart = HeartbeatTimer(self._generations)
        self._live: LiveDatabase
        self._published_position = 0
        self._published_at = time.monotonic()
        self._looked_for_generations = self._looked_for_segments = 0.0
        self._asked_position = 0
        self._failed_publishes = 0
        self._events = self._number = self._broken = self._rebuilt = 0

    def run(self, stop: Callable[[], bool], *, once: bool, until: int | None) -> Streamed:
        started = time.monotonic()
        self._live = self._open()
        self._publisher.start()
        gc.collect()
        gc.freeze()  # what is loaded by now stays, and need not be looked through again and again
        try:
            wait = Wait(local=self._log.store.is_local)
            while not stop() and (until is None or self._live.at.position < until):
                self._take_over()
                self._look_after_publishing()
                step = self._next_step()
                if step is not None:
                    self._turn(step)
                    wait.reset()
                elif once:
                    break
                else:
                    wait.idle()
                if self._heart.is_due():
                    self._beat()
            self._drain()
            return Streamed(
                self._live.at.position,
                self._live.generation.number,
                self._events,
                self._number,
                self._broken,
                self._rebuilt,
                time.monotonic() - started,
            )
        finally:
            gc.unfreeze()
            self._publisher.close()
            self._live.close()
            self._turns.close()
            self._heart.stop()

    def _open(self) -> LiveDatabase:
        """Open the newest generation, rebuilt before if that is needed or cheaper than catching up."""
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
        self._published_position = live.at.position
        self._on_open(live)
        self._live = live
        self._say("open", f"Following from position {live.at.position:,} (generation {generation.number}).")
        return live

    def _next_step(self) -> Step | None:
        """Look for commits; now and then in the manifest too, since old commits may be deleted once they are sealed."""
        step = next_step(self._log, self._live.at, workers=self._workers)
        idle = step is None and time.monotonic() - self._looked_for_segments > _LOOK_FOR_SEGMENTS_EVERY
        if idle or (step and step.full):
            self._looked_for_segments = time.monotonic()
            sealed = self._log.manifest()
            step = next_step(self._log, self._live.at, workers=self._workers, sealed=sealed) or step
        return step

    def _turn(self, step: Step) -> None:
        started = time.perf_counter()
        self._number += 1
        names = tuple(c.model.name for c in self._live.models)
        task = Task(self._number, self._log.url, self._domain_ref, names, step.parts, self._workers)
        broken = self._live.apply(self._turns.run(task), step.whole)
        self._events += step.events
        self._broken += broken
        self._report(
            ProgressReport(
                "turn",
                self._live.at.position,
                step.events,
                time.perf_counter() - started,
                recorded_at=self._live.at.recorded_at,
                generation=self._live.generation.number,
                broken=broken,
            )
        )

    def _beat(self) -> None:
        """Tell where the tables stand, and how far behind the log."""
        self._heart.beat(self._live, self._events)
        end = find_end(self._log)
        lag = lag_of(self._log, end, self._live.at)
        self._report(
            ProgressReport("beat", self._live.at.position, recorded_at=self._live.at.recorded_at, end=end, lag=lag)
        )

    def _take_over(self) -> None:
        """Go on from what another publisher published meanwhile, if anybody did."""
        now = time.monotonic()
        if self._publisher.busy or now - self._looked_for_generations < _LOOK_FOR_GENERATIONS_EVERY:
            return
        self._looked_for_generations = now
        if not self._generations.is_published(self._live.generation.number + 1):
            return
        newest = self._generations.newest()
        assert newest is not None
        behind = self._live
        check_followable(self._log, self._domain, newest)
        self._say("adopt", f"Taking over generation {newest.number}, which stands at position {newest.position:,}.")
        self._follow(newest)
        behind.close()

    def _look_after_publishing(self) -> None:
        """See how a publish is getting on, or ask for one if it is time."""
        if self._publisher.busy:
            self._end_publish(block=False)
        elif (
            self._live.at.position > self._published_position
            and time.monotonic() - self._published_at >= self._publish_every
        ):
            self._ask_for_publish()

    def _ask_for_publish(self) -> bool:
        if not self._live.checkpoint():
            return False
        self._published_at = time.monotonic()
        self._asked_position = self._live.at.position
        self._publisher.ask(self._live.path, self._live.generation)
        return True

    def _end_publish(self, *, block: bool) -> None:
        try:
            ended = self._publisher.wait() if block else self._publisher.poll()
        except GenerationError as error:
            self._publish_failed(error)
            return
        finally:
            if not self._publisher.copying:
                self._live.release()
        if ended is None:
            return
        self._failed_publishes = 0
        if ended.number is not None:
            self._live.generation = self._generations.get(ended.number)
            self._published_position = self._asked_position
            self._say(
                "publish",
                f"Published generation {ended.number} at position {self._asked_position:,} in {ended.seconds:.1f} s.",
                seconds=ended.seconds,
            )
        else:  # another publisher was first: its generation is taken over in the next round
            self._looked_for_generations = 0.0

    def _publish_failed(self, error: GenerationError) -> None:
        self._failed_publishes += 1
        if self._failed_publishes >= _FAILED_PUBLISHES:
            raise error
        self._say("publish", str(error))

    def _drain(self) -> None:
        """Publish what is not published yet, after whoever was first."""
        self._say("drain", "Draining.")
        while self._publisher.busy or self._live.at.position > self._published_position:
            if self._publisher.busy:
                self._end_publish(block=True)
                continue
            self._take_over()
            if self._live.at.position > self._published_position and not self._ask_for_publish():
                time.sleep(0.05)

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
