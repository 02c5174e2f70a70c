"""``refold serve``: reads and commands over HTTP, against the process that users run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import tenacity

from refold.event_schemas.orders import (
    AddItem,
    CancelOrder,
    PayOrder,
    PlaceOrder,
    ReceiveStock,
)
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.commands.decisions import CommandRequest
from refold.warehouse.commands.handler import CommandHandler
from refold.warehouse.event_log import EventLog, create_log
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import open_generations
from tests.pipelines.serving.served import ROOT, Served, served
from tests.pipelines.stop_signals import SIGNALS

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("REFOLD_TEST_READ_YOUR_WRITES", "100"))
CUSTOMERS, ORDERS_EACH = 3, 7
OPTIONS = beam_options(None, ["--direct_num_workers=1"])


def shop(folder: Path) -> EventLog:
    """Create the history of a small shop by commands: ``order-0`` to ``order-20``, of ``c-0`` to ``c-2`` in turn."""
    log = create_log(str(folder / "log"), domain_name="orders", bucket_count=4)
    commands: list[object] = [ReceiveStock(sku="cup", quantity=100, unit_cost=Decimal("1.5"))]
    for number in range(CUSTOMERS * ORDERS_EACH):
        order = f"order-{number}"
        commands.append(PlaceOrder(order_id=order, customer_id=f"c-{number % CUSTOMERS}", currency="EUR"))
        commands.append(AddItem(order_id=order, sku="cup", quantity=2, unit_price=Decimal("2.25")))
        pay = PayOrder(order_id=order, payment_id=uuid.UUID(int=number), amount=Decimal("4.50"), method="card")
        commands.append(pay)
    commands.append(CancelOrder(order_id="order-0", reason="too late"))
    handler = CommandHandler(log, ORDERS)
    handler.handle_many(CommandRequest(command=c, command_id=str(n)) for n, c in enumerate(commands))
    return log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose read models are published."""
    folder = tmp_path_factory.mktemp("shop")
    rebuild(shop(folder), "orders", str(folder / "read-models"), OPTIONS)
    return folder


