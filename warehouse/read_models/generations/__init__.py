"""Generations: building, publishing, rolling back and collecting published databases."""
