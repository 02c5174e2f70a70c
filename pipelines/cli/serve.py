"""``refold serve``: commands and read models over HTTP."""

from __future__ import annotations

from functools import partial

import click

from refold.pipelines.cli.support.durations import DURATION
from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)

_EXAMPLE = """\
refold serve
refold serve --stream --port 8080
refold serve --workers 4 --host 0.0.0.0"""


@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The port; 0 takes any that is free."
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="How many processes.")
@click.option(
    "--stream",
    is_flag=True,
    help="Follow the log in this process, as `refold stream`, and answer from its live database.",
)
@click.option(
    "--publish-every",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="With --stream: how often a generation is published, if anything changed.",
)
@click.option("--no-commands", is_flag=True, help="Take no commands: serve read models only.")
@click.option("--query", is_flag=True, help="Take SQL of analysts at POST /query: read-only, in a process of its own.")
@click.option(
    "--tokens",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Bearer tokens, beside those of REFOLD_TOKENS; without any, only this machine is served.",
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="A further host that requests may name.")
@click.option(
    "--max-wait",
    type=DURATION,
    default=20.0,
    metavar="DURATION",
    help="How long a request may wait for a position; 20s by default.",
)
@click.option("--rate", metavar="RATE", help="Requests a token: 200/second; unbounded on loopback by default.")
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def serve(
    call: Invocation,
    host: str,
    port: int,
    workers: int,
    stream: bool,
    publish_every: float,
    no_commands: bool,
    query: bool,
    tokens: str | None,
    allow_host: tuple[str, ...],
    max_wait: float,
    rate: str | None,
) -> None:
    """Serve commands and read models over HTTP, each answer with its position and lag.

    Answers come from the newest published generation, and a newer one is adopted without a dropped request: any number
    of processes and machines can serve. With --stream they come from the live database of this process, a fraction of a
    second behind the log. Ctrl-C and SIGTERM end it in order.
    """
    if stream and workers > 1:
        raise click.UsageError("--stream is for one process; start others without it, as replicas.")
    call.open_log()  # says at once what is wrong with it
    try:
        from refold.pipelines.serving.server import bind, run
        from refold.pipelines.serving.settings import ServeSettings
    except ModuleNotFoundError as error:
        from refold.event_schemas import UsageError

        raise UsageError(
            f"Serving needs the package {error.name}, which is not installed: `pip install 'refold[serve]'`."
        ) from error
    from refold.pipelines.cli.support import output

    if stream:
        call.beam_options()  # says at once what is wrong with them
    settings = ServeSettings(
        domain=call.domain_ref,
        log=call.settings.log,
        read_models=call.settings.read_models,
        stream=stream,
        publish_every=publish_every,
        runner=call.settings.runner,
        beam_arguments=call.beam_arguments,
        commands=not no_commands,
        query=query,
        host=host,
        hosts=allow_host,
        tokens_file=tokens,
        max_wait=max_wait,
        rate=rate,
    )
    with bind(host, port) as listening:
        place = f"{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        begin = partial(output.aside, f"Serving {call.domain.name} at http://{place}")
        run(settings, listening, workers=workers, begin=begin)
