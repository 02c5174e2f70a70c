"""The page of ``refold serve``, in a real browser against a real server.

``REFOLD_PICTURES=docs/images pytest tests/pipelines/serving/test_page.py`` retakes the pictures of the docs.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Header, Response
from fastapi.responses import JSONResponse

from refold.pipelines.serving.domain_page import page_router
from refold.warehouse.orders import ORDERS
from tests.pipelines.serving.browser import MISSING, Browser, browser

ROOT = Path(__file__).parents[3]
PICTURES = os.environ.get("REFOLD_PICTURES")
EVENTS = 20_000 if PICTURES else 1_500
PICTURED = (("serve-page", 1400, False), ("serve-page-narrow-dark", 360, True))

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

# Keeps every state that an order's card goes through, however short.
WATCH = """
window.seen = [];
new MutationObserver(() => {
  const [chip, at] = [document.querySelector("#order-card .chip"), document.querySelector("#order-card .at")];
  if (chip && seen.at(-1)?.[0] !== chip.textContent) seen.push([chip.textContent, at.textContent]);
}).observe(document.getElementById("order-card"), {childList: true});
"""
# Sends each request, and drops the first response.
LOSE_AN_ANSWER = """
const [real, name] = [window.fetch, arguments[0]];
window.fetch = async (path, options) => {
  const answer = await real(path, options);
  if (!String(path).includes(name)) return answer;
  window.fetch = real;
  throw new TypeError("lost");
};
"""


def refold(*arguments: str) -> list[str]:
    """Make a command line."""
    return [sys.executable, "-m", "refold", *arguments]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a small demo, live."""
    folder = tmp_path_factory.mktemp("page") / "demo"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REFOLD_DOMAIN": "orders"}
    demo = refold("demo", "--events", str(EVENTS), "--folder", str(folder))
    subprocess.run(demo, env=environment, check=True, capture_output=True)
    command = refold("serve", "--stream", "--publish-every", "2", "--port", "0")
    serve = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert serve.stderr is not None
        for line in serve.stderr:
            if found := re.search(r"http://\S+", line):
                break
        else:
            pytest.fail(f"the server ended with {serve.wait()}")
        yield found[0]
    finally:
        serve.send_signal(signal.SIGTERM)
        serve.communicate(timeout=60)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run one browser for all tests."""
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(chromium: Browser, site: str) -> Iterator[Browser]:
    """Reload the page; whatever a test does, no other host gets a request, and the browser reports only refusals."""
    chromium.show(width=1400)
    chromium.open(f"{site}/")
    chromium.until(lambda: chromium.text("#state").startswith("Current"), "the page never showed the status")
    chromium.script(WATCH)
    yield chromium
    assert chromium.hosts() == {site.removeprefix("http://")}
    assert [c for c in chromium.complaints() if "/commands/" not in c] == []


def get_json(url: str) -> Any:
    """Read a document from the server."""
    return httpx.get(url).raise_for_status().json()


def fill_item(page: Browser, row: int, **fields: str) -> None:
    """Fill in a row of the form."""
    for name, text in fields.items():
        page.fill(f".item:nth-child({row}) [data-field={name}]", text)


def wait_for(page: Browser, state: str, order_id: str) -> None:
    """Wait until an order's card is in a state."""
    page.until(
        lambda: page.text("#order-card .chip") == state and page.text(".order-head b") == order_id,
        f"{order_id} never became {state}: {page.text('#order-card')}",
    )


def facts(page: Browser) -> dict[str, str]:
    """Read the order that is shown."""
    lines = page.text(".facts").splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))


def test_an_order_is_shown_as_processing_and_then_as_the_read_model_has_it(page: Browser, site: str) -> None:
    """The card appears with the position that the log gave, and ends with the row that any reader gets."""
    page.fill("#order-id", "order-page-1")
    page.fill("#customer-id", "customer-of-the-page")
    fill_item(page, 1, sku="mug-black", quantity="2", unit_price="12.50")
    page.press("#add-row")
    fill_item(page, 2, sku="mug-rose", quantity="1", unit_price="39.9")
    page.one("#pay").click()
    assert page.text("#total") == "64.90 EUR"
    page.press("#submit")
    wait_for(page, "current", "order-page-1")

    row = get_json(f"{site}/orders/order-page-1")["data"]
    assert (row["status"], row["item_count"], row["amount"], row["paid"]) == ("paid", 3, "64.90", "64.90")
    shown = facts(page)
    assert (shown["Status"], shown["Customer"], shown["Quantity"]) == ("paid", "customer-of-the-page", "3")
    assert (shown["Amount"], shown["Paid"]) == ("64.90 EUR", "64.90 EUR")
    states = page.script("return seen")
    assert [state for state, _ in states] == ["processing", "current"]
    assert all(re.fullmatch(r"position \d+,\d{3}", at) for _, at in states)
    assert page.text(".journey").count("AddItem") == 2
    assert page.one("#order-id").get_attribute("value") != "order-page-1"  # the next order is another


