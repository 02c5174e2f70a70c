"""The guard of every request, tested with a small application and, where sockets matter, a real server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel

from refold.event_schemas import ConcurrencyError, StoreError, UsageError
from refold.pipelines.serving.http.guard import Guard, RequestLimits
from refold.pipelines.serving.http.host_policy import allowed_hosts
from refold.pipelines.serving.http.problems import install_handlers
from refold.pipelines.serving.http.protocol import MAX_HEAD_BYTES, BoundedProtocol
from refold.pipelines.serving.http.tokens import Scope, Tokens, load_tokens

READER, WRITER, KEEPER, EXPIRED = (f"{name}-wq7JpY2Vt0hZ4nUe8sKd" for name in ("read", "comm", "admi", "gone"))
TOKENS = load_tokens(
    {
        "REFOLD_TOKENS": f"reader:read:{READER} writer:command:{WRITER} keeper:admin:{KEEPER}"
        f" late:read+command:{EXPIRED}:2026-01-01"
    }
)
NO_TOKENS, DEFAULT_LIMITS = Tokens(), RequestLimits()
JSON = {"content-type": "application/json"}


class Command(BaseModel):
    """The command of these tests."""

    order_id: str


@dataclass
class Shop:
    """A small application behind the guard.

    Attributes:
        done: orders of the commands that passed.
        started: set when a request waits.
        ended: the number of requests that have waited.
        go_on: set it to release them.
        thread_may_end: set it to release requests that wait in a thread.
        app: the application.
    """

    done: list[str] = field(default_factory=list)
    ended: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    thread_may_end: threading.Event = field(default_factory=threading.Event)
    app: FastAPI = field(default_factory=FastAPI)


def make_shop(
    *, tokens: Tokens = NO_TOKENS, limits: RequestLimits = DEFAULT_LIMITS, hosts: frozenset[str] | None = None
) -> Shop:
    """Make the application and set the guard before it."""
    shop = Shop()

    @shop.app.get("/orders/{order_id}")
    async def order(order_id: str, request: Request, limit: int = 50) -> dict[str, Any]:
        return {"order_id": order_id, "requested_by": request.state.grant.name, "limit": limit}

    @shop.app.post("/commands/PlaceOrder", status_code=201)
    async def place(command: Command) -> None:
        shop.done.append(command.order_id)

    @shop.app.get("/healthz")
    async def health() -> None:
        return None

    @shop.app.get("/wait")
    async def wait() -> str:
        shop.started.set()
        try:
            await shop.go_on.wait()
        finally:
            shop.ended += 1
        return "done"

    @shop.app.get("/work")
    def work() -> str:
        shop.thread_may_end.wait()
        return "done"

    @shop.app.get("/fails/{how}")
    async def fails(how: str) -> None:
        errors = {
            "unexpected": RuntimeError("in /srv/secret"),
            "store": StoreError("cannot list /srv/secret"),
            "usage": UsageError("`by` is day, week or month."),
            "conflict": ConcurrencyError("order-1", expected_version=1, actual_version=2),
        }
        raise errors[how]

    def scope_of(method: str, path: str) -> Scope | None:
        if path == "/healthz":
            return None
        return Scope.COMMAND if method == "POST" else Scope.READ

    install_handlers(shop.app)
    shop.app.add_middleware(Guard, tokens=tokens, scope_of=scope_of, limits=limits, hosts=hosts)
    return shop


@contextmanager
def serving(shop: Shop) -> Iterator[int]:
    """Serve an application on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            shop.app, log_level="critical", http=BoundedProtocol, loop="asyncio", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[listening]),))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def ask(port: int, sent: bytes) -> bytes:
    """Send bytes as they are, and read all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        answer = b""
        with suppress(ConnectionResetError):  # the server closed without reading all that was sent
            while part := connection.recv(65_536):
                answer += part
        return answer


def request(shop: Shop, method: str, path: str, *, address: str = "127.0.0.1", **options: Any) -> httpx.Response:
    """Send one request, in this process."""

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(shop.app, raise_app_exceptions=False, client=(address, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
            return await client.request(method, path, **options)

    return asyncio.run(once())


def check_problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """Check that a response is a problem document of this status, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert code is None or document["code"] == code
    return document