@pytest.fixture(scope="module")
def replica(folder: Path) -> Iterator[Served]:
    """A server that answers from published generations."""
    with served(folder) as running:
        yield running


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that streams, with its own shop."""
    folder = tmp_path_factory.mktemp("live")
    shop(folder)
    with served(folder, "--stream", "--publish-every", "0.5") as running:
        yield running


@pytest.fixture
def client(replica: Served) -> Iterator[httpx.Client]:
    """A client of the replica."""
    with replica.client() as client:
        yield client


@pytest.fixture
def at_live(live: Served) -> Iterator[httpx.Client]:
    """A client of the server that streams."""
    with live.client() as client:
        yield client


def get(client: httpx.Client, path: str, *, status: int = 200, **query: Any) -> Any:
    """Read a document."""
    answer = client.get(path, params=query)
    assert answer.status_code == status, answer.text
    wanted = "application/json" if status < 400 else "application/problem+json"
    assert answer.headers["content-type"] == wanted
    return answer.json()


def post(client: httpx.Client, name: str, *, status: int = 201, key: str | None = None, **fields: Any) -> Any:
    """Send a command, and return the document of the response."""
    headers = {"idempotency-key": key} if key else {}
    answer = client.post(f"/commands/{name}", json=fields, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_an_order_is_found_with_position_and_lag(client: httpx.Client) -> None:
    """The response has one row, exact amounts as text, and the position."""
    found = get(client, "/orders/order-4")
    order = found["data"]
    assert (order["order_id"], order["customer_id"], order["amount"], order["status"]) == (
        "order-4",
        "c-1",
        "4.50",
        "paid",
    )
    assert found["position"] == 65
    assert found["lag"] == {"events": 0, "seconds": 0.0}
    assert found["status"] == "current"
    assert found["last_updated"].startswith("20")


def test_pages_give_every_order_of_a_customer_once_newest_first(client: httpx.Client) -> None:
    """Following ``next`` from page to page loses and repeats nothing."""
    path: str | None = "/customers/c-2/orders?limit=3"
    seen: list[str] = []
    sizes = []
    while path:
        page = client.get(path).json()
        sizes.append(len(page["data"]))
        seen += [order["order_id"] for order in page["data"]]
        path = page["next"]
    assert sizes == [3, 3, 1]
    placed = [get(client, f"/orders/{order}")["data"]["placed_at"] for order in seen]
    assert sorted(seen) == sorted(f"order-{n}" for n in range(2, 21, 3))
    assert placed == sorted(placed, reverse=True)


def test_reports_and_stock_are_answered(client: httpx.Client) -> None:
    """Revenue and refunds add up, and stock is what was received less what is reserved."""
    [month] = get(client, "/reports/revenue", by="month")["data"]
    assert (month["orders_paid"], month["revenue"], month["refunds"], month["net_revenue"]) == (
        21,
        "94.50",
        "4.50",
        "90.00",
    )
    assert get(client, "/reports/revenue", to="2001-01-01")["data"] == []
    assert get(client, "/products/cup/inventory")["data"]["available"] == 100 - 2 * 20
    assert get(client, "/reports/stock", limit=5)["data"][0]["sku"] == "cup"


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/orders/none", {}, 404),
        ("/nowhere", {}, 404),
        ("/customers/c-1/orders", {"after": "x"}, 400),
        ("/customers/c-1/orders", {"after": "WzEsMl0"}, 400),  # [1,2]
        ("/customers/c-1/orders", {"after": "WzFd"}, 400),  # [1]
        ("/customers/c-1/orders", {"after": "WyJub3ciLHt9XQ"}, 400),  # ["now",{}]
        ("/customers/c-1/orders", {"limit": 0}, 400),
        ("/reports/revenue", {"from": "1"}, 400),
        ("/reports/revenue", {"by": "year"}, 400),
        ("/orders/order-1", {"min_position": -1}, 400),
        ("/orders/order-1", {"wait": "soon"}, 400),
    ],
)
def test_errors_are_problem_documents(client: httpx.Client, path: str, query: dict[str, Any], status: int) -> None:
    """Every error is a problem document with the status in it."""
    assert get(client, path, status=status, **query)["status"] == status


def test_an_etag_saves_the_answer_as_long_as_nothing_changes(at_live: httpx.Client) -> None:
    """A request with the ETag gets 304 at the same position, 200 at another."""
    first = at_live.get("/orders/order-5")
    known = {"if-none-match": first.headers["etag"]}
    again = at_live.get("/orders/order-5", headers=known)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    done = post(at_live, "ReceiveStock", sku="etag", quantity=1, unit_cost="1")
    later = at_live.get("/orders/order-5", headers=known, params={"min_position": done["position"], "wait": "20s"})
    assert later.status_code == 200
    assert later.headers["etag"] != first.headers["etag"]


def test_a_position_that_is_not_shown_yet_is_processing(client: httpx.Client) -> None:
    """A replica responds 202 with the rows so far, without an ETag."""
    answer = client.get("/orders/order-1", params={"min_position": 1_000_000, "wait": "10ms"})
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    assert answer.json()["data"]["order_id"] == "order-1"
    assert "etag" not in answer.headers
    assert get(client, "/orders/none", status=202, min_position=1_000_000)["data"] is None


def test_a_command_is_handled_once_and_refused_with_reasons(at_live: httpx.Client) -> None:
    """201, the same answer again for the same key, 422 with the rule's code, 409 with the actual version, 400."""
    order: dict[str, Any] = {"order_id": "order-once", "customer_id": "c-9", "currency": "EUR"}
    first = post(at_live, "PlaceOrder", key="k-1", **order)
    again = post(at_live, "PlaceOrder", key="k-1", **order)
    assert again == {**first, "repeated": True}
    assert (first["stream_version"], first["events"], first["command_id"]) == (1, 1, "k-1")
    assert post(at_live, "PlaceOrder", status=422, **order)["code"] == "already_placed"
    conflict = at_live.post("/commands/CancelOrder?expected_version=9", json={"order_id": "order-once", "reason": "no"})
    assert (conflict.status_code, conflict.json()["actual_version"]) == (409, 1)
    assert "quantity" in post(at_live, "ReceiveStock", status=400, sku="x", quantity="many", unit_cost="1")["detail"]
    assert post(at_live, "Unheard", status=404)["code"] == "unknown_command"


