"""What every command shares: its options, its settings, and what they name, opened on demand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from refold.pipelines.cli.config import Settings
    from refold.warehouse.declarations.domain import Domain
    from refold.warehouse.event_log.log import EventLog
    from refold.warehouse.read_models.generations.generations import Generations

F = TypeVar("F", bound=Callable[..., Any])

_TEXTS = {
    "domain": ("NAME", "Entry-point name of a domain, or a dotted path such as my_shop.domain:SHOP."),
    "log": ("URL", "Where the event log is."),
    "read_models": ("URL", "Where read models are published."),
    "runner": ("NAME", "A Beam runner; a fast local one by default."),
}
_FLAGS = {
    "json": "Answer with one JSON document.",
    "debug": "Show the traceback of an error, and what Beam logs.",
}


@dataclass
class Invocation:
    """One run of the command line; made by click before the first option is read.

    Attributes:
        flags: setting to what the command line says.
        json: whether to answer with one JSON document.
        debug: whether to show tracebacks and Beam's log.
        beam_arguments: whatever followed ``--``.
    """

    flags: dict[str, str | None] = field(default_factory=dict)
    json: bool = False
    debug: bool = False
    beam_arguments: tuple[str, ...] = ()

    @cached_property
    def settings(self) -> Settings:
        """What the commands work on; its domain can be imported from now on."""
        from refold.pipelines.cli.config import load_settings

        settings = load_settings(self.flags, os.environ, Path.cwd())
        _make_importable(Path.cwd(), settings.folder)
        return settings

    @cached_property
    def domain(self) -> Domain:
        """The domain."""
        from refold.warehouse.declarations.domain import load_domain

        return load_domain(self.settings.domain)

    def open_log(self) -> EventLog:
        """Open the event log, which must be the domain's."""
        from refold.warehouse.event_log.log import open_log

        return open_log(self.settings.log, domain_name=self.domain.name)

    def open_or_create_log(self, bucket_count: int | None) -> EventLog:
        """Open the event log, or create it.

        Args:
            bucket_count: of a new log; one that is there must have as many.
        """
        from refold.warehouse.event_log.layout import CONFIG_KEY, DEFAULT_BUCKET_COUNT
        from refold.warehouse.event_log.log import create_log, open_log
        from refold.warehouse.object_store import open_store

        url, name = self.settings.log, self.domain.name
        if open_store(url).exists(CONFIG_KEY):
            return open_log(url, domain_name=name, bucket_count=bucket_count)
        return create_log(url, domain_name=name, bucket_count=bucket_count or DEFAULT_BUCKET_COUNT)

    def open_generations(self) -> Generations:
        """Open the domain's published read models."""
        from refold.warehouse.read_models.generations.generations import open_generations

        return open_generations(self.settings.read_models, self.domain.name)

    def beam_options(self) -> PipelineOptions:
        """Make Beam's options of the runner and of what followed ``--``.

        Raises:
            UsageError: Beam knows no such runner or option.
        """
        from refold.pipelines.cli.support.quiet_beam import quiet_beam

        quiet_beam(debug=self.debug)
        from refold.pipelines.beam.parsed_options import parse_options  # imports Beam

        return parse_options(self.settings.runner, self.beam_arguments)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def common_options(*settings: str) -> Callable[[F], F]:
    """Add options for some settings, and ``--json`` and ``--debug``; they work before and after the command's name."""

    def decorate(function: F) -> F:
        for name, text in reversed(_FLAGS.items()):
            option = click.option(f"--{name}", is_flag=True, help=text, expose_value=False, callback=_keep_flag)
            function = option(function)
        for name in reversed(settings):
            metavar, text = _TEXTS[name]
            flag = f"--{name.replace('_', '-')}"
            function = click.option(flag, metavar=metavar, help=text, expose_value=False, callback=_keep)(function)
        return function

    return decorate


def _keep(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None and option.name:
        context.ensure_object(Invocation).flags[option.name] = value


def _keep_flag(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value and option.name:
        setattr(context.ensure_object(Invocation), option.name, True)


class Command(click.Command):
    """A command with an example in its help.

    Args:
        example: a command line, shown below the options.
    """

    def __init__(self, name: str | None = None, *, example: str, **kwargs: Any) -> None:
        super().__init__(name, epilog=as_epilog(example), **kwargs)


class BeamCommand(Command):
    """A command that runs a pipeline: what follows ``--`` is for Beam."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take Beam's options off before click sees the others."""
        if "--" in args:
            at = args.index("--")
            ctx.ensure_object(Invocation).beam_arguments = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Tell of Beam's options in the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- BEAM_OPTIONS]"]


def as_epilog(example: str) -> str:
    """Write an example for the end of a help page."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines())


def _make_importable(*folders: Path) -> None:
    """Let modules of some folders be imported, here and by worker processes, behind all that is installed."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.append(folder)
        if folder not in inherited:
            inherited.append(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, inherited))
