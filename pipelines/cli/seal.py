"""``refold seal``: commits become typed, sorted segments."""

from __future__ import annotations

from dataclasses import asdict

import click

from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)
from refold.pipelines.cli.support.metered import metered, metrics_option, tell_log


@click.command(cls=BeamCommand, example="refold seal\nrefold seal -- --direct_num_workers=4")
@metrics_option
@common_options("domain", "log", "runner")
@pass_invocation
def seal(call: Invocation, metrics_port: int | None) -> None:
    """Turn the log's new commits into segments, which a rebuild reads many times faster.

    Appends go on meanwhile. A rebuild seals the log by itself; this is for doing it at another time.
    """
    log, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.progress import bar
    from refold.pipelines.cli.support import output
    from refold.pipelines.seal import seal as seal_log

    with metered(metrics_port) as metrics, bar("seal", "events") as report:
        tell_log(metrics, log)
        sealed = seal_log(log, call.domain_ref, options)
        report(sealed.events, None)
        tell_log(metrics, log)
    if call.json:
        output.print_json(asdict(sealed))
    elif sealed.commits:
        output.say(
            f"Sealed {output.plural(sealed.events, 'event')} of {output.plural(sealed.commits, 'commit')}; "
            f"{output.plural(sealed.segments, 'segment')} now hold the log up to position {sealed.position:,}."
        )
    else:
        output.say(f"Nothing to seal: the log is sealed up to its end, position {sealed.position:,}.")
