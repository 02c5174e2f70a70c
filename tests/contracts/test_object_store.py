"""The contract of every object store, over real stores of each kind."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from refold.event_schemas.errors import ObjectNotFoundError, UsageError
from refold.warehouse.object_store import ObjectStore, open_store

SPAWN, FORK = multiprocessing.get_context("spawn"), multiprocessing.get_context("fork")
ODD_KEYS = [
    "a b",
    "ü/😀.json",
    "e\u0301",
    "c+d",
    "e%20f",
    "g#h",
    "event_type=Order&placed;/x=1",
    'it\'s "so"',
    "p*q[r]{s}",
    "~t/.hidden",
    "a::b:c",
    "v,w@x!$(y)",
    "n" * 200,
]
BAD_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    "..",
    "a/../b",
    "./a",
    "a\\b",
    "a\nb",
    "a?versionId=b",
    "\ud800",
    ".refold-tmp-1",
    "a/.refold-tmp-1",
]


# --- one object -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000], ids=["empty", "small", "256kB"])
def test_what_is_put_is_read_back(store: ObjectStore, data: bytes) -> None:
    """Content comes back byte for byte, with its size."""
    store.put("folder/key", data)
    assert store.get("folder/key") == data
    assert store.size("folder/key") == len(data)
    assert store.exists("folder/key")


def test_a_mistake_is_not_the_store_s(store: ObjectStore) -> None:
    """Content that is not bytes is a TypeError, not a failure of the store."""
    with pytest.raises(TypeError):
        store.put("key", 5)  # type: ignore[arg-type]


def test_put_replaces(store: ObjectStore) -> None:
    """The last put wins."""
    store.put("key", b"long first content")
    store.put("key", b"second")
    assert store.get("key") == b"second"


@pytest.mark.parametrize(("first", "second"), [(b"first", b"second"), (b"", b"second"), (b"first", b""), (b"", b"")])
def test_a_key_is_created_once(store: ObjectStore, first: bytes, second: bytes) -> None:
    """A second creation returns False and changes nothing, also for empty objects."""
    assert store.put_if_absent("folder/key", first) is True
    assert store.put_if_absent("folder/key", second) is False
    assert store.get("folder/key") == first


def test_a_deleted_key_can_be_created_again(store: ObjectStore) -> None:
    """Delete removes everything, and deleting an absent object is no error."""
    store.delete("key")
    store.put("key", b"first")
    store.delete("key")
    assert not store.exists("key")
    assert store.put_if_absent("key", b"second") is True


def test_modified(store: ObjectStore) -> None:
    """When an object was written, and written again, to the second that some stores round to."""
    slack = timedelta(seconds=2)
    before = datetime.now(UTC)
    store.put("key", b"first")
    first = store.modified("key")
    assert before - slack <= first <= datetime.now(UTC) + slack
    store.put("key", b"second")
    assert store.modified("key") >= first


@pytest.mark.parametrize("key", ["absent", "present/below", "folder"])
def test_no_object(store: ObjectStore, key: str) -> None:
    """The error names an absent object; a folder is not an object, and nothing is below an object."""
    store.put("present", b"")
    store.put("folder/object", b"")
    assert not store.exists(key)
    for read in (store.get, store.size, store.modified, store.local_path):
        with pytest.raises(ObjectNotFoundError, match=f"no object '{key}' in {store.url}"):
            read(key)
    store.delete(key)


def test_odd_keys(store: ObjectStore) -> None:
    """Keys keep every character, in objects and in listings."""
    for key in ODD_KEYS:
        assert store.put_if_absent(key, key.encode()) is True
    assert list(store.list_from("")) == sorted(ODD_KEYS)
    for key in ODD_KEYS:
        assert store.get(key) == key.encode()
        assert store.local_path(key).read_bytes() == key.encode()


@pytest.mark.parametrize("key", BAD_KEYS)
def test_impossible_keys(tmp_path: Path, key: str) -> None:
    """Every method rejects a key that leaves the store, or that has another meaning in some store."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    for store in (open_store(str(tmp_path / "store")), open_store("memory://bad-keys"), open_store("s3://bad-keys")):
        for call in (
            store.get,
            store.exists,
            store.size,
            store.local_path,
            store.delete,
            store.delete_prefix,
            store.child,
        ):
            with pytest.raises(UsageError):
                call(key)
        for write in (store.put, store.put_if_absent):
            with pytest.raises(UsageError):
                write(key, b"")
        with pytest.raises(UsageError):
            store.put_file(key, file)
        if key:
            with pytest.raises(UsageError):
                store.list_from(key)


