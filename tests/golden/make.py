"""Make a new set of golden files; run by hand, once a storage format: ``python -m tests.golden.make 0.1``.

The history is always the same, and so are the rows of read models. Names of objects and ``recorded_at`` are not, which
is why each set has its own expected rows. An existing set is never replaced: old files must stay readable, so
a change of format gets a set of its own beside them. If a read model is changed on purpose, ``rebuilt.jsonl`` alone may
follow: ``python -m tests.golden.make 0.1 --rebuilt``, and a look at what git says of it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

import orjson

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.ingest.ingest import ingest
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    create_log,
    open_log,
    read_positions,
)
from refold.warehouse.event_log.new_events import NewEvent
from refold.warehouse.read_models.generations.generations import open_generations
from tests.golden.histories import HISTORIES, SampleAppend
from tests.golden.reading import PACKED, event_lines, pack, table_lines, unpack, write_lines

HERE = Path(__file__).parent
IN_MEMORY = ["--direct_running_mode=in_memory", "--direct_num_workers=1"]


def make(frozen: Path, domain_name: str) -> None:
    """Make the files of one domain: a log, what was published of it half-way, and all expected rows."""
    domain, history = load_domain(domain_name), HISTORIES[domain_name]
    frozen.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        log = create_log(str(folder / "log"), domain_name=domain_name, bucket_count=2)
        _append(log, history.sealed)
        _import(log, history.sealed_import)
        write_lines(frozen / "published.jsonl", rebuilt_lines(folder, domain_name, "read-models"))
        with patch(
            "refold.pipelines.ingest.spooled_segments.seal"
        ):  # as if killed once its commit was there: the import stays in the tail
            _import(log, history.tail_import)
        _append(log, history.tail)
        write_lines(frozen / "events.jsonl", event_lines(read_positions(log, domain.registry, 0)))
        pack(folder, frozen / PACKED)
    freeze_rebuilt(frozen, domain_name)


def freeze_rebuilt(frozen: Path, domain_name: str) -> None:
    """Write the rows that the current code builds from a frozen log."""
    with tempfile.TemporaryDirectory() as place:
        folder = unpack(frozen / PACKED, Path(place))
        write_lines(frozen / "rebuilt.jsonl", rebuilt_lines(folder, domain_name, "rebuilt"))


def rebuilt_lines(folder: Path, domain_name: str, read_models: str) -> list[str]:
    """Rebuild into a folder beside a log, and return all rows."""
    url, log = str(folder / read_models), open_log(str(folder / "log"))
    published = rebuild(log, domain_name, url, beam_options(None, IN_MEMORY)).generation
    return table_lines(open_generations(url, domain_name).path(published))


def _append(log: EventLog, appends: Iterable[SampleAppend]) -> None:
    appender = Appender(log, load_domain(log.domain_name).registry)
    for one in appends:
        events = [
            NewEvent(
                payload=payload,
                event_type=event_type,
                schema_version=schema_version,
                event_id=one.event_id(index),
                occurred_at=one.occurred_at(index),
                correlation_id=one.stream_id if index else None,
                causation_id=one.event_id(index - 1) if index else None,
            )
            for index, (event_type, schema_version, payload) in enumerate(one.events)
        ]
        appender.append(one.stream_id, events)


def _import(log: EventLog, appends: Iterable[SampleAppend]) -> None:
    rows = [
        {
            "stream_id": one.stream_id,
            "event_id": one.event_id(index),
            "event_type": event_type,
            "schema_version": schema_version,
            "occurred_at": one.occurred_at(index),
            "payload": payload,
        }
        for one in appends
        for index, (event_type, schema_version, payload) in enumerate(one.events)
    ]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "history.jsonl"
        path.write_bytes(b"\n".join(orjson.dumps(row, default=str) for row in rows))
        done = ingest(log, log.domain_name, [str(path)], strict=True, options=beam_options(None, IN_MEMORY))
    if done.mode != "segments":
        raise SystemExit("The import went through ordinary commits: its streams are not new to the log.")


def main(name: str, *only: str) -> None:
    """Make a complete set, or only write its ``rebuilt.jsonl`` again."""
    if only != ("--rebuilt",) and (HERE / name).exists():
        raise SystemExit(f"{HERE / name} is frozen. Name a new set.")
    for domain_name in HISTORIES:
        (freeze_rebuilt if only else make)(HERE / name / domain_name, domain_name)


if __name__ == "__main__":
    main(*sys.argv[1:])
