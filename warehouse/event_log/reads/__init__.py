"""Reading the log: scans, single streams, positions, statistics."""
