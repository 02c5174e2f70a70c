"""A domain that uses every feature of the engine, with each handler and SQL upcaster in both SQL and Python.

The Python side never sees SQL; ``reference.py`` folds it. ``DEPOT`` is applied to histories without invalid events,
``FRAGILE`` has the read models that fail on some events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pyarrow as pa

from refold.event_schemas import (
    RecordedEvent,
    Upcaster,
    event,
    merger,
    upcaster,
)
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import (
    Fold,
    Projection,
    ReadModel,
    View,
)
from refold.warehouse.declarations.reducers import (
    Reducer,
    collect,
    count,
    count_distinct,
    first,
    latest,
    maximum,
    minimum,
    total,
)
from tests.properties.reference import Model, Step

POISON = "poison"
UNLUCKY = 13
Money = Annotated[Decimal, pa.decimal128(18, 2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Some pieces of one article."""

    sku: str | None
    quantity: int


@event(schema_version=3)
class Opened:
    """An account was opened; version 1 is carried on in SQL, version 2 in Python, which splits and drops."""

    owner: str
    opened_on: date | None
    vip: bool


@event(schema_version=2, name="depot.Sold")
class Sold:
    """Pieces were sold; nearly everything may be unknown."""

    sku: str | None
    quantity: int
    price: Money | None
    ref: UUID | None
    sold_at: datetime | None


@event(schema_version=1)
class Packed:
    """Lists of values and of structs, each maybe empty, elements maybe repeated."""

    lines: list[Line]
    labels: list[str]


@event(schema_version=1)
class Labelled:
    """Where many retired types end: by unnesting in SQL, in Python, and in both."""

    label: str


@event(schema_version=1)
class Addressed:
    """What a merger makes; the trail lists the events of the run."""

    trail: str
    halves: int


@event(schema_version=1)
class Closed:
    """An account was closed: nothing but the envelope."""


@event(schema_version=1)
class Recalled:
    """An article was recalled; no upcaster yields it."""

    sku: str | None
    reason: str
    level: int


EVENTS = (Opened, Sold, Packed, Labelled, Addressed, Closed, Recalled)


def _schema(**fields: pa.DataType | None) -> pa.Schema:
    return pa.schema([pa.field(n.removesuffix("_"), t, nullable=n.endswith("_")) for n, t in fields.items()])


OPENED_V1 = _schema(owner_name=pa.string(), day_=pa.string())
OPENED_V2 = _schema(owner=pa.string(), day_=pa.string())
SOLD_V1 = _schema(sku_=pa.string(), quantity=pa.int64(), cents_=pa.int64())
BUNDLED_V1 = _schema(sku_=pa.string(), pieces_=pa.int64())
LABELS_V1 = _schema(labels=pa.list_(pa.string()))
NOTES_V1 = _schema(notes=pa.list_(pa.string()))
NOTES_V2 = _schema(note_=pa.string())
TRIO_V1 = _schema(parts=pa.list_(pa.string()))
TRIO_V2 = _schema(part=pa.string())
HALF_A_V1 = _schema(street_=pa.string())
HALF_A_V2 = _schema(street=pa.string())
HALF_B_V1 = _schema(city=pa.string())


@upcaster(Opened, from_version=1, schema=OPENED_V1)
def rename_owner() -> str:
    """Rename a field."""
    return "SELECT * EXCLUDE (owner_name), owner_name AS owner FROM event"


@upcaster(Opened, from_version=2, schema=OPENED_V2)
def split_owners(opened: RecordedEvent) -> list[dict[str, Any]]:
    """Retype a field, add one; split joint owners, drop an account without owners."""
    owner, day = opened.payload["owner"], opened.payload["day"]
    if owner == POISON:
        raise ValueError("nobody is called so")
    opened_on = date.fromisoformat(day) if day else None
    return [{"owner": o, "opened_on": opened_on, "vip": o.isupper()} for o in owner.split("+") if o]


@upcaster(Sold, from_version=1, schema=SOLD_V1)
def price_sold() -> str:
    """Turn cents into a decimal, add two optional fields; drop sales of nothing."""
    return """
        SELECT * EXCLUDE (cents), CAST(cents * 0.01 AS DECIMAL(18,2)) AS price, NULL AS ref, NULL AS sold_at
        FROM event
        WHERE quantity <> 0
    """


