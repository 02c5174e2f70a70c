"""A domain with personal data: customers, who have names and orders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, TypedDict

import pyarrow as pa

from refold import Decider, Domain, Fold, Personal, Projection, View, command, event, latest, total, upcaster
from refold.event_schemas import RecordedEvent
from refold.event_schemas.decider import Decision, dataclass_codec

OF_CUSTOMER = Personal(subject="customer_id")


@event(schema_version=2)
class CustomerRegistered:
    """A customer registered."""

    customer_id: str
    name: Annotated[str, OF_CUSTOMER]
    email: Annotated[str | None, OF_CUSTOMER]
    born: Annotated[date, OF_CUSTOMER] | None
    visits: Annotated[int, Personal(subject="customer_id", erased=-1)]
    city: str


@event(schema_version=1)
class CustomerRenamed:
    """A customer has another name."""

    customer_id: str
    name: Annotated[str, OF_CUSTOMER]


@event(schema_version=1)
class OrderTaken:
    """An order, without personal data."""

    customer_id: str
    amount: Annotated[Decimal, pa.decimal128(12, 2)]


REGISTERED_V1 = pa.schema(
    [
        pa.field("customer_id", pa.string(), nullable=False),
        OF_CUSTOMER.mark(pa.field("full_name", pa.string(), nullable=False)),
        pa.field("city", pa.string(), nullable=False),
    ]
)
NAME_GIVEN_V1 = pa.schema(
    [
        pa.field("customer_id", pa.string(), nullable=False),
        OF_CUSTOMER.mark(pa.field("first", pa.string(), nullable=False)),
        OF_CUSTOMER.mark(pa.field("last", pa.string())),
    ]
)


@upcaster(CustomerRegistered, from_version=1, schema=REGISTERED_V1)
def rename_field() -> str:
    """Name the field as it is named now."""
    return (
        "SELECT customer_id, full_name AS name, NULL::VARCHAR AS email, NULL::DATE AS born, 0::BIGINT AS visits, city "
        "FROM event"
    )


@upcaster("NameGiven", from_version=1, schema=NAME_GIVEN_V1, into=CustomerRenamed)
def join_names(given: RecordedEvent) -> list[Any]:
    """Join two personal fields to one."""
    names = [given.payload["first"], given.payload["last"] or ""]
    return [CustomerRenamed(customer_id=given.payload["customer_id"], name=" ".join(names).strip())]


PEOPLE = Projection(
    name="people",
    key={"customer_id": "VARCHAR"},
    columns={
        "name": latest("VARCHAR"),
        "email": latest("VARCHAR"),
        "born": latest("DATE"),
        "visits": latest("BIGINT"),
        "city": latest("VARCHAR"),
    },
    on={
        CustomerRegistered: "SELECT customer_id, name, email, born, visits, city",
        CustomerRenamed: "SELECT customer_id, name",
    },
)
REVENUE = Projection(
    name="revenue",
    key={"customer_id": "VARCHAR"},
    columns={"amount": total("DECIMAL(18,2)")},
    on={OrderTaken: "SELECT customer_id, amount"},
)


class Names(TypedDict):
    """All names that a customer has had."""

    names: list[str]


def _collect(state: Names | None, given: Any) -> dict[str, Any]:
    return {"names": [*(state["names"] if state else []), given.name]}


NAMES = Fold(
    name="names",
    key={"customer_id": "VARCHAR"},
    columns={"names": "VARCHAR[]"},
    on={CustomerRegistered: "SELECT customer_id, name", CustomerRenamed: "SELECT customer_id, name"},
    fold=_collect,
)


@command
class RenameCustomer:
    """Give a customer another name."""

    customer_id: str
    name: Annotated[str, OF_CUSTOMER]


@dataclass(frozen=True)
class CustomerState:
    """The names so far."""

    names: list[str]


def _evolve(state: CustomerState, happened: object) -> CustomerState:
    if isinstance(happened, CustomerRegistered | CustomerRenamed):
        return CustomerState([*state.names, happened.name])
    return state


def _decide(asked: RenameCustomer, state: CustomerState) -> Decision:
    if state.names[-1:] == [asked.name]:
        return []
    return [CustomerRenamed(customer_id=asked.customer_id, name=asked.name)]


CUSTOMER = Decider(
    name="customer",
    commands=(RenameCustomer,),
    stream_id=lambda asked: str(asked.customer_id),
    initial_state=lambda: CustomerState([]),
    evolve=_evolve,
    decide=_decide,
    snapshot=dataclass_codec(CustomerState),
)
CUSTOMERS = Domain(
    name="customers",
    events=(CustomerRegistered, CustomerRenamed, OrderTaken),
    upcasters=(rename_field, join_names),
    read_models=(PEOPLE, REVENUE, NAMES),
    views=(View("cities", "SELECT city, count(*)::BIGINT AS people FROM people GROUP BY city"),),
    deciders=(CUSTOMER,),
)
