"""The command handler and the snapshots of streams that it loads from."""
