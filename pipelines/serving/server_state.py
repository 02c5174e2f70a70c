"""The state of a running server process: the log, a reader, the query batcher and the command handler."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from refold.event_schemas import GenerationError
from refold.pipelines.metrics import Metrics
from refold.pipelines.serving.log_tail import LogTail, PeriodicTask
from refold.pipelines.serving.reads.position_wait import PositionWait
from refold.pipelines.serving.reads.query_batcher import QueryBatcher
from refold.pipelines.serving.settings import ServeSettings
from refold.warehouse.commands.handler import CommandHandler
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.queries.live_reader import LiveReader
from refold.warehouse.queries.reader import Reader
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations

if TYPE_CHECKING:
    from refold.pipelines.serving.stream_thread import StreamThread

_REFRESH_LOCAL, _REFRESH_REMOTE = 0.1, 1.0
"""Seconds between two looks for a newer generation or commit: files are cheap to check, each look at objects costs."""

_FIRST_RUN = 5.0
"""Seconds: a generation that takes longer to open must not keep `/healthz` from answering."""

_CONCURRENT_COMMANDS = 32
"""Further commands wait for a thread. A thread spends most of its time waiting for the log's store."""


class ServerState:
    """The state of one server process; create it in the event loop of the server.

    Args:
        settings: of the server.
        domain: contracts, read models, endpoints and deciders.
        metrics: of the process.

    Attributes:
        source: the reader that answers.
        batcher: queries the reader for requests.
        position_wait: requests that wait for a position.
        tail: the end of the log.
        handler: handles commands; None if the server takes none.
        command_threads: the threads that handle commands.
        stream_thread: the stream in this process; None for a replica.
    """

    def __init__(self, settings: ServeSettings, domain: Domain, metrics: Metrics) -> None:
        self.settings = settings
        self.domain = domain
        self.metrics = metrics
        self.log: EventLog = open_log(settings.log, domain_name=domain.name, keys_url=settings.keys)
        self.generations: Generations = open_generations(settings.read_models, domain.name)
        self.stream_thread: StreamThread | None = None
        self.source: Reader | LiveReader = LiveReader() if settings.stream else Reader(self.generations, domain)
        self.batcher = QueryBatcher(self.source)
        self.position_wait = PositionWait(self.source)
        self.tail = LogTail(self.log, self.source)
        self.handler = CommandHandler(self.log, domain) if settings.commands and domain.deciders else None
        self.command_threads = ThreadPoolExecutor(_CONCURRENT_COMMANDS, thread_name_prefix="command")
        self._tasks = [_periodic(self.log.store.is_local, self.tail.refresh, "log tail")]

    def start(self) -> None:
        """Start to follow the log, or the published generations.

        A process that shares its port gets requests from now on, so it opens what is published first, if that is fast.
        """
        if isinstance(self.source, LiveReader):
            from refold.pipelines.serving.stream_thread import StreamThread  # imports Beam

            self.source.updated = self.position_wait.notify
            self.stream_thread = StreamThread(self.settings, self.log, self.source, on_failure=_stop_process)
            self.stream_thread.start()
        else:
            self._tasks.append(_periodic(self.generations.store.is_local, self._adopt, "generation check"))
        for task in self._tasks:
            task.start()
        for task in self._tasks:
            task.wait_for_first_run(_FIRST_RUN)

    async def stop(self) -> None:
        """Stop in order: commands end first, so that a stream publishes their events too."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        for task in self._tasks:
            task.stop()
        self.command_threads.shutdown(wait=True)
        if self.stream_thread is not None:
            self.stream_thread.stop()
        self.batcher.close()
        self.source.close()

    def _adopt(self) -> None:
        assert isinstance(self.source, Reader)
        if self.source.adopt():
            self.position_wait.notify()

    def newest_file(self) -> tuple[Path, Generation]:
        """Return the newest generation and its file, for ``POST /query``."""
        newest = self.generations.newest()
        if newest is None:
            raise GenerationError(
                f"Nothing is published at {self.generations.store.url} yet. Run `refold "
                "rebuild` or `refold stream` first."
            )
        return self.generations.path(newest), newest


def _periodic(is_local: bool, action: Callable[[], object], name: str) -> PeriodicTask:
    return PeriodicTask(_REFRESH_LOCAL if is_local else _REFRESH_REMOTE, action, name=name)


def _stop_process() -> None:
    """Stop the process in order: without its stream it can serve nothing."""
    if threading.current_thread() is not threading.main_thread():
        os.kill(os.getpid(), signal.SIGTERM)
