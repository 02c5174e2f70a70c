"""Key stores: one key for a subject whatever races, tombstones, lost and wrong stores; and what a ciphertext is."""

from __future__ import annotations

import functools
import operator
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from refold.event_schemas import KeyStoreError, PayloadError, UsageError
from refold.warehouse.event_log import create_log, open_log
from refold.warehouse.personal import personal_data as module
from refold.warehouse.personal.ciphertext import Cipher, key_id_of, place_of
from refold.warehouse.personal.key_store import Subject, open_key_store
from refold.warehouse.personal.object_keys import ObjectKeyStore
from refold.warehouse.personal.personal_data import PersonalData

ZOE, BOB = Subject("customer_id", "zoe"), Subject("customer_id", "bob")


@pytest.fixture
def keys(tmp_path: Path) -> ObjectKeyStore:
    """An empty key store."""
    return ObjectKeyStore(str(tmp_path / "keys"), "log-1")


def test_each_subject_has_one_key(keys: ObjectKeyStore, tmp_path: Path) -> None:
    """Another process finds the same key; another subject, field or log has another one; the folder is private."""
    key = keys.key(ZOE)
    assert ObjectKeyStore(keys.url, "log-1").key(ZOE) == key == keys.find(key.key_id)
    other = ObjectKeyStore(str(tmp_path / "others"), "log-1")
    ids = {keys.key(BOB).key_id, keys.key(Subject("user_id", "zoe")).key_id, other.key(ZOE).key_id}
    assert len(ids | {key.key_id}) == 4
    assert stat.S_IMODE(os.stat(keys.url).st_mode) == 0o700
    assert "zoe" not in "".join(str(p) for p in Path(keys.url).rglob("*"))


def test_a_destroyed_key_is_known_and_a_new_one_follows(keys: ObjectKeyStore) -> None:
    """The subject may come back: then it has a new key, and both are destroyed by the next erasure."""
    first = keys.key(ZOE)
    assert keys.destroy(ZOE) == keys.destroy(ZOE) == [first.key_id]
    assert keys.find(first.key_id) is None
    second = keys.key(ZOE)
    assert second.key_id != first.key_id
    assert second.secret != first.secret
    assert keys.key_ids(ZOE) == {first.key_id: False, second.key_id: True}
    assert keys.destroy(ZOE) == [first.key_id, second.key_id]
    assert keys.destroy(BOB) == []


