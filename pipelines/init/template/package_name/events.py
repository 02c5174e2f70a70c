"""The events of support tickets, each in its newest schema version, and the upcasters of older ones."""

import pyarrow as pa
from refold import event, upcaster


@event(schema_version=2)
class TicketOpened:
    """A customer asked for help.

    Attributes:
        ticket_id: the ticket.
        customer: who asked.
        priority: ``normal`` or ``high``; new in version 2.
    """

    ticket_id: str
    customer: str
    priority: str


@event(schema_version=1)
class TicketClosed:
    """A ticket was solved."""

    ticket_id: str
    customer: str
    solution: str


TICKET_OPENED_V1 = pa.schema(
    [
        pa.field("ticket_id", pa.string(), nullable=False),
        pa.field("customer", pa.string(), nullable=False),
    ]
)


@upcaster(TicketOpened, from_version=1, schema=TICKET_OPENED_V1)
def add_priority() -> str:
    """Give tickets the priority that all had before there was a choice."""
    return "SELECT *, 'normal' AS priority FROM event"
