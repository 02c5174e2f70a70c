"""The stream over S3: log and read models are objects, and the publishing process has only their URLs."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest

from refold import Appender, create_log, open_generations
from refold.event_schemas.orders import StockAdjusted, StockReceived
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.reconcile import reconcile
from refold.pipelines.stream.stream import stream
from refold.warehouse.orders import ORDERS
from tests.contracts.s3_servers import BUCKET, use_s3

pytestmark = pytest.mark.slow


def test_it_follows_and_publishes(localbucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After several micro-batches, the published read models equal those of a rebuild."""
    use_s3(monkeypatch, localbucket)
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    options = beam_options(None, ["--direct_num_workers=1"])
    log = create_log(f"{url}/log", domain_name="orders", bucket_count=1)
    appender = Appender(log, ORDERS.registry)
    appender.append("stock-cup", [StockReceived(sku="cup", quantity=9, unit_cost=Decimal("2.50"), best_before=None)])
    assert stream(log, "orders", f"{url}/rm", options, once=True).rebuilt == 1
    for quantity in (-1, -2):
        appender.append("stock-cup", [StockAdjusted(sku="cup", quantity=quantity, reason="broken")])
    done = stream(log, "orders", f"{url}/rm", options, once=True)
    newest = open_generations(f"{url}/rm", "orders").newest()
    assert newest is not None
    assert (done.events, newest.kind, newest.position) == (2, "stream", 3)
    assert reconcile(log, "orders", f"{url}/rm", options).differences == ()
