"""The stores that the contract suites run over; the S3 servers start once in a session, at first use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from refold.warehouse.object_store import ObjectStore, open_store
from tests.contracts.s3_servers import BUCKET, localbucket_server, moto_server, use_s3


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a running moto server."""
    with moto_server(tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def localbucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a running localbucket server."""
    with localbucket_server(tmp_path_factory.mktemp("localbucket")) as endpoint:
        yield endpoint


@pytest.fixture(params=["local", "memory", "moto", "localbucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty object store of each kind; a new kind of store is added to this list."""
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4().hex}", cache_dir=tmp_path / "cache")
    use_s3(monkeypatch, request.getfixturevalue(request.param))
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}", cache_dir=tmp_path / "cache")
