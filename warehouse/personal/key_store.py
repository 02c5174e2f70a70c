"""The interface of key stores: keys of subjects, which can be destroyed, and are never inside of the log."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from refold.event_schemas import UsageError

ENTRY_POINT_GROUP = "refold.key_stores"
"""Key stores of other packages, such as for a key management service: URL scheme to ``make(url, log_id)``."""


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Whose data it is.

    Attributes:
        field: the field that names the subject in events.
        value: its value, as text.
    """

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a subject.

    Attributes:
        key_id: its identity, 32 hexadecimal digits.
        secret: its 32 bytes.
    """

    key_id: str
    secret: bytes


class KeyStore(Protocol):
    """Keys of subjects. Any number of processes may use a store at the same time.

    A subject has one key at a time. Once it is destroyed, new data of the subject gets a new key, and the old one stays
    known as destroyed: so what was erased differs from what was lost.
    """

    url: str

    def key(self, subject: Subject) -> Key:
        """Return the subject's key; create it if there is none. All processes get the same one."""

    def find(self, key_id: str) -> Key | None:
        """Return a key by its id; None if it was destroyed.

        Raises:
            KeyStoreError: the store has never had this key, or has lost it.
        """

    def destroy(self, subject: Subject) -> list[str]:
        """Destroy the subject's keys, and return the ids of all that were ever destroyed for it.

        Killed at any moment, it can be called again, and then completes.
        """

    def key_ids(self, subject: Subject) -> dict[str, bool]:
        """Return the ids of all keys that the subject has had, each with whether the key still exists."""


def open_key_store(url: str, log_id: str) -> KeyStore:
    """Open the key store of a log.

    Args:
        url: a folder or the URL of an object store; or a URL whose scheme a package declares in the entry-point group
            ``refold.key_stores``.
        log_id: the log; a key store belongs to one log.

    Raises:
        UsageError: the URL is invalid.
    """
    from refold.warehouse.personal.object_keys import ObjectKeyStore

    scheme = url.partition("://")[0] if "://" in url else ""
    for found in entry_points(group=ENTRY_POINT_GROUP, name=scheme) if scheme else ():
        made: KeyStore = found.load()(url, log_id)
        return made
    return ObjectKeyStore(url, log_id)


def check_beside(keys_url: str, log_url: str) -> None:
    """Check that keys are not inside of the log, whose copies and backups would keep them.

    Raises:
        UsageError: they are.
    """
    if f"{keys_url}/".startswith(f"{log_url}/"):
        raise UsageError(
            f"The key store {keys_url} is inside of the log {log_url}: a copy of the log would keep keys that are "
            "destroyed. Give --keys another URL, such as the default beside the log."
        )
