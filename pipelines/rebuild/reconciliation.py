"""What is compared when a generation is reconciled, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refold.event_schemas import GenerationError, UsageError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.comparison.differences import TableDifference
from refold.warehouse.read_models.generations.generations import Generation, Generations


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
        sample_seed: the seed of the sample of keys; None if all were compared.
    """

    generation: int
    position: int
    tables: tuple[str, ...]
    skipped: dict[str, str]
    differences: tuple[TableDifference, ...]
    seconds: float
    sample_seed: int | None = None


def newest_of(log: EventLog, generations: Generations) -> Generation:
    """Return the newest generation, which must have been built from a log.

    Raises:
        GenerationError: nothing is published, or it was built from another log.
    """
    generation = generations.newest()
    if generation is None:
        raise GenerationError(f"Nothing is published at {generations.store.url} yet. Run `refold rebuild` first.")
    if generation.log_id != log.log_id:
        raise GenerationError(
            f"Generation {generation.number} was built from another log than {log.url}, so a rebuild from this one "
            "cannot be compared with it. Give the --log that it was built from."
        )
    return generation


def comparable_models(
    domain: Domain, generations: Generations, generation: Generation, only: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Pick the read models whose declaration made the published rows.

    Returns:
        Their names, and read model to why it cannot be compared.

    Raises:
        UsageError: there is nothing to compare.
    """
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
