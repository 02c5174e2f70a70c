"""Which failures of a store are transient, which mean "already exists", and what to advise about the rest.

Every client library has its own errors. s3fs turns S3's codes into OSErrors and loses some: ``PreconditionFailed`` is a
FileExistsError only if the response names its ``Condition``, else ``OSError(EINVAL)``; an unknown code is
``OSError(EIO)``. The code itself is still in ``__cause__.response``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from refold.event_schemas.errors import RefoldError, StoreError, StoreUnavailableError

Result = TypeVar("Result")

# s3fs retries most lost connections and time-outs; these codes it leaves to us.
# NoSuchUpload: the multipart upload was completed, but the response was lost; a new upload finds its object.
_TRANSIENT_CODES = {"ConditionalRequestConflict", "OperationAborted", "NoSuchUpload"}

_RETRY_SECONDS = 6.0

_UNAVAILABLE_CODES = {"InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "500", "502", "503", "504"}
_UNAVAILABLE = {"ConnectionError", "HTTPClientError", "TimeoutError", "ClientConnectionError", "ClientPayloadError"}
"""Classes of errors, by name, of Python, botocore and aiohttp: the store did not respond."""

_ADVICE = {
    "NoSuchBucket": "The bucket does not exist: create it, or correct the URL.",
    "NoCredentialsError": "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "EndpointConnectionError": "The endpoint does not respond: check AWS_ENDPOINT_URL and the network.",
    "PermissionError": "Access is refused: check the owner and mode of the folder, or what the credentials allow.",
    "NotADirectoryError": "A part of the path is a file: choose another location.",
    "ENOSPC": "The disk is full: free some space, or choose another location.",
    "EROFS": "The file system is read-only: choose another location.",
    "EPERM": "The file system forbids it, or does not support hard links: choose a location on another one.",
}


def exists_already(error: BaseException) -> bool:
    """Check whether a conditional write failed because its key exists."""
    return isinstance(error, FileExistsError) or s3_code(error) in ("PreconditionFailed", "412")


def s3_code(error: BaseException) -> str:
    """Return the S3 code of an error that s3fs raised; ``""`` if it has none."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def attempt(operation: Callable[[], Result]) -> Result:
    """Run an operation, and retry transient failures: 8 attempts within about 6 s, fewer if each takes long."""
    retrying = Retrying(
        retry=retry_if_exception(_is_transient),
        wait=wait_random_exponential(multiplier=0.05, max=3),
        stop=stop_after_attempt(8) | stop_after_delay(_RETRY_SECONDS),
        reraise=True,
    )
    return retrying(operation)


@contextmanager
def translate_errors(doing: str, url: str) -> Iterator[None]:
    """Raise a store's failure as a StoreError that says what was being done, where, and what to do."""
    try:
        yield
    except RefoldError:
        raise
    except Exception as error:
        if type(error).__module__ == "builtins" and not isinstance(error, (OSError, ValueError)):
            raise  # such as a TypeError: a bug in the program, not a failure of the store
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        kind = StoreUnavailableError if _is_unavailable(error) else StoreError
        raise kind(f"Cannot {doing} in {url}: {reason}. {_advice(error)}") from error


def _is_transient(error: BaseException) -> bool:
    return s3_code(error) in _TRANSIENT_CODES or _is_unavailable(error)


def _is_unavailable(error: BaseException) -> bool:
    return s3_code(error) in _UNAVAILABLE_CODES or not _UNAVAILABLE.isdisjoint(c.__name__ for c in type(error).__mro__)


def _advice(error: Exception) -> str:
    names = (s3_code(error), errno.errorcode.get(getattr(error, "errno", None) or 0), type(error).__name__)
    known = [_ADVICE[name] for name in names if name in _ADVICE]
    return known[0] if known else "Check that the location exists and is writable, then try again."
