"""The public names of refold: a change here is a change for every user."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import refold
import refold.testing

ROOT = Path(__file__).parents[2]

PUBLIC = [
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

TESTING = ["FIRST_OCCURRED_AT", "Given", "Outcome", "scenarios"]

ROOMS = {
    "refold.event_schemas.orders": [
        "DECIDERS",
        "EVENTS",
        "ORDER",
        "STOCK",
        "SUBSCRIPTION",
        "UPCASTERS",
        "AddItem",
        "Address",
        "AdjustStock",
        "CancelOrder",
        "CancelSubscription",
        "DeliverOrder",
        "ItemAdded",
        "OrderCancelled",
        "OrderDelivered",
        "OrderItem",
        "OrderPaid",
        "OrderPlaced",
        "OrderShipped",
        "PayOrder",
        "PlaceOrder",
        "ReceiveStock",
        "ShipOrder",
        "ShippingAddressUpdated",
        "StartSubscription",
        "StockAdjusted",
        "StockReceived",
        "SubscriptionCancelled",
        "SubscriptionStarted",
        "UpdateShippingAddress",
    ],
    "refold.event_schemas.trading": [
        "EVENTS",
        "UPCASTERS",
        "CashDeposited",
        "CashWithdrawn",
        "PositionClosed",
        "TradeExecuted",
    ],
    "refold.warehouse.object_store": ["ObjectStore", "open_store"],
    "refold.warehouse.orders": ["ORDERS"],
    "refold.warehouse.sequential_fold": [
        "NO_CONTRACT",
        "Folded",
        "NotByStreamError",
        "Sample",
        "Start",
        "exact_in_python",
        "fold_log",
        "write_folded",
    ],
    "refold.warehouse.trading": ["TRADING"],
}
PINNED_ELSEWHERE = {"refold.event_schemas", "refold.warehouse.event_log"}
"""By ``test_public_names.py`` in the tests of these rooms."""


def test_the_public_names_are_these() -> None:
    """In the package and in its stub, which lists them in the same order."""
    assert refold.__all__ == PUBLIC
    assert sorted(set(dir(refold)) - set(PUBLIC)) == []
    assert refold.testing.__all__ == TESTING


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    """Each name matches the stub, and has its own docstring."""
    value = getattr(refold, name)
    assert value.__name__ == name
    assert len(inspect.getdoc(value) or "") > 20
    assert value.__module__.startswith("refold.")


def test_the_version_is_that_of_the_distribution() -> None:
    """``refold --version`` prints the metadata's, code reads the package's."""
    done = subprocess.run([sys.executable, "-m", "refold", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == refold.__version__


def test_the_rooms_with_a_list_of_names_are_these() -> None:
    """A room that gets a list of names is added here, so that the list is pinned."""
    rooms = {room: ROOT / room for room in ("event_schemas", "warehouse", "pipelines")}
    found = {
        ".".join(("refold", room, *file.parent.relative_to(folder).parts))
        for room, folder in rooms.items()
        for file in folder.rglob("__init__.py")
        if "__all__" in file.read_text(encoding="utf-8")
    }
    assert found == {*ROOMS, *PINNED_ELSEWHERE}


@pytest.mark.parametrize("room", ROOMS)
def test_the_names_of_a_room_are_these(room: str) -> None:
    """Each is in ``__all__``, and can be imported."""
    module = importlib.import_module(room)
    assert module.__all__ == ROOMS[room]
    assert all(hasattr(module, name) for name in module.__all__)
