"""The code that a domain declares, and the keys of its digests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from refold.event_schemas import ContractError, Registry, Upcaster
from refold.event_schemas.decider import Decider
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.code_identity.identity import DeclaredCode
from refold.warehouse.declarations.projection import Fold, ReadModel, code_of


def fold_key(name: str) -> str:
    """Return the key of a fold's code."""
    return f"fold {name}"


def upcaster_key(step: Upcaster) -> str:
    """Return the key of an upcaster's code."""
    return f"upcaster {step.sources[0].event_type} v{step.sources[0].schema_version}"


def decider_key(name: str) -> str:
    """Return the key of the code that a decider's snapshots depend on."""
    return f"decider {name}"


class CodeDigests:
    """The digest of each function that rows or snapshots depend on, by key.

    Digests are computed when the domain is declared, or at their first use if the module of a helper is still being
    loaded then; they stay what they were. So they are those of the code that runs, even if its file changes.

    Args:
        registry: the contracts and upcasters.
        read_models: the read models.
        deciders: the deciders; only the state of those with snapshots counts.

    Raises:
        ProjectionError: a fold depends on something that cannot be seen, and has no ``version=``.
        ContractError: an upcaster does, or a decider whose state has snapshots.
    """

    def __init__(self, registry: Registry, read_models: Iterable[ReadModel], deciders: Iterable[Decider[Any]]) -> None:
        self._code = {fold_key(m.name): code_of(m) for m in read_models if isinstance(m, Fold)}
        for step in registry.upcasters:
            if step.form is not Form.SQL:
                where = step.name[0].upper() + step.name[1:]
                self._code[upcaster_key(step)] = DeclaredCode(where, step.function, step.version, ContractError)
        for decider in deciders:
            if decider.snapshot is not None:
                self._code[decider_key(decider.name)] = _code_of_state(decider, registry)
        self._digests = {key: digest for key, code in self._code.items() if (digest := code.check()) is not None}

    def __getitem__(self, key: str) -> str:
        """Return a digest.

        Raises:
            RefoldError: a name that the code uses still has no value.
        """
        if key not in self._digests:
            self._digests[key] = self._code[key].digest()
        return self._digests[key]


def _code_of_state(decider: Decider[Any], registry: Registry) -> DeclaredCode:
    """Return what a state depends on: its own functions, and the classes of the events that it gets."""
    assert decider.snapshot is not None
    events = tuple(registry.classes[name] for name in sorted(registry.classes))
    used = (decider.evolve, decider.initial_state, decider.snapshot.dump, decider.snapshot.load, *events)
    return DeclaredCode(f"Decider {decider.name}", used, decider.version, ContractError)
