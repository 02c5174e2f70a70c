"""The part of the API's document that tells of read models: a path for each endpoint of the domain."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from refold.pipelines.serving.reads.openapi_schemas import JsonSchema, row_schema
from refold.pipelines.serving.reads.parameters import Parameters
from refold.warehouse.declarations.endpoints import Bound


def reading_paths(endpoints: Iterable[Bound]) -> dict[str, Any]:
    """Describe the endpoints as OpenAPI's paths.

    Args:
        endpoints: of the domain.
    """
    return {bound.endpoint.path: {"get": _operation(bound)} for bound in endpoints}


def _operation(bound: Bound) -> dict[str, Any]:
    return {
        "tags": ["read models"],
        "summary": bound.endpoint.text,
        "operationId": re.sub(r"\W+", "_", bound.endpoint.path).strip("_"),
        "parameters": Parameters(bound).document(),
        "responses": _responses(bound),
    }


def _responses(bound: Bound) -> dict[str, dict[str, Any]]:
    row = row_schema(bound.columns)
    data = {"anyOf": [row, {"type": "null"}]} if bound.one else {"type": "array", "items": row}
    found: dict[str, dict[str, Any]] = {
        "200": _document_schema("What the read models show.", data, "current"),
        "202": _document_schema("What is known so far: `min_position` is not shown yet.", data, "processing"),
        "304": {"description": "Nothing has changed since the ETag."},
    }
    return found


def _document_schema(text: str, data: JsonSchema, status: str) -> dict[str, Any]:
    lag = {
        "type": "object",
        "description": "Events that the rows do not show yet, and the age of the oldest of them.",
        "properties": {"events": {"type": "integer"}, "seconds": {"type": ["number", "null"]}},
        "required": ["events", "seconds"],
    }
    properties = {
        "data": data,
        "position": {"type": "integer", "description": "Of the last event that the rows show."},
        "last_updated": {"type": "string", "format": "date-time", "description": "When they were brought there."},
        "lag": lag,
        "status": {"const": status},
        "next": {"type": ["string", "null"], "description": "Where the next page is."},
    }
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
