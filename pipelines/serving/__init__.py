"""The HTTP API of ``refold serve``."""
