"""DuckDB as refold uses it: SQL text and syntax trees, connections, and values on their way to and from Arrow."""
