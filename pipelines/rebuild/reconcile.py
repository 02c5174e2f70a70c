"""``refold reconcile``: checks that published read models are what a rebuild makes of the log.

The newest generation may be the result of any number of increments. Its read models are rebuilt as of its position, in
a scratch folder, and compared with the published ones; nothing is published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

from refold.pipelines.rebuild.as_of import rebuild_as_of
from refold.pipelines.rebuild.new_file import refuse_existing
from refold.pipelines.rebuild.reconciliation import Reconciliation, comparable_models, newest_of
from refold.pipelines.rebuild.replay import RebuildProgress
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.comparison.compare import compare_files, compared_dead_letters, compared_tables
from refold.warehouse.read_models.generations.build import StagedModels, scratch_folder
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations
from refold.warehouse.read_models.rebuild.seeds import seed_rows


def reconcile(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    options: PipelineOptions | None = None,
    *,
    only: Sequence[str] = (),
    keep: Path | None = None,
    examples: int = 5,
    report: Callable[[RebuildProgress], None] = lambda _: None,
) -> Reconciliation:
    """Rebuild the newest generation's read models as of its position, and compare.

    Events that cannot be applied are left out, and must be the published dead letters. Approximate totals may differ by
    their rounding (``compare.TOLERANCES``); everything else must be equal.

    Args:
        log: the log that it was built from.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        options: Beam's options; the local runner by default.
        only: names of the read models to compare; by default all whose declaration did not change.
        keep: where to keep the rebuilt file.
        examples: how many differing keys of each table to report.
        report: called with the progress, a few times a second.

    Raises:
        GenerationError: nothing is published, or it was built from another log.
        UsageError: there is nothing to compare.

    Example:
        >>> from decimal import Decimal
        >>> from tempfile import mkdtemp
        >>> from refold import Appender, create_log, load_domain, rebuild, reconcile
        >>> from refold.event_schemas.trading import CashDeposited
        >>> log, read_models = create_log(mkdtemp(), domain_name="trading"), mkdtemp()
        >>> deposit = CashDeposited(trader_id="ada", amount=Decimal("100.00"))
        >>> _ = Appender(log, load_domain("trading").registry).append("ada", [deposit])
        >>> _ = rebuild(log, "trading", read_models)
        >>> reconcile(log, "trading", read_models).differences
        ()
    """
    started = time.perf_counter()
    if keep is not None:
        refuse_existing(keep)
    domain = load_domain(domain_ref)
    generations = open_generations(read_models_url, domain.name)
    generation = newest_of(log, generations)
    names, skipped = comparable_models(domain, generations, generation, only)
    published = generations.path(generation)
    with scratch_folder(generations.store) as folder:
        rebuilt = rebuild_as_of(
            log,
            domain_ref,
            options,
            position=generation.position,
            to=keep or folder / "rebuilt.duckdb",
            staging_url=generations.store.url,
            only=names,
            seeded=_seeded(domain, generations, generation, names, folder),
            dead_letter=True,
            report=report,
        )
        report(RebuildProgress("compare"))
        tables = [t for name in names for t in compared_tables(domain.read_model(name))]
        from_log = any(domain.read_model(name).seed is None for name in names)
        tables.append(compared_dead_letters(names, no_contract=from_log))
        differences = compare_files(published, rebuilt.path, tables, spill=folder, examples=examples)
    return Reconciliation(
        generation=generation.number,
        position=generation.position,
        tables=names,
        skipped=skipped,
        differences=tuple(differences),
        seconds=time.perf_counter() - started,
    )


def _seeded(
    domain: Domain, generations: Generations, generation: Generation, names: Sequence[str], folder: Path
) -> list[StagedModels]:
    """Start seeded read models where the published ones started."""
    found = []
    for name in names:
        if seed := generation.tables[name].seed:
            at, path = seed_rows(domain.read_model(name), seed, generations, folder)
            found.append(StagedModels([domain.read_model(name)], at, {name: [path]}, replayed=False))
    return found
