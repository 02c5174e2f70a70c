"""HTTP as such: hosts, tokens, limits, request bodies, problem documents. Nothing here knows a read model."""