def test_lag_position_and_generations_are_those_of_the_status(page: Browser, site: str) -> None:
    """The figures at the top and the table show the server's values."""

    def agree() -> bool:
        """Whether the table is the server's; a generation may be published at any time."""
        listed = [f"{g['number']:,} {g['position']:,}" for g in get_json(f"{site}/status")["generations"]]
        shown = page.text("#generations").replace("\t", " ").splitlines()
        return bool(listed) and [" ".join(line.split()[:2]) for line in shown] == listed

    page.until(agree, "the table never was the server's")
    status = get_json(f"{site}/status")
    assert page.text("#lag-events") == "0 events"
    assert page.text("#lag-seconds") == "0 s behind"
    assert page.text("#position") == f"{status['read_models']['position']:,}"
    assert page.text("#log-position") == f"of {status['log']['position']:,} in the log"
    assert page.text("#objective-readout").startswith("Met")
    assert page.count("#lag-plot .lag") == 1


def test_revenue_and_stock_are_plotted(page: Browser, site: str) -> None:
    """There is a bar for each month of the shop's year, and one for a product that is named."""
    page.until(lambda: page.count("#revenue-plot .bar") >= 12, "no bars")
    page.one("#revenue-plot svg").send_keys("\ue014")  # the arrow to the right
    january = get_json(f"{site}/reports/revenue?from=2025-01-01&to=2025-01-31&by=month")["data"]
    [euros] = [r for r in january if r["currency"] == "EUR"]
    assert page.text("#revenue-readout b") == f"{float(euros['net_revenue']):,.2f} EUR net"
    assert "January 2025" in page.text("#revenue-readout")

    sku = get_json(f"{site}/reports/stock?limit=20")["data"][-1]["sku"]
    row = get_json(f"{site}/products/{sku}/inventory")["data"]
    page.fill("#stock-sku", sku)
    page.press("#stock-controls button")
    page.until(lambda: page.text("#stock-list .mine b") == sku, f"{sku} is not shown")
    assert page.text("#stock-list .mine strong") == f"{row['available']:,} available"
    assert page.text("#stock-list .mine span") == f"{row['on_hand']:,} on hand, {row['reserved']:,} reserved"


def test_a_rejected_command_is_shown_and_changes_nothing(page: Browser, site: str) -> None:
    """The rule's code and reason appear beside the form, and the log does not change."""
    before = get_json(f"{site}/status")["log"]["position"]
    page.fill("#order-id", "order-page-2")
    page.fill("#currency", "eur")
    page.press("#submit")
    page.until(lambda: "bad_currency" in page.text("#order-problem"), "no rejection was shown")
    assert "found 'eur'" in page.text("#order-problem")
    assert page.script("return seen") == []
    assert get_json(f"{site}/status")["log"]["position"] == before


def test_what_was_accepted_before_a_rejection_is_not_sent_again(page: Browser, site: str) -> None:
    """An order whose second item is rejected continues from there after a correction."""
    page.fill("#order-id", "order-page-3")
    fill_item(page, 1, sku="mug-black", quantity="2", unit_price="5")
    page.press("#add-row")
    fill_item(page, 2, sku="mug-white", quantity="0", unit_price="7")
    page.press("#submit")
    page.until(lambda: "bad_quantity" in page.text("#order-problem"), "no rejection was shown")
    wait_for(page, "current", "order-page-3")
    assert facts(page)["Quantity"] == "2"
    fill_item(page, 2, quantity="3")
    page.press("#submit")
    page.until(lambda: facts(page)["Quantity"] == "5", "the second item did not arrive")
    wait_for(page, "current", "order-page-3")
    assert get_json(f"{site}/orders/order-page-3")["data"]["amount"] == "31.00"
    assert page.text("#order-problem") == ""


def test_after_a_lost_answer_the_same_command_is_done_once(page: Browser, site: str) -> None:
    """An item whose response is lost is sent again under its key, and takes effect once."""
    page.script(LOSE_AN_ANSWER, "/commands/AddItem")
    page.fill("#order-id", "order-page-4")
    fill_item(page, 1, sku="mug-black", quantity="2", unit_price="5")
    page.press("#submit")
    page.until(lambda: "the same key" in page.text("#order-problem"), "no problem was shown")
    page.press("#submit")
    page.until(lambda: "already done" in page.text(".journey"), "the answer of the first time did not come")
    wait_for(page, "current", "order-page-4")
    assert get_json(f"{site}/orders/order-page-4")["data"]["item_count"] == 2


def test_an_order_that_somebody_else_changed_is_reported(page: Browser, site: str) -> None:
    """The page shows a conflict, and sending the rest again continues from the order's current version."""
    page.fill("#order-id", "order-page-5")
    fill_item(page, 1, sku="mug-white", quantity="0", unit_price="7")
    page.press("#submit")
    page.until(lambda: "bad_quantity" in page.text("#order-problem"), "no rejection was shown")
    other = {"order_id": "order-page-5", "sku": "mug-rose", "quantity": 1, "unit_price": "20"}
    httpx.post(f"{site}/commands/AddItem", json=other).raise_for_status()
    fill_item(page, 1, quantity="1")
    page.press("#submit")
    page.until(lambda: "Somebody else" in page.text("#order-problem"), "no conflict was shown")
    page.press("#submit")
    page.until(lambda: facts(page)["Amount"] == "27.00 EUR", "the rest did not go through")
    assert get_json(f"{site}/orders/order-page-5")["data"]["amount"] == "27.00"


