"""The tables and views that an endpoint reads, those behind its views included."""

from __future__ import annotations

import duckdb

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Endpoint, Lookup
from refold.warehouse.engine.scratch import scratch


def sources_of(endpoint: Endpoint, domain: Domain) -> frozenset[str]:
    """Return the names of the read models and views that an endpoint reads.

    Example:
        >>> from refold import load_domain
        >>> orders = load_domain("orders")
        >>> sources_of(orders.endpoints[0], orders)
        frozenset({'order_summary'})
    """
    views = {view.name.lower(): view for view in domain.views}
    names = {model.name.lower(): model.name for model in domain.read_models}
    found: set[str] = set()
    open_names = [endpoint.table] if isinstance(endpoint, Lookup) else list(_tables(endpoint.sql))
    while open_names:
        name = open_names.pop().lower()
        if name in names:
            found.add(names[name])
        elif name in views and views[name].name not in found:
            found.add(views[name].name)
            open_names += _tables(views[name].select)
    return frozenset(found)


def _tables(sql: str) -> set[str]:
    with scratch() as connection:
        try:
            return set(connection.get_table_names(sql))
        except duckdb.Error:  # a statement that DuckDB binds, but does not analyse
            return set()