@upcaster(Sold, from_version=1, schema=SOLD_V1)
def reprice_sold() -> str:
    """Say, in code that is deployed later, that old prices were half a cent off, and keep sales of nothing."""
    return """
        SELECT * EXCLUDE (cents), CAST(cents * 0.01 + 0.01 AS DECIMAL(18,2)) AS price, NULL AS ref, NULL AS sold_at
        FROM event
    """


@upcaster("Bundled", from_version=1, schema=BUNDLED_V1, into=(Sold, Packed))
def unbundle(bundled: RecordedEvent) -> list[Any]:
    """Split into events of two types; drop an empty bundle."""
    sku, pieces = bundled.payload["sku"], bundled.payload["pieces"] or 0
    ref = UUID(int=pieces) if pieces % 2 else None
    sold = [Sold(sku=sku, quantity=i, price=None, ref=ref, sold_at=None) for i in range(1, pieces + 1)]
    packed = Packed(lines=[Line(sku=sku, quantity=pieces), Line(sku=None, quantity=1)], labels=[f"bundle of {pieces}"])
    return [*sold, packed, *sold[:1]] if pieces else []


@upcaster("Labels", from_version=1, schema=LABELS_V1, into=Labelled)
def unnest_labels() -> str:
    """Make several events of one in SQL."""
    return "SELECT unnest(labels) AS label FROM event"


@upcaster("Notes", from_version=1, schema=NOTES_V1)
def unnest_notes() -> str:
    """Make several events of one in SQL, each of which a Python upcaster converts further."""
    return "SELECT unnest(notes) AS note FROM event"


@upcaster("Notes", from_version=2, schema=NOTES_V2, into=Labelled)
def double_note(note: RecordedEvent) -> list[Labelled]:
    """Make two of each."""
    return [Labelled(label=f"{note.payload['note']}{end}") for end in ("", "!")]


@upcaster("Trio", from_version=1, schema=TRIO_V1)
def part_trio(trio: RecordedEvent) -> list[dict[str, Any]]:
    """First of three steps in Python, which splits."""
    return [{"part": p} for p in trio.payload["parts"]]


@upcaster("Trio", from_version=2, schema=TRIO_V2)
def pass_trio(trio: RecordedEvent) -> list[dict[str, Any]]:
    """Second of three steps."""
    return [{"part": trio.payload["part"]}]


@upcaster("Trio", from_version=3, schema=TRIO_V2, into=Labelled)
def end_trio(trio: RecordedEvent) -> list[Labelled]:
    """Last of three steps, which splits again."""
    return [Labelled(label=trio.payload["part"] + end) for end in "12"]


@upcaster("HalfA", from_version=1, schema=HALF_A_V1)
def name_half() -> str:
    """Lead to a merger, by way of SQL that drops events: a dropped one parts a run."""
    return "SELECT coalesce(street, '?') AS street FROM event WHERE street IS DISTINCT FROM 'nowhere'"


@merger([("HalfA", 2, HALF_A_V2), ("HalfB", 1, HALF_B_V1)], into=Addressed)
def join_halves(run: list[RecordedEvent]) -> list[Addressed]:
    """Join a run, and list its events."""
    words = [str(e.payload.get("street") or e.payload.get("city")) for e in run]
    if POISON in words:
        raise ValueError("there is no such place")
    joined = Addressed(trail="|".join(words), halves=len(run))
    return [joined, joined] if len(run) > 2 else [joined]


UPCASTERS = (
    rename_owner,
    split_owners,
    price_sold,
    unbundle,
    unnest_labels,
    unnest_notes,
    double_note,
    part_trio,
    pass_trio,
    end_trio,
    name_half,
    join_halves,
)


def _or(text: str | None, other: str) -> str:
    return other if text is None else text


def _sold_twin(e: Any) -> list[dict[str, Any]]:
    price = None if e.cents is None else Decimal(e.cents) / 100
    sold = {"sku": e.sku, "quantity": e.quantity, "price": price, "ref": None, "sold_at": None}
    return [sold] if e.quantity != 0 else []


