"""What a server is told when it starts; worker processes get it through the environment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

ENVIRONMENT = "REFOLD_SERVE_SETTINGS"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """How to serve.

    Attributes:
        domain: entry-point name or dotted path.
        log: URL of the event log.
        read_models: URL below which read models are published.
        stream: follow the log in this process, and answer from its live database.
        publish_every: seconds between two generations that the stream publishes.
        runner: of the stream; None for the local default.
        beam_arguments: Beam's options for it.
        commands: whether commands are taken.
        query: whether SQL of analysts is taken.
        host: the address that is listened on.
        hosts: further names that requests may ask for, such as a proxy's.
        tokens_file: where tokens are, beside those of the environment; None for none.
        max_wait: how long a request may wait for a position, in seconds.
        rate: requests a token, such as ``"200/second"``; None for the default of the address.
    """

    domain: str
    log: str
    read_models: str
    stream: bool = False
    publish_every: float = 10.0
    runner: str | None = None
    beam_arguments: tuple[str, ...] = ()
    commands: bool = True
    query: bool = False
    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    tokens_file: str | None = None
    max_wait: float = 20.0
    rate: str | None = None

    def dump(self) -> str:
        """Write them for a worker process.

        Example:
            >>> settings = ServeSettings(domain="orders", log="log", read_models="read-models")
            >>> ServeSettings.load({ENVIRONMENT: settings.dump()}) == settings
            True
        """
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def load(environ: Mapping[str, str]) -> ServeSettings:
        """Read what :meth:`dump` wrote."""
        values = json.loads(environ[ENVIRONMENT])
        tuples = {name: tuple(values[name]) for name in ("beam_arguments", "hosts")}
        return ServeSettings(**{**values, **tuples})
