"""``refold refresh``: brings read models up to date in one command, for schedulers.

plan -> rebuild what is new or changed, else catch up what is behind -> publish -> reconcile, if ``verify`` is set.
If there is nothing to do, nothing is published.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions

from refold.pipelines.rebuild.publisher import republish
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.rebuild.reconcile import reconcile
from refold.pipelines.rebuild.reconciliation import Reconciliation
from refold.pipelines.rebuild.replay import RebuildProgress
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.generations.generations import Generation, open_generations
from refold.warehouse.read_models.planning.plan import RebuildPlan, plan_rebuild

REBUILD_RATHER_FROM = 1_000_000
"""A backlog of so many events that is also most of the log is replayed in parallel instead of caught up with."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did.

    Attributes:
        plan: the work that there was.
        published: the new generation; None if there was no work.
        rebuilt: names of the read models that were rebuilt.
        caught_up: how many events were applied to read models that were not rebuilt.
        dead_letters: how many open dead letters the rebuilt read models have.
        reconciliation: the comparison with a rebuild, if ``verify`` was set.
        seconds: from start to end.
    """

    plan: RebuildPlan
    published: Generation | None
    rebuilt: tuple[str, ...]
    caught_up: int
    dead_letters: int
    reconciliation: Reconciliation | None
    seconds: float


def refresh(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    options: PipelineOptions | None = None,
    *,
    dead_letter: bool = False,
    verify: bool = False,
    report: Callable[[RebuildProgress], None] = lambda _: None,
) -> Refreshed:
    """Bring the published read models to their current declarations and to the head of the log.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        options: Beam's options; the local runner by default.
        dead_letter: collect events that cannot be applied in ``refold.dead_letters``; by default they are an error.
        verify: compare the result with a rebuild of it.
        report: called with the progress, a few times a second.

    Raises:
        EmptyLogError: there is nothing to build read models from.
        InvalidEventsError: events cannot be applied; nothing was published.
        GenerationError: other publishers won every race.

    Example:
        >>> from decimal import Decimal
        >>> from tempfile import mkdtemp
        >>> from refold import Appender, create_log, load_domain, refresh
        >>> from refold.event_schemas.trading import CashDeposited
        >>> log, read_models = create_log(mkdtemp(), domain_name="trading"), mkdtemp()
        >>> deposit = CashDeposited(trader_id="ada", amount=Decimal("100.00"))
        >>> _ = Appender(log, load_domain("trading").registry).append("ada", [deposit])
        >>> refresh(log, "trading", read_models).rebuilt
        ('trader_performance_summary', 'average_cost_positions')
        >>> refresh(log, "trading", read_models).published is None
        True
    """
    started = time.perf_counter()
    domain = load_domain(domain_ref)
    plan = plan_rebuild(log, domain, open_generations(read_models_url, domain.name))
    names = plan.to_rebuild
    if not names and plan.behind >= REBUILD_RATHER_FROM and plan.behind * 2 > plan.position:
        names = tuple(m.name for m in domain.read_models)
    published, dead_letters = None, 0
    if names:
        rebuilt = rebuild(log, domain_ref, read_models_url, options, only=names, dead_letter=dead_letter, report=report)
        published, dead_letters = rebuilt.generation, rebuilt.dead_letters
    elif plan.work or plan.behind:
        published = republish(log, domain_ref, read_models_url, options, dead_letter=dead_letter, report=report)
    reconciled = reconcile(log, domain_ref, read_models_url, options, report=report) if verify else None
    kept = len(names) < len(domain.read_models)
    return Refreshed(
        plan=plan,
        published=published,
        rebuilt=names,
        caught_up=max(published.position - plan.generation_position, 0) if published and kept else 0,
        dead_letters=dead_letters,
        reconciliation=reconciled,
        seconds=time.perf_counter() - started,
    )
