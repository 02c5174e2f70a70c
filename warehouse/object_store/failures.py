"""Which failures of a store pass by themselves, which mean "exists already", and what to tell about the rest.

Every client library has errors of its own. s3fs turns S3's codes into OSErrors and loses some on the way:
``PreconditionFailed`` is a FileExistsError only if the answer names its ``Condition``, else ``OSError(EINVAL)``; a code
it does not know is ``OSError(EIO)``. The code itself can still be found in ``__cause__.response``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from refold.event_schemas.errors import RefoldError, StoreError

Result = TypeVar("Result")

# What botocore and s3fs leave to us; they retry 5xx, SlowDown, lost connections and time-outs themselves.
# NoSuchUpload: a multipart upload whose completion was done but not heard of; another one meets its object.
_PASSING_CODES = {"ConditionalRequestConflict", "OperationAborted", "NoSuchUpload"}

_ADVICE = {
    "NoSuchBucket": "The bucket does not exist: create it, or correct the URL.",
    "NoCredentialsError": "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "EndpointConnectionError": "Nothing answers there: check AWS_ENDPOINT_URL and the network.",
    "PermissionError": "Access is refused: check the owner and mode of the folder, or what the credentials allow.",
    "NotADirectoryError": "A part of the path is a file: choose another place.",
    "ENOSPC": "The disk is full: free some space, or choose another place.",
    "EROFS": "The file system is read-only: choose another place.",
    "EPERM": "The file system forbids it, or knows no hard links: choose a place on another one.",
}


def exists_already(error: BaseException) -> bool:
    """Say whether a conditional write failed because its key exists."""
    return isinstance(error, FileExistsError) or s3_code(error) in ("PreconditionFailed", "412")


def s3_code(error: BaseException) -> str:
    """Return S3's own code of an error that s3fs raised, ``""`` if it has none."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def attempt(operation: Callable[[], Result]) -> Result:
    """Run an operation until it succeeds or fails for good; what passes by itself gets 8 chances within some 6 s."""
    patience = Retrying(
        retry=retry_if_exception(_passes_by_itself),
        wait=wait_random_exponential(multiplier=0.05, max=3),
        stop=stop_after_attempt(8),
        reraise=True,
    )
    return patience(operation)


@contextmanager
def translate_errors(doing: str, url: str) -> Iterator[None]:
    """Let a store's failure leave as a StoreError that says what was being done, where, and what to do."""
    try:
        yield
    except RefoldError:
        raise
    except Exception as error:
        if type(error).__module__ == "builtins" and not isinstance(error, (OSError, ValueError)):
            raise  # a TypeError and its like are no store's failure but a mistake in the program
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise StoreError(f"Cannot {doing} in {url}: {reason}. {_advice(error)}") from error


def _passes_by_itself(error: BaseException) -> bool:
    return isinstance(error, (TimeoutError, ConnectionError)) or s3_code(error) in _PASSING_CODES


def _advice(error: Exception) -> str:
    names = (s3_code(error), errno.errorcode.get(getattr(error, "errno", None) or 0), type(error).__name__)
    known = [_ADVICE[name] for name in names if name in _ADVICE]
    return known[0] if known else "Check that the place exists and can be written, then try again."
