"""refold works from a project whose own packages are named like its rooms, and whose domain module prints.

In every local mode of Beam, on Dask workers in processes of their own, with several server processes, and with the
process that publishes for a stream.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from refold.pipelines.cli.main import COMMANDS as ALL_COMMANDS
from tests.package.project import GREETING, ROWS, rows, run, write_project
from tests.pipelines.serving.served import served

pytestmark = pytest.mark.slow

LOCAL_MODES = {
    "default": [],
    "multi_threading": ["--direct_running_mode=multi_threading"],
    "multi_processing": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "in_memory": ["--direct_running_mode=in_memory", "--direct_num_workers=1"],
}

COMMANDS = {
    "archive": [["archive", "--before", "2100-01-01", "--to", "cold"], ["archive", "restore"]],
    "capacity": [["capacity"]],
    "dead-letters": [
        ["dead-letters", "list"],
        ["dead-letters", "retry"],
    ],
    "events": [
        ["events", "tail"],
        ["events", "stream", "visitor-v1"],
        ["events", "trace", "monday"],
        ["events", "stats"],
        ["events", "verify"],
    ],
    "generations": [
        ["generations", "list"],
        ["generations", "diff", "1", "2"],
        ["generations", "rollback"],
        ["generations", "gc"],
    ],
    "ingest": [["ingest", "second.jsonl"]],
    "log": [["log", "head"], ["log", "rebucket", "128"], ["log", "upgrade"], ["log", "repair"], ["log", "gc"]],
    "plan": [["plan"]],
    "query": [["query", "FROM runs"]],
    "rebuild": [["rebuild", "--all"]],
    "reconcile": [["reconcile"]],
    "refresh": [["refresh"]],
    "schemas": [
        ["schemas", "list"],
        ["schemas", "lock", "--file", "lock.json"],
        ["schemas", "check", "--file", "lock.json"],
        ["schemas", "dry-run"],
    ],
    "seal": [["seal"]],
    "status": [["status"]],
    "stream": [["stream", "--once"]],
}
"""The arguments to run each command with; ``serve`` and other Beam modes have separate tests below."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after its first import and two rebuilds."""
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    run(folder, "ingest", "first.jsonl")
    run(folder, "rebuild")
    run(folder, "rebuild", "--all")
    return folder


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of the project, for one test to change."""
    return shutil.copytree(built, tmp_path / "project", symlinks=True)


def test_all_commands_are_covered() -> None:
    """Every command is listed; ``demo`` and ``init`` have their own domain, ``erase`` needs one with personal data."""
    assert {*COMMANDS, "demo", "init", "erase", "serve"} == set(ALL_COMMANDS)


@pytest.mark.parametrize("lines", COMMANDS.values(), ids=COMMANDS)
def test_a_command_works(lines: list[list[str]], project: Path) -> None:
    """The user's packages don't shadow refold's rooms, nor refold's theirs."""
    for line in lines:
        run(project, *line)


def test_the_domain_module_prints(project: Path) -> None:
    """The module prints when imported, which the other tests rely on."""
    assert GREETING in run(project, "schemas", "list")


def follow(folder: Path, *beam: str) -> None:
    """Run every command that runs a pipeline, and check what it makes."""
    run(folder, "rebuild", "--all", "--", *beam)
    run(folder, "ingest", "second.jsonl", "--", *beam)
    run(folder, "stream", "--once", "--", *beam)
    assert rows(folder) == ROWS
    run(folder, "seal", "--", *beam)
    run(folder, "reconcile", "--", *beam)
    run(folder, "refresh", "--verify", "--", *beam)
    assert rows(folder) == ROWS


@pytest.mark.parametrize("beam", LOCAL_MODES.values(), ids=LOCAL_MODES)
def test_a_local_mode_works(beam: list[str], project: Path) -> None:
    """Workers on threads, in processes and in the command's own process import the same domain."""
    follow(project, *beam)


def test_dask_workers_work(project: Path) -> None:
    """Dask workers that were started from the project's folder run its domain."""
    with dask_cluster(project) as address:
        follow(project, "--runner=dask", f"--dask_client_address={address}")


@contextmanager
def dask_cluster(folder: Path) -> Iterator[str]:
    """Start a scheduler and two workers on loopback, which find the project's packages as their user arranges it."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    dask, file = str(Path(sys.executable).with_name("dask")), folder / "scheduler.json"

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        nowhere = subprocess.DEVNULL
        return subprocess.Popen([dask, *arguments], cwd=folder, env=environment, stdout=nowhere, stderr=nowhere)

    scheduler = ["scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard", f"--scheduler-file={file}"]
    worker = ["worker", f"--scheduler-file={file}", "--nworkers=2", "--nthreads=1", "--no-dashboard"]
    with start(*scheduler) as first, start(*worker) as second:
        try:
            from distributed import Client

            with Client(scheduler_file=str(file), timeout="60s") as client:
                client.wait_for_workers(2, timeout=60)
                yield client.scheduler.address
        finally:
            for process in (second, first):
                process.terminate()


@pytest.mark.parametrize("arguments", [["--workers", "2"], ["--stream"]], ids=["workers", "stream"])
def test_the_server_works(arguments: list[str], project: Path) -> None:
    """Server processes import the domain too, and so does the one that publishes for a stream."""
    with (
        served(project, *arguments, domain="warehouse.domain:VISITS", environment={"PYTHONPATH": ""}) as running,
        running.client() as client,
    ):
        assert client.get("/visitors/v1").json()["data"]["visits"] == 10
        assert client.post("/commands/OpenGate", json={"visitor": "v9", "gate": "side"}).status_code == 201
