"""Publishing beside a writer: a child process copies the writer's database and publishes the copy.

A copy made in the writer's process would drop the writer's lock on its file, and counting and checksumming every table
would delay the stream. So the writer takes a checkpoint, allows none until the file is copied, and continues; the child
does the rest. If either process dies, nothing is published: publishing is one atomic step.

The two exchange lines of JSON over a socket that nothing else uses. Standard output and input stay free: the domain's
modules run in the child, and they may print.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refold.event_schemas import GenerationError, RefoldError, StoreUnavailableError
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.read_models.database import open_database
from refold.warehouse.read_models.generations.build import scratch_folder
from refold.warehouse.read_models.generations.generations import Generation, open_generations
from refold.warehouse.read_models.generations.publish import publish
from refold.warehouse.read_models.live.indexes import without_indexes

_THREADS = 1
_MEMORY = "1GB"
_STDERR = 2
_CHECK_ALIVE_SECONDS = 1.0
_EXIT_SECONDS = 10.0
"""How long a child without work may take to exit, such as in exit handlers of the domain; then it is killed."""


_ERRORS: dict[str, type[RefoldError]] = {"error": GenerationError, "unavailable": StoreUnavailableError}
"""How the child answers that a publish failed."""


@dataclass(frozen=True, slots=True)
class Published:
    """The outcome of a publish.

    Attributes:
        number: number of the new generation; None if another publisher took it first.
        seconds: time from the request to the outcome.
    """

    number: int | None
    seconds: float


class PublishingProcess:
    """The writer's side: requests one publish at a time and polls for its outcome.

    A child that exits, closes the socket or sends anything but an answer fails the publish; it never blocks the writer.

    Args:
        log_url: URL of the log.
        domain_ref: the domain, as an entry-point name or dotted path.
        read_models_url: where generations are published.

    Attributes:
        busy: whether a publish is under way.
        copying: whether the writer's file must not change yet.
    """

    def __init__(self, log_url: str, domain_ref: str, read_models_url: str) -> None:
        self._arguments = (log_url, domain_ref, read_models_url)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket
        self._reader: threading.Thread
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._started = 0.0
        self.busy = self.copying = False

    def start(self) -> None:
        """Start the child, so that it is ready for the first publish."""
        self._socket, childs = socket.socketpair()
        module = "refold.warehouse.read_models.live.publisher_process"
        with childs:
            command = [sys.executable, "-m", module, str(childs.fileno()), *self._arguments]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=_STDERR, pass_fds=(childs.fileno(),)
            )
        self._answers = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(self._process,), name="publisher", daemon=True)
        self._reader.start()

    def ask(self, database: Path, parent: Generation) -> None:
        """Request that a copy of a database is published; the database must not change until it is copied.

        Args:
            database: the writer's file, just after a checkpoint.
            parent: the generation before the new one.
        """
        if self._process is None:
            self.start()
        self._started, self.busy, self.copying = time.monotonic(), True, True
        request = {"database": str(database), "parent": parent.number}
        with contextlib.suppress(OSError):  # the child is gone, which the reader reports
            self._socket.sendall(json.dumps(request).encode() + b"\n")

    def poll(self) -> Published | None:
        """Return the outcome of the publish, or None while it is under way.

        Raises:
            GenerationError: the publish or the child failed.
        """
        return self._outcome(block=False)

    def wait(self) -> Published:
        """Wait for the outcome of the publish.

        Raises:
            GenerationError: the publish or the child failed.
        """
        outcome = self._outcome(block=True)
        assert outcome is not None
        return outcome

    def close(self) -> None:
        """Let the child finish its publish, and end it."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        while self.busy:
            with contextlib.suppress(GenerationError):
                self._outcome(block=True)
        self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        _exit_code(self._process)
        self._hang_up()
        self._reader.join()
        self._socket.close()
        self._process = None

    def _hang_up(self) -> None:
        """End the reader, after what was sent: the child is dead, but one of its own children may hold the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Queue the child's answers; its last one says how the child ended."""
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    self._answers.put(_decode(line))
        except (OSError, ValueError) as error:
            process.kill()
            process.wait()
            reason = f"the publishing process sent an invalid answer ({error}), so it was killed."
        else:
            reason = f"the publishing process ended with code {_exit_code(process)}."
        self._answers.put({"error": reason, "ended": True})

    def _next_answer(self, *, block: bool) -> dict[str, Any] | None:
        assert self._process is not None
        while True:
            try:
                return self._answers.get(block=block, timeout=_CHECK_ALIVE_SECONDS)
            except queue.Empty:
                if self._process.poll() is not None:
                    self._hang_up()
                if not block:
                    return None

    def _outcome(self, *, block: bool) -> Published | None:
        while (answer := self._next_answer(block=block)) is not None:
            self.copying = False
            if "copied" in answer:
                continue
            self.busy = False
            if answer.get("ended"):
                self._end()
            for name, kind in _ERRORS.items():
                if name in answer:
                    unharmed = "The stream's own tables are unharmed; it will publish again."
                    raise kind(f"Publishing failed: {answer[name]} {unharmed}")
            return Published(answer["generation"], time.monotonic() - self._started)
        return None


def _decode(line: bytes) -> dict[str, Any]:
    """Read an answer: ``{"copied": true}``, ``{"generation": number or null}``, or an error of ``_ERRORS``."""
    answer = json.loads(line)
    if not isinstance(answer, dict) or len(answer) != 1 or not answer.keys() & {"copied", "generation", *_ERRORS}:
        raise ValueError(f"unknown message {line[:100]!r}")
    return answer


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that should be exiting, and kill it if it does not."""
    try:
        return process.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def main() -> None:
    """Answer requests until the writer closes its end of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the writer decides when to end, and then closes the socket
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    descriptor, log_url, domain_ref, read_models_url = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)  # programs that the domain's modules start must not hold it open
    os.nice(5)  # the stream's freshness comes before the next publish
    with socket.socket(fileno=int(descriptor)) as writer:
        answer_requests(writer, log_url, domain_ref, read_models_url)


def answer_requests(writer: socket.socket, log_url: str, domain_ref: str, read_models_url: str) -> None:
    """Publish what the writer requests, until it closes its end of the socket.

    Args:
        writer: the socket; its requests name a database and the generation before the new one.
        log_url: URL of the log.
        domain_ref: the domain, as an entry-point name or dotted path.
        read_models_url: where generations are published.
    """
    with writer.makefile("rb") as requests:
        for request in requests:
            try:
                number = _publish(writer, log_url, domain_ref, read_models_url, json.loads(request))
                _answer(writer, {"generation": number})
            except RefoldError as error:
                _answer(writer, {"unavailable" if isinstance(error, StoreUnavailableError) else "error": str(error)})


def _publish(
    writer: socket.socket, log_url: str, domain_ref: str, read_models_url: str, request: dict[str, Any]
) -> int | None:
    domain, log = load_domain(domain_ref), open_log(log_url)
    generations = open_generations(read_models_url, domain.name)
    with scratch_folder(generations.store) as folder:
        path = folder / "published.duckdb"
        shutil.copyfile(request["database"], path)
        _answer(writer, {"copied": True})
        path = without_indexes(path)
        connection = open_database(path, threads=_THREADS, memory_limit=_MEMORY)
        parent = generations.get(request["parent"])
        made = publish(connection, path, log, domain, generations, parent, kind="stream")
    return made.number if made else None


def _answer(writer: socket.socket, answer: dict[str, Any]) -> None:
    writer.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
