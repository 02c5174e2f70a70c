# What `from refold import ...` offers: lazy_loader reads this file at run time, type checkers read it too.
from .event_schemas.decider import Decider, Rejected, command
from .event_schemas.envelope import RecordedEvent
from .event_schemas.errors import (
    ConcurrencyError,
    ContractError,
    DamagedLogError,
    DisagreementError,
    EmptyLogError,
    GenerationError,
    InvalidEventsError,
    LogError,
    ObjectNotFoundError,
    PayloadError,
    ProjectionError,
    RefoldError,
    StoreError,
    StoreNotConditionalError,
    UnknownEventTypeError,
    UnknownSchemaVersionError,
    UsageError,
)
from .event_schemas.event import event
from .event_schemas.registry import Registry
from .event_schemas.upcasting import merger, upcaster
from .pipelines.beam.runners import beam_options
from .pipelines.ingest.ingest import ingest
from .pipelines.rebuild.as_of import rebuild_as_of
from .pipelines.rebuild.rebuild import rebuild
from .pipelines.rebuild.reconcile import reconcile
from .pipelines.rebuild.refresh import refresh
from .pipelines.seal import seal
from .pipelines.stream.stream import stream
from .warehouse.commands.handler import CommandHandler, CommandRequest, Handled
from .warehouse.declarations.domain import Domain, load_domain
from .warehouse.declarations.endpoints import Lookup, Parameter, Report
from .warehouse.declarations.projection import Delete, Fold, Projection, View
from .warehouse.declarations.reducers import collect, count, count_distinct, first, latest, maximum, minimum, total
from .warehouse.event_log.append import Appended, Appender, NewEvent, StreamAppend
from .warehouse.event_log.log import EventLog, create_log, open_log
from .warehouse.event_log.reads.read import read_category, read_correlation, read_positions, read_stream, tail
from .warehouse.event_log.reads.stats import stats
from .warehouse.event_log.verification.verify import verify
from .warehouse.read_models.generations.generations import Generation, Generations, open_generations

__all__ = [
    "Appended",
    "Appender",
    "CommandHandler",
    "CommandRequest",
    "ConcurrencyError",
    "ContractError",
    "DamagedLogError",
    "Decider",
    "Delete",
    "DisagreementError",
    "Domain",
    "EmptyLogError",
    "EventLog",
    "Fold",
    "Generation",
    "GenerationError",
    "Generations",
    "Handled",
    "InvalidEventsError",
    "LogError",
    "Lookup",
    "NewEvent",
    "ObjectNotFoundError",
    "Parameter",
    "PayloadError",
    "Projection",
    "ProjectionError",
    "RecordedEvent",
    "RefoldError",
    "Registry",
    "Rejected",
    "Report",
    "StoreError",
    "StoreNotConditionalError",
    "StreamAppend",
    "UnknownEventTypeError",
    "UnknownSchemaVersionError",
    "UsageError",
    "View",
    "beam_options",
    "collect",
    "command",
    "count",
    "count_distinct",
    "create_log",
    "event",
    "first",
    "ingest",
    "latest",
    "load_domain",
    "maximum",
    "merger",
    "minimum",
    "open_generations",
    "open_log",
    "read_category",
    "read_correlation",
    "read_positions",
    "read_stream",
    "rebuild",
    "rebuild_as_of",
    "reconcile",
    "refresh",
    "seal",
    "stats",
    "stream",
    "tail",
    "total",
    "upcaster",
    "verify",
]

__version__: str
