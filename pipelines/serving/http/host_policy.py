"""Who may knock: on which addresses a server without tokens may listen, and which hosts and origins a request may name.

A browser on the same machine reaches a loopback port too. A page elsewhere can make it send a request there (cross-site
request forgery), or have its own name resolve to 127.0.0.1 and read the answer (DNS rebinding). The first shows in
``Origin``, the second in ``Host``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from refold.event_schemas import UsageError
from refold.pipelines.serving.http.tokens import MAKE_ONE, VARIABLE, Tokens

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on is reached from this machine only.

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
    """Refuse to listen to others without tokens.

    Args:
        host: the address to listen on.
        tokens: those that the server knows.

    Raises:
        UsageError: there are none, and the address is not loopback.
    """
    if tokens or is_loopback(host):
        return
    raise UsageError(
        f"Without tokens only this machine is served, and {host!r} is no loopback address. Set {VARIABLE} to "
        f"NAME:SCOPES:SECRET (a secret comes from `{MAKE_ONE}`), or give --tokens FILE, or --host 127.0.0.1."
    )


def hosts_for(host: str, tokens: Tokens, named: Iterable[str] = ()) -> frozenset[str] | None:
    """Give the hosts that requests may name.

    Args:
        host: the address that is listened on.
        tokens: those that the server knows.
        named: further hosts, such as that of a proxy before it.

    Returns:
        None for any: with tokens, unless some are named, since a browser has none to send along.

    Example:
        >>> sorted(hosts_for("127.0.0.1", Tokens(), ["shop.test"]))
        ['127.0.0.1', '[::1]', 'localhost', 'shop.test']
    """
    given = frozenset(name.lower() for name in named)
    if tokens and not given:
        return None
    listened = {f"[{host}]" if ":" in host else host.lower()}
    return given | LOOPBACK_HOSTS | listened


def host_of(header: bytes) -> str:
    """Read the host of a ``Host`` header, without its port.

    Example:
        >>> host_of(b"Shop.test:8080"), host_of(b"[::1]:80")
        ('shop.test', '[::1]')
    """
    text = header.decode("latin-1").lower()
    name, colon, port = text.rpartition(":")
    return name if colon and port.isdecimal() else text


def is_own_origin(origin: bytes, host: bytes, hosts: frozenset[str] | None) -> bool:
    """Tell whether an ``Origin`` header names the host that was asked, or one of those that are known.

    The scheme does not count: behind a proxy that ends TLS it differs.

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
    known = hosts is not None and host_of(place.encode("latin-1")) in hosts - LOOPBACK_HOSTS
    return known or place == host.decode("latin-1").lower()
