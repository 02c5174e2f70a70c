"""Verification of a log: commits, segments, and what was found."""
