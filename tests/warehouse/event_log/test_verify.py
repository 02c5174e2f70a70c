"""Verification of a log: damage of every kind is a finding, and a sound log has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from refold.event_schemas import DamagedLogError, Registry, event, upcaster
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    NewEvent,
    Verification,
    read_positions,
    verify,
)
from refold.warehouse.event_log import commit as commits
from refold.warehouse.event_log.layout import commit_key, manifest_key
from refold.warehouse.event_log.manifest import Manifest, Segment
from refold.warehouse.object_store.digests import digest_of
from refold.warehouse.object_store.records import checked_content, encode_record
from tests.warehouse.event_log.shop import (
    PLACED_V1,
    REGISTRY,
    YOUNGER,
    Added,
    Closed,
    Moved,
    Placed,
    added,
    join_address,
    manifest_values,
    nullify,
    seal,
    unbundle,
    write_commit,
)

PLACED = Placed(customer="c1", currency="EUR")
Values = dict[str, Any]


def kinds(found: Verification) -> list[str]:
    """Return the kinds of the findings."""
    return sorted({f.kind for f in found.findings})


def change(log: EventLog, key: str, how: Callable[[bytes], bytes]) -> None:
    """Replace an object by a changed one."""
    log.store.put(key, how(log.store.get(key)))


def flipped(data: bytes) -> bytes:
    """Flip one bit near the beginning, where the first column's data is."""
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


# --- sound logs -------------------------------------------------------------------------------------------------------


def test_an_empty_log_is_sound(log: EventLog) -> None:
    """There is nothing to find in it."""
    assert verify(log, REGISTRY) == Verification(
        events=0, streams=0, commits=0, segments=0, findings=(), more=0, unchecked=()
    )


def test_a_sound_log_is_counted(mixed: EventLog) -> None:
    """Sealed, imported and unsealed events count, and nothing is found; neither after all of it is sealed."""
    found = verify(mixed, REGISTRY)
    assert (found.sound, found.findings, found.unchecked) == (True, (), ())
    assert (found.events, found.streams, found.commits) == (14, 7, 7)
    seal(mixed)
    again = verify(mixed, REGISTRY)
    assert dataclasses.replace(again, segments=0) == dataclasses.replace(found, segments=0)


def test_a_log_of_many_seals_is_sound(log: EventLog, appender: Appender) -> None:
    """Merged segments, merged heads, untyped segments and events whose schema was registered later are sound."""
    for turn in range(12):
        appender.append(f"order-{turn % 5}", [PLACED, added()])
        seal(log, YOUNGER if turn == 3 else REGISTRY)
    found = verify(log, REGISTRY)
    assert (found.findings, found.events, found.streams) == ((), 24, 5)


def test_old_commits_may_be_gone(mixed: EventLog) -> None:
    """Sealed commits are deleted after a while, the oldest first; a log is sound without them."""
    seal(mixed)
    for number in range(1, 6):
        mixed.store.delete(commit_key(number))
        assert verify(mixed, REGISTRY).findings == ()


def test_progress_is_reported_to_the_end(mixed: EventLog) -> None:
    """Steps grow from none to all of those planned."""
    steps: list[tuple[int, int]] = []
    verify(mixed, REGISTRY, report=lambda done, planned: steps.append((done, planned)))
    assert steps == [(done, 5) for done in range(6)]


# --- damaged objects --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda log, key: log.store.delete(key), "missing"),
        (lambda log, key: change(log, key, lambda data: data[:-1]), "truncated"),
        (lambda log, key: change(log, key, flipped), "SHA-256"),
    ],
    ids=["missing", "truncated", "bit-flipped"],
)
def test_a_damaged_segment_is_one_finding(
    mixed: EventLog, damage: Callable[[EventLog, str], None], expected: str
) -> None:
    """The finding names the segment and its events; what cannot be checked without it is no finding."""
    segment = next(s for s in mixed.manifest().segments if s.event_type == "Added")
    damage(mixed, segment.key)
    found = verify(mixed, REGISTRY)
    [finding] = found.findings
    assert finding.kind == "segment"
    assert segment.key in finding.where
    assert expected in finding.what
    assert "backup" in str(finding)
    assert [u for u in found.unchecked if f"bucket {segment.bucket}" in u]


