"""The beginning that all rebuilds share: find or make a plan, replay it, and keep what is staged until it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas.errors import DamagedStagingError
from refold.pipelines.rebuild.replay import RebuildProgress, Replayed, replay
from refold.pipelines.rebuild.replay_plan import (
    ReplayPlan,
    delete_plan,
    find_or_make_plan,
    is_staged,
    plan_identity,
    staging_lost,
)
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.read_models.database import Checkpoint, checkpoint_at
from refold.warehouse.read_models.generations.build import StagedModels
from refold.warehouse.replay.invalid_events import refuse

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StagedReplay:
    """The staged result of a replay.

    Attributes:
        store: holds the plan and what is staged.
        identity: names what the replay does.
        plan: what was replayed.
        models: the read models.
        replayed: what is staged.
    """

    store: ObjectStore
    identity: str
    plan: ReplayPlan
    models: Sequence[ReadModel]
    replayed: Replayed

    def staged_models(self, at: Checkpoint | None = None) -> StagedModels:
        """Return the staged rows, ready to be loaded.

        Args:
            at: the position that they show; the end of what was sealed by default.
        """
        sealed = self.plan.sealed
        at = at or checkpoint_at(sealed)
        return StagedModels(
            self.models, at, self.replayed.rows, self.replayed.invalid_events, erasures=self.plan.erasures
        )

    def discard(self) -> None:
        """Delete what is staged, so that a later run starts from the log."""
        delete_plan(self.store, self.identity, self.plan)

    def refuse(self, invalid_events: Sequence[InvalidEvent]) -> None:
        """Discard the replay and raise an error, if any events are invalid.

        Raises:
            InvalidEventsError: there are such events.
        """
        if invalid_events:
            self.discard()
            raise refuse(invalid_events, doing="The rebuild")


@contextmanager
def staged_replay(
    log: EventLog,
    domain: Domain,
    domain_ref: str,
    models: Sequence[ReadModel],
    store: ObjectStore,
    options: PipelineOptions,
    report: Callable[[RebuildProgress], None],
    *,
    up_to: int | None = None,
) -> Iterator[StagedReplay]:
    """Replay the log for some read models, and keep what is staged while the block runs.

    After a block that fails, it is kept too, so that a later run resumes there.

    Args:
        log: the log; its tail is sealed if it is to be replayed.
        domain: contracts and read models.
        domain_ref: the domain, by entry-point name or dotted path, for the workers.
        models: the read models.
        store: for the plan and what is staged, reachable for all workers.
        options: Beam's options.
        report: called with the progress, a few times a second.
        up_to: the last position to replay; the end of the log by default.

    Raises:
        EmptyLogError: there is nothing to replay.
        RefoldError: another run deleted what is staged.
    """
    identity = plan_identity(log, domain, models, up_to)

    def replayed() -> StagedReplay:
        report(RebuildProgress("seal"))
        plan = find_or_make_plan(store, identity, log, domain, domain_ref, models, options, up_to)
        try:
            done = replay(plan.staging(store), plan, domain, models, options, report)
        except DamagedStagingError:
            delete_plan(store, identity, plan)
            raise
        return StagedReplay(store, identity, plan, models, done)

    try:
        staged = replayed()
    except DamagedStagingError as error:
        _log.warning("What an earlier run staged cannot be used: %s It is made again.", error)
        staged = replayed()
    staging = staged.plan.staging(store)
    try:
        yield staged
    except duckdb.IOException as error:
        raise (error if is_staged(staging) else staging_lost(staging)) from error
    staged.discard()
