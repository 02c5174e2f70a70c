"""``refold seal``: commits become typed, sorted segments."""

from __future__ import annotations

from dataclasses import asdict

import click

from pipelines.commands.invocation import BeamCommand, Invocation, common_options, pass_invocation


@click.command(cls=BeamCommand, example="refold seal\nrefold seal -- --direct_num_workers=4")
@common_options("domain", "log", "runner")
@pass_invocation
def seal(call: Invocation) -> None:
    """Turn the log's new commits into segments, which a rebuild reads many times faster.

    Appends go on meanwhile. A rebuild seals the log by itself; this is for doing it at another time.
    """
    log, options = call.open_log(), call.beam_options()

    from pipelines.commands import output
    from pipelines.progress import bar
    from pipelines.seal import seal as seal_log

    with bar("seal", "events") as report:
        sealed = seal_log(log, call.settings.domain, options)
        report(sealed.events, None)
    if call.json:
        output.print_json(asdict(sealed))
    elif sealed.commits:
        output.say(
            f"Sealed {output.plural(sealed.events, 'event')} of {output.plural(sealed.commits, 'commit')}; "
            f"{output.plural(sealed.segments, 'segment')} now hold the log up to position {sealed.position:,}."
        )
    else:
        output.say(f"Nothing to seal: the log is sealed up to its end, position {sealed.position:,}.")
