"""``refold generations``: the published versions of the read models."""

from __future__ import annotations

import click

from pipelines.commands.invocation import Command, Invocation, as_epilog, common_options, pass_invocation


@click.group(epilog=as_epilog("refold generations list"))
def generations() -> None:
    """Look at published versions of the read models."""


@generations.command(name="list", cls=Command, example="refold generations list --json")
@common_options("domain", "read_models")
@pass_invocation
def list_generations(call: Invocation) -> None:
    """List the generations that are kept, the newest last."""
    from pipelines.commands import output

    found = call.open_generations().all()
    if call.json:
        documents = [
            {
                "number": g.number,
                "position": g.position,
                "published_at": g.published_at,
                "bytes": g.bytes,
                "tables": {name: table.rows for name, table in sorted(g.tables.items())},
            }
            for g in found
        ]
        output.print_json({"generations": documents})
        return
    if not found:
        output.say("Nothing is published yet; `refold rebuild` builds and publishes the read models.")
        return
    rows = [
        (
            g.number,
            g.position,
            output.moment(g.published_at),
            output.size(g.bytes),
            ", ".join(f"{name} {table.rows:,}" for name, table in sorted(g.tables.items())),
        )
        for g in found
    ]
    output.print_table(("generation", "position", "published at", "size", "rows"), rows, wrap_last=True)
