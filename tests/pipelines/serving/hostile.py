"""Hostile requests as data, for a server of orders with the tokens below that was started with ``--query``.

They are sent over a socket unchanged, since HTTP clients correct paths and lengths. Each names the statuses that it may
get. None may change the log or the read models; a response with 200 must show no rows.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

READER = "read-wq7JpY2Vt0hZ4nUe8sKd"
WRITER = "comm-wq7JpY2Vt0hZ4nUe8sKd"
KEEPER = "admi-wq7JpY2Vt0hZ4nUe8sKd"
EXPIRED = "gone-wq7JpY2Vt0hZ4nUe8sKd"
TOKENS = (
    f"reader:read:{READER} writer:command:{WRITER} keeper:admin:{KEEPER} late:read+command+admin:{EXPIRED}:2026-01-01"
)
"""For ``REFOLD_TOKENS``."""

_SQL = (
    *(
        "' OR 1=1 --",
        "'; DROP TABLE order_summary; --",
        '" UNION SELECT * FROM refold.checkpoint --',
        "1) OR (1=1",
        "$1",
    ),
    *(
        "'; ATTACH '/tmp/x' AS x; --",
        "' || (SELECT content FROM read_text('/etc/passwd')) || '",
        "\\'; --",
        "/**/",
        "%",
    ),
)
_RANGE = {"from": "2025-01-01", "to": "2025-02-01", "by": "day"}
_PATHS = (
    *(
        "/orders/../../etc/passwd",
        "/orders/..%2f..%2fetc%2fpasswd",
        "/orders/%2e%2e/%2e%2e/etc",
        "/static/../../etc/passwd",
    ),
    *(
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%5c..%5cetc",
        "//etc/passwd",
        "/static//etc/passwd",
        "/orders/%00",
    ),
    *(
        "/orders/order-1%00.json",
        "/orders/a%0d%0aSet-Cookie:%20a=b",
        "/orders/%c0%ae%c0%ae",
        "/orders/%ff",
        "/orders/%zz",
    ),
    *("/orders/" + "a" * 5_000, "/orders/%ed%a0%80", "/customers/%80/orders", "/products/%fe/inventory", "/..;/status"),
    *("/orders/order-1/../../status", "/commands/../status", "/./status", "/.git/config", "/.env", "/wp-login.php"),
)
_BAD_PARAMETERS = (
    *("limit=-1", "limit=0x10", "limit=1e9", "limit=99999999999999999999", "limit=a", "limit=", "limit=1.5"),
    *("after=%ff", "after=%00", "after=..%2f..%2f", "after=AAAA", "after=" + "A" * 2_000, "after=%7B%22a%22%3A1%7D"),
    *("min_position=-1", "min_position=99999999999999999999", "min_position=a", "wait=-1s", "wait=abc", "wait=1e9s"),
)
_BAD_RANGES = (
    *("from=2025-13-01&to=2025-02-01", "from=yesterday&to=today", "from=0000-00-00&to=9999-99-99", "by=second"),
    *(
        "from=2025-01-01T00:00:00&to=x",
        "by=day%3B%20DROP",
        "by=",
        "from=%ff&to=%ff",
        "from=1'%20OR%20'1'='1&to=2025-02-01",
    ),
)
_ORDER = {"order_id": "order-1", "customer_id": "c1", "currency": "EUR"}
_BAD_COMMANDS: tuple[Any, ...] = (
    *({}, [], None, 1, "text", {"order_id": "order-1"}, {**_ORDER, "more": 1}, {**_ORDER, "order_id": None}),
    *({**_ORDER, "order_id": 1}, {**_ORDER, "order_id": {"$ne": 1}}, {**_ORDER, "order_id": ["a"]}),
    *({**_ORDER, "deliver_on": "2026-02-30"}, {**_ORDER, "deliver_on": "'; DROP"}, {**_ORDER, "order_id": "a\0b"}),
)
_BAD_TEXTS = {
    "bad UTF-8": b'{"order_id": "\xff", "customer_id": "c1", "currency": "EUR"}',
    "surrogate bytes": b'{"order_id": "\xed\xa0\x80", "customer_id": "c1", "currency": "EUR"}',
    "half a surrogate": rb'{"order_id": "\ud800", "customer_id": "c1", "currency": "EUR"}',
    "UTF-16": json.dumps(_ORDER).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(_ORDER).encode(),
    "nested": b"[" * 100_000,
    "cut off": json.dumps(_ORDER).encode()[:-1],
    "two documents": json.dumps(_ORDER).encode() * 2,
    "not a number": b'{"order_id": NaN}',
    "nothing": b"",
}
_QUERIES = (
    *("DROP TABLE order_summary", "COPY order_summary TO '/tmp/x'", "FROM read_text('/etc/passwd')", "INSTALL httpfs"),
    *("ATTACH '/tmp/x'", "SELECT 1; SELECT 2", "SET threads = 8", "FROM '/etc/passwd'", "SELECT getenv('HOME')"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One request.

    Attributes:
        name: what is hostile about it.
        method: of the request.
        path: path and query as sent.
        headers: in addition to ``Host``, ``Connection`` and the body's length.
        body: as sent.
        statuses: those that it may get.
    """

    name: str
    method: str = "GET"
    path: str
    headers: Mapping[str, str] = field(default_factory=lambda: _bearer(KEEPER))
    body: bytes = b""
    statuses: frozenset[int]


