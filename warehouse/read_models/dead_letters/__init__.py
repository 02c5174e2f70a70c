"""Dead letters: events that a read model lacks, and their retry."""
