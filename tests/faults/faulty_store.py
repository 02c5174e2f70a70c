"""A store that fails at one of its operations, in a process of its own: killed there, or with a wrong answer.

The processes come from a fork server that has imported refold, so that a case takes some ten milliseconds. All stores
that such a process opens fail, in whichever thread; the process that publishes for a stream is one of its threads.
"""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import time_machine
from aiobotocore.client import AioBaseClient
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from refold.event_schemas import RefoldError, StoreUnavailableError
from refold.warehouse.object_store.failures import translate_errors
from refold.warehouse.object_store.local import LocalStore
from refold.warehouse.object_store.s3 import S3Store
from refold.warehouse.object_store.store import TEMP_PREFIX, ObjectStore
from refold.warehouse.read_models.live import publisher_process
from tests.faults import store_actions
from tests.faults.places import Place

WRITES = ("put_if_absent", "put", "put_file")
CHANGES = (*WRITES, "delete", "delete_prefix")
LISTINGS = ("list_from",)
OPERATIONS = (*CHANGES, *LISTINGS, "get", "exists", "size", "modified", "local_path")
COMPLETED, FAILED, UNEXPECTED, KILLED = 0, 1, 2, 9
_EXPLAINED = (RefoldError, OSError, duckdb.Error)
"""Errors for which the command line has words; a limit of the machine may come up in any engine."""
COUNT = "operations.json"
"""In the folder of a case: the names of the operations of an action that completed."""


class Fault(StrEnum):
    """What happens at the operation."""

    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    HALF_WRITTEN = "killed, half written"
    ANSWER_LOST = "answer lost"
    DISK_ERROR = "I/O error"
    DISK_FULL = "disk full"
    FOLDER_GONE = "folder gone"
    CLOCK_BACK = "clock back"
    CLOCK_AHEAD = "clock ahead"
    UNAVAILABLE = "unavailable"
    CONFLICT = "409"
    ERROR = "500"
    SLOW_DOWN = "503"
    TIMEOUT = "timeout"
    STALE_LISTING = "stale listing"


BOTH, DISK, S3 = ("disk", "s3"), ("disk",), ("s3",)
APPLIES: dict[Fault, tuple[Sequence[str], Sequence[str]]] = {
    Fault.KILLED_BEFORE: (OPERATIONS, BOTH),
    Fault.KILLED_AFTER: (OPERATIONS, BOTH),
    Fault.HALF_WRITTEN: (WRITES, BOTH),
    Fault.ANSWER_LOST: (CHANGES, BOTH),
    Fault.DISK_ERROR: (OPERATIONS, DISK),
    Fault.DISK_FULL: (WRITES, DISK),
    Fault.FOLDER_GONE: (OPERATIONS, DISK),
    Fault.CLOCK_BACK: (OPERATIONS, BOTH),
    Fault.CLOCK_AHEAD: (OPERATIONS, BOTH),
    Fault.UNAVAILABLE: (OPERATIONS, S3),
    Fault.CONFLICT: (WRITES, S3),
    Fault.ERROR: (OPERATIONS, S3),
    Fault.SLOW_DOWN: (OPERATIONS, S3),
    Fault.TIMEOUT: (OPERATIONS, S3),
    Fault.STALE_LISTING: (LISTINGS, BOTH),
}
"""At which operations of which stores each fault can happen."""

CLOCK_JUMPS = {Fault.CLOCK_BACK: timedelta(days=-1), Fault.CLOCK_AHEAD: timedelta(days=1)}
"""By how much the clock of this process jumps, to stay so until it ends."""
AWAY = "-away"
"""What is added to the name of the folder of a place that is gone; the test puts it back."""

ANSWERS = {
    Fault.CONFLICT: (409, "ConditionalRequestConflict"),
    Fault.ERROR: (500, "InternalError"),
    Fault.SLOW_DOWN: (503, "SlowDown"),
}
"""What S3 answers to the first request of the operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run of an action with one fault.

    Attributes:
        action: name of a function of ``store_actions``.
        url: what the action is given.
        folder: of the case, for its output and temporary files.
        operation: number of the operation that fails, from 1; 0 for none.
        fault: how it fails.
        environment: variables of the process.
        limit: a resource of the process, and how much it has of it.
    """

    action: str
    url: str
    folder: str
    operation: int = 0
    fault: Fault = Fault.KILLED_BEFORE
    environment: Mapping[str, str] = field(default_factory=dict)
    limit: tuple[int, int] | None = None


