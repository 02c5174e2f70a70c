"""``refold reconcile``: checks that published read models are what a rebuild makes of the log.

The newest generation may be the result of any number of increments. Its read models are rebuilt as of its position, in
a scratch folder, and compared with the published ones; nothing is published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import GenerationError, UsageError
from refold.pipelines.rebuild.as_of import rebuild_as_of, refuse_existing
from refold.pipelines.rebuild.replay import RebuildProgress
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.comparison.compare import compare_files, compared_dead_letters, compared_tables
from refold.warehouse.read_models.comparison.differences import TableDifference
from refold.warehouse.read_models.generations.build import StagedModels, scratch_folder
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations
from refold.warehouse.read_models.rebuild.seeds import seed_rows


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The result of comparing a generation with a rebuild of it.

    Attributes:
        generation: its number.
        position: of both in the log.
        tables: names of the read models that were compared.
        skipped: read model to why it could not be compared.
        differences: tables that differ; ``here`` is the published one, ``there`` the rebuilt one.
        seconds: how long it took.
    """

    generation: int
    position: int
    tables: tuple[str, ...]
    skipped: dict[str, str]
    differences: tuple[TableDifference, ...]
    seconds: float


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
    generation = generations.newest()
    if generation is None:
        raise GenerationError(f"Nothing is published at {generations.store.url} yet. Run `refold rebuild` first.")
    if generation.log_id != log.log_id:
        raise GenerationError(
            f"Generation {generation.number} was built from another log than {log.url}, so a rebuild from this one "
            "cannot be compared with it. Give the --log that it was built from."
        )
    names, skipped = _comparable(domain, generations, generation, only)
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


def _comparable(
    domain: Domain, generations: Generations, generation: Generation, only: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Pick the read models whose declaration made the published rows."""
    declared = {m.name: m for m in domain.read_models}
    skipped: dict[str, str] = {}
    for name in only or generation.tables:
        if name not in declared:
            if only:
                domain.read_model(name)
            skipped[name] = "it is no longer declared"
        elif name not in generation.tables:
            raise UsageError(
                f"Read model {name} is not in generation {generation.number}. Build it with `refold rebuild {name}`."
            )
        elif fingerprint(fingerprint_parts(declared[name], domain)) != generation.tables[name].fingerprint:
            skipped[name] = "its declaration changed since it was published; rebuild it"
        elif (seed := generation.tables[name].seed) and not generations.store.exists(seed.file):
            skipped[name] = f"the file of generation {seed.generation}, from which it started, is gone"
    names = tuple(name for name in declared if name in (only or generation.tables) and name not in skipped)
    if not names:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise UsageError(f"Generation {generation.number} holds no read model that can be compared. {reasons}.")
    return names, skipped
