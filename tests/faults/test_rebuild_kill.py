"""Killing a rebuild, a seal or a worker at any time: readers continue, every change is atomic, the next run resumes.

Run as a program, this file is what gets killed, or a reader beside it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import duckdb
import pytest

from benchmarks.order_log import make_order_log
from refold.event_schemas import RefoldError
from refold.event_schemas.orders import StockAdjusted
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.beam.staged_pipeline import Named, Work, run_staged
from refold.pipelines.rebuild.rebuild import Rebuilt, rebuild
from refold.pipelines.rebuild.refresh import refresh
from refold.pipelines.seal import seal
from refold.warehouse.event_log import Appender, open_log, verify
from refold.warehouse.object_store.store import TEMP_PREFIX
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import Generation, open_generations

pytestmark = pytest.mark.slow

EVENTS = 30_000
SALES = 40
COMMITS = 100
BOUND = 90
"""Seconds after which a wait fails."""
STATE = """
SELECT position, (SELECT count(*) FROM order_summary), (SELECT sum(on_hand) FROM inventory_status)
FROM refold.checkpoint
"""

State = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Shop:
    """A log, and read models that lag behind it by some commits."""

    folder: Path

    @property
    def log(self) -> str:
        """URL of the log."""
        return str(self.folder / "log")

    @property
    def read_models(self) -> str:
        """URL of the read models."""
        return str(self.folder / "read-models")

    @property
    def published(self) -> Path:
        """The generations."""
        return self.folder / "read-models" / "orders"

    def generation(self) -> Generation:
        """Load the newest generation."""
        found = open_generations(self.read_models, "orders").newest()
        assert found is not None
        return found

    def rebuild(self) -> Rebuilt:
        """Rebuild all read models in this process."""
        return rebuild(open_log(self.log), "orders", self.read_models, beam_options(None))

    def state(self) -> State:
        """Read the tables that an analyst sees."""
        return read_once(str(self.published / "current.duckdb"))

    def rows(self) -> dict[str, list[Any]]:
        """Read all rows of all tables."""
        with closing(duckdb.connect(str(self.published / "current.duckdb"), read_only=True)) as connection:
            names = [model.name for model in ORDERS.read_models]
            return {name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in names}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A published history, and later events that the next rebuild has to seal and replay."""
    shop = Shop(tmp_path_factory.mktemp("original"))
    make_order_log(shop.folder, EVENTS, bucket_count=16)
    shop.rebuild()
    appender = Appender(open_log(shop.log), ORDERS.registry)
    for number in range(SALES):
        lost = StockAdjusted(sku=f"sku-{number:05d}", quantity=-1, reason="lost")
        appender.append(f"stock-sku-{number:05d}", [lost])
    return shop


