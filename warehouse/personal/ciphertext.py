"""Encrypted values: text in place of the value in a payload.

::

    refold:1:<32 hexadecimal digits: id of the key>:<Base64 of nonce, ciphertext and tag>

The cipher is AES-256 in GCM (NIST SP 800-38D). The associated data is the id of the log, the event type and the field,
so a ciphertext means nothing in another place.

The nonce is synthetic, as in SIV (RFC 5297): a keyed hash of event id, place and value. So an event that is written
again is the same bytes, and the log recognises it as a repeat. Different values share a nonce only if 96 bits of their
hashes collide, which is as unlikely as with random nonces: GCM allows 2**32 values a key.

Both keys, of the cipher and of the nonces, are derived from the subject's key by one step of HKDF-Expand (RFC 5869).
"""

from __future__ import annotations

import binascii
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refold.event_schemas import KeyStoreError, PayloadError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = "refold:1:"
KEY_ID_LENGTH = 32
SECRET_BYTES = 32
_NONCE_BYTES = 12
_BODY = len(PREFIX) + KEY_ID_LENGTH + 1


@dataclass(frozen=True, slots=True)
class Cipher:
    """What encrypts and decrypts the values of one key.

    Attributes:
        key_id: the key.
        aead: the cipher.
        nonce_key: the key of the hash that makes nonces.
    """

    key_id: str
    aead: AESGCM
    nonce_key: bytes

    @classmethod
    def of(cls, key_id: str, secret: bytes) -> Cipher:
        """Make the cipher of a key.

        Raises:
            KeyStoreError: the package for it is missing.
        """
        return cls(key_id, _aead(_derived(secret, b"cipher")), _derived(secret, b"nonces"))

    def encrypt(self, text: str, *, event_id: str, place: bytes) -> str:
        """Encrypt a value.

        Args:
            text: the value.
            event_id: the event that holds it.
            place: log, event type and field, as :func:`place_of` returns them.
        """
        content = text.encode()
        identity = event_id.encode()
        hashed = b"%d:%b%d:%b%b" % (len(identity), identity, len(place), place, content)
        nonce = hmac.digest(self.nonce_key, hashed, "sha256")[:_NONCE_BYTES]
        body = binascii.b2a_base64(nonce + self.aead.encrypt(nonce, content, place), newline=False)
        return f"{PREFIX}{self.key_id}:{body.decode()}"

    def decrypt(self, stored: str, place: bytes) -> str:
        """Decrypt what :meth:`encrypt` returned.

        Raises:
            ValueError: it was changed, was encrypted under another key, or is in another place.
        """
        body = binascii.a2b_base64(stored[_BODY:])
        try:
            return self.aead.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], place).decode()
        except Exception as error:  # the package is optional, and this runs for every value
            from cryptography.exceptions import InvalidTag

            if not isinstance(error, InvalidTag):
                raise
            raise ValueError("it was changed, or encrypted under another key") from None


def place_of(log_id: str, event_type: str, field: str) -> bytes:
    """Return what a ciphertext is bound to."""
    return "\0".join((log_id, event_type, field)).encode()


def key_id_of(stored: str) -> str:
    """Return the id of the key of an encrypted value.

    Raises:
        PayloadError: the value is not encrypted.
    """
    if not stored.startswith(PREFIX) or stored[_BODY - 1 : _BODY] != ":":
        raise PayloadError(
            "a personal field holds a value that is not encrypted: it was appended before the field was marked. Give "
            "the marked contract a new schema_version, or write a new log with `refold log rewrite`"
        )
    return stored[len(PREFIX) : _BODY - 1]


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hmac.digest(secret, b"refold " + purpose + b"\x01", "sha256")


def _aead(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise KeyStoreError("Personal fields need the package cryptography: pip install 'refold[privacy]'.") from error
    return AESGCM(key)
