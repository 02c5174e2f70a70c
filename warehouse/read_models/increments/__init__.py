"""Increments: spans of commits, applied to a database in one transaction each."""
