"""The stream over S3: log and read models are objects, and the publishing process has only their URLs."""

from __future__ import annotations

import threading
import time
import uuid
from decimal import Decimal

import pytest

from refold import Appender, create_log, open_generations
from refold.event_schemas import StoreUnavailableError
from refold.event_schemas.orders import StockAdjusted, StockReceived
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.reconcile import reconcile
from refold.pipelines.stream.stream import ProgressReport, stream
from refold.warehouse.orders import ORDERS
from tests.contracts.s3_servers import BUCKET, faulty_proxy, use_s3

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


def received(quantity: int) -> StockReceived:
    """Make an event."""
    return StockReceived(sku="cup", quantity=quantity, unit_cost=Decimal("2.50"), best_before=None)


@pytest.mark.parametrize("fault", ["down", "busy"])
def test_it_survives_an_outage_of_the_store(localbucket: str, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """It says so, tries again, and goes on where it was; what it could not publish is published later."""
    with faulty_proxy(localbucket) as (endpoint, faults):
        use_s3(monkeypatch, endpoint)
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        log = create_log(f"{url}/log", domain_name="orders", bucket_count=1)
        appender = Appender(log, ORDERS.registry)
        appender.append("stock-cup", [received(1)])
        options = beam_options(None, ["--direct_num_workers=1"])
        reports: list[ProgressReport] = []
        failed: list[BaseException] = []

        def follow() -> None:
            try:
                stream(log, "orders", f"{url}/rm", options, until=3, publish_every=0.1, report=reports.append)
            except BaseException as error:
                failed.append(error)

        def wait_for(what: str, count: int = 1) -> None:
            deadline = time.monotonic() + 90
            while sum(report.what == what for report in reports) < count:
                assert time.monotonic() < deadline, [r.text for r in reports]
                assert not failed, failed
                time.sleep(0.05)

        thread = threading.Thread(target=follow)
        thread.start()
        wait_for("open")
        appender.append("stock-cup", [received(2)])
        wait_for("micro_batch")
        setattr(faults, fault, True)
        wait_for("outage")
        time.sleep(1)
        setattr(faults, fault, False)
        wait_for("outage", 2)
        appender.append("stock-cup", [received(3)])
        thread.join(timeout=90)
        assert not thread.is_alive()
        assert not failed, failed
        texts = [report.text for report in reports if report.what == "outage"]
        assert "Trying again for up to 600 s" in texts[0]
        assert "responds again" in texts[1]
        newest = open_generations(f"{url}/rm", "orders").newest()
        assert newest is not None
        assert newest.position == 3
        assert reconcile(log, "orders", f"{url}/rm", options).differences == ()


def test_an_outage_that_takes_too_long_ends_it(localbucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next stream goes on from the newest generation."""
    with faulty_proxy(localbucket) as (endpoint, faults):
        use_s3(monkeypatch, endpoint)
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        log = create_log(f"{url}/log", domain_name="orders", bucket_count=1)
        Appender(log, ORDERS.registry).append("stock-cup", [received(1)])
        options = beam_options(None, ["--direct_num_workers=1"])

        def fail(progress: ProgressReport) -> None:
            faults.down |= progress.what == "heartbeat"

        with pytest.raises(StoreUnavailableError, match="Cannot "):
            stream(log, "orders", f"{url}/rm", options, max_outage=1, report=fail)
        faults.down = False
        Appender(log, ORDERS.registry).append("stock-cup", [received(2)])
        assert stream(log, "orders", f"{url}/rm", options, once=True).position == 2
