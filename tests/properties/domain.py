"""A domain that uses every feature of the engine, with each handler and SQL upcaster in both SQL and Python.

The Python side never sees SQL; ``reference.py`` folds it. ``DEPOT`` is applied to histories without invalid events,
``FRAGILE`` has the read models that fail on some events.
"""

from __future__ import annotations

from refold.event_schemas import Upcaster
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel, View
from tests.properties.depot.accounts import ACCOUNTS_AND_SKUS
from tests.properties.depot.contracts import EVENTS
from tests.properties.depot.folds import FOLDS
from tests.properties.depot.fragile import FRAGILE_MODELS
from tests.properties.depot.projections import PROJECTIONS
from tests.properties.depot.upcasters import LATER_STEPS, LATER_UPCASTERS, STEPS, UPCASTERS
from tests.properties.reference import Model

MODELS = (*ACCOUNTS_AND_SKUS, *PROJECTIONS, *FOLDS)
"""Read models with their meaning."""


def _domain(
    models: tuple[tuple[ReadModel, Model], ...],
    views: tuple[View, ...] = (),
    upcasters: tuple[Upcaster, ...] = UPCASTERS,
) -> Domain:
    return Domain(
        name="depot", events=EVENTS, upcasters=upcasters, read_models=tuple(m for m, _ in models), views=views
    )


DEPOT = _domain(
    MODELS, (View("owners_of_accounts", "SELECT owner, count(*) AS accounts FROM accounts GROUP BY owner"),)
)
FRAGILE = _domain(FRAGILE_MODELS)
REFERENCES: dict[str, Model] = {reference.name: reference for _, reference in (*MODELS, *FRAGILE_MODELS)}


def only(name: str) -> Domain:
    """Give the domain with one read model only, so that an example is quick and a failure has a name."""
    return _domain(_pairs(name))


def later(name: str) -> Domain:
    """Give the same with the upcaster that was changed later."""
    return _domain(_pairs(name), upcasters=LATER_UPCASTERS)


def _pairs(name: str) -> tuple[tuple[ReadModel, Model], ...]:
    return tuple(pair for pair in (*MODELS, *FRAGILE_MODELS) if pair[1].name == name)


__all__ = [
    "DEPOT",
    "FRAGILE",
    "FRAGILE_MODELS",
    "LATER_STEPS",
    "MODELS",
    "REFERENCES",
    "STEPS",
    "later",
    "only",
]
