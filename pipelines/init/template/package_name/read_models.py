"""The read side: a table that is kept up to date event by event, and a view of it."""

from refold import Projection, View, count, maximum

from package_name.events import TicketClosed, TicketOpened

TICKETS_BY_CUSTOMER = Projection(
    name="tickets_by_customer",
    key={"customer": "VARCHAR"},
    columns={
        "opened": count(),
        "urgent": count(),
        "closed": count(),
        "last_event_at": maximum("TIMESTAMPTZ"),
    },
    on={
        TicketOpened: """
            SELECT customer, 1 AS opened, CASE WHEN priority = 'high' THEN 1 END AS urgent,
                   occurred_at AS last_event_at
        """,
        TicketClosed: "SELECT customer, 1 AS closed, occurred_at AS last_event_at",
    },
)

CUSTOMERS_WAITING = View(
    "customers_waiting",
    """
    SELECT customer, opened - closed AS open_tickets, last_event_at
    FROM tickets_by_customer
    WHERE opened > closed
    """,
)
