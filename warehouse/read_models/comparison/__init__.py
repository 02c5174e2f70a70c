"""Comparing read models: row by row, in words, and as the gate before a publish."""
