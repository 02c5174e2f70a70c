"""Plans: the read models that need a rebuild, the reasons, and the estimated cost."""
