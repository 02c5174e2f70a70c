"""Every error that refold raises on purpose, in one tree.

::

    RefoldError
    ├── UsageError                     a call, flag or file is invalid                    (exit code 2)
    │   └── CommandConflictError       a command id was used for another command
    ├── ContractError                  an event, upcaster or registry contradicts itself
    │   ├── UnknownEventTypeError
    │   └── UnknownSchemaVersionError
    ├── PayloadError                   an event's payload does not fit its declared schema
    │   ├── RejectedRowsError          an import has more invalid rows than it may     (exit code 6)
    │   └── EventConflictError         two events have one event_id, but are not the same
    ├── ProjectionError                a read model's declaration is wrong
    ├── InvalidEventsError             events cannot be applied
    ├── DamagedStagingError            what a pipeline staged was changed, or is incomplete
    ├── StoreError                     an object store failed, or lacks a feature
    │   ├── ObjectNotFoundError
    │   ├── StoreUnavailableError      the store does not respond now
    │   └── StoreNotConditionalError   the store ignores put-if-absent
    ├── KeyStoreError                  keys of personal data are missing, or of another log
    ├── LogError                       the event log is missing, damaged or in another format
    │   ├── EmptyLogError
    │   └── DamagedLogError
    ├── ConcurrencyError               expected_version did not hold                      (exit code 3)
    └── GenerationError                read models are missing, damaged or cannot be published
        └── DisagreementError          a rebuild and the published rows differ             (exit code 4)

A message says what was expected, what was found, where, and what to do next, in one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RefoldError(Exception):
    """The root of all errors that refold raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message as one line; it may quote another library's error, which has several."""
        return " ".join(line.strip() for line in super().__str__().splitlines())


class UsageError(RefoldError):
    """A call, flag or file is invalid."""

    exit_code = 2


class CommandConflictError(UsageError):
    """A command id was used before, for another command or with other values; nothing was appended.

    Attributes:
        command_id: the id.
        stream_id: the stream of the earlier command.
    """

    def __init__(self, command_id: str, stream_id: str) -> None:
        self.command_id = command_id
        self.stream_id = stream_id
        super().__init__(
            f"Command id {command_id!r} was used before on stream {stream_id!r}, for another command or with other "
            "values. Repeat a command unchanged, and give every other command an id of its own. Nothing was appended."
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with its attributes; the default would call the constructor with the message."""
        return (CommandConflictError, (self.command_id, self.stream_id))


class ContractError(RefoldError):
    """An event, an upcaster or a registry contradicts itself."""


class UnknownEventTypeError(ContractError):
    """The domain does not know an event's type."""


class UnknownSchemaVersionError(ContractError):
    """The domain knows the event's type, but has neither a contract nor an upcaster for its schema version."""


class PayloadError(RefoldError):
    """A payload does not fit the schema of its event type and schema version."""


class RejectedRowsError(PayloadError):
    """An import has more invalid rows than it may; nothing was imported."""

    exit_code = 6


class EventConflictError(PayloadError):
    """Two events of one stream have the same ``event_id``, but are not the same; nothing was imported."""


class ProjectionError(RefoldError):
    """The declaration of a read model is wrong; the message names projection, event and column."""


class InvalidEventsError(RefoldError):
    """Events cannot be applied to a read model or a stream's state; nothing was published."""


class DamagedStagingError(RefoldError):
    """What a pipeline staged was changed, or is incomplete; nothing was published."""


class StoreError(RefoldError):
    """An object store failed, or lacks a feature that refold needs."""


class ObjectNotFoundError(StoreError):
    """No object has this key."""


class StoreUnavailableError(StoreError):
    """The store does not respond, or responds that it cannot serve requests now; a later attempt may succeed."""


class StoreNotConditionalError(StoreError):
    """The store accepted a second put-if-absent of one key, so it cannot hold an event log."""


class KeyStoreError(RefoldError):
    """The keys of personal data are missing, damaged or of another log; nothing is read without them."""


class LogError(RefoldError):
    """The event log is missing, in another format, or belongs to another domain."""


class EmptyLogError(LogError):
    """The log holds no events."""


class DamagedLogError(LogError):
    """An object of the log is missing, truncated or contradicts the manifest."""


class ConcurrencyError(RefoldError):
    """``expected_version`` did not hold: another writer appended to the stream first.

    Attributes:
        stream_id: the stream.
        expected_version: its last version as the caller expected it.
        actual_version: its last version.
    """

    exit_code = 3

    def __init__(self, stream_id: str, *, expected_version: int, actual_version: int) -> None:
        self.stream_id = stream_id
        self.expected_version = expected_version
        self.actual_version = actual_version
        super().__init__(
            f"Stream {stream_id!r} is at version {actual_version}, not at the expected version "
            f"{expected_version}: another writer appended first. Load the stream and decide again."
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with its attributes; the default would call the constructor with the message."""
        return (_concurrency_error, (self.stream_id, self.expected_version, self.actual_version))


def _concurrency_error(stream_id: str, expected_version: int, actual_version: int) -> ConcurrencyError:
    return ConcurrencyError(stream_id, expected_version=expected_version, actual_version=actual_version)


class GenerationError(RefoldError):
    """A generation of read models is missing, damaged, or cannot be published."""


class DisagreementError(GenerationError):
    """A rebuild and the published rows, which increments have updated, differ; nothing was published.

    Attributes:
        differences: one value for each table that differs.
    """

    exit_code = 4

    def __init__(self, message: str, differences: Sequence[Any] = ()) -> None:
        self.differences = tuple(differences)
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with its differences."""
        return (DisagreementError, (str(self), self.differences))
