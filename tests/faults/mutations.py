"""Mutations of valid inputs: of bytes, and of the values of JSON documents."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 1.5, -0.0, 1e308),
    *(float("nan"), float("inf"), [], {}, [[]], [None], {"a": {}}),
    *("", "x", "\0", "é\ud800", "a" * 10_000, "7", "nan", "../../x", "2026-13-45", "0001-01-01T00:00:00+23:59"),
    *("9999-12-31T23:59:59-23:59", "9999-12-31", "2026-01-01T00:00:00"),
)
"""Values that a reader may not expect."""
TOKENS = (
    *(b'"', b"'", b"{", b"}", b"[" * 2000, b"]", b",", b":", b"\n", b"\r", b"\t", b"\0", b"\\", b"%", b"%ff"),
    *(b"\\u0000", b"\xff", b"\xef\xbb\xbf", b"\xf0\x9f\x98\x80", b"-", b".", b"e", b"9" * 500, b"1e999", b"NaN"),
    *(b"null", b"true", b"0001-01-01", b"9999-12-31T23:59:60Z", b"--", b"/*", b"$", b"..", b"/", b"&", b"=", b"#"),
    *(b";", b"<", b"(", b")", b"*", b"?", b"+", b"~", b" "),
)
"""Bytes that mean something to some parser."""
MAX_EDITS = 4
MAX_PART = 40
"""Bytes that one edit removes, repeats or replaces, at most."""


def mutated(dice: Random, seeds: Sequence[bytes]) -> bytes:
    """Flip, cut, insert, repeat and exchange parts of one of some inputs."""
    data = dice.choice(seeds)
    for _ in range(dice.randint(1, MAX_EDITS)):
        start = dice.randint(0, len(data))
        before, part, after = data[:start], data[start : start + dice.randint(0, MAX_PART)], data[start:]
        other = dice.choice(seeds)
        data = dice.choice(
            (
                before + bytes([after[0] ^ 1 << dice.randrange(8)]) + after[1:] if after else before,
                before,
                before + after[len(part) :],
                before + part * dice.randint(1, 3) + after,
                before + dice.choice(TOKENS) + after[len(part) :],
                before + dice.choice(TOKENS) + after,
                before + other[dice.randint(0, len(other)) :],
                before + dice.randbytes(dice.randint(1, 20)) + after,
            )
        )
    return data


def edited(dice: Random, documents: Sequence[Any]) -> Any:
    """Replace, remove, repeat or rename values anywhere in one of some JSON documents."""
    found = copy.deepcopy(dice.choice(documents))
    for _ in range(dice.randint(1, MAX_EDITS)):
        if not (places := list(_places(found))):
            break
        holder, key = dice.choice(places)
        edit = dice.randrange(6)
        if edit == 0:
            del holder[key]
        elif edit == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif edit == 1:
            holder[dice.choice(["", "x", *holder])] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(dice.choice(VALUES))
    return found


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)


def as_json(document: Any) -> bytes:
    """Return a document as JSON, as other programs may write it."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
