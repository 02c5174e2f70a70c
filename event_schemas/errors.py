"""Every error that refold raises on purpose, in one tree.

::

    RefoldError
    ├── UsageError                     a call, flag or file that cannot be meant          (exit code 2)
    ├── ContractError                  an event, upcaster or registry that contradicts itself
    │   ├── UnknownEventTypeError
    │   └── UnknownSchemaVersionError
    ├── PayloadError                   an event's payload does not fit its declared schema
    ├── ProjectionError                a read model's declaration is wrong
    ├── InvalidEventsError              a rebuild met events that it cannot apply
    ├── StoreError                     an object store failed or is unfit
    │   ├── ObjectNotFoundError
    │   └── StoreNotConditionalError   the store ignores put-if-absent
    ├── LogError                       the event log is missing, damaged or of another format
    │   ├── EmptyLogError
    │   └── DamagedLogError
    ├── ConcurrencyError               expected_version did not hold                      (exit code 3)
    └── GenerationError                read models are missing, damaged or out of place
        └── DisagreementError          a rebuild and the published rows differ             (exit code 4)

A message says what was expected, what was found, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RefoldError(Exception):
    """The root: catch this to catch everything that refold raises on purpose."""

    exit_code = 1


class UsageError(RefoldError):
    """A call, flag or file that cannot be meant."""

    exit_code = 2


class ContractError(RefoldError):
    """An event, an upcaster or a registry contradicts itself."""


class UnknownEventTypeError(ContractError):
    """The domain does not know an event's type."""


class UnknownSchemaVersionError(ContractError):
    """The domain knows the event's type but has neither a contract nor an upcaster for its version."""


class PayloadError(RefoldError):
    """A payload does not fit the schema that its event type and version declare."""


class ProjectionError(RefoldError):
    """The declaration of a read model is wrong; the message names projection, event and column."""


class InvalidEventsError(RefoldError):
    """A rebuild met events that it cannot apply; nothing was published."""


class StoreError(RefoldError):
    """An object store failed, or cannot hold what refold needs."""


class ObjectNotFoundError(StoreError):
    """No object has this key."""


class StoreNotConditionalError(StoreError):
    """The store accepted a second put-if-absent of one key: it cannot hold an event log."""


class LogError(RefoldError):
    """The event log is missing, of another format, or of another domain."""


class EmptyLogError(LogError):
    """The log holds no event yet."""


class DamagedLogError(LogError):
    """An object of the log is missing, truncated or contradicts the manifest."""


class ConcurrencyError(RefoldError):
    """The stream has moved on: ``expected_version`` did not hold.

    Attributes:
        stream_id: the stream that was to be appended to.
        expected_version: what the caller believed its last version to be.
        actual_version: what it is.
    """

    exit_code = 3

    def __init__(self, stream_id: str, *, expected_version: int, actual_version: int) -> None:
        self.stream_id = stream_id
        self.expected_version = expected_version
        self.actual_version = actual_version
        super().__init__(
            f"Stream {stream_id!r} stands at version {actual_version}, not at the expected version "
            f"{expected_version}: another writer appended first. Load the stream again and decide anew."
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Cross process borders whole: the default would call the constructor with the message."""
        return (_concurrency_error, (self.stream_id, self.expected_version, self.actual_version))


def _concurrency_error(stream_id: str, expected_version: int, actual_version: int) -> ConcurrencyError:
    return ConcurrencyError(stream_id, expected_version=expected_version, actual_version=actual_version)


class GenerationError(RefoldError):
    """A generation of read models is missing, damaged, or cannot be published."""


class DisagreementError(GenerationError):
    """A rebuild and what the published rows have become by increments differ; nothing was published.

    Attributes:
        differences: one value a table that differs.
    """

    exit_code = 4

    def __init__(self, message: str, differences: Sequence[Any] = ()) -> None:
        self.differences = tuple(differences)
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        """Cross process borders with its differences."""
        return (DisagreementError, (str(self), self.differences))
