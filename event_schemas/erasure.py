"""The event that says that the personal data of a subject was erased."""

from __future__ import annotations

from refold.event_schemas.event import event

ERASURES = "refold-erasures"
"""The stream of these events; its version is the number of a log's erasures."""


@event(schema_version=1, name="refold.subject_erased")
class SubjectErased:
    """The keys of a subject were destroyed. Every domain with personal fields knows this event.

    Attributes:
        subject_field: the field that names the subject in events, such as ``customer_id``.
        subject: its value there. It stays in other events of the log, too: it is a pseudonym without the erased data.
        reason: why it was erased.
        key_ids: the keys that were destroyed.
    """

    subject_field: str
    subject: str
    reason: str
    key_ids: list[str]
