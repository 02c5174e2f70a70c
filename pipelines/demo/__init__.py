"""The demo: a made-up shop's history, from its first append to published read models."""
