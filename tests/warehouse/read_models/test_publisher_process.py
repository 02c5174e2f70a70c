"""The process that publishes for a stream: what its domain prints is harmless, and its failures reach the stream."""

from __future__ import annotations

import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from refold.event_schemas import GenerationError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log import EventLog, create_log
from refold.warehouse.read_models.database import open_database
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations
from refold.warehouse.read_models.generations.publish import publish
from refold.warehouse.read_models.live.publisher_process import PublishingProcess

QUIET = """
from refold.warehouse.declarations.domain import Domain
DOMAIN = Domain(name="empty", events=())
"""
CHATTY = """
import os, subprocess, sys
from refold.warehouse.declarations.domain import Domain
print("imported", flush=True)
os.write(1, b'{"error": "not an answer"}\\n')
subprocess.run(["echo", "from a program"])
assert sys.stdin.read() == ""  # requests are not for the domain to read

def __getattr__(name):
    print("used", flush=True)
    return Domain(name="empty", events=())
"""
DEAD = "import os; os._exit(7)"
DEAD_BESIDE_A_CHILD = """
import os, time
if os.fork() == 0:
    time.sleep(60)
os._exit(7)
"""
NONSENSE = """
import os, sys, time
os.write(int(sys.argv[1]), MESSAGE + b"\\n")
time.sleep(60)
"""
HANGS_UP = """
import os, sys, time
os.dup2(0, int(sys.argv[1]))
time.sleep(60)
"""


class Publishing:
    """A log, one generation without tables, and the process that publishes the next.

    Args:
        folder: where all of it is.
        monkeypatch: adds the domain's module to the path of the process.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", str(folder))
        self._folder = folder
        self._log: EventLog = create_log(str(folder / "log"), domain_name="empty", bucket_count=1)
        self.generations: Generations = open_generations(str(folder / "read-models"), "empty")
        self.parent: Generation
        self.database = folder / "live.duckdb"
        self._process: PublishingProcess | None = None
        first = folder / "first.duckdb"
        open_database(self.database).close()
        made = publish(open_database(first), first, self._log, Domain(name="empty", events=()), self.generations, None)
        assert made is not None
        self.parent = made

    def process(self, module: str) -> PublishingProcess:
        """Start a process whose domain is declared by a module."""
        name = f"domain_{uuid.uuid4().hex}"
        (self._folder / f"{name}.py").write_text(textwrap.dedent(module))
        read_models = str(self._folder / "read-models")
        self._process = PublishingProcess(self._log.url, f"{name}:DOMAIN", read_models)
        self._process.start()
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()


@pytest.fixture
def publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publishing]:
    """A generation to follow."""
    made = Publishing(tmp_path, monkeypatch)
    yield made
    made.close()


def _wait(process: PublishingProcess) -> object:
    return process.wait()


def _poll(process: PublishingProcess) -> object:
    while (outcome := process.poll()) is None:
        pass
    return outcome


@pytest.mark.parametrize("module", [QUIET, CHATTY], ids=["quiet", "chatty"])
def test_a_domain_may_print(publishing: Publishing, module: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What its module prints at import and at use goes to standard error; the copy is published, and the next too."""
    process = publishing.process(module)
    process.ask(publishing.database, publishing.parent)
    assert process.wait().number == 2
    process.ask(publishing.database, publishing.generations.get(2))
    assert process.wait().number == 3
    process.close()
    printed = capfd.readouterr()
    assert printed.out == ""
    if module == CHATTY:
        assert printed.err.splitlines() == ["imported", '{"error": "not an answer"}', "from a program", "used", "used"]


@pytest.mark.slow
@pytest.mark.parametrize("outcome", [_wait, _poll])
@pytest.mark.parametrize("module", [DEAD, DEAD_BESIDE_A_CHILD], ids=["dead", "dead beside a child"])
def test_a_process_that_dies(
    publishing: Publishing, module: str, outcome: Callable[[PublishingProcess], object]
) -> None:
    """The publish fails with the exit code, also while a program that the domain started holds the socket."""
    process = publishing.process(module)
    process.ask(publishing.database, publishing.parent)
    with pytest.raises(GenerationError, match=r"ended with code 7.*unharmed"):
        outcome(process)
    assert (process.busy, process.copying) == (False, False)


@pytest.mark.parametrize("message", [b"nonsense\xff", b"[1]", b'{"generation": 1, "ended": true}'])
def test_an_invalid_answer(publishing: Publishing, message: bytes) -> None:
    """A process that sends an invalid response is killed, even if it ignores SIGTERM."""
    process = publishing.process(f"MESSAGE = {message!r}\n{NONSENSE}")
    process.ask(publishing.database, publishing.parent)
    with pytest.raises(GenerationError, match="sent an invalid answer"):
        process.wait()


def test_a_process_that_hangs_up(publishing: Publishing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that closes the socket and keeps running is killed."""
    monkeypatch.setattr("refold.warehouse.read_models.live.publisher_process._EXIT_SECONDS", 0.1)
    process = publishing.process(HANGS_UP)
    process.ask(publishing.database, publishing.parent)
    with pytest.raises(GenerationError, match="ended with code -9"):
        process.wait()


def test_the_next_publish_starts_a_new_process(publishing: Publishing) -> None:
    """After a failure and a fix of the domain's module, the next request succeeds."""
    process = publishing.process(DEAD)
    process.ask(publishing.database, publishing.parent)
    with pytest.raises(GenerationError):
        process.wait()
    for module in Path(publishing.database.parent).glob("domain_*.py"):
        module.write_text(QUIET + "# fixed\n")
    process.ask(publishing.database, publishing.parent)
    assert process.wait().number == 2


def test_close_waits_for_the_publish(publishing: Publishing) -> None:
    """A requested publish completes before the process ends."""
    process = publishing.process(QUIET)
    process.ask(publishing.database, publishing.parent)
    process.close()
    assert publishing.generations.get(2).kind == "stream"
