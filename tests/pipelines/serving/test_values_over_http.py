"""Values over HTTP: what is stored is what was sent, what does not fit is refused, and parameters have their types."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from decimal import Decimal
from types import ModuleType
from typing import Any

import httpx
import pytest

from refold.warehouse.event_log import Appender, create_log
from tests.pipelines.serving.served import ROOT, served

pytestmark = pytest.mark.slow

SHOP = """
from decimal import Decimal
from typing import Annotated
import pyarrow as pa
from refold import Decider, Domain, Lookup, Parameter, Projection, Report, command, event, latest

@event(schema_version=1)
class Paid:
    customer: str
    amount: Annotated[Decimal, pa.decimal128(38, 2)]
    share: float
    count: int

@command
class Pay:
    customer: str
    amount: Annotated[Decimal, pa.decimal128(38, 2)]
    share: float | None = None
    count: int | None = None

def decide(pay, state):
    if pay.count == 7:
        raise ValueError("seven is odd")
    return [Paid(customer=pay.customer, amount=pay.amount, share=pay.share or 0.0, count=100 // ((pay.count or 0) + 1))]

PAID = Projection(
    name="paid", key={"customer": "VARCHAR"},
    columns={"amount": latest("DECIMAL(38,2)"), "share": latest("DOUBLE"), "count": latest("BIGINT")},
    on={Paid: "SELECT customer, amount, share, count"},
)
TYPES = {
    "TINYINT": "-128", "UBIGINT": "18446744073709551615", "HUGEINT": "170141183460469231731687303715884105727",
    "DECIMAL(18,2)": "10.40", "DECIMAL(38,0)": "9" * 38, "DOUBLE": "10.4", "FLOAT8": "1e300", "REAL": "0.5",
    "VARCHAR": "a b", "DATE": "9999-12-31", "TIMESTAMP": "2026-01-01T10:00:00", "TIMESTAMPTZ": "2026-01-01T10:00:00Z",
    "TIME": "10:00:00", "UUID": "6d3d60f2-0000-4000-8000-000000000000", "BOOLEAN": "true", "INTERVAL": "1 day",
}
SHOP = Domain(
    name="shop", events=(Paid,), read_models=(PAID,),
    deciders=(Decider(name="shop", commands=(Pay,), stream_id=lambda pay: pay.customer, initial_state=lambda: None,
                      evolve=lambda state, paid: None, decide=decide),),
    endpoints=(
        Lookup(path="/paid/{customer}", table="paid", text="One."),
        Report(path="/below", text="Below.", parameters={"less": Parameter(type="DOUBLE", text="")},
               sql="SELECT i FROM range(9, 13) r(i) WHERE i <= $less ORDER BY ALL"),
        *(Report(path=f"/types/{number}", text="A type.", parameters={"value": Parameter(type=dtype, text="")},
                 sql="SELECT typeof($value) AS kind, $value > $value AS more ORDER BY ALL")
          for number, dtype in enumerate(TYPES)),
    ),
)
"""


sys.modules["till"] = ModuleType("till")
DECLARED: dict[str, Any] = vars(sys.modules["till"])
exec(SHOP, DECLARED)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Return a client of a server that takes commands and follows the log."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "till.py").write_text(SHOP)
    log = create_log(str(folder / "log"), domain_name="shop", bucket_count=2)
    first = DECLARED["Paid"](customer="first", amount=Decimal(1), share=0.0, count=0)
    Appender(log, DECLARED["SHOP"].registry).append("first", [first])
    path = os.pathsep.join((str(folder), str(ROOT)))
    with (
        served(folder, "--stream", domain="till:SHOP", environment={"PYTHONPATH": path}) as running,
        running.client() as found,
    ):
        yield found


def _pay(client: httpx.Client, body: str, **headers: str) -> httpx.Response:
    return client.post("/commands/Pay", content=body, headers={"content-type": "application/json", **headers})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("12345678901234567.89", "12345678901234567.89"),
        ('"12345678901234567.89"', "12345678901234567.89"),
        ("0.1", "0.10"),
        ("1e3", "1000.00"),
        ("123456789012345678901234567890123456", "123456789012345678901234567890123456.00"),
    ],
)
def test_a_decimal_is_stored_as_it_was_sent(client: httpx.Client, sent: str, stored: str) -> None:
    """A JSON number does not pass through a binary float."""
    made = _pay(client, f'{{"customer": "ada", "amount": {sent}, "share": 0.1}}')
    assert made.status_code == 201, made.text
    shown = client.get("/paid/ada", params={"min_position": made.json()["position"], "wait": "10s"}).json()
    assert (shown["data"]["amount"], shown["data"]["share"], shown["status"]) == (stored, 0.1, "current")


REFUSED = {
    '{"customer": "ada", "amount": 0.001}': "amount: expected decimal128(38, 2), found 0.001",
    '{"customer": "ada", "amount": 1e400}': "number is infinity",
    '{"customer": "ada", "amount": "NaN"}': "amount",
    '{"customer": "ada", "amount": "sNaN"}': "amount",
    '{"customer": "ada", "amount": "Infinity"}': "amount",
    '{"customer": "ada", "amount": NaN}': "not JSON",
    '{"customer": "ada", "amount": Infinity}': "not JSON",
    '{"customer": "ada", "amount": 1, "share": 1e999}': "number is infinity",
    '{"customer": "ada", "amount": 1, "count": 1.0}': "count: expected int64, found 1.0",
    '{"customer": "ada", "amount": 1, "count": 9223372036854775808}': "count",
    '{"customer": "ada", "amount": 1, "count": ' + "9" * 5000 + "}": "",
    '{"customer": "ada", "amount": 1, "amount": 2}': "'amount' twice",
    '{"customer": "\\ud800", "amount": 1}': "not JSON",
    '{"customer": "a\\u0000", "amount": 1}': "NUL",
    '{"customer": null, "amount": 1}': "customer is null",
    '{"customer": "ada", "amount": true}': "amount",
    '{"customer": "ada", "amount": [1]}': "amount",
    '[{"customer": "ada"}]': "must be a JSON object",
    "1e5": "must be a JSON object",
    "[" * 900 + "]" * 900: "",
    '{"customer": "ada", "amount": 1, "count": -1}': "cannot handle its values: integer division or modulo by zero",
    '{"customer": "ada", "amount": 1, "count": 7}': "cannot handle its values: seven is odd",
}


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: body[:60])
def test_what_does_not_fit_is_refused_and_named(client: httpx.Client, body: str) -> None:
    """A value that does not fit is a problem document with status 400, never 500."""
    found = _pay(client, body)
    assert found.status_code == 400, found.text
    assert REFUSED[body] in found.json()["detail"]


def test_a_key_that_was_used_for_another_command_is_refused(client: httpx.Client) -> None:
    """The same key and body is a repeat, however the number is written; another body gets 422."""
    key = {"idempotency-key": "k-1"}
    first, again = [_pay(client, f'{{"customer": "eve", "amount": {n}}}', **key) for n in ("1.5", "1.50")]
    assert (first.status_code, first.json()["repeated"]) == (201, False)
    assert (again.status_code, again.json()["repeated"]) == (201, True)
    other = _pay(client, '{"customer": "eve", "amount": 2}', **key)
    assert (other.status_code, other.json()["code"]) == (422, "command_id_used")
    assert other.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/paid/ada", "/paid/nobody", "/status", "/healthz", "/openapi.json", "/commands/Pay"])
def test_head_is_get_without_a_body(client: httpx.Client, path: str) -> None:
    """HEAD has the status and the headers of GET."""
    _pay(client, '{"customer": "ada", "amount": 1}')
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert int(head.headers["content-length"]) > 0
    assert client.get("/healthz").status_code == 200


def test_a_double_is_compared_as_a_double(client: httpx.Client) -> None:
    """A fraction of a parameter counts."""
    assert client.get("/below", params={"less": "10.4"}).json()["data"] == [{"i": 9}, {"i": 10}]


def test_parameters_have_their_declared_type(client: httpx.Client) -> None:
    """A parameter of any type is bound as that type, at its edges."""
    for number, (dtype, text) in enumerate(DECLARED["TYPES"].items()):
        found = client.get(f"/types/{number}", params={"value": text})
        assert found.status_code == 200, (dtype, found.text)
        [row] = found.json()["data"]
        assert row["more"] is False
        named = {"FLOAT8": "DOUBLE", "REAL": "FLOAT", "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE"}
        assert row["kind"] == named.get(dtype, dtype)
        invalid = "a\nb" if dtype == "VARCHAR" else "xyz"
        assert client.get(f"/types/{number}", params={"value": invalid}).status_code == 400


@pytest.mark.parametrize(
    ("dtype", "text"),
    [("DECIMAL(18,2)", "10.456"), ("DECIMAL(38,0)", "0.5"), ("REAL", "1e300"), ("DOUBLE", "1e999"), ("TINYINT", "128")],
)
def test_a_parameter_is_not_rounded(client: httpx.Client, dtype: str, text: str) -> None:
    """A value that the type cannot hold is refused, and the parameter is named."""
    found = client.get(f"/types/{list(DECLARED['TYPES']).index(dtype)}", params={"value": text})
    assert (found.status_code, json.loads(found.text)["errors"][0]["where"]) == (400, "query.value")