def _bearer(secret: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", **{name.replace("_", "-"): value for name, value in headers.items()}}


def _post(name: str, path: str, body: bytes, *statuses: int, headers: Mapping[str, str] | None = None) -> Hostile:
    all_headers = {**_bearer(KEEPER, Content_Type="application/json"), **(headers or {})}
    return Hostile(name=name, method="POST", path=path, headers=all_headers, body=body, statuses=frozenset(statuses))


def _reads() -> Iterator[Hostile]:
    malformed = frozenset({400})
    missing = frozenset({400, 404})
    for sql in _SQL:
        text = quote(sql, safe="")
        for path in (f"/orders/{text}", f"/products/{text}/inventory"):
            yield Hostile(name="SQL in a path", path=path, statuses=missing)
        yield Hostile(name="SQL in a path", path=f"/customers/{text}/orders", statuses=missing | {200})
        for parameter in ("limit", "after", "min_position", "wait"):
            path = f"/customers/c1/orders?{parameter}={text}"
            yield Hostile(name=f"SQL in {parameter}", path=path, statuses=missing)
        for parameter in _RANGE:
            path = f"/reports/revenue?{urlencode({**_RANGE, parameter: sql})}"
            yield Hostile(name=f"SQL in {parameter}", path=path, statuses=malformed)
    for path in _PATHS:
        yield Hostile(name="path trick", path=path, statuses=missing | {414})
    for parameters in _BAD_PARAMETERS:
        path = f"/customers/c1/orders?{parameters}"
        yield Hostile(name="bad parameter", path=path, statuses=missing)
    for parameters in _BAD_RANGES:
        yield Hostile(name="bad range", path=f"/reports/revenue?{parameters}", statuses=malformed)
    yield Hostile(name="long query", path="/reports/revenue?by=" + "a" * 10_000, statuses=frozenset({414}))
    for method in ("PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"):
        for path in ("/orders/order-1", "/commands/PlaceOrder", "/status"):
            yield Hostile(name="method", method=method, path=path, statuses=frozenset({400, 403, 404, 405, 415}))


def _tokens() -> Iterator[Hostile]:
    nobody, forbidden = frozenset({401}), frozenset({403})
    attempts: dict[str, dict[str, str]] = {
        "no token": {},
        "unknown token": _bearer("x" * 40),
        "expired token": _bearer(EXPIRED),
        "empty token": _bearer(""),
        "SQL for a token": _bearer("' OR '1'='1"),
        "bad UTF-8 for a token": {"Authorization": "Bearer \xff\xfe"},
        "another scheme": {"Authorization": f"Basic {KEEPER}"},
        "half a token": _bearer(KEEPER[:-1]),
        "token in a cookie": {"Cookie": f"token={KEEPER}"},
    }
    for name, headers in attempts.items():
        for path in ("/orders/order-1", "/status", "/metrics", f"/orders/order-1?token={KEEPER}"):
            yield Hostile(name=name, path=path, headers=headers, statuses=nobody)
        json_headers = {"Content-Type": "application/json", **headers}
        for path in ("/commands/PlaceOrder", "/query"):
            body = json.dumps(_ORDER).encode()
            yield Hostile(name=name, method="POST", path=path, headers=json_headers, body=body, statuses=nobody)
    yield Hostile(name="wrong scope", path="/orders/order-1", headers=_bearer(WRITER), statuses=forbidden)
    wrong = _bearer(READER)
    yield _post("wrong scope", "/commands/PlaceOrder", json.dumps(_ORDER).encode(), 403, headers=wrong)


def _commands() -> Iterator[Hostile]:
    order = json.dumps(_ORDER).encode()
    for document in _BAD_COMMANDS:
        yield _post("bad command", "/commands/PlaceOrder", json.dumps(document).encode(), 400, 422)
    for name, body in _BAD_TEXTS.items():
        yield _post(name, "/commands/PlaceOrder", body, 400)
    for name in ("DropTable", "__class__", "placeorder", "..%2fstatus", "PlaceOrder%00", quote(_SQL[1], safe="")):
        yield _post("no such command", f"/commands/{name}", order, 400, 404)
    for text in ("-1", "1;DROP", "99999999999999999999999", "%27"):
        yield _post("bad version", f"/commands/PlaceOrder?expected_version={text}", order, 400)
    for sql in _SQL:
        payment = {"order_id": sql, "payment_id": sql, "amount": sql, "method": sql}
        yield _post("SQL in a command", "/commands/PayOrder", json.dumps(payment).encode(), 400, 422)
    yield _post("10 MB", "/commands/PlaceOrder", b"a" * 10_000_000, 413)
    large = {**_ORDER, "customer_id": "c" * 10_000_000}
    yield _post("10 MB of JSON", "/commands/PlaceOrder", json.dumps(large).encode(), 413)
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "application/xml",
    ):
        yield _post("another type", "/commands/PlaceOrder", order, 415, headers={"Content-Type": kind})
    for origin in ("https://evil.example", "null"):
        yield _post("another origin", "/commands/PlaceOrder", order, 403, headers={"Origin": origin})
    both = {"Transfer-Encoding": "chunked"}  # and the length that is sent with every body
    yield _post("two lengths", "/commands/PlaceOrder", b"0\r\n\r\n" + order, 400, headers=both)


