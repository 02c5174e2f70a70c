"""Read models: tables built from the log, and published as immutable generations."""
