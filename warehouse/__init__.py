"""Storage: the event log, declarations of read models, and their published generations. Never imports Beam.

A user imports these names from ``refold``.
"""
