"""A store that fails at one of its operations, in a process of its own: killed there, or with a wrong answer.

The processes come from a fork server that has imported refold, so that a case takes some ten milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from refold.event_schemas import StoreUnavailableError
from refold.warehouse.event_log import open_log
from refold.warehouse.object_store.store import ObjectStore
from tests.faults import store_actions

OPERATIONS = (
    "put_if_absent",
    "put",
    "put_file_if_absent",
    "put_file",
    "get",
    "exists",
    "size",
    "modified",
    "list_from",
    "delete",
    "delete_prefix",
    "local_path",
)
COMPLETED, FAILED, KILLED = 0, 1, 9
COUNT = "operations.txt"
"""In the folder of a case: the number of operations of an action that completed."""


class Fault(StrEnum):
    """What happens at the operation."""

    KILLED_BEFORE = "killed before it"
    KILLED_AFTER = "killed after it"
    ANSWER_LOST = "its answer is lost"
    REFUSED = "it is refused"
    HALF_WRITTEN = "half of it is written under another name, then killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run of an action with one fault.

    Attributes:
        action: name of a function of ``store_actions``.
        log_url: the log.
        folder: of the case, for what the action needs beside the log.
        operation: number of the operation that fails, from 1; 0 for none.
        fault: how it fails.
        environment: variables of the process.
    """

    action: str
    log_url: str
    folder: str
    operation: int
    fault: Fault
    environment: Mapping[str, str] = field(default_factory=dict)


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
    output = os.open(Path(case.folder) / "output.txt", os.O_CREAT | os.O_WRONLY, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    log = open_log(case.log_url)
    counted = _break(type(log.store), case.operation, case.fault)
    try:
        getattr(store_actions, case.action)(log, Path(case.folder))
        (Path(case.folder) / COUNT).write_text(str(counted[0]))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(FAILED)
    os._exit(COMPLETED)


def _break(store: type[ObjectStore], at: int, fault: Fault) -> list[int]:
    """Break one operation of all stores of a class; return the number of operations so far, kept up to date."""
    count = [0]

    def broken(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: ObjectStore, *arguments: Any, **keywords: Any) -> Any:
            count[0] += 1
            if count[0] != at:
                return method(self, *arguments, **keywords)
            if fault is Fault.REFUSED:
                raise StoreUnavailableError(f"{self.url} refused {name}: this is a test.")
            if fault is Fault.KILLED_BEFORE:
                os._exit(KILLED)
            if fault is Fault.HALF_WRITTEN:
                _write_half(self, arguments)
                os._exit(KILLED)
            answer = method(self, *arguments, **keywords)
            if fault is Fault.KILLED_AFTER:
                os._exit(KILLED)
            if name in ("put_if_absent", "put_file_if_absent"):
                return False  # as after a retry that found the caller's own object
            if name in ("put", "put_file", "delete", "delete_prefix"):
                raise StoreUnavailableError(f"{self.url}: the answer to {name} was lost: this is a test.")
            return answer

        return call

    for name in OPERATIONS:
        setattr(store, name, broken(name, getattr(store, name)))
    return count


def _write_half(store: ObjectStore, arguments: tuple[Any, ...]) -> None:
    """Leave what a killed process leaves on a disk: an unfinished file beside the object."""
    if not (store.is_local and len(arguments) > 1):
        return
    data = arguments[1] if isinstance(arguments[1], bytes) else Path(arguments[1]).read_bytes()
    path = Path(store.url) / arguments[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".refold-tmp-{path.name}").write_bytes(data[: len(data) // 2])
