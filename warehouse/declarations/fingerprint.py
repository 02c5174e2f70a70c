"""Fingerprints: digests of what a read model's rows depend on. They change with the logic, and not with its layout.

SQL is compared as DuckDB writes it, Python by the identity of its code (see ``code_identity``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from refold.event_schemas import Upcaster
from refold.event_schemas.decider import Decider
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.declared_code import decider_key, fold_key, upcaster_key
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Fold, ReadModel, View
from refold.warehouse.engine.sql import SqlError
from refold.warehouse.engine.syntax_tree import normalised

Parts = dict[str, str]
"""Name of a part (``declaration``, ``seed``, ``handler OrderPlaced``, ``upcaster …``, ``schema …``) to its
digest."""


def fingerprint_parts(model: ReadModel, domain: Domain) -> Parts:
    """Return a digest of each part that the rows of a read model depend on."""
    parts: Parts = {"declaration": _digest(_declaration(model, domain))}
    if model.seed is not None:
        parts["seed"] = _digest(normalised(model.seed))
    for handler in model.handlers:
        parts[f"handler {handler.event_type}"] = _digest([handler.sql.text, handler.deletes])
    return {**parts, **_event_parts(domain, (h.event_type for h in model.handlers))}


def state_digest(decider: Decider[Any], domain: Domain) -> str:
    """Return a digest of all that the state of a decider's streams depends on.

    A stream may hold any event of the domain, so all contracts and upcasters count.
    """
    assert decider.snapshot is not None
    events = _event_parts(domain, domain.registry.classes)
    return _digest([decider.name, decider.snapshot.schema, domain.code[decider_key(decider.name)], events])


def _event_parts(domain: Domain, event_types: Iterable[str]) -> Parts:
    """Return a digest of each stored schema that these events come from, and of each upcaster on the way."""
    parts: Parts = {}
    for event_type, version in sorted({key for t in event_types for key in domain.registry.sources(t)}):
        parts[f"schema {event_type} v{version}"] = _digest(str(domain.registry.schema(event_type, version)))
        if (step := domain.registry.upcaster((event_type, version))) is not None:
            parts[f"upcaster {event_type} v{version}"] = _digest(_upcaster(step, domain))
    return parts


def view_digest(view: View) -> str:
    """Return the digest of a view's SQL; if DuckDB cannot serialise it, of its exact text."""
    try:
        return _digest(normalised(view.select))
    except SqlError:
        return _digest(view.select)


def view_digests(domain: Domain) -> dict[str, str]:
    """Return the digest of each view of a domain."""
    return {view.name: view_digest(view) for view in domain.views}


def fingerprint(parts: Parts) -> str:
    """Return one digest of all parts."""
    return _digest(parts)


def _declaration(model: ReadModel, domain: Domain) -> list[Any]:
    if isinstance(model, Fold):
        return ["fold", dict(model.key), dict(model.columns), domain.code[fold_key(model.name)]]
    counted = {name: model.contributed[name] for name in model.distinct_columns()}
    columns = {name: [r.kind.value, counted.get(name, r.type)] for name, r in model.columns.items()}
    return ["projection", dict(model.key), columns, dict(model.derived)]


def _upcaster(step: Upcaster, domain: Domain) -> list[Any]:
    text = normalised(step.sql()) if step.form is Form.SQL else domain.code[upcaster_key(step)]
    return [step.form.value, list(step.targets), text]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
