"""Dead letters: events that a read model goes without, and their retry."""
