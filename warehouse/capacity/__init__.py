"""Capacity planning: the standard formulas, and a forecast from the user's own log."""
