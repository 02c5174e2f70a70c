"""The lock file: its content, that its text is deterministic, and that this repository's files are current."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pyarrow as pa
import pytest

from refold.event_schemas import Registry, UsageError, event, merger, upcaster
from refold.event_schemas.compatibility import Verdict, compare
from refold.event_schemas.lock import Lock, Step, lock_of, read_lock, write_lock
from refold.warehouse.declarations.domain import load_domain

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A nested value."""

    sku: str
    quantity: int


@event(schema_version=2)
class Sold:
    """A field of every kind."""

    sku: str
    price: Annotated[Decimal, pa.decimal128(18, 2)]
    ref: UUID | None
    lines: list[Line]
    tags: list[str] | None


@upcaster(Sold, from_version=1, schema=pa.schema([pa.field("sku", pa.string(), nullable=False)]))
def add_price() -> str:
    """Sell old things for nothing."""
    return "SELECT *, 0::DECIMAL(18,2) AS price, NULL::UUID AS ref, [] AS lines, NULL AS tags FROM event"


@merger([("SkuScanned", 1, pa.schema([("sku", pa.string())])), ("Paid", 1, pa.schema([]))], into=Sold)
def join(given: list[Any]) -> list[Any]:
    """Join nothing; the lock file looks only at the declaration."""
    return []


REGISTRY = Registry(events=[Sold], upcasters=[add_price, join])


def test_a_lock_file_keeps_everything() -> None:
    """The lock file has types, nested ones too, optional fields, and the targets of upcasters and mergers."""
    lock = lock_of(REGISTRY, "shop")
    again = read_lock(write_lock(lock), where="here")
    assert again == lock
    assert write_lock(again) == write_lock(lock)
    assert compare(lock, again).verdict is Verdict.FULL
    sold = lock.schemas["Sold", 2]
    assert (sold.upcaster, lock.newest("Sold"), lock.newest("Paid")) == (None, 2, None)
    assert [str(f.type) for f in sold.fields] == [
        *("string", "decimal128(18, 2)", "uuid"),
        *("list<element: struct<sku: string, quantity: int64>>", "list<element: string>"),
    ]
    assert lock.schemas["Sold", 1].upcaster == Step("add_price", "sql", (("Sold", 2),))
    assert lock.schemas["SkuScanned", 1].upcaster == Step("join", "merge", (("Sold", 2),))


def test_the_order_of_declarations_changes_no_lock_file() -> None:
    """The text is deterministic, so a diff shows only real changes."""
    turned = Registry(events=[Sold], upcasters=[join, add_price])
    assert write_lock(lock_of(turned, "shop")) == write_lock(lock_of(REGISTRY, "shop"))
    lock = lock_of(REGISTRY, "shop")
    assert write_lock(Lock("shop", dict(reversed(list(lock.schemas.items()))))) == write_lock(lock)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "domain": "a", "events": {"A": 1}}'])
def test_what_is_no_lock_file(text: str) -> None:
    """The error names the file, and the command that writes one."""
    with pytest.raises(UsageError, match=r"not a lock file .* `refold schemas lock`"):
        read_lock(text, where="here")
    with pytest.raises(UsageError, match="lock format 2"):
        read_lock('{"format": 2}', where="here")


@pytest.mark.parametrize("domain", ["orders", "trading"])
def test_the_lock_files_of_this_repository_are_up_to_date(domain: str) -> None:
    """After a change of a contract, ``refold schemas lock`` shows the change in the diff."""
    found = load_domain(domain)
    text = (ROOT / "event_schemas" / f"{domain}.lock.json").read_text()
    wanted = write_lock(lock_of(found.registry, found.name))
    assert text == wanted, f"run `refold --domain {domain} schemas lock --file event_schemas/{domain}.lock.json`"


def test_the_element_of_a_list_has_one_name() -> None:
    """Arrow calls it ``item`` or ``element``; a lock file must not depend on how a schema was written."""

    def locked(list_type: pa.DataType) -> str:
        schema = pa.schema([pa.field("sku", pa.string(), nullable=False), pa.field("tags", list_type)])

        @upcaster(Sold, from_version=1, schema=schema)
        def drop_tags() -> str:
            return "SELECT sku FROM event"

        return write_lock(lock_of(Registry(events=[Sold], upcasters=[drop_tags]), "shop"))

    assert locked(pa.list_(pa.string())) == locked(pa.list_(pa.field("element", pa.string())))