# --- files ------------------------------------------------------------------------------------------------------------


def test_files(store: ObjectStore, tmp_path: Path) -> None:
    """A file is stored like bytes; it may be deleted or stored again, and nothing else appears in the store."""
    file = tmp_path / "file"
    file.write_bytes(b"content" * 1000)
    store.put_file("a/put", file)
    store.put_file("a/put", file)
    store.put("a/put", b"new")
    assert file.read_bytes() == b"content" * 1000
    file.unlink()
    assert store.get("a/put") == b"new"
    assert list(store.list_from("")) == ["a/put"]
    if store.is_local:
        assert sorted(path.name for path in Path(store.url, "a").iterdir()) == ["put"]


def test_a_file_of_many_parts(store: ObjectStore, tmp_path: Path) -> None:
    """S3 receives it in parts."""
    file = tmp_path / "file"
    file.write_bytes(b"".join(bytes([part]) * 2**23 for part in range(5)))
    store.put_file("big", file)
    assert store.local_path("big").read_bytes() == file.read_bytes()


def test_no_file(store: ObjectStore, tmp_path: Path) -> None:
    """A missing source is an error of the caller, not of the store."""
    with pytest.raises(UsageError, match="is not a file"):
        store.put_file("key", tmp_path / "absent")
    with pytest.raises(UsageError, match="is not a file"):
        store.put_file("key", tmp_path)


def test_local_path(store: ObjectStore) -> None:
    """The file's path ends in the key; the file is the same while the object is, and a replaced object gets another."""
    store.put("bucket=01/part.parquet", b"first")
    path = store.local_path("bucket=01/part.parquet")
    assert path.read_bytes() == b"first"
    assert path.parts[-2:] == ("bucket=01", "part.parquet")
    before = path.stat()
    assert store.local_path("bucket=01/part.parquet") == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    store.put("bucket=01/part.parquet", b"other")
    assert store.local_path("bucket=01/part.parquet").read_bytes() == b"other"


def test_where_copies_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a cache_dir, copies are in REFOLD_CACHE_DIR, else in the user's cache folder."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    store.put("key", b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("REFOLD_CACHE_DIR", raising=False)
    assert store.local_path("key").is_relative_to(tmp_path / "xdg" / "refold")
    monkeypatch.setenv("REFOLD_CACHE_DIR", str(tmp_path / "named"))
    assert store.local_path("key").is_relative_to(tmp_path / "named")


# --- listings ---------------------------------------------------------------------------------------------------------


def test_list_from(store: ObjectStore) -> None:
    """Keys below a folder are in character order, at any depth, after the given one."""
    keys = ["a-b", "a/b", "a/b-c", "a/b.d/1", "a/b/2", "a/c", "aa/1", "b"]
    for key in keys:
        if key != "a/b":  # a folder on a disk
            store.put(key, b"")
    keys.remove("a/b")
    assert list(store.list_from("")) == keys
    assert list(store.list_from("a")) == ["a/b-c", "a/b.d/1", "a/b/2", "a/c"]
    assert list(store.list_from("a/b")) == ["a/b/2"]
    assert list(store.list_from("none")) == []
    assert list(store.list_from("b")) == []
    for after in [*keys, "", "a", "a/", "a/b", "a/b.", "a/b.d/0", "a/b/", "a/bb", "c", "0"]:
        assert list(store.list_from("", start_after=after)) == [key for key in keys if key > after], after
        below = [key for key in keys if key > after and key.startswith("a/")]
        assert list(store.list_from("a", start_after=after)) == below, after


