"""What a server is made of while it runs: the log, a reader, what asks and waits, and the command handler."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from refold.event_schemas import GenerationError
from refold.pipelines.serving.log_tail import LogWatch, Repeating
from refold.pipelines.serving.reads.position_wait import Waiting
from refold.pipelines.serving.reads.query_batcher import QueryBatcher
from refold.pipelines.serving.serve_metrics import Measured
from refold.pipelines.serving.settings import ServeSettings
from refold.warehouse.commands.handler import CommandHandler
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log.log import EventLog, open_log
from refold.warehouse.queries.readers import LiveReader, Reader
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations

if TYPE_CHECKING:
    from refold.pipelines.serving.stream_thread import Following

_LOOK_LOCAL, _LOOK_REMOTE = 0.1, 1.0
_COMMANDS_AT_ONCE = 32


class Serving:
    """One server process; made in its event loop.

    Args:
        settings: how to serve.
        domain: contracts, read models and endpoints.

    Attributes:
        measured: what is told to whoever scrapes metrics.
        source: the reader that answers.
        asker: asks it on behalf of requests.
        waiting: requests that wait for a position.
        watch: where the log ends.
        handler: handles commands; None if none are taken.
        commanding: the threads that commands are handled in.
        following: the stream in this process; None for a replica.
    """

    def __init__(self, settings: ServeSettings, domain: Domain) -> None:
        self.settings = settings
        self.domain = domain
        self.log: EventLog = open_log(settings.log, domain_name=domain.name)
        self.generations: Generations = open_generations(settings.read_models, domain.name)
        self.measured = Measured()
        self.following: Following | None = None
        self.source: Reader | LiveReader = LiveReader() if settings.stream else Reader(self.generations, domain)
        self.asker = QueryBatcher(self.source)
        self.waiting = Waiting(self.source)
        self.watch = LogWatch(self.log, self.source)
        self.handler = CommandHandler(self.log, domain) if settings.commands and domain.deciders else None
        self.commanding = ThreadPoolExecutor(_COMMANDS_AT_ONCE, thread_name_prefix="command")
        self._repeating = [self._repeat(self.log.store.is_local, self.watch.look, "log watch")]

    def start(self) -> None:
        """Begin to follow what is published, or the log itself."""
        if isinstance(self.source, LiveReader):
            from refold.pipelines.serving.stream_thread import Following

            self.source.updated = self.waiting.moved
            self.following = Following(self.settings, self.log, self.source, on_failure=_stop_process)
            self.following.start()
        else:
            adopt = self._repeat(self.generations.store.is_local, self._adopt, "adopting generations")
            self._repeating.append(adopt)
        for repeating in self._repeating:
            repeating.start()

    async def stop(self) -> None:
        """End in order: a stream publishes what it has, and so what the last commands did."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        for repeating in self._repeating:
            repeating.stop()
        self.commanding.shutdown(wait=True)
        if self.following is not None:
            self.following.stop()
        self.asker.close()
        self.source.close()

    def _adopt(self) -> None:
        assert isinstance(self.source, Reader)
        if self.source.adopt():
            self.waiting.moved()

    def newest_file(self) -> tuple[Path, Generation]:
        """Give the newest generation and its file, for SQL of analysts."""
        newest = self.generations.newest()
        if newest is None:
            raise GenerationError("Nothing is published yet.")
        return self.generations.path(newest), newest

    def _repeat(self, local: bool, action: object, name: str) -> Repeating:
        assert callable(action)
        return Repeating(_LOOK_LOCAL if local else _LOOK_REMOTE, action, name=name)


def _stop_process() -> None:
    """Let the process end in order, since it can no longer do what it is there for."""
    if threading.current_thread() is not threading.main_thread():
        os.kill(os.getpid(), signal.SIGTERM)
