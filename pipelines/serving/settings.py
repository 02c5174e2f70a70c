"""The settings of a server; a worker process receives them through its environment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

ENVIRONMENT = "REFOLD_SERVE_SETTINGS"


@dataclass(frozen=True, kw_only=True)  # without slots, so that a default can be read from the class
class ServeSettings:
    """The settings of ``refold serve``; the command's options take their defaults from here.

    Attributes:
        domain: entry-point name or dotted path.
        log: URL of the event log.
        read_models: URL of the published read models.
        keys: URL of the key store of personal data; None for the default, beside the log.
        runner: of the stream; None for the local runner.
        beam_arguments: Beam options of the stream.
        stream: follow the log in this process, and answer from its live database.
        publish_every: seconds between two generations that the stream publishes.
        max_outage: seconds for which a store may be unavailable before the stream ends, and with it the server.
        commands: take commands.
        query: take SQL queries at ``POST /query``.
        host: the address to listen on.
        hosts: further hosts that a request may name, such as a proxy's.
        tokens_file: a file of tokens, in addition to those of the environment; None for no file.
        max_wait: how long a request may wait for a position, in seconds.
        rate: requests of each token, such as ``"200/second"``; None for no limit on loopback, else 200 a second.
    """

    domain: str
    log: str
    read_models: str
    keys: str | None = None
    runner: str | None = None
    beam_arguments: tuple[str, ...] = ()
    stream: bool = False
    publish_every: float = 10.0
    max_outage: float = 600.0
    commands: bool = True
    query: bool = False
    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    tokens_file: str | None = None
    max_wait: float = 20.0
    rate: str | None = None

    def dump(self) -> str:
        """Return the settings as text for a worker process.

        Example:
            >>> settings = ServeSettings(domain="orders", log="log", read_models="read-models")
            >>> ServeSettings.load({ENVIRONMENT: settings.dump()}) == settings
            True
        """
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def load(environ: Mapping[str, str]) -> ServeSettings:
        """Read the settings that :meth:`dump` wrote."""
        values = json.loads(environ[ENVIRONMENT])
        tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return ServeSettings(**{**values, **tuples})
