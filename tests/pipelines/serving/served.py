"""A server as its users run it: a process of its own, on a port of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import httpx
import tenacity

ROOT = Path(__file__).parents[3]
READY_SECONDS = 60


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        url: where.
        process: its process.
        said: what it wrote to stderr so far, a line each.
    """

    url: str
    process: subprocess.Popen[str]
    said: list[str]

    def client(self, **options: object) -> httpx.Client:
        """Make a client; close it."""
        return httpx.Client(base_url=self.url, timeout=30, **options)  # type: ignore[arg-type]


@contextmanager
def served(
    folder: Path,
    *arguments: str,
    domain: str = "orders",
    environment: Mapping[str, str] | None = None,
    ready: bool = True,
    code: int = 0,
) -> Iterator[Served]:
    """Serve what is in a folder, until the block ends; then the server must end in order.

    Args:
        folder: holds ``log`` and ``read-models``.
        arguments: further ones of ``refold serve``.
        domain: the domain.
        environment: further variables.
        ready: wait until read models can be served.
        code: the exit code it must end with.
    """
    command = [sys.executable, "-m", "refold", "--domain", domain, "serve", "--port", "0", *arguments]
    command += ["--log", str(folder / "log"), "--read-models", str(folder / "read-models")]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert " at http://" in first, first + process.stderr.read()
        said = [first]
        listening = Thread(target=said.extend, args=(process.stderr,), daemon=True)
        listening.start()
        try:
            running = Served(first.split()[-1], process, said)
            if ready:
                _wait_until_ready(running)
            yield running
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == code, "".join(said)
        finally:
            process.kill()
            process.wait()
            listening.join(timeout=10)


def _wait_until_ready(running: Served) -> None:
    def is_ready() -> bool:
        assert running.process.poll() is None, "".join(running.said)
        return httpx.get(f"{running.url}/readyz", timeout=30).status_code == 200

    tenacity.Retrying(
        stop=tenacity.stop_after_delay(READY_SECONDS),
        wait=tenacity.wait_fixed(0.05),
        retry=tenacity.retry_if_result(lambda done: not done) | tenacity.retry_if_exception_type(httpx.TransportError),
    )(is_ready)