def _queries() -> Iterator[Hostile]:
    for sql in _QUERIES:
        yield _post("no query", "/query", json.dumps({"sql": sql}).encode(), 400)
    nested = {"sql": "SELECT $a", "parameters": {"a": {"b": 1}}}
    documents: list[object] = [{}, {"sql": 1}, {"sql": ["SELECT 1"]}, nested, []]
    for document in documents:
        yield _post("bad query", "/query", json.dumps(document).encode(), 400)


HOSTILE = (*_reads(), *_tokens(), *_commands(), *_queries())
"""All hostile requests."""


def send(port: int, hostile: Hostile) -> tuple[int, bytes]:
    """Send a request to this machine; return the status and body of the response.

    The rest of a body is not sent once the server has closed: it need not read a body to refuse it.
    """
    length = {"Content-Length": str(len(hostile.body))} if hostile.body or hostile.method == "POST" else {}
    headers = {"Host": "localhost", "Connection": "keep-alive", **length, **hostile.headers}
    lines = [f"{hostile.method} {hostile.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(hostile.body)
        return _read_answer(connection)


def _read_answer(connection: socket.socket) -> tuple[int, bytes]:
    with connection.makefile("rb") as answer:
        status = int(answer.readline().split()[1])
        length = None
        while line := answer.readline().strip().lower():
            name, _, value = line.partition(b":")
            length = int(value) if name == b"content-length" else length
        return status, answer.read() if length is None else answer.read(length)
