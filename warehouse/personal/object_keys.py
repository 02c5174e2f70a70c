"""Keys as objects: a folder for one machine, or an object store of one's own for several.

::

    <keys>/refold-keys.json       the log that the keys belong to, and the salt of their ids; once, put-if-absent
    <keys>/keys/<id>.json         one key; put-if-absent
    <keys>/destroyed/<id>.json    the key of this id was destroyed; put before the key is deleted, and kept

The id of a subject's n-th key is a keyed hash of the subject and n. So processes that create a key at the same time
meet at one name, there is no index to keep, and an id tells nothing to anyone without the salt.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from refold.event_schemas import KeyStoreError, ObjectNotFoundError
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.records import RecordError, decode_record, encode_record
from refold.warehouse.personal.ciphertext import KEY_ID_LENGTH, SECRET_BYTES
from refold.warehouse.personal.key_store import Key, Subject

_DESCRIPTION = "refold-keys.json"
_FORMAT = 1
_PRIVATE = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class _Description:
    """What a key store says of itself."""

    format_version: int
    log_id: str
    salt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A key as it is stored; ``secret`` in Base64."""

    key_id: str
    secret: str
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tombstone:
    """What is kept of a destroyed key."""

    key_id: str
    destroyed_at: str


class ObjectKeyStore:
    """A key store in a folder or an object store.

    Args:
        url: its location, which must not be inside of the log.
        log_id: the log that the keys belong to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     keys, ada = ObjectKeyStore(folder, "a-log"), Subject("customer_id", "ada")
        ...     key = keys.key(ada)
        ...     keys.find(key.key_id) == key, keys.destroy(ada) == [key.key_id], keys.find(key.key_id)
        (True, True, None)
    """

    def __init__(self, url: str, log_id: str) -> None:
        self._store: ObjectStore = open_store(url)
        self._log_id = log_id
        self.url = self._store.url

    def key(self, subject: Subject) -> Key:
        """Return the subject's key; create it if there is none."""
        for key_id in self._ids(subject, create=True):
            if (found := self._get(key_id)) is not None:
                return found
            if self._is_destroyed(key_id):
                continue
            made = _Stored(
                key_id=key_id, secret=base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode(), created_at=_now()
            )
            self._store.put_if_absent(_key(key_id), encode_record(made))
            if self._is_destroyed(key_id):  # meanwhile: by an erasure that saw the key of another process
                self._store.delete(_key(key_id))
            elif (kept := self._get(key_id)) is not None:
                return kept
        raise AssertionError("ids never end")

    def find(self, key_id: str) -> Key | None:
        """Return a key by its id; None if it was destroyed.

        Raises:
            KeyStoreError: the store has no such key, or belongs to another log.
        """
        found = self._get(key_id)
        if found is None and not self._is_destroyed(key_id):
            self._describe(create=False)
            raise KeyStoreError(
                f"The key {key_id} is missing from the key store {self.url}, which does not know it as destroyed: it "
                "was lost, or this is the wrong store. Restore it from a backup, or name the right one with --keys."
            )
        return found

    def destroy(self, subject: Subject) -> list[str]:
        """Destroy the subject's keys: a tombstone first, so that a kill in between is no loss."""
        known = self.key_ids(subject)
        for key_id in known:
            self._store.put_if_absent(_tombstone(key_id), encode_record(_Tombstone(key_id=key_id, destroyed_at=_now())))
            self._store.delete(_key(key_id))
        return list(known)

    def key_ids(self, subject: Subject) -> dict[str, bool]:
        """Return the ids of all keys that the subject has had, each with whether the key still exists."""
        found: dict[str, bool] = {}
        for key_id in self._ids(subject, create=False):
            exists = self._store.exists(_key(key_id))
            if not (exists or self._is_destroyed(key_id)):
                break
            found[key_id] = exists
        return found

    def _ids(self, subject: Subject, *, create: bool) -> Iterator[str]:
        salt = base64.b64decode(self._describe(create=create).salt)
        number = 0
        while True:
            number += 1
            named = "\0".join((subject.field, subject.value, str(number))).encode()
            yield hmac.digest(salt, named, "sha256").hex()[:KEY_ID_LENGTH]

    def _get(self, key_id: str) -> Key | None:
        try:
            stored = decode_record(self._store.get(_key(key_id)), _Stored)
        except ObjectNotFoundError:
            return None
        except RecordError as error:
            raise KeyStoreError(
                f"The key {self.url}/{_key(key_id)} is damaged ({error}). Restore it from a backup of the key store."
            ) from error
        return Key(stored.key_id, base64.b64decode(stored.secret))

    def _is_destroyed(self, key_id: str) -> bool:
        return self._store.exists(_tombstone(key_id))

    def _describe(self, *, create: bool) -> _Description:
        if create and not self._store.exists(_DESCRIPTION):
            self._create()
        found = self._description
        if found.log_id != self._log_id:
            raise KeyStoreError(
                f"The key store {self.url} holds the keys of log {found.log_id}, not of {self._log_id}. Give --keys "
                "the store of this log."
            )
        return found

    @cached_property
    def _description(self) -> _Description:
        try:
            return decode_record(self._store.get(_DESCRIPTION), _Description)
        except ObjectNotFoundError as error:
            raise KeyStoreError(
                f"There is no key store at {self.url}, so personal data cannot be read. Name the store with --keys, or "
                "restore it from a backup."
            ) from error
        except RecordError as error:
            raise KeyStoreError(
                f"{self.url}/{_DESCRIPTION} is damaged ({error}). Restore it from a backup of the key store."
            ) from error

    def _create(self) -> None:
        salt = base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        made = _Description(format_version=_FORMAT, log_id=self._log_id, salt=salt)
        if self._store.is_local:
            Path(self.url).mkdir(parents=True, exist_ok=True)
            with suppress(PermissionError):  # the folder of another user, who shares it
                os.chmod(self.url, _PRIVATE)
        self._store.put_if_absent(_DESCRIPTION, encode_record(made))


def _key(key_id: str) -> str:
    return f"keys/{key_id}.json"


def _tombstone(key_id: str) -> str:
    return f"destroyed/{key_id}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat()
