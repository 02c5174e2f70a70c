"""After a change of code: who serves follows it, or says that what it shows is of other code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import tenacity

from tests.pipelines.serving.served import ROOT, served

pytestmark = pytest.mark.slow

SHOP = """
from refold import Domain, Lookup, Projection, Report, View, event, total
@event(schema_version=1)
class Sold:
    sku: str
    quantity: int
SOLD = Projection(name="sold", key={"sku": "VARCHAR"}, columns={"n": total("BIGINT")},
                  on={Sold: "SELECT sku, quantity AS n"})
SHOP = Domain(
    name="shop", events=(Sold,), read_models=(SOLD,), views=(View("top", "SELECT sku, n FROM sold"),),
    endpoints=(Lookup(path="/sold/{sku}", table="sold", text="One."),
               Report(path="/top", sql="FROM top ORDER BY ALL", text="All.")),
)
"""
APPEND = """
from till import SHOP, Sold
from refold import Appender, create_log
log = create_log("log", domain_name="shop", bucket_count=2)
Appender(log, SHOP.registry).append("s", [Sold(sku="cup", quantity=2)])
"""
OTHER_VIEW = SHOP.replace("SELECT sku, n FROM sold", "SELECT sku, n, 2 * n AS twice FROM sold")
OTHER_MODEL = SHOP.replace("quantity AS n", "10 * quantity AS n")
NEW_MODEL = (
    OTHER_VIEW.replace("read_models=(SOLD,)", "read_models=(SOLD, MORE)")
    .replace(
        "SHOP = Domain(",
        'MORE = Projection(name="more", key={"sku": "VARCHAR"}, columns={"n": total("BIGINT")},\n'
        '                  on={Sold: "SELECT sku, quantity AS n"})\nSHOP = Domain(',
    )
    .replace("endpoints=(", 'endpoints=(Lookup(path="/more/{sku}", table="more", text="One."),')
)


def _environment(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def _run(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, **_environment(folder)}
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, env=environment, capture_output=True)


def _built(folder: Path) -> None:
    """Build the read models of the first version of the code."""
    (folder / "till.py").write_text(SHOP)
    (folder / "append.py").write_text(APPEND)
    _run(folder, "append.py")
    _refold(folder, "rebuild")


def _refold(folder: Path, command: str) -> None:
    _run(folder, "-m", "refold", "--domain", "till:SHOP", "--log", "log", "--read-models", "read-models", command)


def _get(client: httpx.Client, path: str) -> tuple[Any, ...]:
    found = client.get(path)
    body = found.json()
    return found.status_code, body.get("status"), body.get("data")


def test_a_replica_says_what_other_code_made(tmp_path: Path) -> None:
    """Rows of a changed view or read model are outdated; what is not there yet is 503, with a time to try again."""
    _built(tmp_path)
    environment = _environment(tmp_path)
    with served(tmp_path, domain="till:SHOP", environment=environment) as running, running.client() as client:
        assert _get(client, "/top") == (200, "current", [{"sku": "cup", "n": 2}])
    (tmp_path / "till.py").write_text(OTHER_MODEL)
    with served(tmp_path, domain="till:SHOP", environment=environment) as running, running.client() as client:
        assert _get(client, "/sold/cup") == (200, "outdated", {"sku": "cup", "n": 2})
        assert _get(client, "/top")[:2] == (200, "outdated")
        outdated = client.get("/top").headers["etag"]
        _refold(tmp_path, "rebuild")
        _wait_for(client, "/sold/cup", (200, "current", {"sku": "cup", "n": 20}))
        assert client.get("/top", headers={"if-none-match": outdated}).status_code == 200
    (tmp_path / "till.py").write_text(NEW_MODEL)
    with served(tmp_path, domain="till:SHOP", environment=environment) as running, running.client() as client:
        missing = client.get("/more/cup")
        assert (missing.status_code, missing.json()["code"], missing.headers["retry-after"]) == (503, "not_built", "5")
        assert client.get("/top").status_code == 503
        _refold(tmp_path, "rebuild")
        _wait_for(client, "/more/cup", (200, "current", {"sku": "cup", "n": 2}))
        assert _get(client, "/top") == (200, "current", [{"sku": "cup", "n": 2, "twice": 4}])


def _wait_for(client: httpx.Client, path: str, wanted: tuple[Any, ...]) -> None:
    tenacity.Retrying(
        stop=tenacity.stop_after_delay(30),
        wait=tenacity.wait_fixed(0.05),
        retry=tenacity.retry_if_result(lambda found: found != wanted),
    )(_get, client, path)


def test_a_stream_follows_a_changed_view(tmp_path: Path) -> None:
    """With ``--stream``, a view that alone has changed is shown at once, and published when the stream ends."""
    _built(tmp_path)
    (tmp_path / "till.py").write_text(OTHER_VIEW)
    environment = _environment(tmp_path)
    with (
        served(tmp_path, "--stream", domain="till:SHOP", environment=environment) as running,
        running.client() as client,
    ):
        assert _get(client, "/top") == (200, "current", [{"sku": "cup", "n": 2, "twice": 4}])
    with served(tmp_path, domain="till:SHOP", environment=environment) as running, running.client() as client:
        assert _get(client, "/top") == (200, "current", [{"sku": "cup", "n": 2, "twice": 4}])
