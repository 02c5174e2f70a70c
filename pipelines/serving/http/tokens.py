"""Bearer tokens: who may do what with ``refold serve``.

Tokens come from the environment, from a file, or from both. Only the SHA-256 of a secret is kept. A secret is random,
so a plain hash is enough: a dictionary attack has no dictionary.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from refold.event_schemas import UsageError

VARIABLE = "REFOLD_TOKENS"
SECRET_COMMAND = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
"""Prints a new secret."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Scope(StrEnum):
    """What a token allows; ``admin`` implies the others."""

    READ = "read"
    COMMAND = "command"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may do.

    Attributes:
        name: of the token.
        scopes: those of the token.
    """

    name: str
    scopes: frozenset[Scope]

    def allows(self, scope: Scope) -> bool:
        """Check whether the grant covers a scope.

        Example:
            >>> Grant("dashboard", frozenset({Scope.READ})).allows(Scope.COMMAND)
            False
        """
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANONYMOUS = Grant("anonymous", frozenset(Scope))
"""The grant of every caller of a server without tokens, which listens on loopback only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token.

    Attributes:
        grant: its name and scopes.
        digest: SHA-256 of its secret.
        expires_at: when it becomes invalid; None for never.
    """

    grant: Grant
    digest: bytes = field(repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a server; false if there are none, so that every caller may do everything.

    Args:
        known: the tokens.

    Example:
        >>> tokens = load_tokens({"REFOLD_TOKENS": "shop:read+command:wq7JpY2Vt0hZ4nUe8sKd1A"})
        >>> tokens.scopes_of("wq7JpY2Vt0hZ4nUe8sKd1A").name
        'shop'
        >>> tokens.scopes_of("something else") is None
        True
    """

    known: tuple[Token, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.known)

    def scopes_of(self, secret: str | bytes, *, now: datetime | None = None) -> Grant | None:
        """Return what a secret allows, in a time that reveals nothing about the known secrets.

        Args:
            secret: as presented.
            now: the current time; the clock's by default.

        Returns:
            None if no token has this secret, or if the token has expired.
        """
        presented = hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()
        found: Token | None = None
        for token in self.known:  # compare all of them, also after a match
            if hmac.compare_digest(token.digest, presented):
                found = token
        if found is None:
            return None
        if found.expires_at is not None and (now or datetime.now(UTC)) >= found.expires_at:
            return None
        return found.grant


def load_tokens(environ: Mapping[str, str], path: Path | None = None) -> Tokens:
    """Read tokens from ``REFOLD_TOKENS`` and from a file.

    Args:
        environ: the environment. A token is ``name:scopes:secret`` or ``name:scopes:secret:expires``. Spaces, line ends
            or commas separate tokens, ``+`` separates scopes, and ``sha256=<hex>`` may replace the secret.
        path: a TOML file with a table ``[tokens.NAME]`` for each token: ``scopes``, ``secret`` or ``sha256``, and
            ``expires``.

    Raises:
        UsageError: an entry is invalid, two tokens have the same name or secret, or other users of this machine can
            read the secrets of the file or write to it. No message shows a secret.

    Example:
        >>> load_tokens({"REFOLD_TOKENS": "shop:read+command:wq7JpY2Vt0hZ4nUe8sKd1A:2027-01-01"}).known[0].grant.name
        'shop'
    """
    tokens = [_from_text(text) for text in re.split(r"[\s,]+", environ.get(VARIABLE, "")) if text]
    if path is not None:
        tokens += _from_file(path)
    names: set[str] = set()
    digests: set[bytes] = set()
    for token in tokens:
        if token.grant.name in names:
            raise UsageError(f"Two tokens are named {token.grant.name!r}. Give each token its own name.")
        if token.digest in digests:
            raise UsageError(f"Token {token.grant.name!r} has the secret of another token. Give each its own secret.")
        names.add(token.grant.name)
        digests.add(token.digest)
    return Tokens(tuple(tokens))


def _parse_expiry(value: Any) -> Any:
    """Parse a text; a date means its first instant in UTC."""
    if isinstance(value, str):
        value = (date if len(value) == len("2027-01-01") else datetime).fromisoformat(value)
    is_date = isinstance(value, date) and not isinstance(value, datetime)
    return datetime.combine(value, time(), UTC) if is_date else value


class _Entry(BaseModel):
    """One token as it is written in the environment or in a file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    secret: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{22,256}$")] | None = None  # 22 base64 characters: 128 bits
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    expires: Annotated[AwareDatetime, Strict(), BeforeValidator(_parse_expiry)] | None = None


_EXPECTED = {
    "scopes": f"scopes are one or more of {', '.join(Scope)}",
    "secret": f"a secret has 22 to 256 letters, digits, - and _; `{SECRET_COMMAND}` prints one",
    "sha256": "sha256 is 64 lower-case hexadecimal digits",
    "expires": "expires is a date or a time with its zone, as in 2027-01-01 or 2027-01-01T12:00:00Z",
}


def _token(name: str, values: Mapping[str, Any], source: str) -> Token:
    if not _NAME.fullmatch(name):  # not shown: it may be a secret in the wrong place
        raise UsageError(f"{source}: a token's name has 1 to 64 letters, digits and . _ -; one has another name.")
    try:
        entry = _Entry.model_validate(values)
    except ValidationError as error:
        keys = sorted((str(e["loc"][0]) for e in error.errors()), key=lambda key: key in _EXPECTED)
        expected = _EXPECTED.get(keys[0], f"unknown key {keys[0]!r}; known keys are {', '.join(_EXPECTED)}")
        raise UsageError(f"{source}, token {name!r}: {expected}.") from None  # the cause would show the values
    if (entry.secret is None) == (entry.sha256 is None):
        raise UsageError(f"{source}, token {name!r}: give either secret or sha256.")
    digest = hashlib.sha256(entry.secret.encode()).digest() if entry.secret else bytes.fromhex(entry.sha256 or "")
    return Token(grant=Grant(name, entry.scopes), digest=digest, expires_at=entry.expires)


def _from_text(text: str) -> Token:
    """Parse one entry of the environment variable."""
    name, *rest = text.split(":", 3)
    if len(rest) < 2:
        raise UsageError(
            f"{VARIABLE} has an entry with {len(rest) + 1} parts. Write name:scopes:secret or "
            "name:scopes:secret:expires, as in shop:read+command:SECRET:2027-01-01."
        )
    digest = rest[1].removeprefix("sha256=")
    values = {"scopes": rest[0].split("+"), "secret" if digest == rest[1] else "sha256": digest}
    return _token(name, values | ({"expires": rest[2]} if len(rest) > 2 else {}), VARIABLE)


def _from_file(path: Path) -> list[Token]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document = tomllib.load(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The tokens in {path} cannot be read: {type(error).__name__}. Give another file.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"The tokens in {path} are not TOML: {error}. Correct the file.") from error
    tables = document.pop("tokens", None)
    if document or not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UsageError(f"{path} must have a table [tokens.NAME] for each token, and nothing else.")
    _check_mode(path, mode, has_secrets=any("secret" in table for table in tables.values()))
    return [_token(name, table, str(path)) for name, table in tables.items()]


def _check_mode(path: Path, mode: int, *, has_secrets: bool) -> None:
    if has_secrets and mode & (stat.S_IRGRP | stat.S_IROTH):
        raise UsageError(
            f"Other users can read the secrets in {path}. Run `chmod 600 {path}`, or replace secret by sha256."
        )
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"Other users can write to {path}, and so add tokens. Run `chmod go-w {path}`.")
