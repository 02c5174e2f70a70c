"""Event sourcing at data-pipeline scale: an event log in Parquet, replayed into DuckDB read models."""

__version__ = "0.1.0"
