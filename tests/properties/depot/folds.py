"""Folds in Python, which depend on the order of events."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from refold.warehouse.declarations.projection import ReadModel
from tests.properties.depot.contracts import Addressed, Closed, Labelled, Opened, Packed, Recalled, Sold
from tests.properties.depot.twins import fold_model, text_or
from tests.properties.reference import Model


def remember_path(state: dict[str, Any] | None, e: Any) -> dict[str, Any] | None:
    """Depend on the order of all events: a fold that no reducer can express."""
    if e.event_type == "Closed":
        return None
    if state is None:
        state = {"steps": 0, "path": 7, "last": None, "ref": None, "at": None, "worth": Decimal(0), "tags": []}
    state["steps"] += 1
    state["path"] = (state["path"] * 31 + e.weight) % 1_000_003
    state["at"] = e.at
    if e.event_type == "depot.Sold":
        state["ref"] = e.ref
        state["worth"] += e.price or 0
    else:
        state["last"] = e.label
        state["tags"] = [*state["tags"], e.label][-3:]
    return state


def toggle(state: dict[str, Any] | None, e: Any) -> dict[str, Any] | None:
    """Change the state in place; a recalled article is deleted, and may return."""
    if e.event_type == "Recalled":
        return None if e.level > 1 else state
    if state is None:
        return {"open": True, "day": e.day, "path": e.quantity % 97}
    state["open"] = not state["open"]
    state["day"] = e.day or state["day"]
    state["path"] = (state["path"] * 17 + e.quantity) % 1_000_003
    return state


def _path_event(e: Any, weight: int, **more: Any) -> list[dict[str, Any]]:
    return [{"account": e.stream_id, "at": e.occurred_at, "weight": weight, **more}]


FOLDS: tuple[tuple[ReadModel, Model], ...] = (
    fold_model(
        "paths",
        {"account": "VARCHAR"},
        {
            "steps": "BIGINT",
            "path": "BIGINT",
            "last": "VARCHAR",
            "ref": "UUID",
            "at": "TIMESTAMPTZ",
            "worth": "DECIMAL(28,2)",
            "tags": "VARCHAR[]",
        },
        {
            Sold: (
                "SELECT stream_id AS account, occurred_at AS at, quantity AS weight, ref, price",
                lambda e: _path_event(e, e.quantity, ref=e.ref, price=e.price),
            ),
            Labelled: (
                "SELECT stream_id AS account, occurred_at AS at, len(label) AS weight, label",
                lambda e: _path_event(e, len(e.label), label=e.label),
            ),
            Packed: (
                "SELECT stream_id AS account, occurred_at AS at, len(labels) AS weight, unnest(labels) AS label",
                lambda e: [row for x in e.labels for row in _path_event(e, len(e.labels), label=x)],
            ),
            Addressed: (
                "SELECT stream_id AS account, occurred_at AS at, halves AS weight, trail AS label",
                lambda e: _path_event(e, e.halves, label=e.trail),
            ),
            Opened: (
                "SELECT stream_id AS account, occurred_at AS at, 0 AS weight, owner AS label WHERE NOT vip",
                lambda e: [] if e.vip else _path_event(e, 0, label=e.owner),
            ),
            Closed: ("SELECT stream_id AS account", lambda e: [{"account": e.stream_id}]),
        },
        remember_path,
    ),
    fold_model(
        "switches",
        {"sku": "VARCHAR"},
        {"open": "BOOLEAN", "day": "DATE", "path": "BIGINT"},
        {
            Sold: (
                "SELECT coalesce(sku, '?') AS sku, quantity, CAST(make_timestamp(epoch_us(sold_at)) AS DATE) AS day",
                lambda e: [
                    {"sku": text_or(e.sku, "?"), "quantity": e.quantity, "day": e.sold_at.date() if e.sold_at else None}
                ],
            ),
            Packed: (
                "SELECT coalesce(line.sku, '?') AS sku, line.quantity AS quantity, NULL::DATE AS day "
                "FROM event, unnest(lines) AS unnested(line)",
                lambda e: [{"sku": text_or(x["sku"], "?"), "quantity": x["quantity"], "day": None} for x in e.lines],
            ),
            Recalled: (
                "SELECT coalesce(sku, '?') AS sku, level",
                lambda e: [{"sku": text_or(e.sku, "?"), "level": e.level}],
            ),
        },
        toggle,
    ),
    fold_model(
        "refs",
        {"ref": "UUID", "vip": "BOOLEAN"},
        {"seen": "VARCHAR[]"},
        {
            Sold: (
                "SELECT ref, quantity > 2 AS vip, stream_id WHERE ref IS NOT NULL",
                lambda e: [{"ref": e.ref, "vip": e.quantity > 2, "stream_id": e.stream_id}] if e.ref else [],
            )
        },
        lambda state, e: {"seen": [*(state or {"seen": []})["seen"], e.stream_id]},
    ),
)
