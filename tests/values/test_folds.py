"""Hostile values as states of folds: what comes out is what went in, or an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from refold.event_schemas import ProjectionError, event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Fold
from refold.warehouse.event_log import Appender, create_log
from tests.properties.engine import seal
from tests.values.hostile import FLOAT, NOT_WRITABLE, Hostile
from tests.values.logs import same, shown, tables
from tests.values.shapes import FULL, SAMPLE, Field

pytestmark = pytest.mark.slow


@event(schema_version=1)
class Named:
    """The state of a stream gets the value of this name."""

    name: str


STATES = {"nan", "infinity", "minus_infinity"}
"""Values that no event has, and a DOUBLE of a state."""

SPELLED = {"exponent", "plus", "number", "upper_case", "no_zone"}
"""Values that an event converts and a state does not, or the other way round."""


def written(field: Field) -> list[Hostile]:
    """Return the values that Python can write, each in one way only."""
    values = (v for v in (field.type.plain, *field.type.values) if v.python is not NOT_WRITABLE and not v.bulky)
    return [v for v in values if v.name not in SPELLED]


@cache
def looked_up(field: Field) -> Domain:
    """Return a domain whose fold looks values up."""
    values = {v.name: field.shape.wrap(v.python) for v in written(field)}
    model = Fold(
        name=field.event_type,
        key={"stream": "VARCHAR"},
        columns={"x": field.sql},
        on={Named: "SELECT stream_id AS stream, name"},
        fold=lambda state, named: {"x": values[named.name]},
        version="1",
    )
    return Domain(name="values", events=(Named,), read_models=(model,))


FOLDED = SAMPLE if FULL else SAMPLE[::3]


@pytest.mark.parametrize("field", FOLDED, ids=[f.event_type for f in FOLDED])
def test_a_state_is_shown_as_the_fold_returned_it_or_refused(field: Field, tmp_path: Path) -> None:
    """Alike in a stream and in a rebuild; the error of a state that its column cannot hold names the column."""
    domain = looked_up(field)
    for number, value in enumerate(written(field)):
        folder = tmp_path / str(number)
        log = create_log(str(folder / "log"), domain_name="values", bucket_count=1)
        Appender(log, domain.registry).append("s", [Named(name=value.name)])
        seal(log, domain.registry)
        with tables(folder / "stream", domain) as streamed, tables(folder / "rebuilt", domain) as rebuilt:
            for made, build in ((streamed, streamed.catch_up), (rebuilt, rebuilt.rebuild)):
                if value.is_refused and not (field.type is FLOAT and value.name in STATES):
                    with pytest.raises(
                        ProjectionError, match=f"Fold {field.event_type}, column x: the state has a value"
                    ):
                        build(log)
                    continue
                build(log)
                wanted = field.shape.wrap(value.python if value.is_refused else value.stored)
                assert same(shown(made, field.event_type)["s"], wanted), value.name
