"""Declarations: domains, projections, folds, views, reducers, endpoints. Values, validated when they are made."""
