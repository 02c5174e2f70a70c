"""Which events commands lead to."""

from refold.testing import scenarios

from package_name.domain import DOMAIN
from package_name.events import TicketClosed, TicketOpened
from package_name.ticket import CloseTicket, OpenTicket

given = scenarios(DOMAIN)

OPENED = TicketOpened(ticket_id="1", customer="ada", priority="high")
CLOSED = TicketClosed(ticket_id="1", customer="ada", solution="restarted")


def test_a_ticket_is_opened_once() -> None:
    """The second command is rejected."""
    command = OpenTicket(ticket_id="1", customer="ada", priority="high")
    given([]).when(command).then([OPENED])
    given([OPENED]).when(command).then_rejected("already_opened")


def test_only_an_open_ticket_is_closed() -> None:
    """The event has the customer that the ticket was opened for."""
    command = CloseTicket(ticket_id="1", solution="restarted")
    given([OPENED]).when(command).then([CLOSED])
    given([]).when(command).then_rejected("not_open")
    given([OPENED, CLOSED]).when(command).then_rejected("not_open")