def test_a_listing_is_never_old(store: ObjectStore) -> None:
    """The next listing shows another writer's objects and deletions."""
    other = open_store(store.url)
    assert list(store.list_from("")) == []
    other.put("a/1", b"")
    assert list(store.list_from("a")) == ["a/1"]
    other.put("a/2", b"")
    assert list(store.list_from("a")) == ["a/1", "a/2"]
    assert store.size("a/2") == 0
    other.delete("a/1")
    other.put("a/2", b"longer")
    assert list(store.list_from("")) == ["a/2"]
    assert store.size("a/2") == 6


def test_delete_prefix(store: ObjectStore) -> None:
    """A folder is deleted with everything below it, and nothing beside it."""
    for key in ("gen-1/a", "gen-1/b/c", "gen-10/a", "gen"):
        store.put(key, b"")
    store.delete_prefix("gen-1")
    store.delete_prefix("gen-2")
    assert list(store.list_from("")) == ["gen", "gen-10/a"]


def test_child(store: ObjectStore) -> None:
    """A child is the same store with a longer URL; a URL opens the same place again."""
    child = store.child("a/b")
    child.put("c", b"content")
    assert store.get("a/b/c") == b"content"
    assert list(child.list_from("")) == ["c"]
    assert open_store(child.url).get("c") == b"content"
    assert open_store(child.url).url == child.url
    assert child.cache_dir == store.cache_dir


# --- many writers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Switch threads a thousand times more often, so that races show."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 1000)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.slow
@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("store", ["local", "memory", "localbucket"], indirect=True)  # moto checks, and then writes
def test_one_thread_wins(store: ObjectStore) -> None:
    """Of 16 threads that create one key, one gets True, and its bytes are stored; 20 rounds."""
    barrier = threading.Barrier(16)

    def create(thread: int) -> list[bool]:
        won = []
        for number in range(20):
            barrier.wait(timeout=60)
            won.append(store.put_if_absent(f"race/{number}", f"thread {thread}".encode()))
        return won

    with ThreadPoolExecutor(16) as threads:
        rounds = zip(*threads.map(create, range(16)), strict=True)
    for number, won in enumerate(rounds):
        assert sum(won) == 1
        assert store.get(f"race/{number}") == f"thread {won.index(True)}".encode()


def _create_all(store: ObjectStore, writer: int) -> list[bool]:
    return [store.put_if_absent(f"race/{key}", f"process {writer}".encode()) for key in range(300)]


def test_one_process_wins(tmp_path: Path) -> None:
    """Of four processes that create the same 300 files, one wins each, and several win some."""
    store = open_store(str(tmp_path))
    with ProcessPoolExecutor(4, mp_context=SPAWN) as processes:
        won = list(processes.map(_create_all, [store] * 4, range(4)))
    for key, winners in enumerate(zip(*won, strict=True)):
        assert sum(winners) == 1
        assert store.get(f"race/{key}") == f"process {winners.index(True)}".encode()


def test_content_is_never_half_visible(store: ObjectStore) -> None:
    """Reads during creates and replaces see complete content, of every listed object."""
    size = 1_000_000
    store.put("objects/replaced", bytes(size))
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        while not done.is_set():
            for key in list(store.list_from("objects"))[-2:]:
                data = store.get(key)
                assert data == data[:1] * size
            reading.set()

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        try:
            assert reading.wait(timeout=60)
            for number in range(12):
                store.put_if_absent(f"objects/{number}", bytes([number]) * size)
                store.put("objects/replaced", bytes([number]) * size)
        finally:
            done.set()
        for reader in readers:
            reader.result()


