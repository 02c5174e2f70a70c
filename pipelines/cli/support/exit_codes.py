"""Exit codes beside those of the error tree: 1 for a failure, 2 for usage, 3 for a concurrency conflict."""

OBJECTIVE_MISSED = 4
"""A lag is beyond its objective, or published rows differ from a rebuild."""

WORK_TO_DO = 5
"""``refold plan`` found something to rebuild or publish."""

ROWS_REJECTED = 6
"""``refold ingest`` imported a file without some of its rows, or none of it."""

STOPPED = 130
"""Ctrl-C or SIGTERM ended the command, as shells report it."""
