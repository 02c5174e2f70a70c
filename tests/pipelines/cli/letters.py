"""A domain that cannot apply some of its events, and the same domain after a fix."""

from __future__ import annotations

from refold.event_schemas import Registry, event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import count, latest, total


@event(schema_version=1)
class Weighed:
    """A parcel was put on a scale, which prints free text."""

    parcel: str
    printed: str


@event(schema_version=1)
class Lost:
    """A parcel was lost; the first domain does not declare this event."""

    parcel: str


def _weights(grams: str) -> Projection:
    return Projection(
        name="weights",
        key={"parcel": "VARCHAR"},
        columns={"grams": total("BIGINT")},
        on={Weighed: f"SELECT parcel, {grams} AS grams"},
    )


SEEN = Projection(
    name="seen",
    key={"parcel": "VARCHAR"},
    columns={"times": count(), "last": latest("VARCHAR")},
    on={Weighed: "SELECT parcel, 1 AS times, printed AS last"},
)
LOSSES = Projection(
    name="losses",
    key={"parcel": "VARCHAR"},
    columns={"times": count()},
    on={Weighed: "SELECT parcel, 0 AS times WHERE false", Lost: "SELECT parcel, 1 AS times"},
)
_LOSSES_UNKNOWN = Projection(
    name="losses",
    key={"parcel": "VARCHAR"},
    columns={"times": count()},
    on={Weighed: "SELECT parcel, 0 AS times WHERE false"},
)

_CAST = "CAST(printed AS BIGINT)"
_FIXED = "CAST(regexp_replace(printed, '[^0-9]', '', 'g') AS BIGINT)"

BROKEN = Domain(name="letters", events=(Weighed,), read_models=(_weights(_CAST), SEEN, _LOSSES_UNKNOWN))
HALF_FIXED = Domain(name="letters", events=(Weighed,), read_models=(_weights(_FIXED), SEEN, _LOSSES_UNKNOWN))
FIXED = Domain(name="letters", events=(Weighed, Lost), read_models=(_weights(_FIXED), SEEN, LOSSES))
KNOWING = Domain(name="letters", events=(Weighed, Lost), read_models=(_weights(_CAST), SEEN, _LOSSES_UNKNOWN))
"""It declares the event of lost parcels, which no read model handles."""
SMALLER = Domain(name="letters", events=(Weighed,), read_models=(_weights(_CAST), SEEN))
"""It no longer declares one read model."""

WRITER = Registry(events=[Weighed, Lost])
"""The events that the appending service declares."""
