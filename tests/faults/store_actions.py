"""What is done to a log and its read models while a store fails; each action completes when it is run again."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from refold.event_schemas import ConcurrencyError, Personal, event
from refold.event_schemas.decider import Decider, Rejected, command
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.erasure.erase import erase as erase_subjects
from refold.pipelines.rebuild.publisher import republish
from refold.pipelines.rebuild.rebuild import rebuild as rebuild_models
from refold.pipelines.stream.stream import stream as stream_events
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import latest, total
from refold.warehouse.event_log import Appender, NewEvent, read_stream
from refold.warehouse.event_log.archive import archive as archive_segments
from refold.warehouse.event_log.archive import restore as restore_segments
from refold.warehouse.event_log.orphaned_objects import delete_leftovers, log_leftovers
from refold.warehouse.event_log.retention import MIN_WINDOW, apply_retention, plan_retention
from refold.warehouse.event_log.seal import publish as publish_manifest
from refold.warehouse.read_models.generations import garbage_collection
from refold.warehouse.read_models.generations.rollback import roll_back as publish_older
from tests.faults.places import Place
from tests.warehouse.event_log import shop

LATER = timedelta(days=30)
OPTIONS = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
DOMAIN = f"{__name__}:SHOP"
ERASED = "ada"
"""The subject that is erased."""


@command
class Fill:
    """Add a cup to an order, unless that is full: then say how many it has."""

    order_id: str
    is_full: bool


@dataclass(frozen=True)
class Order:
    """The state of an order."""

    cups: int = 0


@event(schema_version=1)
class Visited:
    """A customer visited the shop."""

    customer_id: str
    email: Annotated[str, Personal(subject="customer_id")]


BASKET: Decider[Order] = Decider(
    name="basket",
    commands=(Fill,),
    stream_id=lambda fill: fill.order_id,
    initial_state=Order,
    evolve=lambda order, event: Order(order.cups + event.quantity) if isinstance(event, shop.Added) else order,
    decide=lambda fill, order: Rejected("full", f"{order.cups} cups") if fill.is_full else [shop.added()],
)
SHOP = Domain(
    name="shop",
    events=(*shop.SHOP.events, Visited),
    upcasters=shop.SHOP.upcasters,
    deciders=(BASKET,),
    read_models=(
        Projection(
            name="orders",
            key={"order_id": "VARCHAR"},
            columns={"customer": latest("VARCHAR"), "quantity": total("BIGINT")},
            on={
                shop.Placed: "SELECT stream_id AS order_id, customer",
                shop.Added: "SELECT stream_id AS order_id, quantity",
            },
        ),
        Projection(
            name="skus",
            key={"sku": "VARCHAR"},
            columns={"quantity": total("BIGINT"), "last_order": latest("VARCHAR")},
            on={shop.Added: "SELECT sku, quantity, stream_id AS last_order"},
        ),
        Projection(
            name="visitors",
            key={"customer_id": "VARCHAR"},
            columns={"email": latest("VARCHAR")},
            on={Visited: "SELECT customer_id, email"},
        ),
    ),
)


def visit(place: Place) -> None:
    """Append events with personal data, some of which are sealed."""
    appender = Appender(place.log, SHOP.registry)
    for name in ("ada", "bob"):
        appender.append(f"visits-{name}", [Visited(customer_id=name, email=f"{name}@example.org")])
    seal(place)
    appender.append("visits-ada", [Visited(customer_id="ada", email="ada@example.com")])


def append(place: Place) -> None:
    """Append an event at a version, as a writer does that cannot know whether its last attempt succeeded."""
    log, event = place.log, NewEvent(payload=shop.added(), event_id="appended")
    try:
        Appender(log, SHOP.registry).append("order-1", [event], expected_version=2)
    except ConcurrencyError:
        if [e.event_id for e in read_stream(log, SHOP.registry, "order-1")][2:] != ["appended"]:
            raise


def bulk_import(place: Place) -> None:
    """Import two streams as segments."""
    placed = shop.Placed(customer="c", currency="EUR")
    shop.bulk_import(place.log, "visit", [("order-7", placed), ("order-7", shop.added()), ("order-9", placed)])


def seal(place: Place) -> None:
    """Seal what is not sealed; again, if a stale listing hid the newest manifest."""
    log = place.log
    while log.head().tail and not publish_manifest(log, shop.prepare_seal(log, SHOP.registry)):
        pass


def archive(place: Place) -> None:
    """Move all sealed events to an archive beside the log."""
    archive_segments(place.log, before=datetime.now(UTC) + LATER, to=place.archive)


def restore(place: Place) -> None:
    """Move all archived events back."""
    restore_segments(place.log)


def retain(place: Place) -> None:
    """Remove what has not been needed for a while, seen from a month later."""
    log = place.log
    apply_retention(log, plan_retention(log, window=MIN_WINDOW, now=datetime.now(UTC) + LATER))


def clean(place: Place) -> None:
    """Remove what writers left that died, seen from a month later."""
    delete_leftovers(log_leftovers(place.log, before=datetime.now(UTC) + LATER))


def rebuild(place: Place) -> None:
    """Seal, replay and publish."""
    rebuild_models(place.log, DOMAIN, place.read_models, OPTIONS)


def stream(place: Place) -> None:
    """Apply what is new, in micro-batches, and publish it."""
    follow = functools.partial(stream_events, once=True, rebuild_if_cheaper=False, publish_every=0, max_outage=5)
    follow(place.log, DOMAIN, place.read_models, OPTIONS)


def publish(place: Place) -> None:
    """Publish the newest generation at the end of the log."""
    republish(place.log, DOMAIN, place.read_models, OPTIONS)


def roll_back(place: Place) -> None:
    """Publish the first generation again, unless it is the newest."""
    generations = place.generations
    newest = generations.newest()
    if newest is None or newest.file != generations.get(1).file:
        publish_older(generations, 1)


def collect(place: Place) -> None:
    """Remove all generations but the newest, and what publishers left that died."""
    generations, none = place.generations, timedelta(0)
    found = garbage_collection.plan_collection(generations, keep=1, min_age=none, leftover_age=none)
    garbage_collection.collect(generations, found)


def erase(place: Place) -> None:
    """Erase a subject, in the log and in what is published."""
    erase_subjects(place.log, DOMAIN, place.read_models, [ERASED], OPTIONS, reason="request 7")


def build(place: Place) -> None:
    """Prepare two generations, and events that neither shows."""
    rebuild(place)
    appender = Appender(place.log, SHOP.registry)
    for customer in ("d", "e"):
        publish(place)
        appender.append("order-0", [shop.Placed(customer=customer, currency="EUR"), shop.added("jug")])