STEPS = (
    Step.one("Opened", 1, "Opened", 2, lambda e: [{"owner": e.owner_name, "day": e.day}]),
    Step.of(split_owners),
    Step.one("depot.Sold", 1, "depot.Sold", 2, _sold_twin),
    Step.of(unbundle),
    Step.one("Labels", 1, "Labelled", 1, lambda e: [{"label": x} for x in e.labels]),
    Step.one("Notes", 1, "Notes", 2, lambda e: [{"note": x} for x in e.notes]),
    Step.of(double_note),
    Step.of(part_trio),
    Step.of(pass_trio),
    Step.of(end_trio),
    Step.one("HalfA", 1, "HalfA", 2, lambda e: [] if e.street == "nowhere" else [{"street": _or(e.street, "?")}]),
    Step.of(join_halves),
)
"""What the upcasters mean, in Python."""


def _sold_anew_twin(e: Any) -> list[dict[str, Any]]:
    price = None if e.cents is None else Decimal(e.cents + 1) / 100
    return [{"sku": e.sku, "quantity": e.quantity, "price": price, "ref": None, "sold_at": None}]


LATER_UPCASTERS = tuple(reprice_sold if step is price_sold else step for step in UPCASTERS)
LATER_STEPS = tuple(
    Step.one("depot.Sold", 1, "depot.Sold", 2, _sold_anew_twin) if step.sources == (("depot.Sold", 1),) else step
    for step in STEPS
)
"""The same, but for one upcaster that was changed later."""

Twin = tuple[str | Delete, Callable[[Any], list[dict[str, Any]]]]
"""A handler in SQL and in Python."""


def _projection(
    name: str,
    key: Mapping[str, str],
    columns: Mapping[str, Reducer],
    on: Mapping[type, Twin],
    derived: Mapping[str, str] | None = None,
) -> tuple[ReadModel, Model]:
    sql = {cls: twin[0] for cls, twin in on.items()}
    made = Projection(name=name, key=key, columns=columns, on=sql, derived=derived or {})
    kinds = {c: r.kind.value for c, r in columns.items()}
    return made, Model(name, tuple(key), _handlers(on), kinds=kinds)


def _fold(
    name: str, key: Mapping[str, str], columns: Mapping[str, str], on: Mapping[type, Twin], fold: Callable[..., Any]
) -> tuple[ReadModel, Model]:
    sql = {cls: str(twin[0]) for cls, twin in on.items()}
    made = Fold(name=name, key=key, columns=columns, on=sql, fold=fold)
    return made, Model(name, tuple(key), _handlers(on), fold=fold, fold_columns=tuple(columns))


def _handlers(on: Mapping[type, Twin]) -> dict[str, tuple[Callable[[Any], list[dict[str, Any]]], bool]]:
    names = {cls: cls.__event_type__ for cls in on}  # type: ignore[attr-defined]
    return {names[cls]: (python, isinstance(sql, Delete)) for cls, (sql, python) in on.items()}


def _times(a: int, b: Decimal | None) -> Decimal | None:
    return None if b is None else a * b


def _lines(e: Any) -> list[dict[str, Any]]:
    return [{"sku": line["sku"], "quantity": line["quantity"]} for line in e.lines]


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
                    "worth": _times(e.quantity, e.price),
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
        lambda e: [{"account": e.stream_id, "labels": label, "lines": _lines(e)} for label in e.labels],
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
                "sku": _or(e.sku, "?"),
                "pieces": e.quantity,
                "worth": _times(e.quantity, e.price),
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
                "sku": _or(line["sku"], "?"),
                **dict.fromkeys(("pieces", "quantities", "last_quantity", "first_quantity"), line["quantity"]),
                "accounts": e.stream_id,
            }
            for line in e.lines
        ],
    ),
}


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


