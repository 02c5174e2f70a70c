"""Rebuilding a read model in units that workers stage and the driver merges."""
