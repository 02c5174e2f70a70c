"""The live database of a stream: its heartbeat, its indexes, and the process that publishes copies of it."""
