"""Checks of one chunk of foreign rows against the contracts."""
