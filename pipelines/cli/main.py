"""``refold``: the command line. A command is a module beside this one; here is what all of them share."""

from __future__ import annotations

import importlib
from typing import Any

import click

from refold.pipelines.cli.support.error_text import explain
from refold.pipelines.cli.support.exit_codes import STOPPED
from refold.pipelines.cli.support.invocation import Invocation, as_epilog, common_options
from refold.pipelines.cli.support.signals import end_at_once, is_interrupt, report_stopped

COMMANDS = (
    "demo",
    "init",
    "ingest",
    "events",
    "seal",
    "log",
    "archive",
    "erase",
    "schemas",
    "plan",
    "rebuild",
    "stream",
    "refresh",
    "reconcile",
    "status",
    "query",
    "serve",
    "generations",
    "dead-letters",
    "capacity",
)
"""All commands, in the order of work. ``dead-letters`` is ``dead_letters`` of the module of that name, and so on; it is
imported when it runs, or when a help page lists it."""


class Root(click.Group):
    """The command itself: finds its commands, and turns what they raise into a paragraph on stderr and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names of all commands, in the order of work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"refold.pipelines.cli.{name}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt as stop:
            report_stopped()
            raise click.exceptions.Exit(STOPPED) from stop
        except Exception as error:
            if is_interrupt(error):
                report_stopped()
                raise click.exceptions.Exit(STOPPED) from error
            invocation = ctx.ensure_object(Invocation)
            if invocation.debug:
                import traceback

                traceback.print_exc()
            paragraph, exit_code = explain(error, invocation.command)
            click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
            click.echo(paragraph, err=True)
            raise click.exceptions.Exit(exit_code) from error


@click.group(
    name="refold",
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=as_epilog("refold demo\nrefold --domain my_shop.domain:SHOP --log s3://my-shop/log rebuild"),
)
@click.version_option(package_name="refold")
@common_options("domain", "log", "read_models", "runner")
def cli() -> None:
    """Event sourcing at data-pipeline scale: an event log in Parquet, replayed into DuckDB read models.

    Settings come from refold.toml or [tool.refold] in pyproject.toml, then from REFOLD_DOMAIN, REFOLD_LOG,
    REFOLD_READ_MODELS and REFOLD_RUNNER, then from options.
    """


def main() -> None:
    """Run the command line, and exit with its code: see ``refold.event_schemas.errors`` and ``support.exit_codes``."""
    try:
        cli.main(prog_name="refold")
    except SystemExit as exit_:
        if exit_.code != STOPPED:
            raise
        end_at_once()


if __name__ == "__main__":
    main()
