"""The trading domain as one value."""

from __future__ import annotations

from refold.event_schemas.trading import EVENTS, UPCASTERS
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.trading.projections import AVERAGE_COST_POSITIONS, TRADER_PERFORMANCE_SUMMARY

TRADING = Domain(
    name="trading",
    events=EVENTS,
    upcasters=UPCASTERS,
    read_models=(TRADER_PERFORMANCE_SUMMARY, AVERAGE_COST_POSITIONS),
)
"""Trades, positions and cash of many traders."""
