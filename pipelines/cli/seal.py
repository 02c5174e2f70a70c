"""``refold seal``: turns commits into typed, sorted segments."""

from __future__ import annotations

from dataclasses import asdict

import click

from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)
from refold.pipelines.cli.support.metrics_port import measure_log, metered
from refold.pipelines.cli.support.options import metrics_port_option


@click.command(cls=BeamCommand, example="refold seal\nrefold seal -- --direct_num_workers=4")
@metrics_port_option
@common_options("domain", "log", "runner")
@pass_invocation
def seal(call: Invocation, metrics_port: int | None) -> None:
    """Turn new commits into segments, which read faster.

    Appends may go on meanwhile. A rebuild seals the log first; run this earlier to make the rebuild shorter.
    """
    log, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.progress import count_progress
    from refold.pipelines.cli.support import output
    from refold.pipelines.seal import seal as seal_log

    with metered(metrics_port) as metrics, count_progress("seal", "events", quiet=call.quiet) as report:
        measure_log(metrics, log)
        sealed = seal_log(log, call.domain_ref, options)
        report(sealed.events, None)
        measure_log(metrics, log)
    if call.json:
        output.print_json(asdict(sealed))
    elif sealed.commits:
        output.print_text(
            f"Sealed {output.counted(sealed.events, 'event')} of {output.counted(sealed.commits, 'commit')}; "
            f"the log is sealed up to position {sealed.position:,}, in {output.counted(sealed.segments, 'segment')}."
        )
    else:
        output.print_text(f"Nothing to seal: the log is sealed to its end, position {sealed.position:,}.")
