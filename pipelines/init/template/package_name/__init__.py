"""Support tickets: their events, commands and read models."""
