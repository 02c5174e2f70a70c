"""The import of files: read, map, check, spool, and commit.

``formats`` reads files into chunks of rows, ``checks`` turns each chunk into typed events and invalid rows, and
``ingest`` runs the import from end to end.
"""
