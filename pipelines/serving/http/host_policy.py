"""The host policy: where a server without tokens may listen, and which hosts and origins a request may name.

A browser on this machine reaches a loopback port. A page of another site can make it send a request (cross-site request
forgery), or can let its own name resolve to 127.0.0.1 and read the response (DNS rebinding). ``Origin`` reveals the
first, ``Host`` the second.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from refold.event_schemas import UsageError
from refold.pipelines.serving.http.tokens import SECRET_COMMAND, VARIABLE, Tokens

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


def is_loopback(host: str) -> bool:
    """Check whether only this machine reaches an address.

    Example:
        >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")]
        [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_exposure(host: str, tokens: Tokens) -> None:
    """Check that a server without tokens listens on loopback only.

    Args:
        host: the address to listen on.
        tokens: those of the server.

    Raises:
        UsageError: there are no tokens, and the address is not loopback.
    """
    if tokens or is_loopback(host):
        return
    raise UsageError(
        f"A server without tokens listens on loopback only, and {host!r} is not a loopback address. Set {VARIABLE} to "
        f"NAME:SCOPES:SECRET (`{SECRET_COMMAND}` prints a secret), or give --tokens FILE, or --host 127.0.0.1."
    )


def allowed_hosts(host: str, tokens: Tokens, extra: Iterable[str] = ()) -> frozenset[str] | None:
    """Return the hosts that a request may name.

    Args:
        host: the address to listen on.
        tokens: those of the server.
        extra: further hosts, such as a proxy's.

    Returns:
        None for any host: a server with tokens accepts every host unless ``extra`` names some, since a browser sends no
        token by itself.

    Example:
        >>> sorted(allowed_hosts("127.0.0.1", Tokens(), ["shop.test"]))
        ['127.0.0.1', '[::1]', 'localhost', 'shop.test']
    """
    named = frozenset(name.lower() for name in extra)
    if tokens and not named:
        return None
    return named | LOOPBACK_HOSTS | {f"[{host}]" if ":" in host else host.lower()}


def host_of(header: bytes) -> str:
    """Return the host of a ``Host`` header, without its port.

    Example:
        >>> host_of(b"Shop.test:8080"), host_of(b"[::1]:80")
        ('shop.test', '[::1]')
    """
    text = header.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    return name if colon and port.isdecimal() else text


def is_own_origin(origin: bytes, host: bytes, hosts: frozenset[str] | None) -> bool:
    """Check whether an ``Origin`` header names the host of the request, or another allowed host.

    The scheme is ignored: it differs behind a proxy that ends TLS.

    Example:
        >>> is_own_origin(b"http://localhost:8080", b"localhost:8080", None)
        True
        >>> is_own_origin(b"null", b"localhost:8080", None)
        False
    """
    try:
        place = urlsplit(origin.decode("latin-1")).netloc.lower()
    except ValueError:
        return False
    if not place:
        return False
    allowed = hosts is not None and host_of(place.encode("latin-1")) in hosts - LOOPBACK_HOSTS
    return allowed or place == host.decode("latin-1").lower()
