"""``refold ingest``: imports files of events into the log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refold.pipelines.cli.support.exit_codes import ROWS_REJECTED
from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.pipelines.ingest.ingest import Ingested

_MAX_REASONS = 10
"""Reasons for rejected rows on the screen; ``--json`` has all."""

_EXAMPLE = """\
refold ingest history.jsonl
refold ingest --mapping orders.toml "exports/*.csv.gz"
refold ingest --format cloudevents --strict events.json --json
refold ingest --max-rejects 0.1% --rejects invalid.jsonl history.parquet"""


@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--mapping",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A TOML file that maps columns of the files to events.",
)
@click.option(
    "--format",
    metavar="NAME",
    help="jsonl, json, cloudevents, csv, parquet, arrow, orc, avro or xes; by default from the suffix.",
)
@click.option("--strict", is_flag=True, help="Stop at the first invalid row and import nothing.")
@click.option(
    "--max-rejects",
    metavar="N|P%",
    help="Import nothing if more rows are invalid; up to so many, exit with 0.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for invalid rows, as JSON lines; by default beside the first file.",
)
@click.option(
    "--buckets",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Bucket count of a new log, fixed for ever; 64 by default.",
)
@common_options("domain", "log", "runner")
@pass_invocation
def ingest(
    call: Invocation,
    files: tuple[str, ...],
    mapping: Path | None,
    format: str | None,
    strict: bool,
    max_rejects: str | None,
    rejects: Path | None,
    buckets: int | None,
) -> None:
    """Import files of events into the log.

    FILE is a path, a pattern or a URL, of events in one of these formats, compressed or not. The import
    is atomic: it resumes after a crash, and changes nothing when repeated. If there is no log, it creates one for the
    domain that is named. Exit code 6 says that rows are invalid, and not in the log.
    """
    options = call.beam_options()

    from refold.pipelines.cli.progress import import_progress
    from refold.pipelines.cli.support import output
    from refold.pipelines.ingest.ingest import ingest as ingest_files
    from refold.pipelines.ingest.ingest import read_mapping

    columns = read_mapping(mapping) if mapping else None
    _check_existence(files)
    log = call.open_or_create_log(buckets)
    with import_progress(quiet=call.quiet) as report:
        done = ingest_files(
            log,
            call.domain_ref,
            files,
            mapping=columns,
            format=format,
            strict=strict,
            max_rejects=max_rejects,
            rejects=rejects,
            options=options,
            report=report,
        )
    if call.json:
        output.print_json(asdict(done))
    else:
        _print(done, columns.zone if columns else "UTC")
    if done.rejected and max_rejects is None:
        raise click.exceptions.Exit(ROWS_REJECTED)


def _check_existence(files: tuple[str, ...]) -> None:
    """Refuse a misspelt name before a log is created for it."""
    from refold.event_schemas import UsageError
    from refold.pipelines.ingest.sources import expand_patterns

    for name in expand_patterns(files):
        if "://" not in name and not Path(name).is_file():
            raise UsageError(f"There is no file {name!r}.")


def _print(done: Ingested, zone: str) -> None:
    from refold.pipelines.cli.support.output import counted, print_note, print_text

    if done.already:
        print_text("Nothing to do: these files are already in the log.")
    elif not done.events and not done.rejected and not done.duplicates:
        print_text("Nothing to import: the files have no rows.")
    else:
        how = "as segments, in one commit" if done.mode == "segments" else f"in {counted(done.commits, 'commit')}"
        print_text(f"Imported {counted(done.events, 'event')} {how}.")
    if done.duplicates:
        print_text(
            f"Left out {counted(done.duplicates, 'event')} that their streams have already, with the same event_id."
        )
    if done.tombstones:
        print_text(f"Left out {counted(done.tombstones, 'row')} that are null.")
    if done.local_times:
        print_note(f"{counted(done.local_times, 'time')} without a zone: read as {zone}. A mapping sets another zone.")
    if done.unused_columns:
        print_note(f"Columns that no event uses: {', '.join(done.unused_columns)}.")
    if done.rejected:
        where = (
            f"{done.rejects} has each with its reason" if done.rejects else "the run that imported the others said why"
        )
        print_note(f"{counted(done.rejected, 'row')} could not be imported; {where}.")
        for reason in done.reasons[:_MAX_REASONS]:
            print_note(f"  {reason}")