def run(case: Case) -> int:
    """Run a case in a process of its own, and return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(case,))
    process.start()
    process.join(timeout=120)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{case} did not end")
    return process.exitcode


def _run(case: Case) -> None:
    os.environ.update(case.environment)
    tempfile.tempdir = case.folder
    output = os.open(Path(case.folder) / "output.txt", os.O_CREAT | os.O_WRONLY, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    breaker = _Breaker(case)
    breaker.install()
    if case.limit:
        kind, most = case.limit
        resource.setrlimit(kind, (most, most))
    try:
        getattr(store_actions, case.action)(Place(case.url))
        (Path(case.folder) / COUNT).write_text(json.dumps(breaker.operations))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(FAILED if isinstance(error, _EXPLAINED) else UNEXPECTED)
    os._exit(COMPLETED)


class _Breaker:
    """Counts the operations of all stores, and makes one of them fail."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._numbers = itertools.count(1)
        self._inside = threading.local()
        self._requests: list[Fault] = []
        self.operations: list[str] = []

    def install(self) -> None:
        for store, name in itertools.product((LocalStore, S3Store), OPERATIONS):
            setattr(store, name, self._broken(name, getattr(store, name)))
        request = AioBaseClient._make_request

        async def broken_request(client: Any, *arguments: Any) -> Any:
            if not self._requests:
                return await request(client, *arguments)
            fault, url = self._requests.pop(), str(client.meta.endpoint_url)
            if fault is Fault.TIMEOUT:
                raise ReadTimeoutError(endpoint_url=url)
            if fault is Fault.ANSWER_LOST:
                await request(client, *arguments)
                raise ConnectionClosedError(endpoint_url=url)
            status, code = ANSWERS[fault]
            return SimpleNamespace(status_code=status, headers={}), {"Error": {"Code": code, "Message": "a test"}}

        AioBaseClient._make_request = broken_request
        publisher_process.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": _Thread})  # type: ignore[attr-defined, assignment]

    def _broken(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(store: ObjectStore, *arguments: Any, **keywords: Any) -> Any:
            def operation() -> Any:
                answer = method(store, *arguments, **keywords)
                return list(answer) if name in LISTINGS else answer

            if getattr(self._inside, "operation", False):  # part of another one
                return method(store, *arguments, **keywords)
            self._inside.operation = True
            try:
                self.operations.append(name)
                failing = next(self._numbers) == self._case.operation
                answer = self._fail(name, store, arguments, operation) if failing else operation()
            finally:
                self._inside.operation = False
            return iter(answer) if name in LISTINGS else answer

        return call

    def _fail(self, name: str, store: ObjectStore, arguments: Sequence[Any], operation: Callable[[], Any]) -> Any:
        fault = self._case.fault
        if fault in (Fault.HALF_WRITTEN, Fault.DISK_FULL) and name in WRITES:  # threads vary which operation this is
            _write_half(store, *arguments)
        if fault in (Fault.KILLED_BEFORE, Fault.HALF_WRITTEN):
            os._exit(KILLED)
        if fault is Fault.UNAVAILABLE:
            raise StoreUnavailableError(f"{store.url} refused {name}: this is a test.")
        if fault is Fault.DISK_ERROR:
            with _disk_error(name, store, errno.EIO):
                pass
        if fault is Fault.DISK_FULL:
            with _disk_error(name, store, errno.ENOSPC):
                pass
        if fault is Fault.FOLDER_GONE:
            os.rename(self._case.url, f"{self._case.url}{AWAY}")
        if fault in CLOCK_JUMPS:
            time_machine.travel(datetime.now(UTC) + CLOCK_JUMPS[fault]).start()
        if fault in ANSWERS or fault is Fault.TIMEOUT or (fault is Fault.ANSWER_LOST and not store.is_local):
            self._requests.append(fault)
        answer = operation()
        if fault is Fault.KILLED_AFTER:
            os._exit(KILLED)
        if fault is Fault.ANSWER_LOST and store.is_local:
            with _disk_error(name, store, errno.EIO):
                pass
        return answer[:-1] if fault is Fault.STALE_LISTING and name in LISTINGS else answer


@contextmanager
def _disk_error(name: str, store: ObjectStore, number: int) -> Iterator[None]:
    """Fail as a disk does: after an answer that was lost, the file is there, and flushing its folder fails."""
    with translate_errors(name, store.url):
        yield
        raise OSError(number, os.strerror(number))


def _write_half(store: ObjectStore, key: str, given: bytes | Path) -> None:
    """Leave what a killed process leaves: an unfinished file on a disk, an unfinished upload in S3."""
    data = given if isinstance(given, bytes) else Path(given).read_bytes()
    half = data[: len(data) // 2]
    if isinstance(store, S3Store):
        fs, path = store._locate(key)
        bucket, name, _ = fs.split_path(path)
        upload = fs.call_s3("create_multipart_upload", Bucket=bucket, Key=name)["UploadId"]
        fs.call_s3("upload_part", Bucket=bucket, Key=name, UploadId=upload, PartNumber=1, Body=half)
        return
    whole = Path(store.url) / key
    whole.parent.mkdir(parents=True, exist_ok=True)
    whole.with_name(f"{TEMP_PREFIX}{whole.name}").write_bytes(half)


class _Thread:
    """The publishing process of a stream as a thread, in place of ``subprocess.Popen``: its operations fail too."""

    def __init__(self, command: Sequence[str], **_: object) -> None:
        descriptor, *arguments = command[3:]
        writer = socket.socket(fileno=os.dup(int(descriptor)))
        self._thread = threading.Thread(target=self._answer, args=(writer, *arguments), daemon=True)
        self._thread.start()

    def _answer(self, writer: socket.socket, *arguments: str) -> None:
        with writer:
            publisher_process.answer_requests(writer, *arguments)

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else 0

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        return 0

    def kill(self) -> None:
        """Leave it: it ends when the socket is closed."""
