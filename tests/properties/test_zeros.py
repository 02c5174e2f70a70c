"""The two zeros of floats: the stored one is kept, except where equal values must look the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.event_schemas import event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import Reducer, collect, first, latest, maximum, minimum
from refold.warehouse.event_log import Appender, create_log
from tests.properties.engine import Tables, recomputed, seal


@event(schema_version=1)
class Measured:
    """A value was measured."""

    sensor: str
    value: float


TYPES = {
    "FLOAT": "value",
    "DOUBLE": "value",
    "DOUBLE[]": "[value, NULL]",
    "STRUCT(a FLOAT, b DOUBLE[])": "{'a': value, 'b': [value]}",
    "MAP(VARCHAR, DOUBLE)": "MAP {'a': value}",
}
FROM = {"one row an event": "", "several rows an event": " FROM (SELECT *, unnest([1, 2]) AS n FROM event)"}


@pytest.mark.parametrize("rows", FROM)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_zero_is_the_same_on_every_way(dtype: str, rows: str, tmp_path: Path) -> None:
    """``first``, ``latest`` and ``collect`` keep it; in a key and an extreme it is positive."""
    reducers: dict[str, Reducer] = {"f": first(dtype), "l": latest(dtype), "c": collect(dtype)}
    if not dtype.startswith("MAP"):
        reducers |= {"low": minimum(dtype), "high": maximum(dtype)}
    selected = ", ".join(f"CAST({TYPES[dtype]} AS {dtype}) AS {name}" for name in reducers)
    select = f"SELECT sensor, value AS key, {selected}{FROM[rows]}"
    model = Projection(name="m", key={"sensor": "VARCHAR", "key": "DOUBLE"}, columns=reducers, on={Measured: select})
    domain = Domain(name="lab", events=(Measured,), read_models=(model,))
    log = create_log(str(tmp_path / "log"), domain_name="lab", bucket_count=2)
    followed, rebuilt = (Tables(tmp_path / name, domain) for name in ("followed", "rebuilt"))
    for number in range(3):
        Appender(log, domain.registry).append(f"s-{number}", [Measured(sensor="a", value=-0.0)])
        followed.catch_up(log)
    seal(log, domain.registry)
    rebuilt.rebuild(log)
    [row] = rebuilt.rows("m")
    assert (str(row["key"]), "-0.0" in repr(row["f"]), "-0.0" in repr(row["l"])) == ("0.0", True, True)
    assert repr(row["c"]).count("-0.0") == 3 * repr(row["f"]).count("-0.0") * (2 if FROM[rows] else 1)
    assert not any("-0.0" in repr(row[name]) for name in ("low", "high") if name in row)
    assert repr(followed.rows("m")) == repr([row]) == repr(recomputed(log, domain)["m"].rows)
    followed.close()
    rebuilt.close()
