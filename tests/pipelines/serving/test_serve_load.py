"""The guard under load, on a real server: slots of clients that hung up, slow bodies, one caller among others."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx

from refold.pipelines.serving.http.guard import RequestLimits
from tests.pipelines.serving.test_serve_guard import check_problem, make_shop, serving

WAIT = b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n"
ONE_BYTE = (
    b"POST /commands/PlaceOrder HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: 20\r\n\r\n{"
)


@contextmanager
def connections(port: int, sent: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Open connections that have sent something, and close them all afterwards."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(count)]
        for connection in opened:
            connection.sendall(sent)
        yield opened


def until(url: str, status: int) -> float:
    """Ask until the status comes, and return how many seconds that took."""
    started = time.monotonic()
    while httpx.get(url, timeout=20).status_code != status:
        assert time.monotonic() - started < 20
        time.sleep(0.02)
    return time.monotonic() - started


def test_a_client_that_hung_up_frees_its_slot() -> None:
    """All slots wait; health is answered meanwhile, and with the clients gone the next request passes at once."""
    shop = make_shop(limits=RequestLimits(in_flight=40, in_flight_per_caller=40))
    with serving(shop) as port:
        url = f"http://127.0.0.1:{port}"
        with connections(port, WAIT, 50):
            until(f"{url}/orders/a", 503)
            check_problem(httpx.get(f"{url}/orders/a"), 503, "busy")
            assert httpx.get(f"{url}/healthz").status_code == 200
            assert shop.ended == 0
        assert until(f"{url}/orders/a", 200) < 5
        assert shop.ended == 40


def test_bodies_that_never_end_hold_no_slot_for_long() -> None:
    """A body has its own, shorter limit; health is answered meanwhile."""
    shop = make_shop(limits=RequestLimits(in_flight=40, in_flight_per_caller=40, body_seconds=0.5, seconds=60))
    with serving(shop) as port:
        url = f"http://127.0.0.1:{port}"
        with connections(port, ONE_BYTE, 50) as opened:
            until(f"{url}/orders/a", 503)
            assert httpx.get(f"{url}/healthz").status_code == 200
            assert until(f"{url}/orders/a", 200) < 5
            assert b" 408 " in opened[0].recv(1_000)
    assert not shop.done


def test_one_caller_cannot_take_all_slots() -> None:
    """Beyond its own limit it gets 429 with Retry-After."""
    shop = make_shop(limits=RequestLimits(in_flight=40, in_flight_per_caller=10))
    with serving(shop) as port:
        url = f"http://127.0.0.1:{port}"
        with connections(port, WAIT, 10):
            until(f"{url}/orders/a", 429)
            answer = httpx.get(f"{url}/orders/a")
            check_problem(answer, 429, "busy")
            assert answer.headers["retry-after"] == "1"
            assert httpx.get(f"{url}/healthz").status_code == 200
        until(f"{url}/orders/a", 200)