def _use_in_child(store: ObjectStore, answers: SimpleQueue[object]) -> None:
    answers.put((store.get("parent"), store.local_path("parent").read_bytes(), store.put_if_absent("child", b"")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "context", [multiprocessing.get_context("spawn"), multiprocessing.get_context("fork")], ids=["spawn", "fork"]
)
@pytest.mark.parametrize("store", ["local", "localbucket"], indirect=True)
def test_another_process(store: ObjectStore, context: SpawnContext | ForkContext) -> None:
    """A used store works in a child process, pickled or inherited by a fork."""
    store.put("parent", b"parent's")
    answers = context.SimpleQueue()
    child = context.Process(target=_use_in_child, args=(store, answers))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert answers.get() == (b"parent's", b"parent's", True)
    assert store.exists("child")


def test_a_store_is_a_value(store: ObjectStore) -> None:
    """Pickling keeps the URL and the cache, but not the connection."""
    store.put("key", b"content")
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.url, copy.cache_dir, copy.is_local) == (store.url, store.cache_dir, store.is_local)
    assert copy.get("key") == b"content"


# --- places -----------------------------------------------------------------------------------------------------------


def test_probe_accepts(store: ObjectStore) -> None:
    """A store with conditional writes passes, and the probe leaves nothing in it."""
    store.probe()
    assert list(store.list_from("")) == []


@pytest.mark.parametrize("store", ["memory", "localbucket"], indirect=True)
def test_a_whole_bucket(store: ObjectStore) -> None:
    """Without a prefix, the keys are those of the bucket."""
    above, _, name = store.url.rpartition("/")
    bucket = open_store("memory://" if above == "memory:/" else above)
    store.put("a/b", b"content")
    assert bucket.get(f"{name}/a/b") == b"content"
    assert list(bucket.list_from(name)) == [f"{name}/a/b"]
    assert f"{name}/a/b" in bucket.list_from("")
    bucket.delete_prefix(name)
    assert list(store.list_from("")) == []


@pytest.mark.parametrize(
    "url",
    [
        *("", "s3://", "file://", "ftp://host/log", "simplecache::s3://bucket", "s3://bucket/../x", "s3://b/a?b"),
        *("s3:/bucket/log", "s3:", "gs:/bucket", "file:/log", "file://host/log", "file://log", "https:/host/log"),
    ],
)
def test_impossible_urls(url: str) -> None:
    """A URL that is not a store, or not a safe one, is rejected when it is opened; no folder is made of it."""
    with pytest.raises(UsageError):
        open_store(url)


def test_a_folder_named_like_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is meant, it is no URL, and its URL opens it again."""
    monkeypatch.chdir(tmp_path)
    store = open_store("./s3:/bucket")
    store.put("key", b"content")
    assert (tmp_path / "s3:" / "bucket" / "key").read_bytes() == b"content"
    assert open_store(store.url).get("key") == b"content"


@pytest.mark.parametrize("prefix", [key for key in ODD_KEYS if "/" not in key] + ["region=emea", "bucket=0 [g]*"])
def test_odd_prefixes(store: ObjectStore, prefix: str) -> None:
    """A store's own URL keeps every character too, for listings, copies and other processes."""
    child = open_store(store.child(prefix).url, cache_dir=store.cache_dir)
    assert child.put_if_absent("a/b", b"content") is True
    assert child.put_if_absent("a/b", b"other") is False
    assert list(child.list_from("a")) == ["a/b"]
    assert child.local_path("a/b").read_bytes() == b"content"
    assert store.get(f"{prefix}/a/b") == b"content"
    child.delete_prefix("a")
    assert list(store.list_from("")) == []


def test_urls_of_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spellings of one location are one URL."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in ("log", "./log/", f"{tmp_path}/log", f"file://{tmp_path}/log", "~/log"):
        assert open_store(url).url == str(tmp_path / "log")
    assert open_store("memory://log/").url == open_store("memory:///log").url == "memory://log"
    assert open_store("memory://").child("log").url == "memory://log"
    assert open_store("s3://bucket/a/b/").url == "s3://bucket/a/b"
