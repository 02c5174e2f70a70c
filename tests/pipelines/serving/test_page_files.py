"""The files of the page: sent under strict headers, once, and nothing but them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from refold.pipelines.serving.page import page_files, page_router

Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def ask() -> Ask:
    """Ask an application that serves the page's files alone."""
    app = FastAPI()
    app.include_router(page_router())

    def ask(path: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(send())

    return ask


def test_nothing_inline_and_nothing_from_elsewhere_may_run(ask: Ask) -> None:
    """The page is sent under a policy that only its own files meet, and holds neither script nor style itself."""
    answer = ask("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", answer.text)
    everything = [file.content.decode() for file in page_files().values()]
    assert [url for text in everything for url in re.findall(r"https?://[^\s\"']+", text) if "w3.org" not in url] == []


def test_a_file_that_is_known_is_not_sent_again(ask: Ask) -> None:
    """The ETag of a file gets 304 and no body, and a HEAD tells it."""
    for path in ("/", "/static/page.css"):
        answer = ask(path)
        again = ask(path, headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert ask(path, method="HEAD").headers["etag"] == answer.headers["etag"]


def test_every_file_that_is_named_is_there(ask: Ask) -> None:
    """Whatever the page's files ask for is served, as what it is."""
    named = {n for f in page_files().values() for n in re.findall(r"/static/[\w.-]+", f.content.decode())}
    assert {"/static/page.js", "/static/page.css", "/static/icon.svg"} <= named
    answers = {name: ask(name) for name in named}
    assert [name for name, answer in answers.items() if not answer.is_success] == []
    types = {answer.headers["content-type"].partition(";")[0] for answer in answers.values()}
    assert types == {"text/css", "text/javascript", "image/svg+xml"}


ELSEWHERE = ["/static/../page.py", "/static/%2e%2e%2fpage.py", "/static/", "/static/index.html", "/static//etc/passwd"]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_nothing_else_is_served(ask: Ask, path: str) -> None:
    """A path that names no file of the page finds nothing."""
    assert ask(path).status_code == 404
