"""Bearer tokens: who may ask what of ``refold serve``.

Tokens come from the environment, from a file, or both. Only their SHA-256 is kept. A token is a random secret, so a
plain hash is enough: there is no dictionary to try.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from enum import StrEnum
from pathlib import Path
from typing import Any

from refold.event_schemas import UsageError

VARIABLE = "REFOLD_TOKENS"
MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
"""How to make a secret."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{22,256}")  # 22 characters of base64 are 128 bits
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = ("scopes", "secret", "sha256", "expires")


class Scope(StrEnum):
    """What a token is good for; ``admin`` implies the others."""

    READ = "read"
    COMMAND = "command"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do.

    Attributes:
        name: of the token.
        scopes: what it is good for.
    """

    name: str
    scopes: frozenset[Scope]

    def allows(self, scope: Scope) -> bool:
        """Tell whether this is good for a scope.

        Example:
            >>> Grant("dashboard", frozenset({Scope.READ})).allows(Scope.COMMAND)
            False
        """
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANYBODY = Grant("anybody", frozenset(Scope))
"""Whoever asks a server that has no tokens, which listens on loopback only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token.

    Attributes:
        grant: what it allows, and its name.
        digest: SHA-256 of its secret.
        expires_at: from when on it is good for nothing; None for never.
    """

    grant: Grant
    digest: bytes = field(repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """All tokens that a server knows; false if there are none, and everybody may do everything.

    Args:
        known: the tokens.

    Example:
        >>> tokens = Tokens((parse_token("shop:read+command:wq7JpY2Vt0hZ4nUe8sKd1A"),))
        >>> tokens.scopes_of("wq7JpY2Vt0hZ4nUe8sKd1A").name
        'shop'
        >>> tokens.scopes_of("something else") is None
        True
    """

    known: tuple[Token, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.known)

    def scopes_of(self, secret: str | bytes, *, now: datetime | None = None) -> Grant | None:
        """Find what a secret allows, in a time that tells nothing about the secrets there are.

        Args:
            secret: as it was presented.
            now: the time; the present by default.

        Returns:
            None if no token has it, or the token has expired.
        """
        presented = hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()
        found: Token | None = None
        for token in self.known:  # all of them, whichever fits
            if hmac.compare_digest(token.digest, presented):
                found = token
        if found is None:
            return None
        if found.expires_at is not None and (now or datetime.now(UTC)) >= found.expires_at:
            return None
        return found.grant


def load_tokens(environ: Mapping[str, str], path: Path | None = None) -> Tokens:
    """Read tokens from ``REFOLD_TOKENS``, and from a file.

    Args:
        environ: the environment. Tokens stand there as ``name:scopes:secret`` or ``name:scopes:secret:expires``,
            with spaces, line ends or commas between them, and ``+`` between scopes; ``sha256=<hex>`` may stand for the
            secret.
        path: a TOML file with a table ``[tokens.NAME]`` each, of ``scopes``, ``secret`` or ``sha256``, and ``expires``.

    Raises:
        UsageError: something cannot be meant, two tokens have one name or secret, or others can read the secrets of the
            file or write it. No message shows a secret.

    Example:
        >>> load_tokens({"REFOLD_TOKENS": "shop:read+command:wq7JpY2Vt0hZ4nUe8sKd1A:2027-01-01"}).known[0].grant.name
        'shop'
    """
    said = re.split(r"[\s,]+", environ.get(VARIABLE, ""))
    tokens = [parse_token(text) for text in said if text]
    if path is not None:
        tokens += _from_file(path)
    _check_distinct(tokens)
    return Tokens(tuple(tokens))


def parse_token(text: str) -> Token:
    """Read one token as the environment has it.

    Raises:
        UsageError: it cannot be meant.

    Example:
        >>> str(parse_token("shop:read:wq7JpY2Vt0hZ4nUe8sKd1A:2027-01-01").expires_at)
        '2027-01-01 00:00:00+00:00'
    """
    name, *rest = text.split(":", 3)
    if len(rest) < 2:
        raise UsageError(
            f"{VARIABLE} has an entry of {len(rest) + 1} parts; expected name:scopes:secret or "
            "name:scopes:secret:expires, as in shop:read+command:SECRET:2027-01-01."
        )
    scopes, secret = rest[0].split("+"), rest[1]
    digest = secret.removeprefix("sha256=")
    secrets = {"sha256": digest} if digest != secret else {"secret": secret}
    expires = {"expires": rest[2]} if len(rest) > 2 else {}
    return _token(name, {"scopes": scopes, **secrets, **expires}, where=VARIABLE)


def _from_file(path: Path) -> list[Token]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document = tomllib.load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The tokens in {path} cannot be read: {type(error).__name__}. Give another file.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The tokens in {path} are not TOML: {error}. Mend the file.") from error
    tables = document.pop("tokens", None)
    if document or not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError(f"{path} is expected to have a table [tokens.NAME] for each token, and nothing else.")
    _check_mode(path, mode, has_secrets=any("secret" in table for table in tables.values()))
    return [_token(name, table, where=str(path)) for name, table in tables.items()]


def _check_mode(path: Path, mode: int, *, has_secrets: bool) -> None:
    if os.name != "posix":
        return
    if has_secrets and mode & (stat.S_IRGRP | stat.S_IROTH):
        raise UsageError(
            f"Others can read the secrets in {path}. Run `chmod 600 {path}`, or write sha256 in place of secret."
        )
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"Others can write {path}, and so let themselves in. Run `chmod go-w {path}`.")


def _token(name: str, values: Mapping[str, Any], *, where: str) -> Token:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{where}: a token's name is 1 to 64 letters, digits and . _ -; one has another.")
    where = f"{where}, token {name!r}"
    if unknown := sorted(set(values) - set(_KEYS)):
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}.")
    grant = Grant(name, _scopes(values.get("scopes"), where))
    return Token(grant=grant, digest=_digest(values, where), expires_at=_expiry(values.get("expires"), where))


def _scopes(value: Any, where: str) -> frozenset[Scope]:
    known = [scope.value for scope in Scope]
    if not isinstance(value, list) or not value or not all(v in known for v in value):
        raise UsageError(f"{where}: scopes are one or more of {', '.join(known)}; something else is given.")
    return frozenset(Scope(v) for v in value)


def _digest(values: Mapping[str, Any], where: str) -> bytes:
    secret, sha256 = values.get("secret"), values.get("sha256")
    if (secret is None) == (sha256 is None):
        raise UsageError(f"{where}: expected either secret or sha256.")
    if sha256 is not None:
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise UsageError(f"{where}: sha256 is 64 lower-case hexadecimal digits.")
        return bytes.fromhex(sha256)
    if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
        raise UsageError(f"{where}: a secret is 22 to 256 letters, digits, - and _. Make one with `{MAKE_ONE}`.")
    return hashlib.sha256(secret.encode()).digest()


def _expiry(value: Any, where: str) -> datetime | None:
    """Read when a token ends: a date is its first instant in UTC."""
    if value is None:
        return None
    try:
        read = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        read = None
    if isinstance(read, date) and not isinstance(read, datetime):
        read = datetime.combine(read, time(), UTC)
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value) and read is not None:
        read = read.replace(tzinfo=UTC)
    if not isinstance(read, datetime) or read.tzinfo is None:
        raise UsageError(
            f"{where}: expires is a date or a time with its zone, as in 2027-01-01 or 2027-01-01T12:00:00Z."
        )
    return read


def _check_distinct(tokens: Iterable[Token]) -> None:
    names: set[str] = set()
    digests: set[bytes] = set()
    for token in tokens:
        if token.grant.name in names:
            raise UsageError(f"Two tokens are named {token.grant.name!r}. Give each a name of its own.")
        if token.digest in digests:
            raise UsageError(f"Token {token.grant.name!r} has the secret of another one. Make each its own.")
        names.add(token.grant.name)
        digests.add(token.digest)
