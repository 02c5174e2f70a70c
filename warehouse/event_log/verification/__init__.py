"""Verification of a log: checks of commits, segments, streams and positions, and the findings."""
