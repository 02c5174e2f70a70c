"""Read models of other keys, and those whose events contribute several rows."""

from __future__ import annotations

from datetime import date

from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.declarations.reducers import (
    collect,
    count,
    count_distinct,
    first,
    latest,
    maximum,
    total,
)
from tests.properties.depot.contracts import Closed, Labelled, Opened, Packed, Recalled, Sold
from tests.properties.depot.twins import projection, text_or
from tests.properties.reference import Model

PROJECTIONS: tuple[tuple[ReadModel, Model], ...] = (
    projection(
        "owners",
        {"owner": "VARCHAR", "vip": "BOOLEAN"},
        {
            "accounts": count(),
            "first_account": first("VARCHAR"),
            "day": latest("DATE"),
            "days": collect("DATE"),
            "streams": count_distinct(),
        },
        {
            Opened: (
                "SELECT owner, vip, 1 AS accounts, stream_id AS first_account, opened_on AS day, opened_on AS days, "
                "stream_id AS streams",
                lambda e: [
                    {
                        "owner": e.owner,
                        "vip": e.vip,
                        "accounts": 1,
                        "first_account": e.stream_id,
                        "day": e.opened_on,
                        "days": e.opened_on,
                        "streams": e.stream_id,
                    }
                ],
            )
        },
    ),
    projection(
        "days",
        {"day": "DATE"},
        {"owners": collect("VARCHAR"), "last": latest("VARCHAR"), "earliest": first("VARCHAR")},
        {
            Opened: (
                "SELECT coalesce(opened_on, DATE '2000-01-01') AS day, owner AS owners, owner AS last, "
                "owner AS earliest "
                "WHERE owner <> 'z'",
                lambda e: [
                    {"day": e.opened_on or date(2000, 1, 1), **dict.fromkeys(("owners", "last", "earliest"), owner)}
                    for owner in [e.owner]
                    if owner != "z"
                ],
            )
        },
    ),
    projection(
        "sums_of_refs",
        {"ref": "UUID"},
        {"pieces": total("BIGINT"), "value": maximum("DECIMAL(18,2)"), "last": maximum("TIMESTAMPTZ")},
        {
            Sold: (
                "SELECT ref, quantity AS pieces, price AS value, occurred_at AS last WHERE ref IS NOT NULL",
                lambda e: (
                    [{"ref": e.ref, "pieces": e.quantity, "value": e.price, "last": e.occurred_at}] if e.ref else []
                ),
            )
        },
    ),
    projection(
        "recalls",
        {"value": "VARCHAR", "day": "DATE"},
        {
            "reason": latest("VARCHAR"),
            "level": latest("BIGINT"),
            "first_reason": first("VARCHAR"),
            "reasons": collect("VARCHAR"),
            "kinds": count_distinct(),
            "known": latest("VARCHAR"),
        },
        {
            Recalled: (
                "SELECT reason AS value, CAST(make_timestamp(epoch_us(occurred_at)) AS DATE) AS day, reason, "
                "nullif(level, 0) AS level, nullif(reason, '') AS first_reason, reason AS reasons, level AS kinds, "
                "sku AS known",
                lambda e: [
                    {
                        "value": e.reason,
                        "day": e.occurred_at.date(),
                        "reason": e.reason,
                        "level": e.level or None,
                        "first_reason": e.reason or None,
                        "reasons": e.reason,
                        "kinds": e.level,
                        "known": e.sku,
                    }
                ],
            )
        },
    ),
    projection(
        "ties",
        {"account": "VARCHAR"},
        {"last": latest("VARCHAR"), "earliest": first("VARCHAR"), "all": collect("VARCHAR")},
        {
            Recalled: (
                """
                SELECT stream_id AS account, reason AS last, reason AS earliest, reason AS "all"
                UNION ALL
                SELECT stream_id AS account, 'level ' || level, 'level ' || level, 'level ' || level
                """,
                lambda e: [
                    {"account": e.stream_id, "last": x, "earliest": x, "all": x} for x in (e.reason, f"level {e.level}")
                ],
            ),
            Packed: (
                """
                SELECT stream_id AS account, n::VARCHAR AS last, n::VARCHAR AS earliest, n::VARCHAR AS "all"
                FROM (SELECT *, unnest(range(5 - len(labels))) AS n FROM event)
                """,
                lambda e: [
                    {"account": e.stream_id, "last": str(n), "earliest": str(n), "all": str(n)}
                    for n in range(5 - len(e.labels))
                ],
            ),
        },
    ),
    projection(
        "ties_of_skus",
        {"sku": "VARCHAR"},
        {"last": latest("VARCHAR"), "all": collect("VARCHAR")},
        {
            Recalled: (
                Delete("SELECT coalesce(sku, '?') AS sku"),
                lambda e: [{"sku": text_or(e.sku, "?")}],
            ),
            Sold: (
                """
                SELECT coalesce(sku, '?') AS sku, 'sold' AS last, stream_id AS "all"
                UNION ALL
                SELECT coalesce(sku, '?') AS sku, 'priced', 'priced' WHERE price IS NOT NULL
                """,
                lambda e: [
                    {"sku": text_or(e.sku, "?"), "last": "sold", "all": e.stream_id},
                    *([{"sku": text_or(e.sku, "?"), "last": "priced", "all": "priced"}] if e.price is not None else []),
                ],
            ),
        },
    ),
    projection(
        "labels_in_use",
        {"label": "VARCHAR", "account": "VARCHAR"},
        {},
        {
            Labelled: (
                "SELECT label, stream_id AS account",
                lambda e: [{"label": e.label, "account": e.stream_id}],
            ),
            Packed: (
                "SELECT unnest(labels) AS label, stream_id AS account",
                lambda e: [{"label": label, "account": e.stream_id} for label in e.labels],
            ),
            Closed: (
                Delete("SELECT unnest(['a', 'b']) AS label, stream_id AS account"),
                lambda e: [{"label": label, "account": e.stream_id} for label in ("a", "b")],
            ),
        },
    ),
)