def test_a_segment_with_a_false_checksum_that_is_no_parquet(mixed: EventLog) -> None:
    """A manifest that was made to fit a damaged file does not hide that it cannot be read."""
    segment = mixed.manifest().segments[0]
    change(mixed, segment.key, lambda data: bytes(len(data)))
    tamper(mixed, segment_values(segment.key, checksum=""))
    assert [(f.kind, "cannot be read" in f.what) for f in verify(mixed, REGISTRY).findings] == [("segment", True)]


def test_a_damaged_older_manifest(mixed: EventLog) -> None:
    """Nobody needs it while the newest is sound, but a backup of the log would lack it."""
    key = manifest_key(mixed.manifest().number)
    seal(mixed)
    change(mixed, key, flipped)
    [finding] = verify(mixed, REGISTRY).findings
    assert (finding.kind, finding.where) == ("manifest", f"{mixed.url}/{key}")


def test_a_missing_commit_in_the_tail(mixed: EventLog) -> None:
    """Readers stop before the gap, so the finding says how many commits follow it."""
    mixed.store.delete(commit_key(6))
    [finding] = verify(mixed, REGISTRY).findings
    assert (finding.kind, commit_key(6) in finding.where) == ("commit", True)
    assert "readers stop before it" in finding.what


def test_a_missing_sealed_commit(mixed: EventLog) -> None:
    """A gap is reported even where the events are sealed: retention deletes the oldest first."""
    mixed.store.delete(commit_key(2))
    [finding] = verify(mixed, REGISTRY).findings
    assert commit_key(2) in finding.where
    assert "its events are sealed" in finding.what


