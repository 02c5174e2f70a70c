"""The files of the page: sent under strict headers, once, and nothing but them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from refold.event_schemas import UsageError, event
from refold.pipelines.serving.app import create_app
from refold.pipelines.serving.domain_page import page_router, read_page
from refold.pipelines.serving.settings import ServeSettings
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.orders import ORDERS

Ask = Callable[..., httpx.Response]
assert ORDERS.page is not None
PAGE = ORDERS.page
FILES = read_page(PAGE)


@event(schema_version=1)
class Opened:
    """The one event of the domains of these tests."""

    door: str


BARE = Domain(name="bare", events=(Opened,))


@pytest.fixture(scope="module")
def ask() -> Ask:
    """Send a request to an application that serves only the page's files."""
    app = FastAPI()
    app.include_router(page_router(PAGE))
    return asking(app)


def asking(app: Any) -> Ask:
    """Return a function that sends one request to an application."""

    def ask(path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(send())

    return ask


def test_nothing_inline_and_nothing_from_elsewhere_may_run(ask: Ask) -> None:
    """The page's policy allows only its own files, and the page has no inline script or style."""
    answer = ask("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", answer.text)
    everything = [file.content.decode() for file in FILES.values()]
    assert [url for text in everything for url in re.findall(r"https?://[^\s\"']+", text) if "w3.org" not in url] == []


def test_a_file_that_is_known_is_not_sent_again(ask: Ask) -> None:
    """A request with the ETag of a file gets 304 without a body; a HEAD has the ETag."""
    for path in ("/", "/static/page.css"):
        answer = ask(path)
        again = ask(path, headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert ask(path, method="HEAD").headers["etag"] == answer.headers["etag"]


def test_every_file_that_is_named_is_there(ask: Ask) -> None:
    """Every file that the page refers to is served, with its media type."""
    named = {n for f in FILES.values() for n in re.findall(r"/static/[\w.-]+", f.content.decode())}
    assert {"/static/page.js", "/static/page.css", "/static/icon.svg"} <= named
    answers = {name: ask(name) for name in named}
    assert [name for name, answer in answers.items() if not answer.is_success] == []
    types = {answer.headers["content-type"].partition(";")[0] for answer in answers.values()}
    assert types == {"text/css", "text/javascript", "image/svg+xml"}


ELSEWHERE = ["/static/../page.py", "/static/%2e%2e%2fpage.py", "/static/", "/static/index.html", "/static//etc/passwd"]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_nothing_else_is_served(ask: Ask, path: str) -> None:
    """A path that names no file of the page gets 404."""
    assert ask(path).status_code == 404


def test_any_domain_may_bring_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its index is at ``/``, its files are at ``/static/``; other types of files and subfolders are not served."""
    (tmp_path / "index.html").write_text('<script type="module" src="/static/doors.js"></script>')
    (tmp_path / "doors.js").write_text("document.title = 'doors';")
    (tmp_path / "notes.txt").write_text("not for the browser")
    (tmp_path / "drafts.js").mkdir()
    doors = Domain(name="doors", events=(Opened,), page=tmp_path)
    monkeypatch.setattr("refold.pipelines.serving.app.load_domain", lambda _: doors)
    ask = asking(create_app(ServeSettings(domain="doors", log="log", read_models="read-models")))
    assert ask("/").text == (tmp_path / "index.html").read_text()
    assert ask("/").headers["content-security-policy"].startswith("default-src 'self';")
    assert ask("/static/doors.js").headers["content-type"].startswith("text/javascript")
    assert [ask(f"/static/{name}").status_code for name in ("notes.txt", "drafts.js", "page.js")] == [404] * 3


def test_a_domain_without_a_page_has_none() -> None:
    """It gets neither the page of another domain nor an empty one."""
    ask = asking(create_app(ServeSettings(domain=f"{__name__}:BARE", log="log", read_models="read-models")))
    assert [ask(path).status_code for path in ("/", "/static/page.js")] == [404, 404]
    assert ask("/healthz").status_code == 200


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_page_without_an_index_is_refused(tmp_path: Path, name: str) -> None:
    """A wrong folder is found when the server starts."""
    with pytest.raises(UsageError, match="page="):
        page_router(tmp_path / name)
