"""Comparing read models: row by row, as text, and as the check before a publish."""