@pytest.mark.parametrize("number", [2, 6])
def test_a_truncated_commit(mixed: EventLog, number: int) -> None:
    """A commit without a footer is found, sealed or not."""
    change(mixed, commit_key(number), lambda data: data[: len(data) // 2])
    found = verify(mixed, REGISTRY)
    assert [(f.kind, commit_key(number) in f.where) for f in found.findings] == [("commit", True)]


def test_a_flipped_bit_in_a_commit(mixed: EventLog) -> None:
    """A commit has the digest of all its bytes: no reader takes another one for what was written."""
    change(mixed, commit_key(6), lambda data: data.replace(b"visit", b"visiu", 1))
    with pytest.raises(DamagedLogError, match="changed after it was written"):
        list(read_positions(mixed, REGISTRY, 12, 13))
    found = verify(mixed, REGISTRY)
    assert [(f.kind, commit_key(6) in f.where) for f in found.findings] == [("commit", True)]


def test_a_commit_under_a_false_number(mixed: EventLog) -> None:
    """A copy of a commit has the number and positions of the original."""
    mixed.store.put(commit_key(8), mixed.store.get(commit_key(7)))
    found = verify(mixed, REGISTRY)
    assert any("is commit 7, not 8" in f.what and commit_key(8) in f.where for f in found.findings)


def test_swapped_commits(mixed: EventLog) -> None:
    """Each is whole, but under the number of the other."""
    six, seven = mixed.store.get(commit_key(6)), mixed.store.get(commit_key(7))
    mixed.store.put(commit_key(6), seven)
    mixed.store.put(commit_key(7), six)
    with pytest.raises(DamagedLogError, match="is commit 7, not 6"):
        mixed.head()
    assert kinds(verify(mixed, REGISTRY)) == ["commit"]


def test_a_commit_that_was_replaced_by_a_valid_one(mixed: EventLog) -> None:
    """It has a digest that is right, but the commit after it names another: the chain is broken, and readers say so."""
    info = mixed.commit_info(6)
    assert info is not None
    found = pq.read_table(mixed.store.local_path(commit_key(6)), partitioning=None).to_pylist()
    columns = [[row[name] for row in found] for name in commits.COMMIT_SCHEMA.names]
    _, data = commits.encode(dataclasses.replace(info, uuid="another"), columns)
    mixed.store.put(commit_key(6), data)
    with pytest.raises(DamagedLogError, match="does not follow what is before it"):
        mixed.head()
    [finding] = verify(mixed, REGISTRY).findings
    assert (finding.kind, commit_key(7) in finding.where) == ("chain", True)


def test_stray_objects_are_named_and_passed_over(mixed: EventLog) -> None:
    """Nobody reads what has no number for a name."""
    mixed.store.put("manifests/zz-notes.txt", b"hello")
    mixed.store.put("commits/00000000000000000099.parquet.bak", b"hello")
    assert mixed.head().position == 14
    assert sorted((f.kind, "pass over it" in f.what) for f in verify(mixed, REGISTRY).findings) == [
        ("commit", True),
        ("manifest", True),
    ]


# --- events that contradict each other --------------------------------------------------------------------------------


def rewrite(log: EventLog, number: int, *, rows: Callable[[Values], Any] = lambda r: None, **footer: Any) -> None:
    """Rewrite a commit with other rows or another footer, and link the commits after it to the new one."""
    while (info := log.commit_info(number)) is not None:
        found = pq.read_table(log.store.local_path(commit_key(number)), partitioning=None).to_pylist()
        for row in found:
            rows(row)
        columns = [[row[name] for row in found] for name in commits.COMMIT_SCHEMA.names]
        info, data = commits.encode(dataclasses.replace(info, **footer), columns)
        log.store.put(commit_key(number), data)
        rows, footer, number = lambda row: None, {"previous": info.digest}, number + 1


@pytest.mark.parametrize(
    ("rewritten", "kind", "expected"),
    [
        ({"first_position": 13}, "position", "begins at position 13, expected 14"),
        ({"last_position": 15}, "commit", "its rows differ"),
        ({"heads": {"order-8": 4}}, "heads", "stream 'order-8' has version 4 in its footer and 3 in its rows"),
        ({"heads": {}}, "heads", "has version None in its footer"),
        ({"rows": lambda r: r.update(stream_version=4), "heads": {"order-8": 4}}, "stream", "version 3 is missing"),
        (
            {"rows": lambda r: r.update(stream_version=2), "heads": {"order-8": 2}},
            "stream",
            "two events have version 2",
        ),
        ({"rows": lambda r: r.update(position=13)}, "position", "2 events have it"),
        ({"rows": lambda r: r.update(position=15)}, "position", "no event up to position 14"),
        ({"rows": lambda r: r.update(commit_number=6)}, "commit", "its rows differ"),
        ({"rows": lambda r: r.update(event_id="visit-1")}, "event_id", "at positions 7, 14"),
    ],
)
def test_a_commit_that_contradicts_the_log(mixed: EventLog, rewritten: Values, kind: str, expected: str) -> None:
    """A well-formed commit with a false footer or false rows is found by its content."""
    rewrite(mixed, 7, **rewritten)
    found = verify(mixed, REGISTRY)
    assert [f for f in found.findings if f.kind == kind and expected in f.what]


def test_versions_that_run_against_positions(log: EventLog, appender: Appender) -> None:
    """All versions are there, but not in the order of the positions."""
    appender.append("order-1", [PLACED])
    appender.append("order-1", [PLACED])
    rewrite(log, 1, rows=lambda r: r.update(stream_version=2), heads={"order-1": 2})
    rewrite(log, 2, rows=lambda r: r.update(stream_version=1), heads={"order-1": 1})
    [finding] = verify(log, REGISTRY).findings
    assert (finding.kind, finding.what) == ("stream", "version 2 is at position 1, before version 1 at 2")


def test_the_same_event_recorded_twice(log: EventLog, appender: Appender) -> None:
    """Two events of one identity are found across streams, buckets and the seal."""
    appender.append("order-1", [NewEvent(payload=PLACED, event_id="same")])
    seal(log)
    appender.append("order-2", [NewEvent(payload=PLACED, event_id="same")])
    [finding] = verify(log, REGISTRY).findings
    assert (finding.kind, finding.where) == ("event_id", "event 'same'")
    assert "positions 1, 2" in finding.what


def test_many_findings_are_counted_not_listed(log: EventLog) -> None:
    """The first twenty of a kind are listed; the rest are counted."""
    for i in range(25):
        write_commit(log, [(f"s-{i}", "Closed", 1, "{}")])
        rewrite(log, i + 1, heads={})
    found = verify(log, REGISTRY)
    assert (kinds(found), len(found.findings), found.more) == (["heads"], 20, 5)


# --- the manifest -----------------------------------------------------------------------------------------------------


def tamper(log: EventLog, how: Callable[[Values], Any]) -> None:
    """Change the newest manifest."""
    values = manifest_values(log)
    how(values)
    log.store.put(manifest_key(1), encode_record(values))


def values_of(log: EventLog, key: str) -> Any:
    """Return what a record says, without its digest."""
    return orjson.loads(checked_content(log.store.get(key)))


def segment_values(key: str | None = None, **values: Any) -> Callable[[Values], None]:
    """Change what a manifest says of a segment."""

    def how(manifest: Values) -> None:
        next(s for s in manifest["segments"] if key in (None, s["key"])).update(values)

    return how


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        (lambda m: m.update(number=2), "manifest"),
        (lambda m: m.update(sealed_position=5), "manifest"),
        (lambda m: m.update(sealed_commit=2), "manifest"),
        (lambda m: m.update(sealed_commit=9), "manifest"),
        (lambda m: m.update(recorded_at="2020-01-01T00:00:00+00:00"), "manifest"),
        (lambda m: m["segments"].pop(), "position"),
        (lambda m: m["segments"].append(m["segments"][0]), "position"),
        (segment_values(rows=7), "segment"),
        (segment_values(bytes=7), "segment"),
        (segment_values(checksum="0" * 64), "segment"),
        (segment_values(first_position=3), "segment"),
        (segment_values(last_position=9), "segment"),
        (segment_values(schema_version=2), "schema"),
        (segment_values(event_type="Closed"), "schema"),
        (segment_values(untyped=True), "schema"),
        (lambda m: m["segments"][0].update(bucket=(m["segments"][0]["bucket"] + 1) % 2), "manifest"),
        (segment_values(bucket=2), "position"),
        (segment_values(position_base=1), "position"),
        (segment_values(commit_base=1), "position"),
        (lambda m: m["heads"].pop(), "heads"),
        (lambda m: m["heads"][0].update(rows=9), "heads"),
        (lambda m: m["heads"][0].update(bytes=9), "heads"),
    ],
)
def test_a_tampered_manifest(mixed: EventLog, how: Callable[[Values], Any], kind: str) -> None:
    """Every false value of a manifest is found."""
    tamper(mixed, how)
    assert kind in kinds(verify(mixed, REGISTRY))


