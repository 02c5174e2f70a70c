"""The public names of the event contracts: a change here is a change for every user."""

from __future__ import annotations

from refold import event_schemas


def test_the_public_names_are_these() -> None:
    """They are in ``__all__``, and each can be imported."""
    assert event_schemas.__all__ == [
        "ENVELOPE",
        "CommandConflictError",
        "ConcurrencyError",
        "ContractError",
        "DamagedLogError",
        "DamagedStagingError",
        "DisagreementError",
        "EmptyLogError",
        "EventConflictError",
        "GenerationError",
        "InvalidEventsError",
        "KeyStoreError",
        "LogError",
        "ObjectNotFoundError",
        "PayloadError",
        "Personal",
        "ProjectionError",
        "RecordedEvent",
        "RefoldError",
        "Registry",
        "RejectedRowsError",
        "StoreError",
        "StoreNotConditionalError",
        "StoreUnavailableError",
        "SubjectErased",
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
    assert all(hasattr(event_schemas, name) for name in event_schemas.__all__)
