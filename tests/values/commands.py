"""A domain that takes the sampled fields as commands, for a server, which loads it by its name."""

from __future__ import annotations

from typing import Any

from refold.event_schemas.decider import Decider, command
from refold.warehouse.declarations.domain import Domain
from tests.values.shapes import SAMPLE, Field, class_of

REF = "tests.values.commands:TAKEN"


def put(field: Field) -> Decider[None]:
    """Return what turns the command ``Put_<field>`` into the event of the field."""
    annotations = {"stream": str, "x": field.annotation}
    cls: Any = command(type(f"Put_{field.event_type}", (), {"__annotations__": annotations}))

    def decide(given: Any, _state: None) -> list[Any]:
        return [class_of(field, 1)(x=given.x)]

    return Decider(
        name=field.event_type,
        commands=(cls,),
        stream_id=lambda given: given.stream,
        initial_state=lambda: None,
        evolve=lambda state, _event: state,
        decide=decide,
    )


TAKEN = Domain(
    name="values", events=tuple(class_of(field, 1) for field in SAMPLE), deciders=tuple(put(f) for f in SAMPLE)
)