MODELS: tuple[tuple[ReadModel, Model], ...] = (
    _projection(
        "accounts",
        {"account": "VARCHAR"},
        ACCOUNT_COLUMNS,
        ACCOUNT_HANDLERS,
        derived={"average": "worth / nullif(sales, 0)"},
    ),
    _projection(
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
    _projection(
        "skus",
        {"sku": "VARCHAR"},
        SKU_COLUMNS,
        {
            **SKU_HANDLERS,
            Recalled: (
                "SELECT coalesce(sku, '?') AS sku, reason AS note",
                lambda e: [{"sku": _or(e.sku, "?"), "note": e.reason}],
            ),
        },
    ),
    _projection(
        "live_skus",
        {"sku": "VARCHAR"},
        SKU_COLUMNS,
        {
            **SKU_HANDLERS,
            Recalled: (
                Delete("SELECT coalesce(sku, '?') AS sku"),
                lambda e: [{"sku": _or(e.sku, "?")}],
            ),
        },
    ),
    _projection(
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
    _projection(
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
    _projection(
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
    _projection(
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
    _projection(
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
    _projection(
        "ties_of_skus",
        {"sku": "VARCHAR"},
        {"last": latest("VARCHAR"), "all": collect("VARCHAR")},
        {
            Recalled: (
                Delete("SELECT coalesce(sku, '?') AS sku"),
                lambda e: [{"sku": _or(e.sku, "?")}],
            ),
            Sold: (
                """
                SELECT coalesce(sku, '?') AS sku, 'sold' AS last, stream_id AS "all"
                UNION ALL
                SELECT coalesce(sku, '?') AS sku, 'priced', 'priced' WHERE price IS NOT NULL
                """,
                lambda e: [
                    {"sku": _or(e.sku, "?"), "last": "sold", "all": e.stream_id},
                    *([{"sku": _or(e.sku, "?"), "last": "priced", "all": "priced"}] if e.price is not None else []),
                ],
            ),
        },
    ),
    _projection(
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
    _fold(
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
    _fold(
        "switches",
        {"sku": "VARCHAR"},
        {"open": "BOOLEAN", "day": "DATE", "path": "BIGINT"},
        {
            Sold: (
                "SELECT coalesce(sku, '?') AS sku, quantity, CAST(make_timestamp(epoch_us(sold_at)) AS DATE) AS day",
                lambda e: [
                    {"sku": _or(e.sku, "?"), "quantity": e.quantity, "day": e.sold_at.date() if e.sold_at else None}
                ],
            ),
            Packed: (
                "SELECT coalesce(line.sku, '?') AS sku, line.quantity AS quantity, NULL::DATE AS day "
                "FROM event, unnest(lines) AS unnested(line)",
                lambda e: [{"sku": _or(x["sku"], "?"), "quantity": x["quantity"], "day": None} for x in e.lines],
            ),
            Recalled: (
                "SELECT coalesce(sku, '?') AS sku, level",
                lambda e: [{"sku": _or(e.sku, "?"), "level": e.level}],
            ),
        },
        toggle,
    ),
    _fold(
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
"""Read models with their meaning."""


def unlucky(state: dict[str, Any] | None, e: Any) -> dict[str, Any]:
    """Fail on one number."""
    if e.quantity == UNLUCKY:
        raise ValueError("thirteen")
    return {"path": ((state or {"path": 0})["path"] * 31 + e.quantity) % 1_000_003}


FRAGILE_MODELS: tuple[tuple[ReadModel, Model], ...] = (
    _projection(
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
    _projection(
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
    _fold(
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
    _fold(
        "fragile_sku_paths",
        {"sku": "VARCHAR"},
        {"path": "BIGINT"},
        {
            Sold: (
                "SELECT coalesce(sku, '?') AS sku, quantity",
                lambda e: [{"sku": _or(e.sku, "?"), "quantity": e.quantity}],
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


def _domain(
    models: tuple[tuple[ReadModel, Model], ...],
    views: tuple[View, ...] = (),
    upcasters: tuple[Upcaster, ...] = UPCASTERS,
) -> Domain:
    return Domain(
        name="depot", events=EVENTS, upcasters=upcasters, read_models=tuple(m for m, _ in models), views=views
    )


DEPOT = _domain(
    MODELS, (View("owners_of_accounts", "SELECT owner, count(*) AS accounts FROM accounts GROUP BY owner"),)
)
FRAGILE = _domain(FRAGILE_MODELS)
REFERENCES: dict[str, Model] = {reference.name: reference for _, reference in (*MODELS, *FRAGILE_MODELS)}


def only(name: str) -> Domain:
    """Give the domain with one read model only, so that an example is quick and a failure has a name."""
    return _domain(_pairs(name))


def later(name: str) -> Domain:
    """Give the same with the upcaster that was changed later."""
    return _domain(_pairs(name), upcasters=LATER_UPCASTERS)


def _pairs(name: str) -> tuple[tuple[ReadModel, Model], ...]:
    return tuple(pair for pair in (*MODELS, *FRAGILE_MODELS) if pair[1].name == name)
