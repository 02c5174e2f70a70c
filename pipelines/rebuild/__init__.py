"""Rebuilds: replay the log in parallel, load, publish; and what is built on them (as-of, reconcile, refresh)."""
