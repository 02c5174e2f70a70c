"""`POST /query`: SQL from outside, run in child processes without files, network or much memory."""
