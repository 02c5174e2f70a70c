"""Object stores under faults of the network, the disk, the account and the store itself."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec.asyn
import pytest

from refold.event_schemas.errors import ObjectNotFoundError, StoreError, StoreNotConditionalError
from refold.warehouse.object_store import ObjectStore, open_store
from tests.contracts.s3_servers import BUCKET, Faults, faulty_proxy, use_s3


@pytest.fixture
def faults(localbucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The faults between the client and the S3 store that is opened next."""
    with faulty_proxy(localbucket) as (endpoint, faults):
        use_s3(monkeypatch, endpoint)
        yield faults


@pytest.fixture
def faulty(faults: Faults) -> ObjectStore:
    """An S3 store behind the proxy."""
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def test_probe_refuses_a_store_that_ignores_conditions(faulty: ObjectStore, faults: Faults) -> None:
    """Two creations of one key succeed: such a store would lose events."""
    faults.ignore_conditions = True
    with pytest.raises(StoreNotConditionalError, match="ignores If-None-Match"):
        faulty.probe()
    assert list(faulty.list_from("")) == []


def test_a_lost_answer(faulty: ObjectStore, faults: Faults) -> None:
    """If the response to a write is lost, the result is False, and the object shows that it is the writer's own."""
    faults.lost_answers = 1
    assert faulty.put_if_absent("commit", b"our UUID") is False
    assert faulty.get("commit") == b"our UUID"
    assert sum(request.startswith("PUT") for request in faults.requests) == 2


def test_a_conflict_is_tried_again(faulty: ObjectStore, faults: Faults) -> None:
    """S3 rejects concurrent writes with 409 and decides nothing; a retry decides."""
    faults.conflicts = 3
    assert faulty.put_if_absent("commit", b"ours") is True
    assert faulty.get("commit") == b"ours"


def test_a_listing_starts_after_a_key(faulty: ObjectStore, faults: Faults) -> None:
    """Pages follow each other, and no page before the start is requested."""
    keys = [f"commits/{number:020d}" for number in range(7)]
    for key in keys:
        faulty.put(key, b"")
    faults.page_size = 2
    assert list(faulty.list_from("commits")) == keys
    faults.requests.clear()
    assert list(faulty.list_from("commits", start_after=keys[3])) == keys[4:]
    assert len(faults.requests) == 2
    faults.requests.clear()
    assert next(faulty.list_from("commits")) == keys[0]
    assert len(faults.requests) == 1


def test_reading_is_one_request(faulty: ObjectStore, faults: Faults) -> None:
    """An object is read without a request for its size."""
    faulty.put("key", b"content")
    faults.requests.clear()
    faulty.get("key")
    assert [request.split()[0] for request in faults.requests] == ["GET"]


def test_one_reader_downloads(faulty: ObjectStore, faults: Faults, tmp_path: Path) -> None:
    """Readers that want the same file at once wait for one download."""
    faulty.put("segment", b"content")
    readers = [open_store(faulty.url, cache_dir=tmp_path) for _ in range(8)]
    faults.requests.clear()
    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(lambda reader: reader.local_path("segment"), readers))
    assert [path.read_bytes() for path in paths] == [b"content"]
    assert sum(request.startswith("GET") for request in faults.requests) == 1


def _use_and_clean_up(store: ObjectStore) -> None:
    store.get("key")
    # Garbage is collected in whichever thread allocates; in fsspec's own, a dropped client closes its connections.
    fsspec.asyn.get_loop().call_soon_threadsafe(gc.collect)
    store.get("key")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_leaves_its_parent_alone(faulty: ObjectStore, faults: Faults) -> None:
    """A child that uses an inherited store does not close its parent's connection."""
    faulty.put("key", b"content")
    connection = faults.ports[-1]
    child = multiprocessing.get_context("fork").Process(target=_use_and_clean_up, args=(faulty,))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert faults.ports[-1] != connection
    assert faulty.get("key") == b"content"
    assert faults.ports[-1] == connection


def test_a_local_writer_that_died(tmp_path: Path) -> None:
    """Its partial file is not an object, and does not affect the next writer."""
    store = open_store(str(tmp_path))
    (tmp_path / "commits").mkdir()
    (tmp_path / "commits" / ".refold-tmp-0123").write_bytes(b"half")
    assert list(store.list_from("")) == []
    assert store.put_if_absent("commits/1", b"whole") is True
    assert list(store.list_from("")) == ["commits/1"]


def test_a_folder_cannot_become_an_object(tmp_path: Path) -> None:
    """On a disk a key cannot be both, and this is an error, not a lost race."""
    store = open_store(str(tmp_path))
    store.put("a/b", b"")
    for key in ("a", "a/b/c"):
        with pytest.raises(StoreError, match=f"Cannot write '{key}' in {tmp_path}"):
            store.put_if_absent(key, b"")
    memory = open_store(f"memory://{uuid.uuid4().hex}")
    memory.put("a", b"")
    with pytest.raises(StoreError, match="Cannot create 'a/b'"):
        memory.put_if_absent("a/b", b"")


@pytest.mark.parametrize("place", ["file/log", "/proc/log"])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    """The probe's error says where and why."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=rf"Cannot write 'refold-probe-\w+' in .*{place}: .*location"):
        open_store(str(tmp_path / place)).probe()


def test_a_missing_bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing bucket is not an absent object."""
    use_s3(monkeypatch, moto)
    store = open_store("s3://no-such-bucket/log")
    for call in (store.probe, lambda: store.get("key"), lambda: list(store.list_from("")), lambda: store.delete("key")):
        with pytest.raises(StoreError, match=r"in s3://no-such-bucket/log: .*create it, or correct the URL") as raised:
            call()
        assert not isinstance(raised.value, ObjectNotFoundError)


def test_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names a wrong endpoint."""
    use_s3(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="check AWS_ENDPOINT_URL"):
        open_store("s3://bucket/log").probe()


def test_a_missing_package() -> None:
    """Without s3fs the error names the package to install."""
    script = (
        "import sys; sys.modules['s3fs'] = None; import refold.warehouse.object_store as o; o.open_store('s3://bucket')"
    )
    failed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (
        "StoreError: s3:// needs the package s3fs, which is not installed. Install it: pip install s3fs"
        in failed.stderr
    )
