"""``refold init``: make a new project."""

from __future__ import annotations

from pathlib import Path

import click

from refold.pipelines.cli.support.invocation import Command, Invocation, common_options, pass_invocation

_NEXT = """\
Made {name}. Try next, in an environment with refold and pytest:
  cd {name}
  make demo    # import the sample events, rebuild the read models, query them
  make test    # test the decider and the read models"""


@click.command(cls=Command, example="refold init help-desk")
@click.argument("name")
@common_options()
@pass_invocation
def init(call: Invocation, name: str) -> None:
    """Make a project of your own.

    The new folder NAME works at once. It has a domain (two event types, an upcaster, a decider, a read model and a
    view), tests, sample events, and a workflow for CI.
    """
    from refold.pipelines.cli.support import output
    from refold.pipelines.init.project import make_project

    folder = make_project(name, Path.cwd())
    if call.json:
        output.print_json({"folder": str(folder)})
    else:
        output.print_text(_NEXT.format(name=name))
