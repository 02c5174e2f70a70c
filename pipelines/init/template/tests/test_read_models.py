"""What the read models hold; ``then_rows`` applies the events one by one, and all at once."""

from refold import NewEvent
from refold.testing import scenarios

from package_name.domain import DOMAIN
from package_name.events import TicketClosed, TicketOpened

given = scenarios(DOMAIN)


def test_tickets_by_customer() -> None:
    """Opened, urgent and closed tickets are counted."""
    given(
        [
            TicketOpened(ticket_id="1", customer="ada", priority="high"),
            TicketOpened(ticket_id="2", customer="ada", priority="normal"),
            TicketClosed(ticket_id="1", customer="ada", solution="restarted"),
        ]
    ).then_rows("tickets_by_customer", [{"customer": "ada", "opened": 2, "urgent": 1, "closed": 1}])


def test_an_old_ticket_has_normal_priority() -> None:
    """Version 1 had no priority; the upcaster adds it."""
    old = NewEvent(payload={"ticket_id": "3", "customer": "bob"}, event_type="TicketOpened", schema_version=1)
    given([old]).then_rows("tickets_by_customer", [{"customer": "bob", "opened": 1, "urgent": 0}])
