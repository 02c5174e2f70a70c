"""What all commands share: common options, settings, and the log, domain and generations that these name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from refold.pipelines.cli.config import SETTINGS, option_of, variable_of

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from refold.pipelines.cli.config import Settings
    from refold.pipelines.cli.support.domains import StoredName
    from refold.warehouse.declarations.domain import Domain
    from refold.warehouse.event_log.log import EventLog
    from refold.warehouse.read_models.generations.generations import Generations

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS = {
    "json": "Print one JSON document.",
    "quiet": "Print no progress; without a terminal that is a line every 30 s.",
    "debug": "Show the traceback of an error, and Beam's warnings.",
}


@dataclass
class Invocation:
    """One run of the command line; click makes it before it reads the first option.

    Attributes:
        options: setting to what the command line says.
        command: the command, as in ``refold events tail``.
        takes: the settings that the command has options for.
        json: whether to print one JSON document.
        quiet: whether to show no progress.
        debug: whether to show tracebacks and Beam's warnings.
        beam_arguments: what follows ``--``.
    """

    options: dict[str, str | None] = field(default_factory=dict)
    command: str = "refold"
    takes: set[str] = field(default_factory=set)
    json: bool = False
    quiet: bool = False
    debug: bool = False
    beam_arguments: tuple[str, ...] = ()

    @cached_property
    def settings(self) -> Settings:
        """What the command works on; modules of its folder are importable from now on."""
        from refold.pipelines.cli.config import load_settings

        settings = load_settings(self.options, os.environ, Path.cwd())
        _make_importable(Path.cwd(), settings.folder)
        return settings

    @cached_property
    def domain_ref(self) -> str:
        """The domain, as a pipeline's workers load it: an installed name, or a dotted path."""
        from refold.pipelines.cli.support.domains import find_domain, is_named

        return find_domain(self.settings, None if is_named(self.settings) else self._stored_name)

    @cached_property
    def domain(self) -> Domain:
        """The domain."""
        from refold.warehouse.declarations.domain import load_domain

        return load_domain(self.domain_ref)

    @cached_property
    def _stored_name(self) -> StoredName | None:
        from refold.pipelines.cli.support.domains import stored_name

        return stored_name(self.settings, log_first="log" in self.takes or "read_models" not in self.takes)

    def _named(self) -> str | None:
        """Return the name that a log must carry; None if the log decides."""
        from refold.pipelines.cli.support.domains import is_named

        return self.domain.name if is_named(self.settings) else None

    def open_log(self) -> EventLog:
        """Open the event log, which must be the domain's if one is named."""
        from refold.warehouse.event_log.opening import open_log

        return open_log(self.settings.log, domain_name=self._named(), keys_url=self.settings.keys)

    def open_or_create_log(self, bucket_count: int | None) -> EventLog:
        """Open the event log, or create it for the domain that is named.

        Args:
            bucket_count: of a new log; one that is there must have as many.

        Raises:
            UsageError: there is no log, and no domain is named for a new one.
        """
        from refold.pipelines.cli.support.domains import no_domain
        from refold.warehouse.declarations.domain import load_domain
        from refold.warehouse.event_log.layout import CONFIG_KEY, DEFAULT_BUCKET_COUNT
        from refold.warehouse.event_log.opening import create_log, open_log
        from refold.warehouse.object_store import open_store

        url, named, keys = self.settings.log, self.settings.domain, self.settings.keys
        if open_store(url).exists(CONFIG_KEY):
            return open_log(url, domain_name=self._named(), bucket_count=bucket_count, keys_url=keys)
        if named is None:
            raise no_domain(f"There is no event log at {url} yet, and no domain is named for a new one")
        name = load_domain(named).name
        return create_log(url, domain_name=name, bucket_count=bucket_count or DEFAULT_BUCKET_COUNT, keys_url=keys)

    def open_generations(self) -> Generations:
        """Open the domain's published read models; the domain's code is loaded only if the domain is named."""
        from refold.warehouse.read_models.generations.generations import open_generations

        name = self._named() or (self._stored_name.name if self._stored_name else self.domain.name)
        return open_generations(self.settings.read_models, name)

    def beam_options(self) -> PipelineOptions:
        """Make Beam's options of the runner and of what follows ``--``.

        Raises:
            UsageError: Beam has no such runner or option.
        """
        from refold.pipelines.cli.support.quiet_beam import quiet_beam

        quiet_beam(debug=self.debug)
        from refold.pipelines.beam.parsed_options import parse_options  # imports Beam

        return parse_options(self.settings.runner, self.beam_arguments)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def common_options(*settings: str) -> Callable[[F], F]:
    """Add the options of some settings, and the flags of every command; they work before and after its name.

    A command that opens the log takes the place of its keys, too.
    """
    named = [n for s in settings for n in (("log", "keys") if s == "log" else (s,))]

    def decorate(function: F) -> F:
        for name, text in reversed(_FLAGS.items()):
            option = click.option(f"--{name}", is_flag=True, help=text, expose_value=False, callback=_keep_flag)
            function = option(function)
        for name in reversed(named):
            setting = SETTINGS[name]
            function = click.option(
                option_of(name),
                metavar=setting.metavar,
                help=f"{setting.help} [{variable_of(name)}]",
                expose_value=False,
                callback=_keep,
            )(function)
        return function

    return decorate


def _keep(context: click.Context, option: click.Parameter, value: str | None) -> None:
    invocation, name = context.ensure_object(Invocation), str(option.name)
    if not isinstance(context.command, click.Group):
        invocation.takes.add(name)
        invocation.command = context.command_path
    if value is not None:
        invocation.options[name] = value


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
        """Take off Beam's options, so that click sees only the others."""
        if "--" in args:
            at = args.index("--")
            ctx.ensure_object(Invocation).beam_arguments = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Name Beam's options in the usage line."""
        return [*super().collect_usage_pieces(ctx), "[-- BEAM_OPTIONS]"]


def as_epilog(example: str) -> str:
    """Format an example for the end of a help page."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines())


def _make_importable(*folders: Path) -> None:
    """Make modules of some folders importable here and in worker processes, after all that is installed."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.append(folder)
        if folder not in inherited:
            inherited.append(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, inherited))
