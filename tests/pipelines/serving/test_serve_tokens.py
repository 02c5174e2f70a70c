"""Bearer tokens: from the environment and files, what they allow, and which addresses need none."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from refold.event_schemas import UsageError
from refold.pipelines.serving.http.host_policy import (
    allowed_hosts,
    check_exposure,
    host_of,
    is_own_origin,
)
from refold.pipelines.serving.http.tokens import Scope, Tokens, load_tokens

SECRET = "wq7JpY2Vt0hZ4nUe8sKd1A"
OTHER = "Rk3mT9xLb6Qf5vWc0zHg2D"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def from_environment(text: str) -> Tokens:
    """Load tokens from the environment."""
    return load_tokens({"REFOLD_TOKENS": text})


def from_file(folder: Path, text: str, mode: int = 0o600) -> Tokens:
    """Load a file."""
    path = folder / "tokens.toml"
    path.write_text(text)
    path.chmod(mode)
    return load_tokens({}, path)


def test_tokens_from_the_environment() -> None:
    """The variable has several tokens, each with its scopes; one is given by its hash only."""
    tokens = from_environment(f"shop:read+command:{OTHER}, analyst:read:sha256={DIGEST}:2027-01-01")
    now = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    shop, analyst = tokens.scopes_of(OTHER, now=now), tokens.scopes_of(SECRET, now=now)
    assert shop is not None
    assert analyst is not None
    assert (shop.name, analyst.name) == ("shop", "analyst")
    assert [shop.allows(scope) for scope in Scope] == [True, True, False]
    assert [analyst.allows(scope) for scope in Scope] == [True, False, False]


def test_tokens_from_a_file(tmp_path: Path) -> None:
    """Tokens of the file are added to those of the environment; a TOML time is accepted."""
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[tokens.keeper]\nscopes = ["admin"]\nsecret = "{OTHER}"\n'
        f'[tokens.dashboard]\nscopes = ["read"]\nsha256 = "{DIGEST}"\nexpires = 2027-01-01T00:00:00Z\n'
    )
    path.chmod(0o600)
    tokens = load_tokens({"REFOLD_TOKENS": "shop:command:Zk3mT9xLb6Qf5vWc0zHg2D"}, path)
    assert [token.grant.name for token in tokens.known] == ["shop", "keeper", "dashboard"]
    keeper = tokens.scopes_of(OTHER)
    assert keeper is not None
    assert all(keeper.allows(scope) for scope in Scope)
    assert tokens.scopes_of(SECRET, now=datetime(2027, 1, 1, tzinfo=UTC)) is None


def test_invalid_secrets() -> None:
    """Unknown, empty, wrongly cased and expired secrets are rejected."""
    tokens = from_environment(f"a:read:{SECRET}:2026-01-01 b:read:{OTHER}")
    assert [tokens.scopes_of(s) for s in ("", SECRET.lower(), OTHER + "x", OTHER[:-1], SECRET, "ä", b"\xff")] == [
        None
    ] * 7
    assert tokens.scopes_of(SECRET, now=datetime(2025, 12, 31, tzinfo=UTC)) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"shop:{SECRET}", "name:scopes:secret"),
        (SECRET, "name:scopes:secret"),
        (f"shop:write:{SECRET}", "read, command, admin"),
        (f"shop::{SECRET}", "read, command, admin"),
        (f"shop:read,command:{SECRET}", "name:scopes:secret"),
        ("shop:read:short", "22 to 256"),
        (f"shop:read:{SECRET}!", "22 to 256"),
        (f"shop:read:sha256={DIGEST[1:]}", "64 lower-case"),
        (f"shop:read:{SECRET}:tomorrow", "2027-01-01"),
        (f"shop:read:{SECRET}:2027-01-01T00:00:00", "with its zone"),
        (f"a b:read:{SECRET}", "name:scopes:secret"),
        (f"shöp:read:{SECRET}", "letters, digits"),
        (f"a:read:{SECRET} a:read:{OTHER}", "two tokens are named"),
        (f"a:read:{SECRET} b:read:{SECRET}", "secret of another"),
    ],
)
def test_invalid_entries(text: str, message: str) -> None:
    """Each invalid entry is a usage error, which never shows the secret."""
    with pytest.raises(UsageError) as caught:
        from_environment(text)
    assert message.lower() in str(caught.value).lower()
    assert SECRET not in str(caught.value)
    assert DIGEST[1:] not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (f'[tokens.a]\nscopes = ["read"]\nsecret = "{SECRET}"', 0o644, "chmod 600"),
        (f'[tokens.a]\nscopes = ["read"]\nsecret = "{SECRET}"', 0o640, "chmod 600"),
        (f'[tokens.a]\nscopes = ["read"]\nsha256 = "{DIGEST}"', 0o666, "chmod go-w"),
        (f'[tokens.a]\nscopes = "read"\nsha256 = "{DIGEST}"', 0o600, "scopes are one or more"),
        (f'[tokens.a]\nscopes = ["read"]\nsha256 = "{DIGEST}"\nsecret = "{SECRET}"', 0o600, "either secret or sha256"),
        ('[tokens.a]\nscopes = ["read"]', 0o600, "either secret or sha256"),
        (f'[tokens.a]\nscope = ["read"]\nsha256 = "{DIGEST}"', 0o600, "unknown key 'scope'"),
        (f'a = "{SECRET}"', 0o600, "nothing else"),
        (f'tokens = "{SECRET}"', 0o600, "nothing else"),
        (f"{SECRET}", 0o600, "not TOML"),
    ],
)
def test_invalid_files(tmp_path: Path, text: str, mode: int, message: str) -> None:
    """A file whose secrets other users can read, or whose tokens they can change, is rejected."""
    with pytest.raises(UsageError) as caught:
        from_file(tmp_path, text, mode)
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)


def test_hashes_may_be_read_by_others(tmp_path: Path) -> None:
    """A file without secrets needs no protection from readers."""
    assert from_file(tmp_path, f'[tokens.a]\nscopes = ["read"]\nsha256 = "{DIGEST}"', 0o644).scopes_of(SECRET)


def test_a_missing_file(tmp_path: Path) -> None:
    """It is a usage error: a server that is configured with tokens does not start without them."""
    with pytest.raises(UsageError, match="cannot be read"):
        load_tokens({}, tmp_path / "tokens.toml")


def test_tokens_do_not_show_in_what_is_printed() -> None:
    """Neither secret nor hash appears in a traceback that shows values."""
    shown = repr(from_environment(f"a:read:{SECRET}"))
    assert "a" in shown
    assert SECRET not in shown
    assert repr(bytes.fromhex(DIGEST)) not in shown


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "::ffff:127.0.0.1"])
def test_loopback_needs_no_tokens(host: str) -> None:
    """Only this machine can send requests to a loopback address."""
    check_exposure(host, Tokens())


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "shop.example", "localhost.shop.example", "2130706433"]
)
def test_other_addresses_need_tokens(host: str) -> None:
    """Without tokens another address is a usage error that names the next step."""
    with pytest.raises(UsageError, match="REFOLD_TOKENS"):
        check_exposure(host, Tokens())
    check_exposure(host, from_environment(f"a:read:{SECRET}"))


def test_hosts_that_a_request_may_name() -> None:
    """Without tokens: those of this machine. With tokens: any, unless some are named."""
    tokens = from_environment(f"a:read:{SECRET}")
    assert allowed_hosts("127.0.0.1", tokens) is None
    assert allowed_hosts("0.0.0.0", tokens, ["Shop.example"]) == frozenset(
        {"shop.example", "0.0.0.0", "localhost", "127.0.0.1", "[::1]"}
    )
    assert allowed_hosts("::1", Tokens()) == frozenset({"localhost", "127.0.0.1", "[::1]"})
    assert [host_of(h) for h in (b"LOCALHOST:80", b"[::1]", b"[::1]:8", b"a:b")] == [
        "localhost",
        "[::1]",
        "[::1]",
        "a:b",
    ]


def test_origins_of_its_own() -> None:
    """The host of the request including its port, or a named host; not another port of this machine."""
    hosts = allowed_hosts("127.0.0.1", Tokens(), ["shop.example"])
    host = b"localhost:8080"
    assert is_own_origin(b"http://localhost:8080", host, hosts)
    assert is_own_origin(b"https://shop.example", host, hosts)
    for origin in (b"http://localhost:3000", b"https://evil.example", b"null", b"", b"http://[", b"localhost:8080"):
        assert not is_own_origin(origin, host, hosts)
