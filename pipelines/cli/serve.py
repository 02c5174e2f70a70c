"""``refold serve``: commands and read models over HTTP."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from refold.pipelines.cli.support.durations import DURATION
from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)
from refold.pipelines.cli.support.options import max_outage_option, publish_every_option
from refold.pipelines.serving.settings import ServeSettings

_EXAMPLE = """\
refold serve
refold serve --stream --port 8080
refold serve --workers 4 --host 0.0.0.0"""


# The options carry the names of the settings, and take their defaults from there.
@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.option("--host", default=ServeSettings.host, show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The port; 0 takes any free port."
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="The number of processes.")
@click.option(
    "--stream",
    is_flag=True,
    default=ServeSettings.stream,
    help="Follow the log in this process, as `refold stream` does, and answer from its live database.",
)
@publish_every_option
@max_outage_option
@click.option(
    "--no-commands",
    "commands",
    is_flag=True,
    flag_value=False,
    default=ServeSettings.commands,
    help="Take no commands: serve read models only.",
)
@click.option(
    "--query",
    is_flag=True,
    default=ServeSettings.query,
    help="Take SQL of analysts at POST /query: read-only, each query in its own process.",
)
@click.option(
    "--tokens",
    "tokens_file",
    type=click.Path(exists=True, dir_okay=False),
    default=ServeSettings.tokens_file,
    metavar="FILE",
    help="Bearer tokens, in addition to those of REFOLD_TOKENS; a server without tokens listens on loopback only.",
)
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A further host that requests may name.")
@click.option(
    "--max-wait",
    type=DURATION,
    default=ServeSettings.max_wait,
    metavar="DURATION",
    help="How long a request may wait for a position; 20s by default.",
)
@click.option(
    "--rate",
    default=ServeSettings.rate,
    metavar="RATE",
    help="Requests of each token, as 200/second; no limit on loopback by default.",
)
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def serve(call: Invocation, /, port: int, workers: int, **options: Any) -> None:
    """Serve commands and read models over HTTP.

    Every response reports its position and lag. By default, responses come from the newest published generation, and
    the server adopts a newer one without dropping a request: any number of processes and machines can serve. With
    --stream, responses come from the live database of this process, a fraction of a second behind the log. Ctrl-C and
    SIGTERM stop the server gracefully.
    """
    if options["stream"] and workers > 1:
        raise click.UsageError("--stream takes one process. Start further servers without it, as replicas.")
    call.open_log()  # reports an error in the log at once
    try:
        from refold.pipelines.serving.server import bind, run
    except ModuleNotFoundError as error:
        from refold.event_schemas import UsageError
        from refold.pipelines.cli.support.extras import install_command

        raise UsageError(
            f"`refold serve` needs the package {error.name}, which is not installed. Run {install_command('serve')}"
        ) from error
    from refold.pipelines.cli.support import output

    if options["stream"]:
        call.beam_options()  # reports an error in the options at once
    settings = ServeSettings(
        domain=call.domain_ref,
        log=call.settings.log,
        keys=call.settings.keys,
        read_models=call.settings.read_models,
        runner=call.settings.runner,
        beam_arguments=tuple(call.beam_arguments),
        **options,
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    with bind(settings.host, port) as listening:
        address = f"http://{host}:{listening.getsockname()[1]}"
        begin = partial(output.print_note, f"Serving {call.domain.name} at {address}")
        run(settings, listening, workers=workers, begin=begin)
