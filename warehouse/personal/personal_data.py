"""The personal data of one log: payloads and tables to ciphertext and back, with a bounded cache of keys.

A process keeps a key for at most a minute after it read it, so an erasure is complete everywhere a minute later; the
process that erases forgets its keys at once.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
import pyarrow as pa

from refold.event_schemas import PayloadError
from refold.event_schemas.payload import from_json, to_json
from refold.event_schemas.personal import PersonalField
from refold.warehouse.personal.ciphertext import Cipher, key_id_of, place_of
from refold.warehouse.personal.key_store import KeyStore, Subject, open_key_store

KEY_SECONDS = 60.0
"""How long a process keeps a key, and so how long after an erasure another process may still read the data."""

MAX_KEYS = 1 << 16
"""Keys that a process keeps, at about 1 kB each; beyond it, it forgets all and reads those that it needs again."""

_READERS = 16
"""Threads that read or create keys: a key is one object, and a store answers many requests at a time."""

_FEW_KEYS = 4

K = TypeVar("K", str, Subject)


@dataclass(slots=True)
class _Cache:
    """Ciphers of keys by id and by subject, each with the time until which it is used; None: the key was destroyed."""

    by_id: dict[str, tuple[float, Cipher | None]] = field(default_factory=dict)
    by_subject: dict[Subject, tuple[float, Cipher | None]] = field(default_factory=dict)

    def clear(self) -> None:
        self.by_id.clear()
        self.by_subject.clear()


class PersonalData:
    """The personal data of one log; threads may share it. Use :func:`personal_data` to get the process's own.

    Args:
        keys_url: location of the key store.
        log_id: the log.
    """

    def __init__(self, keys_url: str, log_id: str) -> None:
        self.keys: KeyStore = open_key_store(keys_url, log_id)
        self.log_id = log_id
        self._cache = _Cache()

    def forget_keys(self) -> None:
        """Forget the keys that this process has read."""
        self._cache.clear()

    def encrypted(
        self, payload: Mapping[str, Any], fields: Sequence[PersonalField], *, event_type: str, event_id: str
    ) -> dict[str, Any]:
        """Return the JSON object of a payload with its personal fields encrypted.

        Args:
            payload: the canonical JSON object.
            fields: the personal fields of its schema.
            event_type: its event type.
            event_id: the event that holds it.
        """
        found = dict(payload)
        for f in fields:
            if (value := payload[f.name]) is not None:
                cipher = self._of_subjects([Subject(f.subject, _text(payload[f.subject]))])[0]
                place = place_of(self.log_id, event_type, f.name)
                found[f.name] = cipher.encrypt(_text(value), event_id=event_id, place=place)
        return found

    def encrypted_table(self, table: pa.Table, fields: Sequence[PersonalField], event_type: str) -> pa.Table:
        """Return a table of events with its personal columns encrypted, as text.

        Args:
            table: events of one schema, with ``event_id`` and the payload's typed columns.
            fields: the personal fields of its schema.
            event_type: its event type.
        """
        ids = table["event_id"].to_pylist() if fields else []
        found = table
        for f in fields:
            subjects = [Subject(f.subject, _text(value)) for value in table[f.subject].to_pylist()]
            place = place_of(self.log_id, event_type, f.name)
            texts = _texts(table[f.name], f)
            needed = [subject for subject, text in zip(subjects, texts, strict=True) if text is not None]
            ciphers = dict(zip(needed, self._of_subjects(needed), strict=True))
            column = [
                None if text is None else ciphers[subject].encrypt(text, event_id=event_id, place=place)
                for subject, text, event_id in zip(subjects, texts, ids, strict=True)
            ]
            index = found.schema.get_field_index(f.name)
            found = found.set_column(index, f.name, pa.array(column, pa.string()))
        return found

    def decrypted(self, payload: Mapping[str, Any], fields: Sequence[PersonalField], event_type: str) -> dict[str, Any]:
        """Return a stored payload as Python values, with its personal fields as readers see them.

        Args:
            payload: as the log holds it: personal fields as encrypted text.
            fields: the personal fields of its schema.
            event_type: its event type.

        Raises:
            KeyStoreError: a key is lost.
            PayloadError: a value is not encrypted, or was changed.
        """
        schema = pa.schema([pa.field(f.name, f.type, nullable=f.nullable) for f in fields])
        return {**payload, **from_json(self.json_values(payload, fields, event_type), schema)}

    def json_values(
        self, payload: Mapping[str, Any], fields: Sequence[PersonalField], event_type: str
    ) -> dict[str, Any]:
        """Return the personal fields of a stored payload as readers see them, as JSON values; see :meth:`decrypted`."""
        found: dict[str, Any] = {}
        for f in fields:
            stored = payload.get(f.name)
            [text] = self.texts([stored], event_type, f.name)
            erased = None if stored is None else f.erased
            found[f.name] = erased if text is None else _json_value(text, f)
        return found

    def texts(self, stored: Sequence[str | None], event_type: str, field_name: str) -> list[str | None]:
        """Decrypt values of one field; None for a value whose key was destroyed.

        Raises:
            KeyStoreError: a key is lost.
            PayloadError: a value is not encrypted, or was changed.
        """
        place = place_of(self.log_id, event_type, field_name)
        key_ids = [None if value is None else key_id_of(value) for value in stored]
        ciphers = self._of_ids({key_id for key_id in key_ids if key_id is not None})
        texts: list[str | None] = []
        for value, key_id in zip(stored, key_ids, strict=True):
            cipher = ciphers[key_id] if key_id is not None else None
            if value is None or cipher is None:
                texts.append(None)
                continue
            try:
                texts.append(cipher.decrypt(value, place))
            except ValueError as error:
                raise PayloadError(
                    f"personal field {field_name} of an event {event_type} cannot be decrypted with key {key_id}: "
                    f"{error}"
                ) from error
        return texts

    def _of_subjects(self, subjects: Sequence[Subject]) -> list[Cipher]:
        found = self._cached(self._cache.by_subject, subjects, self._cipher_of)
        return [cipher for s in subjects if (cipher := found[s]) is not None]

    def _cipher_of(self, subject: Subject) -> Cipher:
        key = self.keys.key(subject)
        return Cipher.of(key.key_id, key.secret)

    def _of_ids(self, key_ids: Iterable[str]) -> dict[str, Cipher | None]:
        return self._cached(self._cache.by_id, key_ids, self._cipher_by_id)

    def _cipher_by_id(self, key_id: str) -> Cipher | None:
        key = self.keys.find(key_id)
        return None if key is None else Cipher.of(key.key_id, key.secret)

    def _cached(
        self, kept: dict[K, tuple[float, Cipher | None]], wanted: Iterable[K], read: Callable[[K], Cipher | None]
    ) -> dict[K, Cipher | None]:
        now = time.monotonic()
        found: dict[K, Cipher | None] = {}
        missing: list[K] = []
        for name in dict.fromkeys(wanted):
            until, cipher = kept.get(name, (0.0, None))
            if until > now:
                found[name] = cipher
            else:
                missing.append(name)
        if missing:
            if len(missing) > _FEW_KEYS:
                with ThreadPoolExecutor(_READERS) as pool:
                    ciphers = list(pool.map(read, missing))
            else:
                ciphers = list(map(read, missing))
            if len(kept) + len(missing) > MAX_KEYS:
                kept.clear()
            for name, cipher in zip(missing, ciphers, strict=True):
                found[name] = cipher
                kept[name] = (now + KEY_SECONDS, cipher)
        return found


@functools.lru_cache(maxsize=64)
def personal_data(keys_url: str, log_id: str) -> PersonalData:
    """Return the personal data of a log, with the cache of keys of this process."""
    return PersonalData(keys_url, log_id)


def _text(value: Any) -> str:
    """Return a JSON value, or the Python value of a subject, as the text that is encrypted or names a key."""
    return value if isinstance(value, str) else str(value) if _is_plain(value) else orjson.dumps(value).decode()


def _is_plain(value: Any) -> bool:
    return not isinstance(value, bool | float | list | dict)


def _json_value(text: str, field: PersonalField) -> Any:
    """Return the JSON value whose text was encrypted."""
    if field.is_text:
        return text
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text  # a date, a time, a UUID
    return found if isinstance(found, bool | int | float) and not pa.types.is_decimal(field.type) else text


def _texts(column: pa.ChunkedArray, field: PersonalField) -> list[str | None]:
    if field.is_text:
        texts: list[str | None] = column.to_pylist()
        return texts
    schema = pa.schema([pa.field(field.name, field.type, nullable=True)])
    values = (to_json({field.name: value}, schema)[field.name] for value in column.to_pylist())
    return [None if value is None else _text(value) for value in values]