def test_a_manifest_that_is_none(mixed: EventLog) -> None:
    """Without a manifest only the commits can be checked, and the result says so."""
    mixed.store.put(manifest_key(1), b"{}")
    found = verify(mixed, REGISTRY)
    assert kinds(found) == ["manifest"]
    assert found.unchecked == ("segments, streams and positions, since the manifest cannot be read",)


def test_a_missing_manifest_number(mixed: EventLog) -> None:
    """Manifests are numbered without a gap."""
    mixed.store.put(manifest_key(3), encode_record(manifest_values(mixed) | {"number": 3}))
    [finding] = verify(mixed, REGISTRY).findings
    assert manifest_key(2) in finding.where


def test_an_import_that_the_manifest_lacks(mixed: EventLog) -> None:
    """A second run of that import would append it again."""
    seal(mixed)
    mixed.store.put(manifest_key(2), encode_record(values_of(mixed, manifest_key(2)) | {"imports": {}}))
    [finding] = verify(mixed, REGISTRY).findings
    assert "bulk import visit of commit 4" in finding.what


# --- stream heads, buckets and contracts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda log, key: log.store.delete(key),
        lambda log, key: change(log, key, lambda data: data[:-1]),
        lambda log, key: change(log, key, lambda data: bytes(len(data))),
    ],
    ids=["missing", "truncated", "zeroed"],
)
def test_a_damaged_run_of_heads(mixed: EventLog, damage: Callable[[EventLog, str], None]) -> None:
    """The finding names the run; the streams are still checked."""
    run = mixed.manifest().heads[0]
    damage(mixed, run.key)
    found = verify(mixed, REGISTRY)
    assert [(f.kind, run.key in f.where) for f in found.findings] == [("heads", True)]
    assert found.unchecked == (f"stream heads of bucket {run.bucket} in the manifest",)


