"""The decider of subscriptions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from refold.event_schemas.decider import Decider, Decision, Rejected
from refold.event_schemas.orders import commands as c
from refold.event_schemas.orders import events as e
from refold.event_schemas.orders.limits import CURRENCY


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """The status of a subscription (``new``, which is not started yet, ``active``, ``cancelled``) and its customer."""

    status: str = "new"
    customer_id: str = ""


def evolve_subscription(state: SubscriptionState, event: Any) -> SubscriptionState:
    """Return the state of a subscription after an event."""
    match event:
        case e.SubscriptionStarted():
            return SubscriptionState("active", event.customer_id)
        case e.SubscriptionCancelled():
            return replace(state, status="cancelled")
    return state


def decide_subscription(command: Any, state: SubscriptionState) -> Decision:
    """Return the events that a command leads to, or why it is rejected."""
    if isinstance(command, c.StartSubscription):
        return _start(command, state)
    if state.status == "new":
        return Rejected("no_such_subscription", f"There is no subscription {command.subscription_id}; start it first.")
    if state.status == "cancelled":
        return Rejected("already_cancelled", "The subscription is cancelled.")
    cancelled = e.SubscriptionCancelled(
        subscription_id=command.subscription_id, customer_id=state.customer_id, reason=command.reason
    )
    return [cancelled]


def _start(command: c.StartSubscription, state: SubscriptionState) -> Decision:
    if not re.fullmatch(r"subscription-.+", command.subscription_id):
        return Rejected(
            "bad_subscription_id",
            f"A subscription's id starts with 'subscription-'; found {command.subscription_id!r}.",
        )
    if not command.customer_id:
        return Rejected("no_customer", "The customer_id is empty; a subscription needs a customer.")
    if not CURRENCY.fullmatch(command.currency):
        return Rejected("bad_currency", f"A currency is an ISO 4217 code such as EUR; found {command.currency!r}.")
    if command.monthly_price <= 0:
        return Rejected("bad_price", f"The monthly_price must be above 0; found {command.monthly_price}.")
    if state.status != "new":
        return Rejected(
            f"already_{'started' if state.status == 'active' else state.status}",
            f"The subscription {command.subscription_id} is {state.status}; start another one.",
        )
    started = e.SubscriptionStarted(
        subscription_id=command.subscription_id,
        customer_id=command.customer_id,
        plan=command.plan,
        monthly_price=command.monthly_price,
        currency=command.currency,
    )
    return [started]


def _subscription_stream(command: Any) -> str:
    return str(command.subscription_id)


SUBSCRIPTION = Decider(
    name="subscription",
    commands=(c.StartSubscription, c.CancelSubscription),
    stream_id=_subscription_stream,
    initial_state=SubscriptionState,
    evolve=evolve_subscription,
    decide=decide_subscription,
)
