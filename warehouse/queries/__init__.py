"""The query side: readers of published and live databases, and the questions that endpoints put to them."""
