"""The stream of ``refold serve --stream``, in a thread of the server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from refold.pipelines.beam.parsed_options import parse_options
from refold.pipelines.serving.settings import ServeSettings
from refold.pipelines.stream.stream import ProgressReport, stream
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.queries.live_reader import LiveReader
from refold.warehouse.queries.reader import lookup_indexes

_log = logging.getLogger("refold.serve")


class StreamThread:
    """A stream in a thread of the server.

    Args:
        settings: of the server.
        log: the log.
        reader: receives each live database, and a notice of each change.
        on_failure: called in the stream's thread if the stream fails.

    Attributes:
        error: why the stream failed; None while it has not.
        outage: why the stream waits for a store; empty if it does not.
    """

    def __init__(
        self, settings: ServeSettings, log: EventLog, reader: LiveReader, *, on_failure: Callable[[], None]
    ) -> None:
        self.error: BaseException | None = None
        self.outage = ""
        self._settings = settings
        self._log = log
        self._reader = reader
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream")

    def start(self) -> None:
        """Start the stream."""
        self._thread.start()

    def stop(self) -> None:
        """Publish what the stream applied, and stop."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            stream(
                self._log,
                self._settings.domain,
                self._settings.read_models,
                parse_options(self._settings.runner, self._settings.beam_arguments),
                publish_every=self._settings.publish_every,
                max_outage=self._settings.max_outage,
                stop=self._stopping.is_set,
                report=self._report,
                on_open=self._reader.adopt,
                indexes=lookup_indexes(load_domain(self._settings.domain)),
            )
        except BaseException as error:
            self.error = error
            _log.error("The stream failed, so the server stops: %s", error)
            self._on_failure()

    def _report(self, progress: ProgressReport) -> None:
        if progress.what == "outage":
            self.outage = "" if self.outage else progress.text
            _log.warning(progress.text)
            return
        if progress.what == "micro_batch":
            self._reader.moved()
        elif progress.text:
            _log.info(progress.text)