def test_heads_that_are_false(mixed: EventLog) -> None:
    """A run that puts a stream at another version is found; an appender would number its events wrongly."""
    run = next(h for h in mixed.manifest().heads if h.rows == 1)
    path = mixed.store.local_path(run.key)
    table = pq.read_table(path, partitioning=None)
    data = Path(path).with_suffix(".new")
    versions = [v + 1 for v in table["stream_version"].to_pylist()]
    pq.write_table(table.set_column(1, table.schema.field(1), [versions]), data)
    size, checksum = data.stat().st_size, digest_of(data.read_bytes())
    data.replace(path)
    tamper(mixed, lambda m: next(h for h in m["heads"] if h["key"] == run.key).update(bytes=size, checksum=checksum))
    [finding] = verify(mixed, REGISTRY).findings
    assert (finding.kind, "have version 3, its events have 2" in finding.what) == ("heads", True)


def rewrite_segment(log: EventLog, segment: Segment, column: str, values: list[Any]) -> None:
    """Change a column of a segment, and put the new size and digest into the manifest."""
    path = log.store.local_path(segment.key)
    table = pq.read_table(path, partitioning=None)
    index = table.schema.get_field_index(column)
    data = Path(path).with_suffix(".new")
    pq.write_table(table.set_column(index, table.schema.field(index), [values]), data)
    size, checksum = data.stat().st_size, digest_of(data.read_bytes())
    data.replace(path)
    tamper(log, segment_values(segment.key, bytes=size, checksum=checksum))


@pytest.mark.parametrize("column", ["occurred_at", "customer"])
def test_segment_and_manifest_changed_alike(mixed: EventLog, column: str) -> None:
    """Their digests are right, but the commits that were sealed into them say something else."""
    segment = next(s for s in mixed.manifest().segments if s.event_type == "Placed" and not s.commit_base)
    table = pq.read_table(mixed.store.local_path(segment.key), partitioning=None)
    before = table[column].to_pylist()
    changed = before[0] + timedelta(days=1) if column == "occurred_at" else "mallory"
    rewrite_segment(mixed, segment, column, [changed, *before[1:]])
    [finding] = verify(mixed, REGISTRY).findings
    assert finding.kind == "segment"
    assert f"Placed v{segment.schema_version}, bucket {segment.bucket}" in finding.where
    assert "a value in its segments differs from the one in its commits" in finding.what


def test_commits_that_were_removed_are_not_compared(mixed: EventLog) -> None:
    """What they proved is proved by nothing else; the log is sound."""
    sealed = mixed.manifest()
    tamper(mixed, lambda m: m.update(removed_before=sealed.sealed_commit + 1))
    for number in range(1, sealed.sealed_commit + 1):
        mixed.store.delete(commit_key(number))
    found = verify(mixed, REGISTRY)
    assert (found.sound, found.unchecked) == (True, ())


def move(manifest: Manifest, segment: Segment, bucket: int) -> Values:
    """Give the segments of a manifest in which one lies in another bucket, with its path."""
    key = segment.key.replace(f"bucket={segment.bucket:02d}", f"bucket={bucket:02d}")
    moved = dataclasses.replace(segment, bucket=bucket, key=key)
    segments = [moved if s.key == segment.key else s for s in manifest.segments]
    return {"segments": [dataclasses.asdict(s) for s in segments]}