def test_clients_read_their_own_writes(live: Served) -> None:
    """A GET that waits for a command's position shows what the command did, every time, from several clients."""

    def write_and_read(number: int) -> list[str]:
        stale = []
        with live.client() as client:
            for turn in range(ROUNDS // 4):
                order = f"order-{number}-{turn}"
                done = post(client, "PlaceOrder", order_id=order, customer_id=f"mine-{number}", currency="EUR")
                query = {"min_position": done["position"], "wait": "20s"}
                one = client.get(f"/orders/{order}", params=query)
                newest = client.get(f"/customers/mine-{number}/orders", params={**query, "limit": 1})
                if one.status_code != 200 or newest.json()["data"][0]["order_id"] != order:
                    stale.append(f"{order}: {one.status_code} {newest.text}")
        return stale

    with ThreadPoolExecutor(4) as pool:
        assert [stale for found in pool.map(write_and_read, range(4)) for stale in found] == []


def test_a_replica_adopts_generations_while_it_answers(folder: Path, replica: Served, client: httpx.Client) -> None:
    """Responses show what another process has published, and no request fails meanwhile."""
    before = get(client, "/status")["read_models"]["generation"]
    done = post(client, "PlaceOrder", order_id="order-adopted", customer_id="c-9", currency="EUR")
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(_ask_until, replica, "/orders/order-adopted", done["position"])
        rebuild_again = pool.submit(_rebuild, folder)
        statuses = asking.result(timeout=60)
        rebuild_again.result()
    assert set(statuses) == {200, 202}
    assert get(client, "/status")["read_models"]["generation"] == before + 1
    assert open_generations(str(folder / "read-models"), "orders").numbers()[-1] == before + 1


def _rebuild(folder: Path) -> None:
    from refold.warehouse.event_log import open_log

    rebuild(open_log(str(folder / "log"), domain_name="orders"), "orders", str(folder / "read-models"), OPTIONS)


def _ask_until(running: Served, path: str, position: int) -> list[int]:
    statuses = [0]
    with running.client() as client:
        while statuses[-1] != 200:
            statuses.append(client.get(path, params={"min_position": position}).status_code)
            assert len(statuses) < 100_000
    return statuses[1:]


def test_the_server_reports_its_status(client: httpx.Client) -> None:
    """The server reports that it is alive and ready, its positions, and metrics by route."""
    assert get(client, "/healthz") == {"status": "alive"}
    assert get(client, "/readyz") == {"status": "ready"}
    status = get(client, "/status")
    assert status["log"]["position"] >= status["read_models"]["position"] > 0
    assert status["generations"][0]["number"] == status["read_models"]["generation"]
    metrics = client.get("/metrics").text
    assert 'refold_http_requests_total{route="/healthz",status="200"}' in metrics
    assert "refold_served_lag_events" in metrics


def test_a_server_without_read_models_is_alive_and_not_ready(tmp_path: Path) -> None:
    """Reads get 503 with Retry-After, commands are handled, and a later generation is adopted."""
    shop(tmp_path)
    with served(tmp_path, ready=False) as running, running.client() as client:
        assert get(client, "/healthz") == {"status": "alive"}
        assert get(client, "/readyz", status=503)["code"] == "unavailable"
        answer = client.get("/orders/order-1")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        post(client, "PlaceOrder", order_id="order-early", customer_id="c", currency="EUR")


def test_several_workers_serve_one_port(folder: Path) -> None:
    """All workers answer from the same generation, from the first request on."""
    with served(folder, "--workers", "2", "--no-commands", ready=False) as running, running.client() as client:
        client.headers["connection"] = "close"  # each request on its own connection, so that both workers are asked
        assert {get(client, "/orders/order-3")["data"]["order_id"] for _ in range(20)} == {"order-3"}
        assert client.post("/commands/PlaceOrder", json={}).status_code == 404


def test_a_stream_publishes_when_the_server_stops(tmp_path: Path) -> None:
    """SIGTERM drains: the last command's effect is in a generation."""
    shop(tmp_path)
    with served(tmp_path, "--stream", "--publish-every", "3600") as running, running.client() as client:
        done = post(client, "PlaceOrder", order_id="order-last", customer_id="c", currency="EUR")
        get(client, "/orders/order-last", min_position=done["position"], wait="20s")
    newest = open_generations(str(tmp_path / "read-models"), "orders").newest()
    assert newest is not None
    assert newest.position == done["position"]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("numbers", SIGNALS)
def test_it_drains_when_its_group_is_signalled(folder: Path, workers: str, numbers: tuple[signal.Signals, ...]) -> None:
    """A request that waits gets its answer, though every process of the server has all signals in the same instant."""
    with (
        served(folder, "--workers", workers, "--no-commands") as running,
        running.client() as client,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(client.get, "/orders/order-3", params={"min_position": 10**9, "wait": "3s"})
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1)
        for number in numbers:
            os.killpg(running.process.pid, number)
        assert waiting.result().status_code == 202
        assert running.process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("written", "status"),
    [
        ("{tag}", 304),
        ("{strong}", 304),
        ('"other", {tag}', 304),
        ('W/"other",{tag},"more"', 304),
        ("*", 304),
        ('"other"', 200),
        ("{bare}", 200),
        ("", 200),
    ],
)
def test_etags_are_compared_as_http_defines(client: httpx.Client, written: str, status: int) -> None:
    """Weak or strong, one of many, or any: 304 with the tag; a tag without quotes is ignored."""
    tag = client.get("/orders/order-5").headers["etag"]
    strong = tag.removeprefix("W/")
    known = written.format(tag=tag, strong=strong, bare=strong.strip('"'))
    answer = client.get("/orders/order-5", headers={"if-none-match": known})
    assert (answer.status_code, answer.headers["etag"]) == (status, tag)
    assert bool(answer.content) == (status == 200)


