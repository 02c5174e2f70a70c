"""Reads over HTTP: parameters, routes, queries that run together, and their OpenAPI description."""