def test_text_stays_text(page: Browser) -> None:
    """Markup in an id is shown as text, and creates no element."""
    page.fill("#order-id", "order-<img src=x>")
    page.press("#submit")
    wait_for(page, "current", "order-<img src=x>")
    assert page.count("img") == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_it_fits_every_width_and_names_every_control(page: Browser, width: int, dark: bool) -> None:
    """Nothing exceeds the width of the screen, and every focusable element has an accessible name."""
    page.show(width=width, dark=dark)
    page.until(lambda: page.count("#stock-list li") > 0 and page.count("#revenue-plot .bar") > 0, "no plots")
    assert page.script("return document.documentElement.scrollWidth") == width
    nodes = page.protocol("Accessibility.getFullAXTree")["nodes"]
    wanted = {"textbox", "button", "combobox", "checkbox", "spinbutton", "Date"}
    controls = [n for n in nodes if not n["ignored"] and n["role"]["value"] in wanted]
    assert len(controls) > 10
    assert [n["role"]["value"] for n in controls if not n["name"]["value"]] == []


@pytest.fixture
def guarded() -> Iterator[str]:
    """Serve the page beside a status that wants a token, and no commands."""
    app = FastAPI()
    assert ORDERS.page is not None
    app.include_router(page_router(ORDERS.page))

    @app.get("/status")
    def status(authorization: Annotated[str, Header()] = "") -> Response:
        if authorization != "Bearer open-sesame":
            return JSONResponse({"title": "Unauthorized", "status": 401}, 401)
        return JSONResponse({"domain": "treasure", "log": {"position": 40}, "read_models": None, "generations": []})

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        running = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        running.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        running.join()


def test_a_token_is_requested_kept_for_the_tab_and_used(chromium: Browser, guarded: str) -> None:
    """The field appears if the server requires a token; with it the page continues, also after a reload."""
    chromium.open(f"{guarded}/")
    chromium.until(lambda: chromium.one("#token-panel").is_displayed(), "no token was asked for")
    chromium.fill("#token", "open-barley")
    chromium.press("#token")
    chromium.until(lambda: "did not accept" in chromium.text("#token-note"), "no wrong token was reported")
    chromium.fill("#token", "open-sesame")
    chromium.press("#token")
    chromium.until(lambda: chromium.text("#domain") == "treasure", "the token did not help")
    assert not chromium.one("#token-panel").is_displayed()
    chromium.open(f"{guarded}/")
    chromium.until(lambda: chromium.text("#domain") == "treasure", "the token was forgotten")
    assert chromium.script("return [localStorage.length, document.cookie]") == [0, ""]


def test_what_the_server_does_not_do_is_left_out(chromium: Browser, guarded: str) -> None:
    """Without commands and reports the page has neither form nor plots, only the status."""
    chromium.open(f"{guarded}/")
    chromium.until(lambda: not chromium.one("#order-form").is_displayed(), "the form is still there")
    assert not chromium.one("#revenue-plot").is_displayed()
    assert not chromium.one("#stock-list").is_displayed()
    assert chromium.one("#generations-title").is_displayed()


@pytest.mark.skipif(PICTURES is None, reason="REFOLD_PICTURES names the folder that they go to")
def test_pictures_are_taken(page: Browser, site: str) -> None:
    """The picture of the docs shows an order that has arrived."""
    assert PICTURES
    for number in range(3):  # each in a generation of its own
        known = len(get_json(f"{site}/status")["generations"])
        place = {"order_id": f"order-pictured-{number}", "customer_id": "customer-00042", "currency": "EUR"}
        httpx.post(f"{site}/commands/PlaceOrder", json=place).raise_for_status()
        page.until(lambda known=known: len(get_json(f"{site}/status")["generations"]) > known, "none was published")  # type: ignore[misc] # its type is int
    page.fill("#order-id", "order-2f61c0d4")
    page.fill("#customer-id", "customer-00042")
    fill_item(page, 1, sku="mug-rose", quantity="1", unit_price="39.90")
    page.press("#add-row")
    fill_item(page, 2, sku="teapot-oak", quantity="2", unit_price="12.50")
    page.one("#pay").click()
    page.press("#submit")
    wait_for(page, "current", "order-2f61c0d4")
    page.until(lambda: page.count("#stock-list .mine") == 2, "the products are not shown")
    page.until(lambda: page.text("#position") in page.text("#order-card .at"), "the top is behind the card")
    page.script("const by = document.getElementById('revenue-by'); by.value = 'week';")
    page.fill("#revenue-to", "12312025")
    page.until(lambda: page.count("#revenue-plot .bar") > 50, "no weeks")
    page.script("document.activeElement.blur(); scrollTo(0, 0)")
    for name, width, dark in PICTURED:
        page.show(width=width, dark=dark)
        page.picture(Path(PICTURES) / f"{name}.png")
