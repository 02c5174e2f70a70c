"""The write side: which events a command on a ticket leads to, or why it is rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from refold import Decider, Rejected, command

from package_name.events import TicketClosed, TicketOpened


@command
class OpenTicket:
    """Ask for help."""

    ticket_id: str
    customer: str
    priority: str = "normal"


@command
class CloseTicket:
    """Report that a ticket is solved."""

    ticket_id: str
    solution: str


@dataclass(frozen=True, slots=True)
class TicketState:
    """A ticket, as far as decisions need it."""

    status: str = "new"
    customer: str = ""


def evolve(state: TicketState, event: Any) -> TicketState:
    """Apply an event to the state."""
    match event:
        case TicketOpened():
            return TicketState("open", event.customer)
        case TicketClosed():
            return TicketState("closed", event.customer)
    return state


def decide(command: Any, state: TicketState) -> list[object] | Rejected:
    """Return the events that a command leads to, or why it is rejected."""
    match command:
        case OpenTicket() if state.status != "new":
            return Rejected("already_opened", f"Ticket {command.ticket_id} exists.")
        case OpenTicket() if command.priority not in ("normal", "high"):
            return Rejected("unknown_priority", "The priority is normal or high.")
        case OpenTicket():
            return [
                TicketOpened(ticket_id=command.ticket_id, customer=command.customer, priority=command.priority),
            ]
        case CloseTicket() if state.status != "open":
            return Rejected("not_open", f"Ticket {command.ticket_id} is {state.status}.")
        case CloseTicket():
            return [
                TicketClosed(ticket_id=command.ticket_id, customer=state.customer, solution=command.solution),
            ]
    raise AssertionError(command)


TICKET = Decider(
    name="ticket",
    commands=(OpenTicket, CloseTicket),
    stream_id=lambda command: f"ticket-{command.ticket_id}",
    initial_state=TicketState,
    evolve=evolve,
    decide=decide,
)
