"""Rebuilding read models: units that workers stage, their merge, and seeds."""
