"""Increments: spans of commits, each applied to a database in one transaction."""
