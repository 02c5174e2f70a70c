"""Storage: the event log, declarations of read models, and their published generations. Never imports Beam."""

from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.declarations.projection import (
    Delete,
    Fold,
    Projection,
    View,
)
from refold.warehouse.declarations.reducers import (
    collect,
    count,
    count_distinct,
    first,
    latest,
    maximum,
    minimum,
    total,
)
from refold.warehouse.event_log.append import (
    Appended,
    Appender,
    NewEvent,
    StreamAppend,
)
from refold.warehouse.event_log.log import EventLog, create_log, open_log
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations

__all__ = [
    "Appended",
    "Appender",
    "Delete",
    "Domain",
    "EventLog",
    "Fold",
    "Generation",
    "Generations",
    "NewEvent",
    "Projection",
    "StreamAppend",
    "View",
    "collect",
    "count",
    "count_distinct",
    "create_log",
    "first",
    "latest",
    "load_domain",
    "maximum",
    "minimum",
    "open_generations",
    "open_log",
    "total",
]
