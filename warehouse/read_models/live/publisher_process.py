"""Publishing beside a writer: a process of its own copies the writer's database and publishes the copy.

A copy made in the writer's process would drop the writer's lock on its file, and counting and checksumming every table
would hold up the stream. So the writer makes a checkpoint, lets none follow until the file is copied, and goes on; the
other process does the rest. If it dies, or the writer does, nothing is published: publishing is one atomic step.

The two talk in lines of JSON: a request on standard input, answers on standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refold.event_schemas import GenerationError, RefoldError
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log.log import open_log
from refold.warehouse.read_models.database import open_database
from refold.warehouse.read_models.generations.build import publish, scratch_folder
from refold.warehouse.read_models.generations.generations import Generation, open_generations
from refold.warehouse.read_models.live.indexes import without_indexes

_THREADS = 1
_MEMORY = "1GB"


@dataclass(frozen=True, slots=True)
class Published:
    """How a publish ended.

    Attributes:
        number: of the new generation; None if another publisher was first.
        seconds: from the request to the end.
    """

    number: int | None
    seconds: float


class PublishingProcess:
    """The writer's side: asks for one publish at a time, and looks now and then how it is getting on.

    Attributes:
        busy: whether a publish is under way.
        copying: whether the writer's file must not change yet.

    Args:
        log_url: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
    """

    def __init__(self, log_url: str, domain_ref: str, read_models_url: str) -> None:
        self._arguments = (log_url, domain_ref, read_models_url)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._started = 0.0
        self.busy = self.copying = False

    def start(self) -> None:
        """Start the other process, so that it is ready when the first publish is asked for."""
        command = [sys.executable, "-m", "refold.warehouse.read_models.live.publisher_process", *self._arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, args=(self._process,), name="publisher", daemon=True)
        self._reader.start()

    def ask(self, database: Path, parent: Generation) -> None:
        """Ask for a copy of a database to be published; it must not change until it is copied.

        Args:
            database: the writer's file, just after a checkpoint.
            parent: the generation that the copy is to follow.
        """
        if self._process is None:
            self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._started, self.busy, self.copying = time.monotonic(), True, True
        request = {"database": str(database), "parent": parent.number}
        with contextlib.suppress(BrokenPipeError):  # its reader tells that it died
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def poll(self) -> Published | None:
        """Tell how the publish ended, or None while it goes on.

        Raises:
            GenerationError: the other process failed.
        """
        return self._ended(block=False)

    def wait(self) -> Published:
        """Wait for the publish to end.

        Raises:
            GenerationError: the other process failed.
        """
        ended = self._ended(block=True)
        assert ended is not None
        return ended

    def close(self) -> None:
        """End the other process, after what it is at."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._reader.join()
        self._process = None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._answers.put(json.loads(line))
        self._answers.put({"error": f"the publishing process ended with code {process.wait()}", "ended": True})

    def _ended(self, *, block: bool) -> Published | None:
        while True:
            try:
                answer = self._answers.get(block=block)
            except queue.Empty:
                return None
            self.copying = False
            if "copied" not in answer:
                break
        self.busy = False
        if "error" in answer:
            if answer.get("ended"):
                self.close()
            raise GenerationError(
                f"Publishing failed: {answer['error']} The stream's own tables are unharmed; it will publish again."
            )
        return Published(answer["generation"], time.monotonic() - self._started)


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the writer decides when to end, and then closes the pipe
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log_url, domain_ref, read_models_url = sys.argv[1:]
    os.nice(5)  # freshness comes before the next publish
    for request in _requests():
        try:
            number = _publish(log_url, domain_ref, read_models_url, request)
            _answer({"generation": number})
        except RefoldError as error:
            _answer({"error": str(error)})


def _publish(log_url: str, domain_ref: str, read_models_url: str, request: dict[str, Any]) -> int | None:
    domain, log = load_domain(domain_ref), open_log(log_url)
    generations = open_generations(read_models_url, domain.name)
    with scratch_folder(generations.store) as folder:
        path = folder / "published.duckdb"
        shutil.copyfile(request["database"], path)
        _answer({"copied": True})
        path = without_indexes(path)
        connection = open_database(path, threads=_THREADS, memory_limit=_MEMORY)
        parent = generations.get(request["parent"])
        made = publish(connection, path, log, domain, generations, parent, kind="stream")
    return made.number if made else None


def _requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _answer(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
