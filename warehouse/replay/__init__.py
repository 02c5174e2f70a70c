"""Replay: stored events become events of the newest version, then contributions of read models."""
