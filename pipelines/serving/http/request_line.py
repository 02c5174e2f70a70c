"""What a request's first line may hold: bounded, strict UTF-8, no control characters, no tricks with paths."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

MAX_PATH_BYTES = 2_048
MAX_QUERY_BYTES = 8_192

# Most requests have none of what would need a closer look, and are let through by one match.
_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)*/?")
_PLAIN_QUERY = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:@/?-]*")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(rb"%(?:2[Ff]|5[Cc])|\\")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DOTS = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")


def check_request_line(path: bytes, query: bytes) -> tuple[int, str] | None:
    """Look for what no honest request has.

    Args:
        path: as it was sent, still percent-encoded.
        query: likewise, without the question mark.

    Returns:
        None if all is well, else the HTTP status and what is wrong.

    Example:
        >>> check_request_line(b"/orders/order-1", b"") is None
        True
        >>> check_request_line(b"/orders/%ff", b"")
        (400, 'The path is not UTF-8.')
        >>> check_request_line(b"/orders/..%2fstatus", b"")
        (400, 'The path has an encoded slash or a backslash.')
    """
    if len(path) > MAX_PATH_BYTES:
        return 414, f"The path has {len(path):,} bytes; at most {MAX_PATH_BYTES:,} are taken."
    if len(query) > MAX_QUERY_BYTES:
        return 414, f"The query has {len(query):,} bytes; at most {MAX_QUERY_BYTES:,} are taken."
    if not _PLAIN_PATH.fullmatch(path):
        wrong = _check_path(path)
        if wrong:
            return 400, wrong
    if query and not _PLAIN_QUERY.fullmatch(query):
        wrong = _check_text(query, "query")
        if wrong:
            return 400, wrong
    return None


def _check_path(path: bytes) -> str | None:
    if _ENCODED_SLASH.search(path):
        return "The path has an encoded slash or a backslash."
    wrong = _check_text(path, "path")
    if wrong:
        return wrong
    text = unquote_to_bytes(path).decode()
    if _DOTS.search(text):
        return "The path has a segment of dots."
    if "//" in text:
        return "The path has an empty segment."
    return None


def _check_text(raw: bytes, what: str) -> str | None:
    if _BAD_ESCAPE.search(raw):
        return f"The {what} has a % without two hexadecimal digits after it."
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return f"The {what} is not UTF-8."
    if _CONTROL.search(text):
        return f"The {what} has a control character."
    return None
