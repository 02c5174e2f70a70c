"""The request line: limited in length, strict UTF-8, no control characters, no path traversal."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

MAX_PATH_BYTES = 2_048
MAX_QUERY_BYTES = 8_192

# Most requests match these and need no closer look.
_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*)*/?")
_PLAIN_QUERY = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:@/?-]*")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(rb"%(?:2[Ff]|5[Cc])|\\")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DOTS = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")


def check_request_line(path: bytes, query: bytes) -> tuple[int, str] | None:
    """Check a path and a query string.

    Args:
        path: as sent, still percent-encoded.
        query: as sent, without the question mark.

    Returns:
        None if both are valid, else an HTTP status and the reason.

    Example:
        >>> check_request_line(b"/orders/order-1", b"") is None
        True
        >>> check_request_line(b"/orders/%ff", b"")
        (400, 'The path is not UTF-8.')
        >>> check_request_line(b"/orders/..%2fstatus", b"")
        (400, 'The path contains an encoded slash or a backslash.')
    """
    if len(path) > MAX_PATH_BYTES:
        return 414, f"The path has {len(path):,} bytes. The limit is {MAX_PATH_BYTES:,}."
    if len(query) > MAX_QUERY_BYTES:
        return 414, f"The query has {len(query):,} bytes. The limit is {MAX_QUERY_BYTES:,}."
    reason = None if _PLAIN_PATH.fullmatch(path) else _check_path(path)
    if reason is None and query and not _PLAIN_QUERY.fullmatch(query):
        reason = _check_text(query, "query")
    return None if reason is None else (400, reason)


def _check_path(path: bytes) -> str | None:
    if _ENCODED_SLASH.search(path):
        return "The path contains an encoded slash or a backslash."
    if reason := _check_text(path, "path"):
        return reason
    text = unquote_to_bytes(path).decode()
    if _DOTS.search(text):
        return "The path contains a dot segment."
    if "//" in text:
        return "The path contains an empty segment."
    return None


def _check_text(raw: bytes, part: str) -> str | None:
    if _BAD_ESCAPE.search(raw):
        return f"The {part} contains a % that is not followed by two hexadecimal digits."
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return f"The {part} is not UTF-8."
    if _CONTROL.search(text):
        return f"The {part} contains a control character."
    return None
