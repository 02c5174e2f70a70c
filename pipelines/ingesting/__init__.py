"""Parts of ``refold ingest``: reading foreign files, mapping their columns to the envelope, checking, rejecting."""
