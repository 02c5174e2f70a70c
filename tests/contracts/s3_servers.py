"""Real S3 servers on free loopback ports, and a proxy that injects faults of networks and stores."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from s3fs import S3FileSystem

STARTUP_SECONDS = 120
BUCKET = "contract"
CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>A conflicting operation occurred.</Message></Error>"

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


@contextmanager
def moto_server(folder: Path) -> Iterator[str]:
    """Run moto's S3: it honours conditions and names them in its response, but check and write are not atomic."""
    with _server(["moto.server", "-H", "127.0.0.1", "-p"], [], folder) as endpoint:
        yield endpoint


@contextmanager
def localbucket_server(folder: Path) -> Iterator[str]:
    """Run localbucket: its conditional writes are atomic, and its rejection does not name the condition."""
    data = folder / "data"
    data.mkdir()
    with _server(["localbucket", "--port"], [str(data)], folder) as endpoint:
        yield endpoint


def use_s3(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Point the environment of this process and its children at a server, away from the developer's own account."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3FileSystem.clear_instance_cache()  # an instance keeps the endpoint of its first use


@contextmanager
def _server(command: list[str], arguments: list[str], folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, str(port), *arguments], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(process, port, log)
        endpoint = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(
            urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT"), timeout=STARTUP_SECONDS
        ):
            yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{process.args!r} did not start within {STARTUP_SECONDS} s:\n{log.read_text()}")


@dataclass
class Faults:
    """The faults of the proxy, and its requests.

    Attributes:
        ignore_conditions: remove ``If-None-Match`` from requests.
        lost_answers: number of writes to perform and whose responses to drop.
        conflicts: number of writes to refuse with the 409 that S3 sends for concurrent writes.
        down: drop every connection without a response.
        busy: respond to every request with 503, as an overloaded store does.
        page_size: number of keys on one page of a listing.
        requests: method and target of every request.
        ports: the client's port of every request, which identifies its connection.
    """

    ignore_conditions: bool = False
    lost_answers: int = 0
    conflicts: int = 0
    down: bool = False
    busy: bool = False
    page_size: int = 1000
    requests: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[tuple[str, Faults]]:
    """Run a proxy in front of an S3 server; faults that the caller sets take effect at once."""
    server = _Proxy(upstream)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.faults
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urllib.parse.urlsplit(upstream).netloc
        self.faults = Faults()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def _forward(self) -> None:
        faults = self.server.faults
        faults.requests.append(f"{self.command} {self.path}")
        faults.ports.append(self.client_address[1])
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if faults.down:
            self.close_connection = True
            return
        if faults.busy:
            self._answer(503, {}, SLOW_DOWN)
            return
        if self.command == "PUT" and faults.conflicts:
            faults.conflicts -= 1
            self._answer(409, {}, CONFLICT)
            return
        response, answer = self._ask_upstream(body)
        if self.command == "PUT" and faults.lost_answers:
            faults.lost_answers -= 1
            self.close_connection = True
            return
        self._answer(response.status, dict(response.getheaders()), answer)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _forward

    def _ask_upstream(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        headers = dict(self.headers.items())
        if self.server.faults.ignore_conditions:
            headers.pop("If-None-Match", None)
        target = self.path
        if "list-type=2" in target:
            target += f"&max-keys={self.server.faults.page_size}"
        connection = http.client.HTTPConnection(self.server.upstream, timeout=10)
        try:
            connection.request(self.command, target, body, headers)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: ``faults`` has the requests."""
