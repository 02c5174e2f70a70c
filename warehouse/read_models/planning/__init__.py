"""Plans: which read models need a rebuild, why, and what it will cost."""
