"""The code that a domain declares: the digest of each function that rows or snapshots depend on.

A digest is computed once, when the domain is declared: what runs is the code that was loaded then, even if its file or
a value that it reads changes afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from refold.event_schemas import ContractError, Registry, Upcaster
from refold.event_schemas.decider import Decider
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.code_identity.identity import checked_digest
from refold.warehouse.declarations.projection import Fold, ReadModel, fold_digest


def fold_key(name: str) -> str:
    """Return the key of a fold's code."""
    return f"fold {name}"


def upcaster_key(step: Upcaster) -> str:
    """Return the key of an upcaster's code."""
    return f"upcaster {step.sources[0].event_type} v{step.sources[0].schema_version}"


def decider_key(name: str) -> str:
    """Return the key of the code that a decider's snapshots depend on."""
    return f"decider {name}"


def declared_code(
    registry: Registry, read_models: Iterable[ReadModel], deciders: Iterable[Decider[Any]]
) -> Mapping[str, str]:
    """Return the digest of each function that rows or snapshots depend on, by key.

    Raises:
        ProjectionError: a fold depends on something that cannot be seen, and has no ``version=``.
        ContractError: an upcaster does, or a decider whose state has snapshots.
    """
    found = {fold_key(m.name): fold_digest(m, is_complete=True) for m in read_models if isinstance(m, Fold)}
    for step in registry.upcasters:
        if step.form is not Form.SQL:
            where = step.name[0].upper() + step.name[1:]
            found[upcaster_key(step)] = checked_digest(step.function, where, version=step.version, error=ContractError)
    for decider in deciders:
        if decider.snapshot is not None:
            found[decider_key(decider.name)] = _decider_digest(decider, registry)
    return found


def _decider_digest(decider: Decider[Any], registry: Registry) -> str:
    """Return the digest of what a state depends on: its own functions, and the classes of the events that it gets."""
    assert decider.snapshot is not None
    events = tuple(registry.classes[name] for name in sorted(registry.classes))
    used = (decider.evolve, decider.initial_state, decider.snapshot.dump, decider.snapshot.load, *events)
    return checked_digest(used, f"Decider {decider.name}", version=decider.version, error=ContractError)