@pytest.fixture(scope="module")
def undisturbed(original: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The expected rows, of a run that is not killed."""
    shop = copied(original, tmp_path_factory.mktemp("undisturbed"))
    assert shop.rebuild().resumed == 0
    return shop


@pytest.fixture
def shop(original: Shop, tmp_path: Path) -> Shop:
    """A copy, to run a test on."""
    return copied(original, tmp_path)


def copied(shop: Shop, folder: Path) -> Shop:
    """Copy log and read models."""
    shutil.copytree(shop.folder, folder / "shop", symlinks=True)
    return Shop(folder / "shop")


def read_once(path: str) -> State:
    """Open a published file, as an analyst would, and query it."""
    with closing(duckdb.connect(path, read_only=True, config={"threads": 1})) as connection:
        position, orders, on_hand = connection.execute(STATE).fetchall()[0]
        return int(position), int(orders), int(on_hand)


def started(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start this file as a program."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, __file__, *arguments], text=True, env=environment, **options)


def killed_when(condition: Callable[[], bool], *arguments: str) -> int:
    """Start this file as a program, kill it once a condition holds, and return its exit code."""
    with started(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        give_up = monotonic() + BOUND
        while not condition() and monotonic() < give_up:
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it ended with {process.wait(timeout=0.004)}, and the moment never came")
        process.send_signal(signal.SIGKILL)
        return process.wait()


def staged(shop: Shop) -> list[Path]:
    """List the objects that a rebuild has finished staging."""
    return objects(shop.published, "staging/rebuild-*/staged/done/*")


def objects(folder: Path, pattern: str) -> list[Path]:
    """List the complete objects, without files that are still written under a temporary name."""
    return [path for path in folder.glob(pattern) if not path.name.startswith(TEMP_PREFIX)]


@contextmanager
def reading(shop: Shop) -> Iterator[list[State]]:
    """Have another process read the published file from before to after; the list has its answers once it has ended."""
    answers: list[State] = []
    with started(
        "read", str(shop.published / "current.duckdb"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        answers.append(tuple(json.loads(reader.stdout.readline())))
        yield answers
        output, _ = reader.communicate(timeout=BOUND)
        answers += [tuple(json.loads(line)) for line in output.splitlines()]
    assert reader.returncode == 0


MOMENTS: dict[str, Callable[[Shop], bool]] = {
    "the first unit is staged": lambda shop: len(staged(shop)) >= 1,
    "a group is merged": lambda shop: any(path.name.startswith("merge-") for path in staged(shop)),
    "the new database is loaded": lambda shop: any(shop.published.glob("work/*/working.duckdb")),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_rebuild_harms_nobody_and_is_resumed(shop: Shop, undisturbed: Shop, moment: str) -> None:
    """Readers see the old generation until a second run, which reuses staged objects, publishes the same rows."""
    before, old = shop.state(), shop.generation()
    with reading(shop) as answers:
        code = killed_when(lambda: MOMENTS[moment](shop), "rebuild", shop.log, shop.read_models)
        assert code == -signal.SIGKILL
        assert (shop.generation(), shop.state()) == (old, before)
        left = len(staged(shop))
        again = shop.rebuild()
    assert again.resumed == left > 0
    assert (again.generation.number, staged(shop)) == (old.number + 1, [])
    assert again.generation.tables == undisturbed.generation().tables
    assert shop.rows() == undisturbed.rows()
    assert shop.state() == (before[0] + SALES, before[1], before[2] - SALES)
    assert (answers[0], answers[-1], set(answers)) == (before, shop.state(), {before, shop.state()})


def test_a_rebuild_killed_as_it_publishes_has_published_all_or_nothing(shop: Shop, undisturbed: Shop) -> None:
    """After a kill once the file exists, either the newest generation refers to it or none does."""
    before, old = shop.state(), shop.generation()
    files = len(objects(shop.published, "files/*.duckdb"))
    with reading(shop) as answers:
        code = killed_when(
            lambda: len(objects(shop.published, "files/*.duckdb")) > files, "rebuild", shop.log, shop.read_models
        )
        assert code == -signal.SIGKILL
        published, left = shop.generation() != old, len(staged(shop))
        assert not published or shop.generation().tables == undisturbed.generation().tables
        again = shop.rebuild()
    assert published or again.resumed == left > 0
    assert again.generation.tables == undisturbed.generation().tables
    assert shop.rows() == undisturbed.rows()
    assert (answers[0], answers[-1], set(answers)) == (before, shop.state(), {before, undisturbed.state()})


def test_a_refresh_killed_as_it_catches_up_is_gone_on_with(shop: Shop, undisturbed: Shop) -> None:
    """Readers see the old generation until a second run publishes; nothing is applied twice."""
    before, old = shop.state(), shop.generation()
    code = killed_when(lambda: any(shop.published.glob("work/*/working.duckdb")), "refresh", shop.log, shop.read_models)
    assert code == -signal.SIGKILL
    assert (shop.generation(), shop.state()) == (old, before)
    again = refresh(open_log(shop.log), "orders", shop.read_models, beam_options(None))
    assert (again.rebuilt, again.caught_up) == ((), SALES)
    assert shop.rows() == undisturbed.rows()


@pytest.fixture(scope="module")
def unsealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of sealed history, with many commits that are not sealed yet."""
    folder = tmp_path_factory.mktemp("unsealed")
    log = make_order_log(folder, 2_000, bucket_count=16)
    appender = Appender(log, ORDERS.registry)
    for number in range(COMMITS):
        appender.append(f"stock-{number}", [StockAdjusted(sku=f"sku-{number}", quantity=1, reason="found")])
    return folder / "log"


@pytest.mark.parametrize("moment", ["staging/seal-*/repartitioned/*", "staging/seal-*/sealed/*"])
def test_a_killed_seal_leaves_the_log_sound(unsealed: Path, tmp_path: Path, moment: str) -> None:
    """The files of a killed seal are not used; a second seal completes, and full verification passes both times."""
    url = str(shutil.copytree(unsealed, tmp_path / "log"))
    before = open_log(url).head()
    code = killed_when(lambda: objects(Path(url), moment) != [], "seal", url)
    assert code == -signal.SIGKILL
    assert open_log(url).head() == before
    whole = verify(open_log(url), ORDERS.registry)
    assert (whole.findings, whole.unchecked, whole.events) == ((), (), before.position)
    done = seal(open_log(url), "orders", beam_options(None))
    assert (done.events, done.commits, done.position) == (COMMITS, COMMITS, before.position)
    whole = verify(open_log(url), ORDERS.registry)
    assert (whole.findings, whole.unchecked, whole.events) == ((), (), before.position)


@pytest.mark.parametrize(("step", "how"), [("stage", "kill"), ("merge", "exit")])
def test_a_worker_process_that_dies_is_an_error(tmp_path: Path, step: str, how: str) -> None:
    """The run ends with an error and leaves no process; Beam itself waits forever for a dead worker."""
    arguments = ("die", str(tmp_path), step, how)
    with started(*arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            output, _ = process.communicate(timeout=BOUND)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "A worker process of the pipeline died without an error" in output
    assert "--direct_num_workers=1" in output


def die(how: str) -> None:
    """End this process at once."""
    if how == "exit":
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Deadly:
    """A unit of work."""

    number: int
    step: str
    how: str


def stage(unit: Deadly) -> Iterator[Named]:
    """Stage nothing, or die."""
    if unit.step == "stage" and unit.number == 3:
        die(unit.how)
    yield f"{unit.step}/{unit.how}", str(unit.number)


def merge(group: str, names: list[str]) -> None:
    """Merge nothing, or die."""
    step, how = group.split("/")
    if step == "merge" and names:
        die(how)


def run_deadly(folder: str, step: str, how: str) -> None:
    """Run a pipeline in which a worker dies, and print how it ended."""
    from tests.faults import test_rebuild_kill as importable

    options = beam_options(None, ["--direct_running_mode=multi_processing", "--direct_num_workers=2"])
    units = [importable.Deadly(number, step, how) for number in range(4)]
    try:
        run_staged(Work(folder, units, stage=importable.stage, merge=importable.merge), options)
    except RefoldError as error:
        print(error)


def read(path: str) -> None:
    """Query a published file over and over, and once more when standard input is closed."""
    ended = False
    while not ended:
        ended = bool(select.select([sys.stdin], [], [], 0.1)[0])
        print(json.dumps(read_once(path)), flush=True)


def main(command: str, *arguments: str) -> None:
    """Do what this program was started for."""
    if command == "rebuild":
        rebuild(open_log(arguments[0]), "orders", arguments[1], beam_options(None))
    elif command == "refresh":
        refresh(open_log(arguments[0]), "orders", arguments[1], beam_options(None))
    elif command == "seal":
        seal(open_log(arguments[0]), "orders", beam_options(None))
    elif command == "die":
        run_deadly(*arguments)
    else:
        read(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
