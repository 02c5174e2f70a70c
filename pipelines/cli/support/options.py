"""Options that several commands have."""

from __future__ import annotations

import click

publish_every_option = click.option(
    "--publish-every",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="The stream's interval between generations; one is published only if something changed.",
)

max_outage_option = click.option(
    "--max-outage",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="For how long the store may be unavailable before the stream ends with an error. Meanwhile it tries again.",
)

dead_letter_option = click.option(
    "--dead-letter",
    is_flag=True,
    help="Instead of stopping, move events that cannot be applied to the table refold.dead_letters.",
)

examples_option = click.option(
    "--examples",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="How many differing keys to show of each table.",
)

metrics_port_option = click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve Prometheus metrics at 127.0.0.1:PORT while this runs; 0 takes a free port.",
)
