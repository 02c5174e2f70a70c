"""A domain whose events have fields named ``payload`` and ``bucket``."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from refold.event_schemas import event, upcaster
from refold.event_schemas.decider import Decider, command
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Fold, Projection
from refold.warehouse.declarations.reducers import latest

REF = "tests.pipelines.messages:MESSAGES"


@event(schema_version=1)
class Noted:
    """The payload is the only field, as in an untyped segment."""

    payload: str


@event(schema_version=2)
class Sent:
    """Version 1 had a payload only."""

    payload: str
    bucket: int


@upcaster(Sent, from_version=1, schema=pa.schema([pa.field("payload", pa.string(), nullable=False)]))
def add_bucket() -> str:
    """Put all into one bucket."""
    return "SELECT payload, 3::BIGINT AS bucket FROM event"


@command
class Note:
    """Note a text."""

    stream: str
    payload: str


def remember(state: dict[str, Any] | None, sent: Any) -> dict[str, Any]:
    """Join the payloads of a bucket."""
    return {"payload": f"{(state or {'payload': ''})['payload']}{sent.payload}"}


SEEN = Projection(
    name="seen",
    key={"stream": "VARCHAR"},
    columns={"payload": latest("VARCHAR"), "bucket": latest("BIGINT")},
    on={
        Noted: "SELECT stream_id AS stream, payload, NULL AS bucket",
        Sent: "SELECT stream_id AS stream, payload, bucket",
    },
)
BUCKETS = Fold(
    name="buckets",
    key={"bucket": "BIGINT"},
    columns={"payload": "VARCHAR"},
    on={Sent: "SELECT bucket, payload"},
    fold=remember,
)
NOTES = Decider(
    name="notes",
    commands=(Note,),
    stream_id=lambda note: note.stream,
    initial_state=lambda: None,
    evolve=lambda state, noted: noted.payload,
    decide=lambda note, state: [Noted(payload=f"{state or ''}{note.payload}")],
)
MESSAGES = Domain(
    name="messages", events=(Noted, Sent), upcasters=(add_bucket,), read_models=(SEEN, BUCKETS), deciders=(NOTES,)
)
FORGETFUL = Domain(name="messages", events=(Sent,), upcasters=(add_bucket,))
