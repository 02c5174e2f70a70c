"""The write side: the command handler, decisions on a stream, and snapshots of its state."""
