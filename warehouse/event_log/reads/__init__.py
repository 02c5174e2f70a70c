"""Reading the log: scans, single streams, positions, places by position or time, statistics."""
