"""HTTP without read models: hosts, tokens, limits, request bodies, problem documents."""
