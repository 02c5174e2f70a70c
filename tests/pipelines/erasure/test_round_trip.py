"""Personal data on every way in and out: encrypted in every object of the log, the same values for every reader."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refold import (
    CommandHandler,
    EventLog,
    Handled,
    KeyStoreError,
    ingest,
    open_generations,
    open_log,
    read_positions,
    read_stream,
    rebuild,
    reconcile,
    seal,
    stream,
    verify,
)
from refold.pipelines.rebuild.independent import reconcile_independently
from refold.warehouse.replay.dry_run import dry_run
from tests.pipelines.erasure.histories import (
    OPTIONS,
    REF,
    SECRET,
    append_history,
    holding_files,
    imported_rows,
    make_history,
    name_of,
)
from tests.warehouse.personal.customers import CUSTOMERS, RenameCustomer

TABLES = ("people", "revenue", "names")


def rows_of(folder: Path, table: str) -> list[tuple[Any, ...]]:
    """Return the rows of a published table."""
    generations = open_generations(str(folder / "models"), "customers")
    newest = generations.newest()
    assert newest is not None
    with closing(duckdb.connect(str(generations.path(newest)), read_only=True)) as connection:
        return connection.execute(f"FROM {table} ORDER BY ALL").fetchall()


@pytest.mark.slow
def test_every_way_in_encrypts_and_every_way_out_decrypts(tmp_path: Path) -> None:
    """Imports, appends and commands; scans, rebuilds, streams, upcasters, folds, deciders and the oracle."""
    log = make_history(tmp_path, 60, changed=5)
    models = str(tmp_path / "models")
    assert not holding_files(tmp_path / "log" / "commits", [SECRET])
    assert not holding_files(tmp_path / "log" / "segments", [SECRET])
    assert holding_files(tmp_path / "log" / "snapshots", [SECRET])

    rebuild(log, REF, models, OPTIONS)
    people = {row[0]: row[1:] for row in rows_of(tmp_path, "people")}
    assert people["customer-2"][0] == name_of(2, "commanded")
    assert people["customer-9"] == (name_of(9), None, date(1909, 1, 1), 9, "Ulm")
    assert people["customer-10"][0] == name_of(10)
    names = dict(rows_of(tmp_path, "names"))
    assert names["customer-1"] == [
        name_of(1),
        name_of(1, "appended"),
        f"{name_of(1, 'first')} {name_of(1, 'last')}",
        name_of(1, "commanded"),
    ]
    append_history(log, range(5, 8))
    stream(log, REF, models, OPTIONS, once=True)
    streamed = {table: rows_of(tmp_path, table) for table in TABLES}
    assert not reconcile(log, REF, models, OPTIONS).differences
    assert not reconcile_independently(log, REF, models).differences
    seal(log, REF, OPTIONS)
    rebuild(log, REF, models, OPTIONS)
    assert {table: rows_of(tmp_path, table) for table in TABLES} == streamed
    assert not holding_files(tmp_path / "log" / "segments", [SECRET])
    assert not verify(log, CUSTOMERS.registry).findings
    assert all(not result.invalid for result in dry_run(log, CUSTOMERS))
    same_name = RenameCustomer(customer_id="customer-6", name=name_of(6, "commanded"))
    handled = CommandHandler(log, CUSTOMERS).handle(same_name, command_id="again")
    assert isinstance(handled, Handled)
    assert handled.events == 0


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_an_import_that_is_repeated_has_the_same_bytes(tmp_path: Path, form: str) -> None:
    """The same events in another file are repeats: their ciphertext is the same. Nothing plain is spooled."""
    log = make_history(tmp_path, 20, changed=0)
    rows = [json.loads(row) for row in imported_rows(22)]
    known = [row for row in rows if row["schema_version"] == 1 and row["event_type"] == "CustomerRegistered"]
    path = tmp_path / f"again.{form}"
    if form == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in known[::-1]))
    else:
        flat = [{k: v for k, v in row.items() if k != "payload"} | row["payload"] for row in known[::-1]]
        table = pa.Table.from_pylist(flat)
        if form == "parquet":
            pq.write_table(table, path)
        else:
            from pyarrow import csv

            csv.write_csv(table, path)
    done = ingest(log, REF, [str(path)], strict=True, options=OPTIONS)
    assert (done.events, done.duplicates) == (1, 10)
    assert not holding_files(tmp_path / "log", [SECRET])
    [event] = read_stream(log, CUSTOMERS.registry, "customer-20")
    assert event.payload["full_name"] == name_of(20)


@pytest.mark.slow
def test_a_lost_or_wrong_key_store_is_an_error_that_says_so(tmp_path: Path) -> None:
    """No reader shows NULL, and no rebuild leaves events out, because a key cannot be read."""
    log = make_history(tmp_path, 12, changed=2)
    other = open_log(log.url, keys_url=str(tmp_path / "other-keys"))
    with pytest.raises(KeyStoreError, match="There is no key store at"):
        list(read_positions(other, CUSTOMERS.registry, 0))
    with pytest.raises(KeyStoreError, match="There is no key store at"):
        rebuild(other, REF, str(tmp_path / "models"), OPTIONS, dead_letter=True)
    _lose_a_key(log)
    for action in (
        lambda: list(read_positions(log, CUSTOMERS.registry, 0)),
        lambda: rebuild(log, REF, str(tmp_path / "models"), OPTIONS, dead_letter=True),
        lambda: dry_run(log, CUSTOMERS),
    ):
        with pytest.raises(KeyStoreError, match="was lost, or this is the wrong store"):
            action()
    assert not open_generations(str(tmp_path / "models"), "customers").numbers()
    assert not verify(log, CUSTOMERS.registry).findings


def _lose_a_key(log: EventLog) -> None:
    log.personal_data.forget_keys()
    next((Path(log.personal_data.keys.url) / "keys").iterdir()).unlink()
