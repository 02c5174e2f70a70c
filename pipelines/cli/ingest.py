"""``refold ingest``: files of events into the log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.pipelines.ingest.ingest import Ingested

_EXAMPLE = """\
refold ingest history.jsonl
refold ingest --mapping orders.toml "exports/*.csv.gz"
refold ingest --format cloudevents --strict events.json --json"""


@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--mapping",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A TOML file that says which columns of the files make an event.",
)
@click.option(
    "--format",
    metavar="NAME",
    help="jsonl, json, cloudevents, csv or parquet; by the files' suffixes by default.",
)
@click.option("--strict", is_flag=True, help="Stop at the first row that cannot become an event; nothing is imported.")
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where rows go that cannot become events, as JSON lines; beside the first file by default.",
)
@click.option(
    "--buckets",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Into how many buckets a new log hashes its streams, for ever; 64 by default.",
)
@common_options("domain", "log", "runner")
@pass_invocation
def ingest(
    call: Invocation,
    files: tuple[str, ...],
    mapping: Path | None,
    format: str | None,
    strict: bool,
    rejects: Path | None,
    buckets: int | None,
) -> None:
    """Bring the events of files into the log, which is created if there is none.

    FILE is a path, a pattern or a URL, of JSON lines, JSON, CloudEvents, CSV or Parquet, compressed or not. An import
    is whole or not at all; one that was killed goes on where it was, and one that is done changes nothing again.
    """
    options = call.beam_options()

    from refold.pipelines.cli.progress import ingest_bars
    from refold.pipelines.cli.support import output
    from refold.pipelines.ingest.ingest import ingest as ingest_files
    from refold.pipelines.ingest.ingest import read_mapping

    columns = read_mapping(mapping) if mapping else None
    _check_there(files)
    log = call.open_or_create_log(buckets)
    with ingest_bars() as report:
        done = ingest_files(
            log,
            call.domain_ref,
            files,
            mapping=columns,
            format=format,
            strict=strict,
            rejects=rejects,
            options=options,
            report=report,
        )
    if call.json:
        output.print_json(asdict(done))
    else:
        _print(done)


def _check_there(files: tuple[str, ...]) -> None:
    """Find a misspelt name before a log is created for it."""
    from refold.event_schemas import UsageError
    from refold.pipelines.ingest.sources import expand_patterns

    for name in expand_patterns(files):
        if "://" not in name and not Path(name).is_file():
            raise UsageError(f"There is no file {name!r}.")


def _print(done: Ingested) -> None:
    from refold.pipelines.cli.support.output import aside, plural, say

    if done.already:
        say("Nothing to do: these files are in the log already.")
    else:
        how = "as segments, in one commit" if done.mode == "segments" else f"in {plural(done.commits, 'commit')}"
        say(f"Imported {plural(done.events, 'event')} {how}.")
    if done.duplicates:
        say(f"Left out {plural(done.duplicates, 'event')} whose event_id their streams have already.")
    if done.unused_columns:
        aside(f"No event was given anything of these columns: {', '.join(done.unused_columns)}.")
    if done.rejects:
        aside(f"{plural(done.rejected, 'row')} could not be imported: see {done.rejects} for each, with its reason.")
