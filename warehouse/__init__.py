"""Storage: the event log, declarations of read models, and their published generations. Never imports Beam."""

from warehouse.domain import Domain, load_domain
from warehouse.event_log.append import Appended, Appender, NewEvent, StreamAppend
from warehouse.event_log.log import EventLog, create_log, open_log
from warehouse.projection import Delete, Fold, Projection, View
from warehouse.read_models.generations import Generation, Generations, open_generations
from warehouse.reducers import collect, count, count_distinct, first, latest, maximum, minimum, total

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