def bearer(secret: str) -> dict[str, str]:
    """Make the header of a token."""
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """An open server with small bounds, and one order."""
    limits = RequestLimits(body_bytes=100_000, seconds=1)
    with serving(make_shop(limits=limits, hosts=allowed_hosts("127.0.0.1", Tokens()))) as port:
        yield port


def test_a_valid_request_passes() -> None:
    """It reaches its route, which knows the caller; the response has the headers that protect browsers."""
    answer = request(make_shop(tokens=TOKENS), "GET", "/orders/order-1?limit=5", headers=bearer(READER))
    assert answer.json() == {"order_id": "order-1", "requested_by": "reader", "limit": 5}
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/orders/caf%C3%A9", "/orders/a%20b", "/orders/a%25b", "/orders/a..b?q=%27%3B--", "/orders/a:b"]
)
def test_unusual_names_pass(path: str) -> None:
    """Names with other alphabets, spaces, signs and dots are valid."""
    assert request(make_shop(), "GET", path).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/orders/%ff", 400),
        ("/orders/%c0%ae%c0%ae", 400),
        ("/orders/%ed%a0%80", 400),
        ("/orders/a%00", 400),
        ("/orders/a%0d%0aset-cookie:x", 400),
        ("/orders/%c2%85", 400),
        ("/orders/%zz", 400),
        ("/orders/%", 400),
        ("/orders/..%2f..%2fetc%2fpasswd", 400),
        ("/orders/..%5c..%5cetc", 400),
        ("/orders/%2e%2e/secret", 400),
        ("/orders/..", 400),
        ("/orders/.", 400),
        ("//orders/order-1", 400),
        ("/orders//order-1", 400),
        ("/orders/order-1?after=%ff", 400),
        ("/orders/order-1?after=%00", 400),
        ("/orders/order-1?after=%g1", 400),
        ("/orders/" + "a" * 3_000, 414),
        ("/orders/order-1?after=" + "a" * 9_000, 414),
    ],
)
def test_bad_request_lines(port: int, path: str, status: int) -> None:
    """Bad UTF-8, control characters, path tricks and endless lines are refused, as they come over the wire."""
    answer = ask(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1"))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"application/problem+json" in answer


def test_a_token_is_needed() -> None:
    """None, an unknown one, an expired one and one in the wrong place are refused, and say how to send one."""
    shop = make_shop(tokens=TOKENS)
    for headers in ({}, bearer("x" * 30), bearer(EXPIRED), bearer(""), {"authorization": READER}, {"cookie": READER}):
        answer = request(shop, "GET", f"/orders/order-1?token={READER}", headers=headers)
        check_problem(answer, 401, "token")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert request(shop, "GET", "/healthz").status_code == 200


def test_a_token_is_good_for_its_scopes_only() -> None:
    """A reader commands nothing, a writer reads nothing, the keeper does both."""
    shop = make_shop(tokens=TOKENS)
    order = {"order_id": "order-1"}
    refused = request(shop, "POST", "/commands/PlaceOrder", json=order, headers=bearer(READER))
    assert "command" in check_problem(refused, 403, "scope")["detail"]
    check_problem(request(shop, "GET", "/orders/order-1", headers=bearer(WRITER)), 403, "scope")
    assert not shop.done
    assert request(shop, "POST", "/commands/PlaceOrder", json=order, headers=bearer(WRITER)).status_code == 201
    assert request(shop, "GET", "/orders/order-1", headers=bearer(KEEPER)).status_code == 200
    assert shop.done == ["order-1"]


def test_other_hosts_and_origins() -> None:
    """A page of another origin can neither read by DNS rebinding nor post."""
    shop = make_shop(hosts=allowed_hosts("127.0.0.1", Tokens()))
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", ""):
        check_problem(request(shop, "GET", "/orders/order-1", headers={"host": host}), 421, "host")
    order = {"order_id": "order-1"}
    for origin in ("https://evil.example", "null", "http://localhost:3000"):
        check_problem(
            request(shop, "POST", "/commands/PlaceOrder", json=order, headers={"origin": origin}), 403, "origin"
        )
    for media_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/plain;application/json",
    ):
        headers = {"content-type": media_type}
        answer = request(shop, "POST", "/commands/PlaceOrder", content=b'{"order_id": "order-1"}', headers=headers)
        check_problem(answer, 415)
    assert not shop.done
    own = {"origin": "http://localhost:8080"}
    assert request(shop, "POST", "/commands/PlaceOrder", json=order, headers=own).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b'{"order_id": "\xff"}',
        b'{"order_id": "\xed\xa0\x80"}',
        rb'{"order_id": "\ud800"}',
        rb'{"order_id": "a\u0000b"}',
        '{"order_id": "order-1"}'.encode("utf-16"),
        b"[" * 50_000,
        b'{"order_id": NaN}',
        b'{"order_id": "order-1"',
        b'{"order_id": 7}',
        b"{}",
        b"[]",
        b"null",
        b"",
    ],
)
def test_bodies_that_are_no_command(body: bytes) -> None:
    """Bad UTF-8, half surrogates, NUL, endless nesting, other types: malformed, and nothing happens."""
    shop = make_shop()
    answer = request(shop, "POST", "/commands/PlaceOrder", content=body, headers=JSON)
    check_problem(answer, 400, "malformed")
    assert not shop.done


