"""``refold log rewrite``: a new log without some values, for events that were written before their fields were marked.

The old log is sealed. Each segment is copied, or written again with other values; stream heads are copied. Positions,
commit numbers, ids and times stay the same. The new log has no commits of the old one: its chain begins with the digest
of a map, which names each old object and the new one with their digests.
"""

from __future__ import annotations

import dataclasses
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import EmptyLogError, ObjectNotFoundError, Personal, Registry, UsageError
from refold.event_schemas.payload import from_json
from refold.event_schemas.personal import PersonalField, personal_fields
from refold.pipelines.seal import seal
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import copy_to_parquet, parquet_footer, parquet_relation
from refold.warehouse.engine.sql import columns, duckdb_type, literal, quote
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.layout import CONFIG_KEY, FORMAT_VERSION, HEADS, MANIFESTS, PARTS, SEGMENTS
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import HeadsRun, Manifest, Segment
from refold.warehouse.event_log.opening import Description, open_log
from refold.warehouse.event_log.segments import PARQUET_OPTIONS, SEGMENT_ENVELOPE, describe_segment
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.digests import digest_of, file_digest
from refold.warehouse.object_store.records import encode_record
from refold.warehouse.personal.key_store import Subject

MAP = "rewrite.jsonl"
_UNFINISHED = "rewrite-unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """What a rewrite did.

    Attributes:
        log_id: identity of the new log.
        position: position of its last event.
        segments: how many segments have other values.
        copied: how many are as they were.
        values: how many values were replaced.
        head: commit and digest from which its chain goes on.
    """

    log_id: str
    position: int
    segments: int
    copied: int
    values: int
    head: str


def rewrite_log(
    log: EventLog,
    domain_ref: str,
    to: str,
    options: PipelineOptions | None = None,
    *,
    fields: Iterable[tuple[str, str]],
    subjects: Sequence[Subject],
    report: Callable[[int, int], None] = lambda _done, _planned: None,
) -> Rewritten:
    """Write a log into a new one, with the values of some fields replaced.

    Args:
        log: the log; it is sealed, and otherwise stays as it is.
        domain_ref: the domain, by entry-point name or dotted path.
        to: location of the new log: a new or empty place.
        options: Beam's options, for the seal; the local runner by default.
        fields: event type and field, in all schema versions: NULL replaces an optional value, ``[erased]`` text.
        subjects: whose values to replace: events in which this field has this value.
        report: called with finished and planned segments.

    Raises:
        UsageError: a field cannot be replaced, the new place is not empty, or the log has encrypted fields, which are
            bound to it.
        EmptyLogError: there is nothing to write.
        DamagedLogError: the log misses an object; there is no new log then.
    """
    domain = load_domain(domain_ref)
    erased = _fields(domain.registry, fields, subjects)
    store = _empty(to, log)
    seal(log, domain_ref, options)
    sealed = log.manifest()
    if not sealed.sealed_position:
        raise EmptyLogError(f"The log {log.url} holds no events, so there is nothing to write.")
    _refuse_encrypted(log, domain.registry, sealed)
    made: list[tuple[Segment, Segment, int]] = []
    for segment in sealed.segments:
        made.append((segment, *_segment(log, store, domain.registry, segment, erased, subjects)))
        report(len(made), len(sealed.segments))
    heads = [_copied_heads(log, store, run) for run in sealed.heads]
    mapped = _map(log, sealed, made)
    store.put(MAP, mapped)
    end = digest_of(mapped)
    manifests.publish(
        store,
        Manifest(
            number=1,
            sealed_commit=sealed.sealed_commit,
            sealed_position=sealed.sealed_position,
            recorded_at=sealed.recorded_at,
            segments=tuple(new for _, new, _ in made),
            heads=tuple(heads),
            sealed_digest=end,
            bucket_count=sealed.bucket_count,
            removed_before=sealed.sealed_commit + 1,
        ),
    )
    description = Description(
        format_version=FORMAT_VERSION,
        domain=log.domain_name,
        bucket_count=sealed.bucket_count,
        log_id=str(uuid.uuid4()),
        command_digests=log.has_command_digests,
        chain_after=sealed.sealed_commit,
        chain_position=sealed.sealed_position,
        chain_digest=end,
    )
    store.put_if_absent(CONFIG_KEY, encode_record(description))  # from now on, it is a log
    store.delete(_UNFINISHED)
    return Rewritten(
        log_id=open_log(to).log_id,
        position=sealed.sealed_position,
        segments=sum(values > 0 for _, _, values in made),
        copied=sum(not values for _, _, values in made),
        values=sum(values for _, _, values in made),
        head=f"{sealed.sealed_commit}:{end}",
    )


def _fields(
    registry: Registry, fields: Iterable[tuple[str, str]], subjects: Sequence[Subject]
) -> dict[tuple[str, int], list[PersonalField]]:
    """Return what to replace in each schema, and by what: the same as for a marked field."""
    if not subjects:
        raise UsageError("Name at least one subject, as FIELD=VALUE.")
    found: dict[tuple[str, int], list[PersonalField]] = {}
    for event_type, name in fields:
        keys = [k for k in registry.schema_keys if k[0] == event_type and name in registry.schema(*k).names]
        if not keys:
            raise UsageError(
                f"No schema of {event_type} in this domain has a field {name!r}. See `refold schemas list`."
            )
        for key in keys:
            schema = registry.schema(*key)
            if missing := [s.field for s in subjects if s.field not in schema.names]:
                raise UsageError(f"{key[0]} v{key[1]} has no field {missing[0]!r} that could name a subject.")
            marked = Personal(subject=subjects[0].field).mark(schema.field(name))
            found.setdefault(key, []).extend(personal_fields(pa.schema([marked])))
    return found


def _empty(url: str, log: EventLog) -> ObjectStore:
    """Open the store of the new log, without what a killed rewrite of the same log left."""
    store = open_store(url)
    found = next(iter(store.list_from("")), None)
    if found is not None and not _is_unfinished(store, log):
        raise UsageError(f"{store.url} is not empty: it holds {found}. Give --to a new place.")
    store.probe()
    store.put(_UNFINISHED, log.log_id.encode())
    for folder in (SEGMENTS, HEADS, PARTS, MANIFESTS):
        store.delete_prefix(folder)
    return store


def _is_unfinished(store: ObjectStore, log: EventLog) -> bool:
    try:
        return store.get(_UNFINISHED).decode() == log.log_id and not store.exists(CONFIG_KEY)
    except ObjectNotFoundError:
        return False


def _refuse_encrypted(log: EventLog, registry: Registry, sealed: Manifest) -> None:
    held = sorted({s.schema_key for s in sealed.segments} & registry.personal_keys)
    if held:
        raise UsageError(
            f"The log {log.url} holds encrypted fields ({held[0][0]} v{held[0][1]}), which are bound to it and cannot "
            "be read from another log. Erase their subjects with `refold erase`."
        )


def _segment(
    log: EventLog,
    store: ObjectStore,
    registry: Registry,
    segment: Segment,
    erased: dict[tuple[str, int], list[PersonalField]],
    subjects: Sequence[Subject],
) -> tuple[Segment, int]:
    """Write one segment, and return it with the number of values that were replaced."""
    fields, path = erased.get(segment.schema_key, []), log.segment_path(segment)
    chosen = _condition(subjects, untyped=segment.untyped)
    with tempfile.TemporaryDirectory(prefix="refold-") as folder, connect(threads=1) as connection:
        rows, count = parquet_relation([path]), 0
        if fields:
            names = ["payload"] if segment.untyped else [f.name for f in fields]
            filled = " + ".join(f"count({quote(name)})" for name in names)
            [(count,)] = connection.execute(f"SELECT {filled} FROM {rows} WHERE {chosen}").fetchall()
        if not count:
            new = dataclasses.replace(segment, archive="")
            store.put_file(new.key, path)
            return new, 0
        written = Path(folder) / "segment.parquet"
        names = ["payload"] if segment.untyped else registry.stored_schema(*segment.schema_key).names
        select = _replaced([*SEGMENT_ENVELOPE, *names], fields, chosen, untyped=segment.untyped)
        copy_to_parquet(
            connection, f"SELECT {select} FROM {rows} ORDER BY stream_id, stream_version", written, PARQUET_OPTIONS
        )
        made = describe_segment(
            written,
            parquet_footer(written),
            schema_key=segment.schema_key,
            bucket=segment.bucket,
            untyped=segment.untyped,
        )
        store.put_file(made.key, written)
        bases = segment.position_base, segment.commit_base
        return dataclasses.replace(made, position_base=bases[0], commit_base=bases[1]), count


def _condition(subjects: Sequence[Subject], *, untyped: bool) -> str:
    parts = []
    for s in subjects:
        path = literal("$." + quote(s.field))
        value = f"json_extract_string(payload, {path})" if untyped else f"CAST({quote(s.field)} AS VARCHAR)"
        parts.append(f"{value} = {literal(s.value)}")
    return f"({' OR '.join(parts)})"


def _replaced(names: Sequence[str], fields: Sequence[PersonalField], chosen: str, *, untyped: bool) -> str:
    """Return the columns of a segment, with other values in the rows of the subjects."""
    if untyped:
        patch = literal(orjson.dumps({f.name: f.erased for f in fields if f.erased is not None}).decode())
        gone = literal(orjson.dumps({f.name: None for f in fields}).decode())
        replaced = f"CAST(json_merge_patch(json_merge_patch(payload, {gone}), {patch}) AS VARCHAR)"
        values = {"payload": f"CASE WHEN {chosen} THEN {replaced} ELSE payload END"}
    else:
        values = {
            f.name: f"CASE WHEN {chosen} AND {quote(f.name)} IS NOT NULL THEN {_constant(f)} ELSE {quote(f.name)} END"
            for f in fields
        }
    return ", ".join(f"{values[n]} AS {quote(n)}" if n in values else columns([n]) for n in names)


def _constant(field: PersonalField) -> str:
    schema = pa.schema([pa.field(field.name, field.type)])
    value = from_json({field.name: field.erased}, schema)[field.name]
    return f"CAST({'NULL' if value is None else literal(str(value))} AS {duckdb_type(field.type)})"


def _copied_heads(log: EventLog, store: ObjectStore, run: HeadsRun) -> HeadsRun:
    path = log.heads_path(run)
    store.put_file(run.key, path)
    return dataclasses.replace(run, checksum=file_digest(path))


def _map(log: EventLog, sealed: Manifest, made: Sequence[tuple[Segment, Segment, int]]) -> bytes:
    """Return the map: a line of the old log, then one for each segment."""
    lines: list[dict[str, object]] = [
        {"log_id": log.log_id, "commit_number": sealed.sealed_commit, "digest": sealed.sealed_digest}
    ]
    for old, new, values in made:
        lines.append(
            {
                "old": old.key,
                "old_sha256": old.checksum,
                "new": new.key,
                "new_sha256": new.checksum,
                "replaced_values": values,
            }
        )
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)
