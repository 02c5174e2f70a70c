"""Checks of one chunk of rows against the contracts.

``chunk`` locates envelope and payload in the rows, ``check`` groups the rows by event type and schema version, and a
payload class (``column_payload``, ``document_payload``) turns each group into typed fields. ``value_rules`` holds the
rule of every type; all formats share it.
"""
