"""Read models that fail on some events."""

from __future__ import annotations

from typing import Any

from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.declarations.reducers import (
    collect,
    count_distinct,
    latest,
    total,
)
from tests.properties.depot.contracts import UNLUCKY, Addressed, Labelled, Opened, Packed, Recalled, Sold
from tests.properties.depot.twins import fold_model, projection, text_or
from tests.properties.reference import Model


def unlucky(state: dict[str, Any] | None, e: Any) -> dict[str, Any]:
    """Fail on one number."""
    if e.quantity == UNLUCKY:
        raise ValueError("thirteen")
    return {"path": ((state or {"path": 0})["path"] * 31 + e.quantity) % 1_000_003}


FRAGILE_MODELS: tuple[tuple[ReadModel, Model], ...] = (
    projection(
        "fragile_skus",
        {"sku": "VARCHAR"},
        {"pieces": total("BIGINT"), "last": latest("VARCHAR"), "accounts": count_distinct()},
        {
            Sold: (
                "SELECT sku, quantity AS pieces, stream_id AS last, stream_id AS accounts",
                lambda e: [{"sku": e.sku, "pieces": e.quantity, "last": e.stream_id, "accounts": e.stream_id}],
            ),
            Packed: (
                "SELECT line.sku AS sku, line.quantity AS pieces FROM event, unnest(lines) AS unnested(line)",
                lambda e: [{"sku": line["sku"], "pieces": line["quantity"]} for line in e.lines],
            ),
            Recalled: (Delete("SELECT sku WHERE level > 0"), lambda e: [{"sku": e.sku}] if e.level > 0 else []),
        },
    ),
    projection(
        "fragile_trails",
        {"account": "VARCHAR"},
        {"n": collect("BIGINT"), "labels": latest("VARCHAR"), "owner": latest("VARCHAR")},
        {
            Addressed: (
                "SELECT stream_id AS account, CAST(CASE WHEN contains(trail, 'bad') THEN trail ELSE '1' END AS BIGINT) "
                "AS n, trail AS labels",
                lambda e: [{"account": e.stream_id, "n": int(e.trail if "bad" in e.trail else 1), "labels": e.trail}],
            ),
            Labelled: (
                "SELECT stream_id AS account, CAST(CASE WHEN contains(label, 'bad') THEN label ELSE '2' END AS BIGINT) "
                "AS n",
                lambda e: [{"account": e.stream_id, "n": int(e.label if "bad" in e.label else 2)}],
            ),
            Opened: ("SELECT stream_id AS account, owner", lambda e: [{"account": e.stream_id, "owner": e.owner}]),
        },
    ),
    fold_model(
        "fragile_paths",
        {"account": "VARCHAR"},
        {"path": "BIGINT"},
        {
            Sold: (
                "SELECT stream_id AS account, quantity",
                lambda e: [{"account": e.stream_id, "quantity": e.quantity}],
            ),
            Addressed: (
                "SELECT stream_id AS account, halves + 10 AS quantity",
                lambda e: [{"account": e.stream_id, "quantity": e.halves + 10}],
            ),
        },
        unlucky,
    ),
    fold_model(
        "fragile_sku_paths",
        {"sku": "VARCHAR"},
        {"path": "BIGINT"},
        {
            Sold: (
                "SELECT coalesce(sku, '?') AS sku, quantity",
                lambda e: [{"sku": text_or(e.sku, "?"), "quantity": e.quantity}],
            ),
            Packed: (
                "SELECT line.sku AS sku, line.quantity AS quantity FROM event, unnest(lines) AS unnested(line)",
                lambda e: [{"sku": line["sku"], "quantity": line["quantity"]} for line in e.lines],
            ),
        },
        unlucky,
    ),
)
"""Read models that fail on some events."""
