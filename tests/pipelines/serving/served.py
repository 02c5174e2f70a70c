"""A server as users run it: in its own process, on its own port."""

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
    """A running server.

    Attributes:
        url: its address.
        process: its process.
        lines: the lines that it has written to stderr.
    """

    url: str
    process: subprocess.Popen[str]
    lines: list[str]

    def client(self, **options: object) -> httpx.Client:
        """Return a client; the caller closes it."""
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
    """Serve a folder until the block ends; then the server must stop in order.

    Args:
        folder: holds ``log`` and ``read-models``.
        arguments: further arguments of ``refold serve``.
        domain: the domain.
        environment: further variables.
        ready: wait until the server can serve read models.
        code: the expected exit code.
    """
    command = [sys.executable, "-m", "refold", "--domain", domain, "serve", "--port", "0", *arguments]
    command += ["--log", str(folder / "log"), "--read-models", str(folder / "read-models")]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    with subprocess.Popen(
        command, env=variables, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert " at http://" in first, first + process.stderr.read()
        lines = [first]
        reading = Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        reading.start()
        try:
            running = Served(first.split()[-1], process, lines)
            if ready:
                _wait_until_ready(running)
            yield running
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == code, "".join(lines)
        finally:
            process.kill()
            process.wait()
            reading.join(timeout=10)


def _wait_until_ready(running: Served) -> None:
    def is_ready() -> bool:
        assert running.process.poll() is None, "".join(running.lines)
        return httpx.get(f"{running.url}/readyz", timeout=30).status_code == 200

    tenacity.Retrying(
        stop=tenacity.stop_after_delay(READY_SECONDS),
        wait=tenacity.wait_fixed(0.05),
        retry=tenacity.retry_if_result(lambda done: not done) | tenacity.retry_if_exception_type(httpx.TransportError),
    )(is_ready)
