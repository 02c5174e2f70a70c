"""The bytes of what a worker staged for an increment: a record in one line, then Arrow tables in IPC format."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from refold.event_schemas.errors import DamagedStagingError
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.object_store.digests import digest_of
from refold.warehouse.object_store.records import RecordError, decode_record, encode_record
from refold.warehouse.read_models.increments.increment import Staged


@dataclass(frozen=True, slots=True)
class _Content:
    """What follows the line of the record.

    Attributes:
        tables: read model to the number of bytes of its table, in this order.
        invalid_events: read model to the events that it excludes.
        digest: of all tables together.
    """

    tables: dict[str, int]
    invalid_events: dict[str, list[InvalidEvent]]
    digest: str


def encode_staged(staged: Staged) -> bytes:
    """Return what was staged as bytes."""
    tables = {name: _ipc(table) for name, table in staged.tables.items()}
    body = b"".join(tables.values())
    sizes = {name: len(data) for name, data in tables.items()}
    return encode_record(_Content(sizes, staged.invalid_events, digest_of(body))) + b"\n" + body


def decode_staged(data: bytes, *, where: str) -> Staged:
    """Return what :func:`encode_staged` was given.

    Raises:
        DamagedStagingError: the bytes were changed.
    """
    line, _, body = data.partition(b"\n")
    try:
        content = decode_record(line, _Content)
    except RecordError as error:
        raise DamagedStagingError(f"What was staged in {where} is damaged ({error}). Try again.") from error
    if digest_of(body) != content.digest:
        raise DamagedStagingError(f"The tables that were staged in {where} are damaged. Try again.")
    tables = {}
    try:
        for name, size in content.tables.items():
            tables[name], body = pa.ipc.open_stream(body[:size]).read_all(), body[size:]
    except (pa.ArrowException, OSError) as error:
        raise DamagedStagingError(f"A table that was staged in {where} cannot be read ({error}). Try again.") from error
    return Staged(tables, content.invalid_events)


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
