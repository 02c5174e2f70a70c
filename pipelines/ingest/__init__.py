"""The import of foreign files: read, map, check, spool, and commit."""
