"""The query side: readers of published and live databases, and the queries that endpoints put to them."""
