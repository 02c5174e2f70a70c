"""The decider of an article's stock.

It knows what was received and adjusted. What orders reserve and ship is in their own streams; the read model
``inventory_status`` brings the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from refold.event_schemas.decider import Decider, Decision, Rejected
from refold.event_schemas.orders import commands as c
from refold.event_schemas.orders import events as e
from refold.event_schemas.orders.limits import MAX_MONEY, MAX_PIECES


@dataclass(frozen=True, slots=True)
class StockState:
    """The stock of an article: what was received, plus adjustments."""

    on_hand: int = 0


def evolve_stock(state: StockState, event: Any) -> StockState:
    """Return the state of an article's stock after an event."""
    if isinstance(event, e.StockReceived | e.StockAdjusted):
        return StockState(state.on_hand + event.quantity)
    return state


def decide_stock(command: Any, state: StockState) -> Decision:
    """Return the events that a command leads to, or why it is rejected."""
    if not command.sku:
        return Rejected("no_sku", "The sku is empty; name the article.")
    if abs(command.quantity) > MAX_PIECES:
        return Rejected("bad_quantity", f"At most {MAX_PIECES} pieces can move at once; found {command.quantity}.")
    if isinstance(command, c.ReceiveStock):
        if command.quantity <= 0:
            return Rejected("bad_quantity", f"At least one piece must be received; found {command.quantity}.")
        if not 0 <= command.unit_cost < MAX_MONEY:
            return Rejected("bad_price", f"The unit_cost must be at least 0 and less than {MAX_MONEY:,f}.")
        received = e.StockReceived(
            sku=command.sku,
            quantity=command.quantity,
            unit_cost=command.unit_cost,
            best_before=command.best_before,
        )
        return [received]
    if command.quantity == 0:
        return []
    if state.on_hand + command.quantity < 0:
        return Rejected(
            "not_in_stock", f"The stock of {command.sku} is {state.on_hand}; it cannot fall by {-command.quantity}."
        )
    return [e.StockAdjusted(sku=command.sku, quantity=command.quantity, reason=command.reason)]


def _stock_stream(command: Any) -> str:
    return f"stock-{command.sku}"


STOCK = Decider(
    name="stock",
    commands=(c.ReceiveStock, c.AdjustStock),
    stream_id=_stock_stream,
    initial_state=StockState,
    evolve=evolve_stock,
    decide=decide_stock,
)
