"""A domain in which a total may leave its column: the coins of tills, by day."""

from __future__ import annotations

from refold.event_schemas import event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Lookup
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import total


@event(schema_version=1)
class Counted:
    """Coins of a till were counted."""

    till: str
    day: int
    coins: int


COINS = Projection(
    name="coins",
    key={"till": "VARCHAR", "day": "INTEGER"},
    columns={"coins": total("TINYINT"), "counts": total("BIGINT")},
    on={Counted: "SELECT till, day, coins, 1 AS counts"},
    derived={"twice": "2 * counts"},
)
TILLS = Domain(
    name="tills",
    events=(Counted,),
    read_models=(COINS,),
    endpoints=(
        Lookup(path="/coins/{till}/{day}", table="coins", text="One day."),
        Lookup(path="/coins/{till}/{day}/twice/{twice}", table="coins", text="One day, by a derived column too."),
        Lookup(path="/coins/{till}", table="coins", text="All days."),
    ),
)
