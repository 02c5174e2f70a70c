# What `from refold import ...` offers: lazy_loader reads this file at run time, type checkers read it too.
from .event_schemas.decider import Decider, Rejected, StateCodec, command, command_from_json
from .event_schemas.envelope import RecordedEvent
from .event_schemas.erasure import SubjectErased
from .event_schemas.errors import (
    CommandConflictError,
    ConcurrencyError,
    ContractError,
    DamagedLogError,
    DamagedStagingError,
    DisagreementError,
    EmptyLogError,
    EventConflictError,
    GenerationError,
    InvalidEventsError,
    KeyStoreError,
    LogError,
    ObjectNotFoundError,
    PayloadError,
    ProjectionError,
    RefoldError,
    RejectedRowsError,
    StoreError,
    StoreNotConditionalError,
    StoreUnavailableError,
    UnknownEventTypeError,
    UnknownSchemaVersionError,
    UsageError,
)
from .event_schemas.event import event
from .event_schemas.personal import Personal
from .event_schemas.registry import Registry
from .event_schemas.upcasting import Upcaster, merger, upcaster
from .pipelines.beam.runners import beam_options
from .pipelines.erasure.erase import Erased, erase
from .pipelines.erasure.prove import Proof, Trace, prove_erasure
from .pipelines.ingest.ingest import Ingested, ingest
from .pipelines.rebuild.as_of import AsOf, rebuild_as_of
from .pipelines.rebuild.rebuild import Rebuilt, rebuild
from .pipelines.rebuild.reconcile import reconcile
from .pipelines.rebuild.reconciliation import Reconciliation
from .pipelines.rebuild.refresh import Refreshed, refresh
from .pipelines.seal import Sealed, seal
from .pipelines.stream.stream import ProgressReport, Streamed, stream
from .warehouse.commands.decisions import CommandRequest, Handled
from .warehouse.commands.handler import CommandHandler
from .warehouse.declarations.domain import Domain, load_domain
from .warehouse.declarations.endpoints import Lookup, Parameter, Report
from .warehouse.declarations.handlers import Delete
from .warehouse.declarations.projection import Fold, Projection, View
from .warehouse.declarations.reducers import collect, count, count_distinct, first, latest, maximum, minimum, total
from .warehouse.event_log.append import Appended, Appender
from .warehouse.event_log.log import EventLog
from .warehouse.event_log.new_events import NewEvent, StreamAppend
from .warehouse.event_log.opening import create_log, open_log
from .warehouse.event_log.reads.read import read_category, read_correlation, read_positions, read_stream, tail
from .warehouse.event_log.reads.stats import LogStats, stats
from .warehouse.event_log.verification.verify import Verification, verify
from .warehouse.personal.key_store import Key, KeyStore, Subject
from .warehouse.read_models.generations.generations import Generation, Generations, open_generations
from .warehouse.read_models.live.live_database import LiveDatabase

__all__ = [
    "Appended",
    "Appender",
    "AsOf",
    "CommandConflictError",
    "CommandHandler",
    "CommandRequest",
    "ConcurrencyError",
    "ContractError",
    "DamagedLogError",
    "DamagedStagingError",
    "Decider",
    "Delete",
    "DisagreementError",
    "Domain",
    "EmptyLogError",
    "Erased",
    "EventConflictError",
    "EventLog",
    "Fold",
    "Generation",
    "GenerationError",
    "Generations",
    "Handled",
    "Ingested",
    "InvalidEventsError",
    "Key",
    "KeyStore",
    "KeyStoreError",
    "LiveDatabase",
    "LogError",
    "LogStats",
    "Lookup",
    "NewEvent",
    "ObjectNotFoundError",
    "Parameter",
    "PayloadError",
    "Personal",
    "ProgressReport",
    "Projection",
    "ProjectionError",
    "Proof",
    "Rebuilt",
    "Reconciliation",
    "RecordedEvent",
    "RefoldError",
    "Refreshed",
    "Registry",
    "Rejected",
    "RejectedRowsError",
    "Report",
    "Sealed",
    "StateCodec",
    "StoreError",
    "StoreNotConditionalError",
    "StoreUnavailableError",
    "StreamAppend",
    "Streamed",
    "Subject",
    "SubjectErased",
    "Trace",
    "UnknownEventTypeError",
    "UnknownSchemaVersionError",
    "Upcaster",
    "UsageError",
    "Verification",
    "View",
    "beam_options",
    "collect",
    "command",
    "command_from_json",
    "count",
    "count_distinct",
    "create_log",
    "erase",
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
    "prove_erasure",
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