def test_streams_in_a_wrong_bucket(mixed: EventLog) -> None:
    """A file whose streams hash to another bucket than its own is found, though its path and checksum are right."""
    manifest = mixed.manifest()
    segment = manifest.segments[0]
    wrong = (segment.bucket + 1) % 2
    values = move(manifest, segment, wrong)
    key = next(s["key"] for s in values["segments"] if s["checksum"] == segment.checksum)
    mixed.store.put(key, mixed.store.get(segment.key))
    mixed.store.put(manifest_key(1), encode_record(manifest_values(mixed) | values))
    found = verify(mixed, REGISTRY)
    assert [f for f in found.findings if f.what.startswith(f"in bucket {wrong}, expected {segment.bucket}")]


@pytest.mark.parametrize("field", ["customer", "occurred_at"])
def test_a_null_in_a_required_field_of_a_segment(log: EventLog, appender: Appender, field: str) -> None:
    """Release 0.1.0 could write one: segment, position and field are named."""
    appender.append("order-1", [Closed(), PLACED])
    seal(log)
    assert verify(log, REGISTRY).sound
    nullify(log, "Placed", field)
    [finding] = verify(log, REGISTRY).findings
    assert (finding.kind, "event_type=Placed" in finding.where) == ("segment", True)
    assert finding.what == f"the event at position 2 has NULL in the required field {field}"


def test_a_contract_that_changed_under_its_version(mixed: EventLog) -> None:
    """A field of another type without a new schema version is named."""

    @event(schema_version=2, name="Placed")
    class Changed:
        customer: int
        currency: str

    @upcaster(Changed, from_version=1, schema=PLACED_V1)
    def again() -> str:
        return "SELECT 1 AS customer, '' AS currency FROM event"

    changed = Registry(events=[Changed, Added, Closed, Moved], upcasters=[again, unbundle, join_address])
    found = verify(mixed, changed)
    assert kinds(found) == ["schema"]
    assert "customer" in found.findings[0].what
    assert "raise schema_version" in found.findings[0].advice


def test_a_schema_that_the_domain_no_longer_declares(mixed: EventLog) -> None:
    """Typed segments of an event type that is no longer declared are a finding."""
    found = verify(mixed, YOUNGER)
    assert kinds(found) == ["schema"]
    assert "Added v1" in found.findings[0].what


@pytest.mark.parametrize(
    ("number", "ahead", "text"),
    [
        (2, timedelta(days=26_000), "26000 days, 0:00:00 ahead of commit 3, which follows it"),
        (3, timedelta(days=26_000), "26000 days, 0:00:00 ahead of commit 4, which follows it"),
        (5, timedelta(hours=2), "2:00:00 ahead of the clock of this machine"),
        (3, timedelta(days=-1), "1 day, 0:00:00 behind commit 2, which precedes it"),
        (5, timedelta(days=-20_000), "20000 days, 0:00:00 behind commit 4, which precedes it"),
    ],
)
def test_a_wrong_clock(log: EventLog, appender: Appender, number: int, ahead: timedelta, text: str) -> None:
    """The one commit whose time contradicts the others is named, with the write and the skew; it is no damage."""
    infos = [log.commit_info(appender.append("order-1", [PLACED]).commit_number) for _ in range(5)]
    info = infos[number - 1]
    assert info is not None
    rewrite(log, number, recorded_at=info.recorded_at + ahead)
    found = verify(log, REGISTRY)
    assert found.sound
    [wrong] = found.wrong_clocks
    assert (wrong.commit_number, wrong.commit_uuid) == (number, info.uuid)
    assert text in str(wrong)


def test_clocks_that_differ_a_little_are_not_named(log: EventLog, appender: Appender) -> None:
    """Clocks differ by seconds everywhere."""
    for seconds in (0, 50, 10, 59, 0):
        number = appender.append("order-1", [PLACED]).commit_number
        info = log.commit_info(number)
        assert info is not None
        rewrite(log, number, recorded_at=datetime.now(UTC) + timedelta(seconds=seconds))
    assert verify(log, REGISTRY).wrong_clocks == ()