def test_a_kill_between_tombstone_and_key_is_completed(keys: ObjectKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tombstone comes first; a writer then takes the next key, and the next run deletes the old one."""
    key = keys.key(ZOE)
    with monkeypatch.context() as patched:
        patched.setattr(type(keys._store), "delete", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            keys.destroy(ZOE)
    assert keys.key_ids(ZOE) == {key.key_id: True}
    assert keys.destroy(ZOE) == [key.key_id]
    assert keys.key_ids(ZOE) == {key.key_id: False}


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", range(5))
def test_writers_and_erasers_race(keys: ObjectKeyStore, number: int) -> None:
    """Whoever gets a key gets one that the store has, or has had: none is made that a later erasure would miss."""
    stores = [ObjectKeyStore(keys.url, "log-1") for _ in range(8)]

    def act(index: int) -> str | None:
        if index % 4 == number % 4:
            stores[index % 8].destroy(ZOE)
            return None
        return stores[index % 8].key(ZOE).key_id

    keys.key(ZOE)
    with ThreadPoolExecutor(8) as pool:
        used = {found for found in pool.map(act, range(64)) if found}
    assert used <= set(keys.destroy(ZOE))
    assert all(keys.find(key_id) is None for key_id in used)


def test_a_lost_key_is_no_erased_key(keys: ObjectKeyStore, tmp_path: Path) -> None:
    """A missing key, a missing store, another log's store and damage each say so."""
    key = keys.key(ZOE)
    path = Path(keys.url) / "keys" / f"{key.key_id}.json"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(KeyStoreError, match="was lost, or this is the wrong store"):
        keys.find(key.key_id)
    path.write_bytes(content.replace(b"secret", b"sacred"))
    with pytest.raises(KeyStoreError, match="is damaged"):
        keys.find(key.key_id)
    with pytest.raises(KeyStoreError, match="There is no key store at"):
        ObjectKeyStore(str(tmp_path / "elsewhere"), "log-1").find(key.key_id)
    with pytest.raises(KeyStoreError, match="holds the keys of log log-1, not of log-2"):
        ObjectKeyStore(keys.url, "log-2").key(ZOE)


def test_the_store_is_beside_the_log(tmp_path: Path) -> None:
    """By default its name is the log's with -keys; inside of the log it is refused."""
    log = create_log(str(tmp_path / "log"), domain_name="customers")
    assert log.personal_data.keys.url == f"{log.url}-keys"
    with pytest.raises(UsageError, match="is inside of the log"):
        open_log(log.url, keys_url=f"{log.url}/keys")
    assert open_log(log.url, keys_url=str(tmp_path / "k")).personal_data.keys.url == str(tmp_path / "k")
    assert isinstance(open_key_store("memory://keys", "log-1"), ObjectKeyStore)


def test_a_ciphertext_is_bound_to_its_place_and_repeatable(keys: ObjectKeyStore) -> None:
    """The same event has the same bytes; another id, value, field, type or log has others, and decrypts nothing."""
    key = keys.key(ZOE)
    cipher, place = Cipher.of(key.key_id, key.secret), place_of("log-1", "Registered", "name")
    stored = cipher.encrypt("Zoe", event_id="e1", place=place)
    assert stored == Cipher.of(key.key_id, key.secret).encrypt("Zoe", event_id="e1", place=place)
    assert cipher.decrypt(stored, place) == "Zoe"
    assert key_id_of(stored) == key.key_id
    others = [
        cipher.encrypt("Zoe", event_id="e2", place=place),
        cipher.encrypt("Bob", event_id="e1", place=place),
        cipher.encrypt("Zoe", event_id="e1", place=place_of("log-1", "Registered", "email")),
        cipher.encrypt("Zoe", event_id="e1", place=place_of("log-2", "Registered", "name")),
    ]
    assert len({text[-24:] for text in [stored, *others]}) == 5
    for elsewhere in (place_of("log-2", "Registered", "name"), place_of("log-1", "Left", "name")):
        with pytest.raises(ValueError, match="encrypted under another key"):
            cipher.decrypt(stored, elsewhere)
    changed = stored[:-6] + ("A" if stored[-6] != "A" else "B") + stored[-5:]
    with pytest.raises(ValueError, match="it was changed"):
        cipher.decrypt(changed, place)
    with pytest.raises(PayloadError, match="holds a value that is not encrypted"):
        key_id_of("Zoe")


def test_processes_forget_keys(keys: ObjectKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is kept for a minute at most, and no more than so many of them."""
    data = PersonalData(keys.url, "log-1")
    place = place_of("log-1", "Registered", "name")
    ciphers = data._of_subjects([ZOE, BOB])
    stored = [c.encrypt("secret", event_id="e", place=place) for c in ciphers]
    assert data.texts(stored, "Registered", "name") == ["secret", "secret"]
    keys.destroy(ZOE)
    assert data.texts(stored, "Registered", "name") == ["secret", "secret"]
    monkeypatch.setattr(time, "monotonic", functools.partial(operator.add, time.monotonic(), module.KEY_SECONDS + 1))
    assert data.texts(stored, "Registered", "name") == [None, "secret"]
    monkeypatch.setattr(module, "MAX_KEYS", 10)
    for number in range(30):
        data._of_subjects([Subject("customer_id", str(number))])
    assert len(data._cache.by_subject) <= 10
