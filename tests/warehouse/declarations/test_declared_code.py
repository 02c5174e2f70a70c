"""What is declared with code that cannot be seen asks for a version; what rows and snapshots depend on changes both."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from refold.event_schemas import ContractError, ProjectionError, RecordedEvent, Upcaster, event, merger, upcaster
from refold.event_schemas.decider import Decider, StateCodec, command
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts, state_digest
from refold.warehouse.declarations.projection import Fold

OLD = pa.schema([pa.field("sku", pa.string(), nullable=False)])
FACTORS = {"a": 1}


@event(schema_version=2)
class Sold:
    """A sale."""

    sku: str
    factor: int

    @property
    def doubled(self) -> int:
        """Twice the factor."""
        return 2 * self.factor


@command
class Sell:
    """Sell one."""

    sku: str


@dataclasses.dataclass(frozen=True)
class Stock:
    """The state of a stream."""

    sold: int = 0


def by_factors(stored: RecordedEvent) -> list[Any]:
    """Look up the factor."""
    return [Sold(sku=stored.payload["sku"], factor=FACTORS[stored.payload["sku"]])]


def by_environment(stored: RecordedEvent) -> list[Any]:
    """Read the factor from the environment."""
    return [Sold(sku=stored.payload["sku"], factor=int(os.environ["FACTOR"]))]


def _step(function: Callable[..., Any], **options: Any) -> Upcaster:
    return upcaster(Sold, from_version=1, schema=OLD, **options)(function)


def remember(state: dict[str, int] | None, sold: Any) -> dict[str, int]:
    """Add up."""
    return {"n": (state["n"] if state else 0) + FACTORS["a"] * sold.factor}


def remember_by_environment(state: dict[str, int] | None, sold: Any) -> dict[str, int]:
    """Add up by what the environment says."""
    return {"n": (state["n"] if state else 0) + int(os.environ["FACTOR"])}


def _fold(function: Callable[..., Any], **options: Any) -> Fold:
    on: dict[type, str] = {Sold: "SELECT sku, factor"}
    return Fold(name="f", key={"sku": "VARCHAR"}, columns={"n": "BIGINT"}, on=on, fold=function, **options)


def _domain(*, step: Upcaster | None = None, fold: Fold | None = None, decider: Decider[Any] | None = None) -> Domain:
    return Domain(
        name="shop",
        events=(Sold,),
        upcasters=(step or _step(by_factors),),
        read_models=(fold or _fold(remember),),
        deciders=(decider,) if decider else (),
    )


def test_a_fold_whose_code_cannot_be_seen_needs_a_version() -> None:
    """The error names the fold, what it cannot see and the way out; a version stands for it, and counts."""
    with pytest.raises(ProjectionError, match=r'Fold f .* remember_by_environment > os > os.environ.* version="1"'):
        _fold(remember_by_environment)
    found = [_domain(fold=_fold(remember_by_environment, version=v)) for v in ("1", "1", "2")]
    first, same, other = [fingerprint(fingerprint_parts(d.read_models[0], d)) for d in found]
    assert first == same != other
    with pytest.raises(ProjectionError, match="expected text"):
        _fold(remember, version=1)


def test_a_helper_below_the_fold_is_checked_with_the_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold and its domain may be declared above a helper, which must be there when they are used."""
    fold = _fold(lambda state, sold: {"n": below(state)})  # type: ignore[name-defined]  # noqa: F821
    domain = _domain(fold=fold)
    with pytest.raises(ProjectionError, match="`below`, which is not defined yet"):
        fingerprint_parts(fold, domain)
    monkeypatch.setitem(globals(), "below", lambda state: 1)
    assert fingerprint_parts(fold, domain) == fingerprint_parts(fold, domain)


def test_an_upcaster_whose_code_cannot_be_seen_needs_a_version() -> None:
    """An upcaster in Python, and a merger, are checked when the domain is declared."""
    with pytest.raises(ContractError, match=r"Upcaster by_environment \(from Sold v1\) .* os.environ"):
        _domain(step=_step(by_environment))
    _domain(step=_step(by_environment, version="2026-01"))
    joined = merger([(Sold, 1, OLD)], into=Sold)(lambda run: by_environment(run[0]))
    with pytest.raises(ContractError, match=r"os.environ"):
        _domain(step=joined)


def test_a_value_that_an_upcaster_reads_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed constant of an upcaster is a change of the read models of its events."""
    before = _domain()
    monkeypatch.setitem(FACTORS, "a", -1)
    after = _domain()
    parts = [fingerprint_parts(d.read_models[0], d) for d in (before, after)]
    assert {name for name in parts[0] if parts[0][name] != parts[1][name]} == {"declaration", "upcaster Sold v1"}
    assert fingerprint_parts(before.read_models[0], before) == parts[0], "what runs is what was declared"


def _decider(**options: Any) -> Decider[Any]:
    defaults: dict[str, Any] = {
        "name": "stock",
        "commands": (Sell,),
        "stream_id": lambda command: command.sku,
        "initial_state": Stock,
        "evolve": lambda state, sold: Stock(state.sold + sold.factor),
        "decide": lambda command, state: [Sold(sku=command.sku, factor=1)],
    }
    return Decider(**{**defaults, **options})


def test_all_that_a_state_depends_on_counts_for_its_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state depends on its own functions and codec, and on the upcasters and contracts of its events."""

    def digest(decider: Decider[Any] | None = None, **options: Any) -> str:
        domain = _domain(decider=decider or _decider(), **options)
        return state_digest(domain.deciders[0], domain)

    before = digest()
    assert digest() == before
    assert digest(_decider(decide=lambda command, state: [])) == before, "a decision is no part of a state"
    others = [
        digest(_decider(evolve=lambda state, sold: Stock(state.sold - sold.factor))),
        digest(_decider(initial_state=lambda: Stock(sold=1))),
        digest(_decider(snapshot=StateCodec("1", dump=lambda state: state.sold, load=lambda kept: Stock(kept)))),
        digest(_decider(snapshot=StateCodec("1", dump=lambda state: state.sold, load=lambda kept: Stock(-kept)))),
        digest(_decider(version="2")),
        digest(step=_step(lambda stored: [Sold(sku=stored.payload["sku"], factor=7)])),
    ]
    monkeypatch.setitem(FACTORS, "a", -1)
    others.append(digest())
    monkeypatch.setattr(Sold, "doubled", property(lambda self: 3 * self.factor))
    others.append(digest())
    assert len({before, *others}) == len(others) + 1


def test_a_decider_without_snapshots_needs_no_version() -> None:
    """Nothing is kept of a state that has no snapshots, so its code may read anything."""
    by_environment = _decider(initial_state=lambda: int(os.environ.get("SOLD", "0")), evolve=lambda state, sold: state)
    _domain(decider=by_environment)
    with pytest.raises(ContractError, match=r"Decider stock .* os.environ"):
        _domain(decider=_decider(evolve=lambda state, sold: Stock(int(os.environ["SOLD"]))))
    _domain(decider=_decider(evolve=lambda state, sold: Stock(int(os.environ["SOLD"])), version="1"))
