"""Event contracts: the schema of every event type in every schema version, and the upcasters between them. No I/O."""

from refold.event_schemas.envelope import ENVELOPE, RecordedEvent
from refold.event_schemas.errors import (
    ConcurrencyError,
    ContractError,
    DamagedLogError,
    DisagreementError,
    EmptyLogError,
    EventConflictError,
    GenerationError,
    InvalidEventsError,
    LogError,
    ObjectNotFoundError,
    PayloadError,
    ProjectionError,
    RefoldError,
    RejectedRowsError,
    StoreError,
    StoreNotConditionalError,
    UnknownEventTypeError,
    UnknownSchemaVersionError,
    UsageError,
)
from refold.event_schemas.event import (
    event,
    event_type_of,
    is_event,
    schema_of,
    schema_version_of,
)
from refold.event_schemas.payload import canonical_json
from refold.event_schemas.registry import Registry
from refold.event_schemas.upcasting import Upcaster, merger, upcaster

__all__ = [
    "ENVELOPE",
    "ConcurrencyError",
    "ContractError",
    "DamagedLogError",
    "DisagreementError",
    "EmptyLogError",
    "EventConflictError",
    "GenerationError",
    "InvalidEventsError",
    "LogError",
    "ObjectNotFoundError",
    "PayloadError",
    "ProjectionError",
    "RecordedEvent",
    "RefoldError",
    "Registry",
    "RejectedRowsError",
    "StoreError",
    "StoreNotConditionalError",
    "UnknownEventTypeError",
    "UnknownSchemaVersionError",
    "Upcaster",
    "UsageError",
    "canonical_json",
    "event",
    "event_type_of",
    "is_event",
    "merger",
    "schema_of",
    "schema_version_of",
    "upcaster",
]