def test_a_missing_row_is_never_304(client: httpx.Client) -> None:
    """``*`` matches any row, but there is none; and the tag of another endpoint does not match."""
    assert client.get("/orders/none", headers={"if-none-match": "*"}).status_code == 404
    processing = client.get("/orders/order-5?min_position=1000000", headers={"if-none-match": "*"})
    assert processing.status_code == 202
    other = client.get("/reports/stock").headers["etag"]
    assert client.get("/orders/order-5", headers={"if-none-match": other}).status_code == 200


def _ended(pids: set[int]) -> bool:
    """Check whether processes have ended; a zombie has."""
    states = []
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            states.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
    return set(states) <= {"Z"}


def test_workers_stop_when_their_supervisor_is_killed(folder: Path) -> None:
    """Workers stop, rather than keep the port and answer forever."""
    with served(folder, "--workers", "2", "--no-commands", code=-signal.SIGKILL) as running:
        tasks = Path(f"/proc/{running.process.pid}/task")
        workers = {int(pid) for children in tasks.glob("*/children") for pid in children.read_text().split()}
        assert len(workers) >= 2
        running.process.kill()
        tenacity.Retrying(
            stop=tenacity.stop_after_delay(30),
            wait=tenacity.wait_fixed(0.05),
            retry=tenacity.retry_if_result(lambda ended: not ended),
        )(_ended, workers)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{running.url}/healthz")


def test_an_invalid_setting_is_reported_once_for_all_workers(folder: Path) -> None:
    """A public server needs tokens: several workers stop with the error as one does, rather than restart forever."""
    ended = _serve_by_two(folder, "orders", "--host", "0.0.0.0")
    assert ended.returncode not in (0, None)
    assert "token" in ended.stderr
    assert "Traceback" not in ended.stderr


_GONE_FOR_WORKERS = """
import multiprocessing, pathlib, shutil
from refold.warehouse.orders import ORDERS
if multiprocessing.parent_process() is not None:
    shutil.rmtree(pathlib.Path(__file__).parent / "log", ignore_errors=True)
"""


def test_workers_that_cannot_start_are_an_error(tmp_path: Path) -> None:
    """The log is missing when they open it: the exit code reports the failure."""
    create_log(str(tmp_path / "log"), domain_name="orders")
    (tmp_path / "gone.py").write_text(_GONE_FOR_WORKERS)
    ended = _serve_by_two(tmp_path, "gone:ORDERS")
    assert ended.returncode not in (0, None)
    assert "A worker could not start" in ended.stderr


def _serve_by_two(folder: Path, domain: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "refold", "--domain", domain, "serve", "--port", "0", "--workers", "2"]
    command += [*arguments, "--log", str(folder / "log"), "--read-models", str(folder / "read-models")]
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, cwd=folder)