def test_large_bodies(port: int) -> None:
    """10 MB are refused: at once if the length is declared, else when the count exceeds the limit."""
    head = b"POST /commands/PlaceOrder HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    declared = ask(port, head + b"Connection: close\r\nContent-Length: 10000000\r\n\r\n")  # no body comes
    assert declared.startswith(b"HTTP/1.1 413 ")
    many_digits = ask(port, head + b"Content-Length: 10000000000000000\r\n\r\n")
    assert many_digits.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in many_digits
    counted = ask(port, head + b"Transfer-Encoding: chunked\r\n\r\n" + b"20000\r\n" + b"a" * 0x20000 + b"\r\n")
    assert counted.startswith(b"HTTP/1.1 413 ")
    # No route reads it, and it is still rejected.
    assert ask(port, head.replace(b"POST", b"GET") + b"Content-Length: 100000000\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_10_mb(port: int) -> None:
    """An ordinary client sends everything before it reads; it gets the response, and the connection stays open."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        for path in ("/commands/PlaceOrder", "/nothing/here"):
            check_problem(client.post(path, content=b"a" * 10_000_000, headers=JSON), 413, "size")
        assert client.get("/orders/order-1").status_code == 200


def test_a_body_that_does_not_end(port: int) -> None:
    """The server waits up to the request's deadline, and then rejects it."""
    head = b"POST /commands/PlaceOrder HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert ask(port, head + b'Content-Length: 100\r\n\r\n{"order_id":').startswith(b"HTTP/1.1 408 ")


def test_a_request_that_takes_too_long() -> None:
    """The client gets a response at the deadline, the handler is cancelled, and the server continues."""
    shop = make_shop(limits=RequestLimits(seconds=0.2))
    with serving(shop) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/wait", timeout=20)
        check_problem(answer, 503, "time")
        assert answer.headers["retry-after"] == "1"
        assert httpx.get(f"http://127.0.0.1:{port}/orders/order-1").status_code == 200
        assert shop.ended == 1


def test_a_thread_that_takes_too_long() -> None:
    """It cannot be cancelled; its client still gets a response."""
    shop = make_shop(limits=RequestLimits(seconds=0.2))
    with serving(shop) as port:
        try:
            check_problem(httpx.get(f"http://127.0.0.1:{port}/work", timeout=20), 503, "time")
            assert httpx.get(f"http://127.0.0.1:{port}/orders/order-1").status_code == 200
        finally:
            shop.thread_may_end.set()


def test_heads_are_bounded(port: int) -> None:
    """A few large headers pass; endless headers are cut off, whether in many lines or in one."""
    start = b"GET /orders/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    assert ask(port, start + b"x: " + b"a" * 30_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    line = b"x: " + b"a" * 1_000 + b"\r\n"
    for endless in (line * 200, b"x: " + b"a" * 200_000):
        assert ask(port, start + endless).startswith(b"HTTP/1.1 431 ")
    assert ask(port, b"GET /" + b"a" * (MAX_HEAD_BYTES + 1)).startswith(b"HTTP/1.1 431 ")


def test_heads_that_come_slowly(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that sends nothing, half a head, or half of a second head is closed."""
    monkeypatch.setattr("refold.pipelines.serving.http.protocol.HEAD_SECONDS", 0.2)
    assert ask(port, b"").startswith(b"HTTP/1.1 408 ")
    assert ask(port, b"GET /orders/a HTTP/1.1\r\nHost: loc").startswith(b"HTTP/1.1 408 ")
    whole = b"GET /orders/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answers = ask(port, whole + whole[:20])
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answers


def test_half_a_body_is_not_acted_on() -> None:
    """A client that disconnects within a body commands nothing, even if the part that arrived is valid."""
    shop = make_shop()
    came: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"order_id": "order-1"}', "more_body": True},
        {"type": "http.disconnect"},
    ]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"30")]
    place = {"path": "/commands/PlaceOrder", "raw_path": b"/commands/PlaceOrder", "query_string": b"", "root_path": ""}
    scope = {"type": "http", "method": "POST", "http_version": "1.1", "headers": headers, "app": shop.app, **place}

    async def receive() -> dict[str, Any]:
        return came.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    asyncio.run(shop.app(scope, receive, send))
    assert not shop.done


def test_requests_in_flight_are_limited() -> None:
    """A request above the limit gets 503 with Retry-After; when a request ends, the next one passes."""

    async def play() -> list[int]:
        shop = make_shop(limits=RequestLimits(in_flight=1))
        transport = httpx.ASGITransport(shop.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = asyncio.ensure_future(client.get("/wait"))
            await shop.started.wait()
            second = await client.get("/wait")
            shop.go_on.set()
            check_problem(second, 503, "busy")
            assert second.headers["retry-after"] == "1"
            return [(await first).status_code, (await client.get("/wait")).status_code]

    assert asyncio.run(play()) == [200, 200]


def test_rates_are_limited() -> None:
    """Each token has its own count; requests without a valid token count by address."""
    shop = make_shop(tokens=TOKENS, limits=RequestLimits(rate="2/hour"))
    for secret in (READER, KEEPER):
        statuses = [request(shop, "GET", "/orders/order-1", headers=bearer(secret)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
    for address in ("192.0.2.1", "192.0.2.2"):
        answers = [request(shop, "GET", "/orders/a", address=address, headers=bearer("x" * 30)) for _ in range(3)]
        assert [a.status_code for a in answers] == [401, 401, 429]
        check_problem(answers[-1], 429, "rate")
        assert int(answers[-1].headers["retry-after"]) > 0
    assert [request(shop, "GET", "/healthz").status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("rate", ["often", "0/second", "1/fortnight"])
def test_invalid_rates(rate: str) -> None:
    """Invalid rates are usage errors when the server starts."""
    with pytest.raises(UsageError, match="100/second"):
        RequestLimits(rate=rate)


def test_limits_that_allow_nothing() -> None:
    """Limits that allow no request are usage errors."""
    for bounds in ({"body_bytes": 0}, {"seconds": -1.0}, {"in_flight": 0}):
        with pytest.raises(UsageError, match="above 0"):
            RequestLimits(**bounds)


def test_errors_are_problem_documents() -> None:
    """Each error has its status, and no internals."""
    shop = make_shop()
    conflict = check_problem(request(shop, "GET", "/fails/conflict"), 409, "conflict")
    assert (conflict["expected_version"], conflict["actual_version"]) == (1, 2)
    assert "day, week" in check_problem(request(shop, "GET", "/fails/usage"), 400)["detail"]
    for how, status in (("unexpected", 500), ("store", 503)):
        assert "/srv" not in str(check_problem(request(shop, "GET", f"/fails/{how}"), status))
    check_problem(request(shop, "GET", "/nothing/here"), 404)
    assert "GET" in request(shop, "DELETE", "/orders/order-1").headers["allow"]
    malformed = check_problem(request(shop, "GET", "/orders/order-1?limit=1;DROP"), 400, "malformed")
    assert malformed["errors"][0]["where"] == "query.limit"
    assert "DROP" not in str(malformed)


def test_web_sockets_are_closed() -> None:
    """No route is a web socket, and one would bypass the guard."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/orders/a", "headers": [], "query_string": b""}
    asyncio.run(make_shop().app(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
