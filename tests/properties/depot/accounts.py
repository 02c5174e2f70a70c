"""Read models keyed by account and by article, with every reducer; handlers may delete."""

from __future__ import annotations

from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.declarations.reducers import (
    collect,
    count,
    count_distinct,
    first,
    latest,
    maximum,
    minimum,
    total,
)
from tests.properties.depot.contracts import Addressed, Closed, Labelled, Opened, Packed, Recalled, Sold
from tests.properties.depot.twins import Twin, plain_lines, projection, text_or, times
from tests.properties.reference import Model

ACCOUNT_COLUMNS = {
    "owner": latest("VARCHAR"),
    "vip": latest("BOOLEAN"),
    "opened_on": first("DATE"),
    "pieces": total("BIGINT"),
    "worth": total("DECIMAL(28,2)"),
    "sales": count(),
    "cheapest": minimum("DECIMAL(18,2)"),
    "most": maximum("BIGINT"),
    "labels": collect("VARCHAR"),
    "skus": count_distinct(),
    "ref": latest("UUID"),
    "first_sold": first("TIMESTAMPTZ"),
    "last_sold": maximum("TIMESTAMPTZ"),
    "lines": latest("STRUCT(sku VARCHAR, quantity BIGINT)[]"),
    "order": latest("BIGINT"),
}
ACCOUNT_HANDLERS: dict[type, Twin] = {
    Opened: (
        "SELECT stream_id AS account, owner, vip, opened_on, owner AS labels",
        lambda e: [
            {"account": e.stream_id, "owner": e.owner, "vip": e.vip, "opened_on": e.opened_on, "labels": e.owner}
        ],
    ),
    Sold: (
        """
        SELECT stream_id AS account, quantity AS pieces, quantity * price AS worth, 1 AS sales, price AS cheapest,
               quantity AS most, sku AS skus, ref, sold_at AS first_sold, sold_at AS last_sold, position AS "order"
        WHERE quantity < 90
        """,
        lambda e: (
            [
                {
                    "account": e.stream_id,
                    "pieces": e.quantity,
                    "worth": times(e.quantity, e.price),
                    "sales": 1,
                    "cheapest": e.price,
                    "most": e.quantity,
                    "skus": e.sku,
                    "ref": e.ref,
                    "first_sold": e.sold_at,
                    "last_sold": e.sold_at,
                    "order": e.position,
                }
            ]
            if e.quantity < 90
            else []
        ),
    ),
    Packed: (
        "SELECT stream_id AS account, unnest(labels) AS labels, lines",
        lambda e: [{"account": e.stream_id, "labels": label, "lines": plain_lines(e)} for label in e.labels],
    ),
    Labelled: (
        "SELECT stream_id AS account, label AS labels",
        lambda e: [{"account": e.stream_id, "labels": e.label}],
    ),
    Addressed: (
        "SELECT stream_id AS account, trail AS labels, halves AS pieces, trail AS skus",
        lambda e: [{"account": e.stream_id, "labels": e.trail, "pieces": e.halves, "skus": e.trail}],
    ),
}

SKU_COLUMNS = {
    "pieces": total("BIGINT"),
    "worth": total("DECIMAL(28,2)"),
    "sales": count(),
    "price": latest("DECIMAL(18,2)"),
    "cheapest": minimum("DECIMAL(18,2)"),
    "last_sold": maximum("TIMESTAMPTZ"),
    "ref": first("UUID"),
    "least_ref": minimum("UUID"),
    "quantities": collect("BIGINT"),
    "last_quantity": latest("BIGINT"),
    "first_quantity": first("BIGINT"),
    "accounts": count_distinct(),
    "last_account": latest("VARCHAR"),
    "note": latest("VARCHAR"),
}
SKU_HANDLERS: dict[type, Twin] = {
    Sold: (
        """
        SELECT coalesce(sku, '?') AS sku, quantity AS pieces, quantity * price AS worth, price AS sales, price,
               price AS cheapest, sold_at AS last_sold, ref, ref AS least_ref, quantity AS quantities,
               quantity AS last_quantity, stream_id AS accounts, stream_id AS last_account
        """,
        lambda e: [
            {
                "sku": text_or(e.sku, "?"),
                "pieces": e.quantity,
                "worth": times(e.quantity, e.price),
                "sales": e.price,
                "price": e.price,
                "cheapest": e.price,
                "last_sold": e.sold_at,
                "ref": e.ref,
                "least_ref": e.ref,
                "quantities": e.quantity,
                "last_quantity": e.quantity,
                "accounts": e.stream_id,
                "last_account": e.stream_id,
            }
        ],
    ),
    Packed: (
        """
        SELECT coalesce(line.sku, '?') AS sku, line.quantity AS pieces, line.quantity AS quantities,
               line.quantity AS last_quantity, line.quantity AS first_quantity, stream_id AS accounts
        FROM event, unnest(lines) AS unnested(line)
        """,
        lambda e: [
            {
                "sku": text_or(line["sku"], "?"),
                **dict.fromkeys(("pieces", "quantities", "last_quantity", "first_quantity"), line["quantity"]),
                "accounts": e.stream_id,
            }
            for line in e.lines
        ],
    ),
}


ACCOUNTS_AND_SKUS: tuple[tuple[ReadModel, Model], ...] = (
    projection(
        "accounts",
        {"account": "VARCHAR"},
        ACCOUNT_COLUMNS,
        ACCOUNT_HANDLERS,
        derived={"average": "worth / nullif(sales, 0)"},
    ),
    projection(
        "open_accounts",
        {"account": "VARCHAR"},
        ACCOUNT_COLUMNS,
        {
            **ACCOUNT_HANDLERS,
            Closed: (Delete("SELECT stream_id AS account"), lambda e: [{"account": e.stream_id}]),
            Recalled: (
                Delete("SELECT stream_id AS account WHERE level > 1"),
                lambda e: [{"account": e.stream_id}] if e.level > 1 else [],
            ),
        },
    ),
    projection(
        "skus",
        {"sku": "VARCHAR"},
        SKU_COLUMNS,
        {
            **SKU_HANDLERS,
            Recalled: (
                "SELECT coalesce(sku, '?') AS sku, reason AS note",
                lambda e: [{"sku": text_or(e.sku, "?"), "note": e.reason}],
            ),
        },
    ),
    projection(
        "live_skus",
        {"sku": "VARCHAR"},
        SKU_COLUMNS,
        {
            **SKU_HANDLERS,
            Recalled: (
                Delete("SELECT coalesce(sku, '?') AS sku"),
                lambda e: [{"sku": text_or(e.sku, "?")}],
            ),
        },
    ),
)
