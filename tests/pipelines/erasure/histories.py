"""Histories with personal data: imported, appended and from commands; and a search of every byte for a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from refold import Appender, CommandHandler, EventLog, NewEvent, StreamAppend, beam_options, create_log, ingest
from tests.warehouse.personal.customers import CUSTOMERS, CustomerRegistered, OrderTaken, RenameCustomer

REF = "tests.warehouse.personal.customers:CUSTOMERS"
OPTIONS = beam_options(None, ["--direct_num_workers=1"])
SECRET = "qzx"
"""Part of every personal text in these histories, and of no other."""


def name_of(number: int, of: str = "imported") -> str:
    """Return a name of a customer, which nothing else in a history contains."""
    return f"{SECRET}-{of}-name-of-{number:06d}-{SECRET}"


def imported_rows(customers: int) -> Iterator[str]:
    """Yield the rows of a file: each customer registers, in one of two schema versions, and takes an order."""
    for n in range(customers):
        version = 1 + n % 2
        payload: dict[str, object] = {"customer_id": f"customer-{n}", "city": "Ulm"}
        if version == 1:
            payload |= {"full_name": name_of(n)}
        else:
            payload |= {
                "name": name_of(n),
                "email": f"{n}@{SECRET}.example" if n % 3 else None,
                "born": f"19{n % 100:02d}-01-01",
                "visits": n,
            }
        yield _row(n, "CustomerRegistered", version, payload)
        yield _row(n, "OrderTaken", 1, {"customer_id": f"customer-{n}", "amount": "2.50"})


def _row(number: int, event_type: str, version: int, payload: object) -> str:
    return json.dumps(
        {
            "event_id": f"{event_type}-{number}",
            "stream_id": f"customer-{number}",
            "event_type": event_type,
            "schema_version": version,
            "occurred_at": "2026-01-01T00:00:00Z",
            "payload": payload,
        }
    )


def make_history(folder: Path, customers: int, *, changed: int) -> EventLog:
    """Make a log: an import, then for the first few customers commits with events of all kinds, and commands."""
    log = create_log(str(folder / "log"), domain_name="customers", bucket_count=4)
    source = folder / "source.jsonl"
    source.write_text("\n".join(imported_rows(customers)) + "\n")
    ingest(log, REF, [str(source)], strict=True, options=OPTIONS)
    source.unlink()
    append_history(log, range(changed))
    return log


def append_history(log: EventLog, numbers: Iterable[int]) -> None:
    """Append events of some customers, and handle a command of each."""
    appends = [StreamAppend(f"customer-{n}", _events(n)) for n in numbers]
    Appender(log, CUSTOMERS.registry).append_many(appends)
    handler = CommandHandler(log, CUSTOMERS, snapshot_every=1)
    for n in numbers:
        handler.handle(RenameCustomer(customer_id=f"customer-{n}", name=name_of(n, "commanded")), command_id=f"c-{n}")


def _events(n: int) -> list[object]:
    return [
        CustomerRegistered(
            customer_id=f"customer-{n}",
            name=name_of(n, "appended"),
            email=f"{n}@{SECRET}.example",
            born=date(1980, 1, 1 + n % 28),
            visits=7_000_000 + n,
            city="Bonn",
        ),
        NewEvent(
            payload={"customer_id": f"customer-{n}", "first": name_of(n, "first"), "last": name_of(n, "last")},
            event_type="NameGiven",
            schema_version=1,
        ),
        OrderTaken(customer_id=f"customer-{n}", amount=Decimal("1.00")),
    ]


def holding_files(folder: Path, texts: Iterable[str]) -> dict[str, set[str]]:
    """Return the files below a folder that hold one of some texts, in their bytes or in the values that they store."""
    wanted = set(texts)
    found: dict[str, set[str]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        content = path.read_bytes().decode("latin-1") + "\n".join(_values(path))
        if SECRET in content and (held := {text for text in wanted if text in content}):
            found[str(path.relative_to(folder))] = held
    return found


def _values(path: Path) -> Iterator[str]:
    """Yield the stored values of a Parquet or DuckDB file as text: in the file, they are compressed."""
    data = path.read_bytes()
    if data[:4] == b"PAR1":
        yield json.dumps(pq.read_table(path).to_pylist(), default=str)
    elif data[8:12] == b"DUCK":
        with closing(duckdb.connect(str(path), read_only=True)) as connection:
            for schema, table in connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall():
                rows = connection.execute(f'SELECT CAST(t AS VARCHAR) FROM "{schema}"."{table}" t').fetchall()
                yield from (row[0] for row in rows)
