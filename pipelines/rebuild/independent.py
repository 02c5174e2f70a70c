"""``refold reconcile --independent``: published rows against a sequential fold of the recorded events.

The fold (``warehouse/sequential_fold/``) shares no code with rebuilds and streams, so it also finds the faults that
both have. It handles one event at a time, a few hundred a second; of a large log, it can recompute a sample of keys.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from refold.event_schemas import UsageError
from refold.pipelines.rebuild.new_file import name_file, refuse_existing
from refold.pipelines.rebuild.reconciliation import Reconciliation, comparable_models, newest_of
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models import withheld
from refold.warehouse.read_models.comparison.compare import Compared, compare_files, compared_tables
from refold.warehouse.read_models.generations.build import scratch_folder
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations
from refold.warehouse.sequential_fold import (
    Folded,
    NotByStreamError,
    Sample,
    Start,
    exact_in_python,
    fold_log,
    write_folded,
)


def reconcile_independently(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    *,
    only: Sequence[str] = (),
    sample: int | None = None,
    seed: int = 0,
    keep: Path | None = None,
    examples: int = 5,
    report: Callable[[int, int | None], None] = lambda position, last: None,
) -> Reconciliation:
    """Recompute the newest generation's read models a second way, and compare.

    Args:
        log: the log that it was built from.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        only: names of the read models to compare; by default all whose declaration did not change.
        sample: compare about so many keys of each read model; all by default.
        seed: what makes one sample differ from another.
        keep: where to keep the recomputed file.
        examples: how many differing keys of each table to report.
        report: called with the last position read, and the one to read.

    Raises:
        GenerationError: nothing is published, or it was built from another log.
        UsageError: there is nothing to compare.
    """
    started = time.perf_counter()
    if keep is not None:
        refuse_existing(keep)
    domain = load_domain(domain_ref)
    generations = open_generations(read_models_url, domain.name)
    generation = newest_of(log, generations)
    names, skipped = _comparable(domain, generations, generation, only)
    models = [domain.read_model(name) for name in names]
    chosen = {m.name: _sample(m, generation, sample, seed) for m in models} if sample else {}
    with scratch_folder(generations.store) as folder:
        path = folder / "recomputed.duckdb"
        folded, samples = _folded(log, domain, models, generations, generation, chosen, report)
        with closing(connect(path)) as connection:
            write_folded(connection, models, folded)
        if keep is not None:
            name_file(path, keep)
        published = generations.path(generation)
        tables = [t for m in models for t in _compared(m, samples.get(m.name))]
        tables.append(_compared_dead_letters(models, samples, _positions_outside(published, models, samples)))
        differences = compare_files(published, path, tables, spill=folder, examples=examples)
    return Reconciliation(
        generation=generation.number,
        position=generation.position,
        tables=names,
        skipped=skipped,
        differences=tuple(differences),
        seconds=time.perf_counter() - started,
        sample_seed=seed if sample else None,
    )


def _comparable(
    domain: Domain, generations: Generations, generation: Generation, only: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    names, skipped = comparable_models(domain, generations, generation, only)
    for name in names:
        if dtype := exact_in_python(domain.read_model(name)):
            skipped[name] = f"Python has no exact values of its type {dtype}"
    names = tuple(name for name in names if name not in skipped)
    if not names:
        raise UsageError(f"No read model can be recomputed. {'; '.join(f'{n}: {why}' for n, why in skipped.items())}.")
    return names, skipped


def _sample(model: ReadModel, generation: Generation, keys: int, seed: int) -> Sample:
    """Choose keys; where one key column is the stream, the events of other streams need not be read."""
    one_in = max(1, generation.tables[model.name].rows // keys)
    streams = [k for k in model.key if all(k in h.by_stream for h in model.handlers)]
    return Sample(seed, one_in, (streams[0],) if streams else tuple(model.key), by_stream=bool(streams))


def _folded(
    log: EventLog,
    domain: Domain,
    models: Sequence[ReadModel],
    generations: Generations,
    generation: Generation,
    samples: Mapping[str, Sample],
    report: Callable[[int, int | None], None],
) -> tuple[Folded, Mapping[str, Sample]]:
    starts = {m.name: _start(m, generations, generation) for m in models if m.seed is not None}
    last = generation.position

    def fold(samples: Mapping[str, Sample]) -> Folded:
        return fold_log(
            log.store,
            domain,
            models,
            up_to=last,
            samples=samples,
            starts=starts,
            personal=log.personal_data,
            report=lambda at: report(at, last),
        )

    try:
        return fold(samples), samples
    except NotByStreamError:
        every = {name: Sample(s.seed, s.one_in, s.columns) for name, s in samples.items()}
        return fold(every), every


def _start(model: ReadModel, generations: Generations, generation: Generation) -> Start:
    """Return the rows that the seed of a read model gave, from the generation that it was run on."""
    seed = generation.tables[model.name].seed
    assert seed is not None, "a published read model with a seed records it"
    path = generations.file_path(seed.file, seed.generation)
    with closing(connect(path, read_only=True)) as connection:
        found = connection.execute(f"FROM ({model.seed})")
        names = [column[0] for column in found.description or ()]
        return Start(seed.position, [dict(zip(names, row, strict=True)) for row in found.fetchall()])


def _compared(model: ReadModel, sample: Sample | None) -> list[Compared]:
    """Return the rows of a sample: those that readers see, and those that are withheld."""
    tables = [t for t in compared_tables(model) if t.key]
    if sample is None:
        return tables
    return [dataclasses.replace(t, source=f"(SELECT * FROM {t.source} WHERE {sample.condition()})") for t in tables]


def _positions_outside(
    published: Path, models: Sequence[ReadModel], samples: Mapping[str, Sample]
) -> Mapping[str, list[int]]:
    """Return positions since which only rows outside the samples are withheld: the fold has no dead letters of them."""
    with closing(connect(published, read_only=True)) as connection:
        held = withheld.models_with_withheld(connection)
        return {
            m.name: [
                position
                for (position,) in connection.execute(
                    f"SELECT _position FROM {withheld.table_of(m.name)} GROUP BY 1 "
                    f"HAVING NOT bool_or({samples[m.name].condition()})"
                ).fetchall()
            ]
            for m in models
            if m.name in held and m.name in samples
        }


def _compared_dead_letters(
    models: Sequence[ReadModel], samples: Mapping[str, Sample], outside: Mapping[str, list[int]]
) -> Compared:
    """Return the dead letters; of read models for which only some streams were read, those of these streams."""
    names = ("read_model", "position", "stream_id", "event_type", "schema_version")
    streams = {m.name: _of_streams(samples.get(m.name)) for m in models}
    from_log = [streams[m.name] for m in models if m.seed is None]
    kept = [
        f"(read_model = '{name}' AND {condition} AND NOT list_contains({outside.get(name, [])}::BIGINT[], position))"
        for name, condition in streams.items()
    ]
    kept += [f"(read_model = '' AND ({' OR '.join(from_log)}))"] if from_log else []
    rows = f"(SELECT {', '.join(names)} FROM {{db}}.refold.dead_letters WHERE {' OR '.join(kept)})"
    return Compared(name="refold.dead_letters", source=rows, key=names[:2], columns=names)


def _of_streams(sample: Sample | None) -> str:
    if sample is None or not sample.by_stream:
        return "true"
    return Sample(sample.seed, sample.one_in, ("stream_id",)).condition()
