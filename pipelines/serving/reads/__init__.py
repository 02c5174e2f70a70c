"""Reads over HTTP: parameters, routes, batched queries, and their OpenAPI description."""
