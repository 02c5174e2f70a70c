"""DuckDB as refold uses it: SQL text, connections, and values on their way to and from Arrow."""
