"""Replay: stored events are converted to the newest schema versions, and contribute to read models."""
