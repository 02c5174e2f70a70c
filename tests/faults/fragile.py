"""A small domain whose folds and casts fail on demand, for tests of failures."""

from __future__ import annotations

import os
import signal
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa

from refold.event_schemas import event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import (
    Fold,
    Projection,
    ReadModel,
    View,
)
from refold.warehouse.declarations.reducers import latest, total

DEADLY = "REFOLD_TEST_DEADLY"
"""Names a file; a process that folds an event while the file exists removes it and dies."""

Money = Annotated[Decimal, pa.decimal128(18, 2)]


@event(schema_version=1)
class Opened:
    """A till was opened."""

    owner: str


@event(schema_version=1)
class Sold:
    """Something was sold."""

    sku: str
    pieces: int
    price: Money


@event(schema_version=1)
class Noted:
    """A note was left, which some read models cast to a number."""

    note: str


TILLS = Projection(
    name="tills",
    key={"till": "VARCHAR"},
    columns={"owner": latest("VARCHAR"), "pieces": total("BIGINT"), "worth": total("DECIMAL(18,2)")},
    on={
        Opened: "SELECT stream_id AS till, owner",
        Sold: "SELECT stream_id AS till, pieces, pieces * price AS worth",
    },
)
SKUS = Projection(
    name="skus",
    key={"sku": "VARCHAR"},
    columns={"pieces": total("BIGINT"), "last_till": latest("VARCHAR")},
    on={Sold: "SELECT sku, pieces, stream_id AS last_till"},
)
NOTES = Projection(
    name="notes",
    key={"till": "VARCHAR"},
    columns={"sum": total("BIGINT")},
    on={Noted: 'SELECT stream_id AS till, CAST(note AS BIGINT) AS "sum"'},
)


def _follow(state: dict[str, Any] | None, sold: Any) -> dict[str, Any]:
    deadly = os.environ.get(DEADLY)
    if deadly and Path(deadly).exists():
        Path(deadly).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"path": ((state or {"path": 7})["path"] * 31 + sold.pieces) % 1_000_003}


def _raise(state: dict[str, Any] | None, sold: Any) -> dict[str, Any]:
    if sold.pieces == 13:
        raise ValueError("thirteen pieces bring bad luck")
    return _follow(state, sold)


def _paths(fold: Any) -> Fold:
    return Fold(
        name="paths",
        key={"till": "VARCHAR"},
        columns={"path": "BIGINT"},
        on={Sold: "SELECT stream_id AS till, pieces"},
        fold=fold,
        version="1",  # it reads the environment, to be killed
    )


def _domain(events: tuple[type, ...], models: tuple[ReadModel, ...]) -> Domain:
    worths = View("worths", "SELECT owner, sum(worth) AS worth FROM tills GROUP BY owner")
    return Domain(name="fragile", events=events, read_models=models, views=(worths,))


SHOP = _domain((Opened, Sold, Noted), (TILLS, SKUS, _paths(_follow)))
"""Nothing in it fails."""

FORGETFUL = _domain((Opened, Sold), (TILLS, SKUS, _paths(_follow)))
"""Later code, which no longer declares the event ``Noted``."""

CASTING = _domain((Opened, Sold, Noted), (TILLS, SKUS, NOTES))
"""A handler casts text that is sometimes not a number."""

RAISING = _domain((Opened, Sold, Noted), (TILLS, SKUS, _paths(_raise)))
"""A fold raises on some events."""
