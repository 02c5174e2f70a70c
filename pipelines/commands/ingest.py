"""``refold ingest``: files of events into the log."""

from __future__ import annotations

import click

from pipelines.commands.invocation import BeamCommand, Invocation, common_options, pass_invocation


@click.command(cls=BeamCommand, example="refold ingest history.jsonl")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@common_options("domain", "log", "runner")
@pass_invocation
def ingest(call: Invocation, files: tuple[str, ...]) -> None:
    """Bring events of files into the log."""
    raise NotImplementedError
