"""Errors over HTTP as problem documents (RFC 9457).

A response says what is wrong with the request. What went wrong in the server goes to its log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from refold.event_schemas import (
    CommandConflictError,
    ConcurrencyError,
    ContractError,
    GenerationError,
    LogError,
    PayloadError,
    RefoldError,
    StoreError,
    UsageError,
)

MEDIA_TYPE = "application/problem+json"
_MAX_ERRORS = 20
_LOGGER = logging.getLogger("refold.serving")


class ServingError(RefoldError):
    """An error that becomes a problem document with its own status and code.

    Attributes:
        status: the HTTP status.
        code: stable, for programs.
        retry_after: seconds after which the same request may succeed; None if it never succeeds.
    """

    status = 500
    code = "failed"
    retry_after: int | None = None


def problem(
    status: int,
    title: str | None = None,
    detail: str | None = None,
    *,
    type: str = "about:blank",
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> Response:
    """Return a response of ``application/problem+json``.

    Args:
        status: the HTTP status.
        title: the kind of problem; the status's phrase by default.
        detail: what is wrong with this request, and what to do next.
        type: a URI that identifies the kind of problem.
        headers: further response headers.
        extra: further members; None values are left out.

    Example:
        >>> problem(429, detail="Too many requests.", code="rate").body
        b'{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"Too many requests.","code":"rate"}'
    """
    members = {"type": type, "title": title or HTTPStatus(status).phrase, "status": status, "detail": detail, **extra}
    body = orjson.dumps({name: value for name, value in members.items() if value is not None})
    return Response(body, status, headers=headers, media_type=MEDIA_TYPE)


def install_handlers(app: FastAPI) -> None:
    """Make an application respond to every error with a problem document.

    Example:
        >>> app = FastAPI()
        >>> install_handlers(app)
        >>> HTTPException in app.exception_handlers
        True
    """
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RefoldError, _on_refold)
    app.add_exception_handler(Exception, _on_unexpected)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return malformed(error)


def malformed(error: RequestValidationError) -> Response:
    """Return the response for a malformed request; it does not repeat the invalid values."""
    errors = [{"where": ".".join(map(str, e["loc"])), "what": e["msg"]} for e in error.errors()[:_MAX_ERRORS]]
    detail = "; ".join(f"{e['where']}: {e['what']}" for e in errors)
    return problem(400, "Malformed request", detail, code="malformed", errors=errors)


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    detail = None if error.detail == phrase else error.detail
    return problem(error.status_code, phrase, detail, headers=error.headers)


async def _on_refold(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefoldError)
    return problem_of(error)


def problem_of(error: RefoldError, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem document of one of refold's own errors.

    Args:
        error: the error.
        headers: further response headers.

    Example:
        >>> problem_of(ConcurrencyError("order-1", expected_version=1, actual_version=2)).status_code
        409
    """
    if isinstance(error, ServingError):
        retry = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        return problem(error.status, detail=str(error), headers={**retry, **(headers or {})}, code=error.code)
    if isinstance(error, ConcurrencyError):
        versions: dict[str, Any] = {"expected_version": error.expected_version, "actual_version": error.actual_version}
        return problem(409, "The stream has moved on", str(error), code="conflict", **versions)
    if isinstance(error, CommandConflictError):
        return problem(422, "The command id was used before", str(error), code="command_id_used")
    if isinstance(error, UsageError | PayloadError | ContractError):
        return problem(400, "Malformed request", str(error), code="malformed")
    _LOGGER.error("%s: %s", type(error).__name__, error)
    if isinstance(error, GenerationError | LogError | StoreError):  # their text names internal paths
        detail = "The log or its read models cannot be reached. Try again; the server's log has the reason."
        return problem(503, detail=detail, headers={"retry-after": "1"}, code="unavailable")
    return failed()


async def _on_unexpected(_: Request, error: Exception) -> Response:
    """Respond without internals; Starlette raises the error again, and the server logs its traceback."""
    return failed()


def failed() -> Response:
    """Return the response for an internal error; it shows no internals."""
    return problem(500, detail="The request failed; the server's log has the reason.", code="failed")
