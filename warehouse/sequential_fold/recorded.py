"""Recorded events in position order, read object by object as ``docs/reference/file-formats.md`` describes them."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from refold.warehouse.object_store import ObjectStore, open_store

Takes = Callable[[str], bool]
"""Whether the events of a stream are wanted."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded event.

    Attributes:
        envelope: the columns of the envelope.
        payload: JSON text, or the typed columns of a segment.
    """

    envelope: Mapping[str, Any]
    payload: str | Mapping[str, Any]


def recorded_commits(store: ObjectStore, takes: Takes, *, up_to: int) -> Iterator[list[Recorded]]:
    """Yield the events of each commit, in order, up to a position.

    A commit holds its events as JSON. The segments are read only for what is nowhere else: the events of bulk imports,
    and of sealed commits whose objects were removed.
    """
    sealed = _manifest(store)
    objects = {int(key[-28:-8]): key for key in store.list_from("commits") if key.endswith(".parquet")}
    by_segment = {n for n, key in objects.items() if not pq.read_metadata(store.local_path(key)).num_rows}
    from_segments = _sealed_events(store, sealed, takes, with_object=objects.keys() - by_segment)
    for number in range(1, max(sealed["sealed_commit"], *objects, 0) + 1):
        if number in from_segments or (number <= sealed["sealed_commit"] and number not in objects):
            events = from_segments.pop(number, [])
        elif number in by_segment and number > sealed["sealed_commit"]:
            events = list(_imported(store, number, objects[number], takes))
        else:
            events = [_of_commit(row) for row in _rows(store, objects[number]) if takes(row["stream_id"])]
        kept = [e for e in events if e.envelope["position"] <= up_to]
        if kept:
            yield sorted(kept, key=lambda e: e.envelope["position"])
        if len(kept) < len(events):
            return


def _manifest(store: ObjectStore) -> dict[str, Any]:
    keys = sorted(store.list_from("manifests"))
    if not keys:
        return {"sealed_commit": 0, "segments": []}
    manifest: dict[str, Any] = json.loads(store.get(keys[-1]))
    listed = {segment["key"]: segment for segment in manifest["segments"]}
    for ref in manifest.get("parts", ()):
        part = json.loads(store.get(ref["key"]))
        for key in part["removed"]:
            listed.pop(key, None)
        listed |= {segment["key"]: segment for segment in part["segments"]}
    return manifest | {"segments": list(listed.values())}


def _sealed_events(
    store: ObjectStore, sealed: Mapping[str, Any], takes: Takes, *, with_object: set[int]
) -> dict[int, list[Recorded]]:
    """Return the sealed events that no commit object holds, by commit number."""
    if with_object.issuperset(range(1, sealed["sealed_commit"] + 1)):
        return {}
    found: dict[int, list[Recorded]] = defaultdict(list)
    for segment in sealed["segments"]:
        for event in _of_segment(store, segment, takes, segment["position_base"], segment["commit_base"]):
            if (number := event.envelope["commit_number"]) not in with_object:
                found[number].append(event)
    return found


def _imported(store: ObjectStore, number: int, key: str, takes: Takes) -> Iterator[Recorded]:
    """Yield the events of a bulk import that is not sealed yet: its commit's footer names the segments."""
    footer = json.loads(pq.read_metadata(store.local_path(key)).metadata[b"refold.commit"])
    for segment in footer["segments"]:
        yield from _of_segment(store, segment, takes, footer["first_position"] - 1, number)


def _of_segment(
    store: ObjectStore, segment: Mapping[str, Any], takes: Takes, position_base: int, commit_base: int
) -> Iterator[Recorded]:
    archive = segment.get("archive")
    for row in _segment_rows((open_store(archive) if archive else store).local_path(segment["key"])):
        if not takes(row["stream_id"]):
            continue
        envelope = {name: row.pop(name) for name in _SEGMENT_ENVELOPE}
        envelope["position"] += position_base
        envelope["commit_number"] += commit_base
        envelope |= {"event_type": segment["event_type"], "schema_version": segment["schema_version"]}
        yield Recorded(envelope, row["payload"] if segment.get("untyped", segment.get("raw")) else row)


def _of_commit(row: dict[str, Any]) -> Recorded:
    return Recorded(row, row.pop("payload"))


def _rows(store: ObjectStore, key: str) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(store.local_path(key)) as file:
        for batch in file.iter_batches(batch_size=4096):
            yield from batch.to_pylist()


def _segment_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read a segment with DuckDB: Arrow failed on segments of generated histories ("Unexpected end of stream")."""
    with tempfile.TemporaryDirectory(prefix="refold-") as folder, closing(duckdb.connect()) as connection:
        link = Path(folder) / "segment.parquet"  # a path may have characters that mean something in a glob
        link.symlink_to(path.resolve())
        connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
        found = connection.execute("FROM read_parquet(?, hive_partitioning = false)", [str(link)])
        names = [column[0] for column in found.description or ()]
        while rows := found.fetchmany(4096):
            yield from (dict(zip(names, row, strict=True)) for row in rows)


_SEGMENT_ENVELOPE = (
    "position",
    "commit_number",
    "stream_id",
    "stream_version",
    "event_id",
    "occurred_at",
    "recorded_at",
    "correlation_id",
    "causation_id",
)
