"""``refold serve`` under attack: hostile requests get 4xx and change nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run
from typing import Any

import httpx
import pytest

from refold.pipelines.rebuild.rebuild import rebuild
from tests.pipelines.serving.hostile import HOSTILE, KEEPER, READER, TOKENS, WRITER, send
from tests.pipelines.serving.served import ROOT, Served, served
from tests.pipelines.serving.test_serve import OPTIONS, shop

ORDER = {"order_id": "order-safe", "customer_id": "c-1", "currency": "EUR"}


def bearer(secret: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose read models are published."""
    folder = tmp_path_factory.mktemp("guarded")
    rebuild(shop(folder), "orders", str(folder / "read-models"), OPTIONS)
    return folder


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Served]:
    """A server with tokens."""
    with served(folder, "--query", environment={"REFOLD_TOKENS": TOKENS}) as running:
        yield running


def state(folder: Path, running: Served) -> tuple[Any, ...]:
    """Return what a request could change: files of log and read models, and the positions that the server reports."""
    kept = ("commits", "segments", "manifests", "generations", "files")
    files = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and set(p.parts) & set(kept)}
    with running.client(headers=bearer(KEEPER)) as client:
        status = client.get("/status").json()
    return files, status["log"]["position"], status["generations"]


@pytest.mark.slow
def test_hostile_requests_get_4xx_and_change_nothing(folder: Path, guarded: Served) -> None:
    """Several hundred hostile requests change nothing; a response with 200 has no rows."""
    port = httpx.URL(guarded.url).port
    assert port is not None
    before = state(folder, guarded)
    wrong = []
    for hostile in HOSTILE:
        status, body = send(port, hostile)
        if status not in hostile.statuses or (status == 200 and b'"data":[]' not in body):
            wrong.append((hostile.name, hostile.method, hostile.path[:80], status, body[:200]))
    assert wrong == []
    assert state(folder, guarded) == before
    assert guarded.process.poll() is None


def test_a_token_is_good_for_its_scopes_only(guarded: Served) -> None:
    """Readers read, writers command, the keeper does both; anybody may check whether the server is alive."""
    with guarded.client() as client:
        assert (
            client.get("/healthz").status_code
            == client.get("/readyz").status_code
            == client.get("/").status_code
            == 200
        )
        assert client.get("/orders/order-1").status_code == 401
        assert client.get("/orders/order-1", headers=bearer(READER)).status_code == 200
        assert client.get("/orders/order-1", headers=bearer(WRITER)).status_code == 403
        for token, status in ((READER, 403), (WRITER, 422), (KEEPER, 422)):
            order = {**ORDER, "currency": ""}
            assert client.post("/commands/PlaceOrder", json=order, headers=bearer(token)).status_code == status


def test_analysts_query_in_sql_where_it_is_enabled(guarded: Served) -> None:
    """A query has bound parameters, exact decimals, and the position of its result."""
    body = {"sql": "SELECT sku, on_hand FROM inventory_status WHERE sku = $sku", "parameters": {"sku": "cup"}}
    with guarded.client(headers=bearer(READER)) as client:
        answer = client.post("/query", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"] == [["cup", 100]]
        assert answer.json()["position"] == client.get("/status").json()["read_models"]["position"]


@pytest.mark.slow
def test_sql_is_off_by_default(folder: Path) -> None:
    """Without the option the route does not exist."""
    with served(folder) as running, running.client() as client:
        assert client.post("/query", json={"sql": "SELECT 1"}).status_code == 404


@pytest.mark.slow
def test_requests_above_the_rate_get_429(folder: Path) -> None:
    """The response has Retry-After; other tokens are not affected."""
    with (
        served(folder, "--rate", "5/minute", environment={"REFOLD_TOKENS": TOKENS}) as running,
        running.client() as client,
    ):
        answers = [client.get("/orders/order-1", headers=bearer(READER)) for _ in range(6)]
        assert [a.status_code for a in answers] == [200] * 5 + [429]
        assert int(answers[-1].headers["retry-after"]) > 0
        assert client.get("/orders/order-1", headers=bearer(KEEPER)).status_code == 200


def test_a_public_server_needs_tokens(folder: Path) -> None:
    """Without tokens the command fails before it listens, and names the next step."""
    command = [sys.executable, "-m", "refold", "serve", "--host", "0.0.0.0", "--port", "0"]
    command += ["--log", str(folder / "log"), "--read-models", str(folder / "read-models")]
    done = run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "REFOLD_TOKENS" in done.stderr
