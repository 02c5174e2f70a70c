"""The OpenAPI document: FastAPI's own, with a path for each endpoint of the domain and errors as problem documents."""

from __future__ import annotations

import functools
import re
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from refold.pipelines.serving.http.problems import MEDIA_TYPE
from refold.pipelines.serving.reads.openapi_schemas import JsonSchema, row_schema
from refold.pipelines.serving.reads.parameters import Parameters
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import BoundEndpoint

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable, for programs."},
    },
    "required": ["type", "title", "status"],
}
_COMMON_ERRORS = {
    "400": "The request is malformed.",
    "401": "The request needs a token.",
    "403": "The token lacks the scope, or the request comes from a page of another origin.",
    "404": "The resource does not exist.",
    "408": "The request did not arrive in time.",
    "413": "The body is too large.",
    "414": "The path or the query is too long.",
    "415": "The body is not application/json.",
    "421": "The server does not serve the host of the request.",
    "429": "The rate limit is exceeded.",
    "503": "Temporarily unavailable: try again later.",
}


def openapi_router(app: FastAPI, domain: Domain) -> APIRouter:
    """Return the route of the OpenAPI document, which is built and encoded once.

    Args:
        app: has the routes of everything but reads, when the document is first requested.
        domain: declares the reads.
    """
    router = APIRouter()
    encoded = functools.cache(lambda: orjson.dumps(_document(app, domain)))

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(encoded(), media_type="application/json")

    return router


def _document(app: FastAPI, domain: Domain) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    document["paths"] |= {bound.endpoint.path: {"get": _operation(bound)} for bound in domain.bound_endpoints}
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            _add_errors(operation["responses"])
    return document


def _add_errors(responses: dict[str, Any]) -> None:
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]  # a malformed request gets 400
    for status, text in _COMMON_ERRORS.items():
        responses.setdefault(status, {"description": text})
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _operation(bound: BoundEndpoint) -> dict[str, Any]:
    return {
        "tags": ["read models"],
        "summary": bound.endpoint.text,
        "operationId": re.sub(r"\W+", "_", bound.endpoint.path).strip("_"),
        "parameters": Parameters(bound).document(),
        "responses": _responses(bound),
    }


def _responses(bound: BoundEndpoint) -> dict[str, dict[str, Any]]:
    row = row_schema(bound.columns)
    data = {"anyOf": [row, {"type": "null"}]} if bound.single_row else {"type": "array", "items": row}
    withheld = {"409": {"description": _WITHHELD}} if bound.single_row else {}
    return {
        "200": _response("The rows of the read models.", data, "current", "outdated"),
        "202": _response("The rows so far: they do not show `min_position` yet.", data, "processing"),
        "304": {"description": "Nothing has changed since the ETag."},
        **withheld,
    }


_WITHHELD = "`withheld`: the row exists, but a total does not fit its column. It returns once the total fits."
_STATUS = "`outdated`: the rows show `min_position`, but other code than that of the server made them."


def _response(text: str, data: JsonSchema, *status: str) -> dict[str, Any]:
    lag = {
        "type": "object",
        "description": "Events that the rows do not show yet, and the age of the oldest of them.",
        "properties": {"events": {"type": "integer"}, "seconds": {"type": ["number", "null"]}},
        "required": ["events", "seconds"],
    }
    properties = {
        "data": data,
        "position": {"type": "integer", "description": "Of the last event that the rows show."},
        "last_updated": {"type": "string", "format": "date-time", "description": "When the rows reached it."},
        "lag": lag,
        "status": {"enum": list(status), "description": _STATUS},
        "next": {"type": ["string", "null"], "description": "The path of the next page."},
    }
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
