"""Declarations of a domain: projections, folds, views, reducers, endpoints. Values, checked when they are made."""
