"""Every parser gets bytes that nobody meant: it returns a value, or raises one of refold's errors of one line.

Inputs are mutated: their bytes, and the values of JSON documents, whose digests are then made again, as those of
somebody who may write to the log. ``REFOLD_FUZZ`` is the number of inputs of a fast parser; slow ones get fewer.
``REFOLD_FUZZ_REPORT`` names a file, to which the numbers are appended.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import click
import msgspec
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.event_schemas import RefoldError, event, schema_of, upcaster
from refold.event_schemas.decider import command_from_json
from refold.event_schemas.lock import read_lock
from refold.event_schemas.payload import read_stored, to_json
from refold.pipelines.beam.staged_pipeline import ReportedError
from refold.pipelines.cli.archive import PastTime
from refold.pipelines.cli.config import load_settings
from refold.pipelines.cli.support.durations import DURATION
from refold.pipelines.ingest import spooled_commits
from refold.pipelines.ingest.left_out import LeftOut, read_left_out
from refold.pipelines.ingest.mapping_file import read_mapping
from refold.pipelines.ingest.rejects import Reason, RejectLimit
from refold.pipelines.rebuild import failed_folds, replay, replay_plan
from refold.pipelines.serving.http.bodies import read_object
from refold.pipelines.serving.http.rate_limits import parse_rate
from refold.pipelines.serving.http.request_line import check_request_line
from refold.pipelines.serving.http.tokens import load_tokens
from refold.pipelines.serving.reads.parameters import Parameters
from refold.warehouse.commands.snapshots import Loaded, Snapshots
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Lookup, Report
from refold.warehouse.engine.parquet_files import write_table
from refold.warehouse.event_log import Appender, commit, create_log, manifest_parts, open_log
from refold.warehouse.event_log import archive as archives
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.bulk_import.spool_journal import read_journal
from refold.warehouse.event_log.heads import SealedHeads
from refold.warehouse.event_log.layout import CONFIG_KEY, commit_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest_parts import Listed, Part, PartRef
from refold.warehouse.event_log.reads.seek import find_place
from refold.warehouse.object_store import open_store
from refold.warehouse.object_store.digests import digest_of, stamped
from refold.warehouse.object_store.records import RecordError, decode_record, encode_record, record_digest
from refold.warehouse.orders.domain import ORDERS
from refold.warehouse.queries import endpoint_queries
from refold.warehouse.read_models.generations.generations import Generation, open_generations
from refold.warehouse.read_models.increments.increment import Staged
from refold.warehouse.read_models.increments.staged_bytes import decode_staged, encode_staged
from refold.warehouse.read_models.live.heartbeat import Heartbeat, read_heartbeat, silent_seconds, write_heartbeat
from tests.faults.fragile import CASTING
from tests.faults.mutations import as_json, edited, mutated
from tests.pipelines.ingest.imports import lines, read, row
from tests.warehouse.event_log.shop import REGISTRY, Added, Placed, added, manifest_values, seal

FUZZ = int(os.environ.get("REFOLD_FUZZ", "60"))
BATCH = 20
"""Inputs of one example of Hypothesis, which is the seed of a generator: drawing each byte would take longer."""
SECONDS = 20
"""An input that takes longer hangs its parser."""
MEMORY = 4 << 30
"""Bytes that parsers may take beside what the process has."""
ERRORS = (RefoldError, click.ClickException, RequestValidationError)

Parse = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """One parser.

    Attributes:
        parse: takes any bytes.
        seeds: valid inputs, whose bytes are mutated.
        documents: JSON documents, whose values are edited.
        encode: makes an input of an edited document.
        cost: how often slower it is than a fast one.
        errors: further errors that its callers turn into those of refold.
    """

    parse: Parse
    seeds: tuple[bytes, ...] = ()
    documents: tuple[Any, ...] = ()
    encode: Callable[[Any], bytes] = as_json
    cost: int = 1
    errors: tuple[type[Exception], ...] = ()

    def valid(self) -> list[bytes]:
        """Return the inputs that are mutated."""
        return [*self.seeds, *map(self.encode, self.documents)]

    def inputs(self, dice: Random) -> Iterator[bytes]:
        """Make inputs."""
        seeds = self.valid()
        for _ in range(BATCH):
            if self.documents and dice.random() < 0.7:
                yield self.encode(edited(dice, self.documents))
            else:
                yield mutated(dice, seeds)


def signed(document: Any) -> bytes:
    """Return a document as a record with the right digest."""
    content = as_json(document)
    body = content[1:] if content[:1] == b"{" and content != b"{}" else content
    return b'{"digest":"' + digest_of(body).encode() + b'",' + body


def value_of(record: Any) -> Any:
    """Return the JSON document of a dataclass."""
    return msgspec.to_builtins(record)


def on_text(parse: Callable[[str], object]) -> Parse:
    """Let a parser take the bytes of a command line."""
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def on_source(parse: Callable[[str], object]) -> Parse:
    """Let a parser take the bytes of a source file, which are UTF-8."""
    return lambda data: parse(data.decode("utf-8", "replace"))


def on_file(path: Path, parse: Callable[[Path], object]) -> Parse:
    """Let a parser take the bytes of a file."""

    def run(data: bytes) -> object:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)
        return parse(path)

    return run


class World:
    """A log with everything that a log may have, and its parsers.

    Args:
        folder: of the log.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = create_log(str(folder / "log"), domain_name="shop", bucket_count=2)
        appender = commit_writer(self.log)
        appender(2)
        self.sealed = seal(self.log)
        appender(1)
        self.orders = create_log(str(folder / "orders"), domain_name="orders", bucket_count=2)
        self.numbers = itertools.count()

    def parsers(self) -> dict[str, Parser]:
        """Return all parsers."""
        return {**self.of_log(), **self.of_read_models(), **self.of_staging(), **self.of_users(), **self.of_imports()}

    def of_log(self) -> dict[str, Parser]:
        """Return those of the objects of a log."""
        log, folder = self.log, self.folder
        description = json.loads((folder / "log" / CONFIG_KEY).read_bytes())
        del description["digest"]
        other = folder / "other"
        (other / "log").mkdir(parents=True)
        footer = Path(log.url, commit_key(3)).read_bytes()
        info = log.commit_info(3)
        assert info is not None
        segment, run = self.sealed.segments[0], self.sealed.heads[0]
        snapshots = Snapshots(self.orders, ORDERS.deciders[0], ORDERS)
        key = snapshots.key("order-1")
        snapshots.save("order-1", Loaded(ORDERS.deciders[0].initial_state(), 1, 1, {}))
        kept = json.loads(self.orders.store.get(key))
        del kept["digest"]
        target = open_store(str(folder / "cold"))
        named = value_of(dataclasses.replace(self.sealed, segments=(), heads=()))
        listed = value_of(Part(segments=(segment,), heads=(run,), removed=("segments/a.parquet",)))
        claimed = {"log_id": log.log_id, "domain": "shop"}

        def manifest(data: bytes, *, has_digest: bool = True) -> object:
            target.put("manifest", data)
            found = manifests.load(target, "manifest", has_digest=has_digest)
            return Head(found, ()).last_recorded_at, list(found.segments)

        def part(data: bytes) -> object:
            target.put("part", data)
            ref = PartRef(key="part", range=0, bytes=len(data), digest=record_digest(data))
            manifest_parts.forget()
            return list(Listed("segments", target, [ref]))

        def snapshot(data: bytes) -> object:
            self.orders.store.put(key, data)
            return snapshots.load("order-1", up_to=1)

        def archive(data: bytes) -> object:
            target.put(archives.ARCHIVE_KEY, data)
            archives._claim(log, target)
            return target

        def heads() -> object:
            found = SealedHeads(log, self.sealed)
            return found.version("order-0"), found.version("order-1")

        def restamped(document: Any) -> bytes:
            buffer = io.BytesIO()
            metadata: dict[str, bytes | str] = {"refold.commit": as_json(document), "refold.digest": "0" * 64}
            write_table(commit.COMMIT_SCHEMA.empty_table(), buffer, metadata=metadata)
            return stamped(buffer.getvalue(), b"refold.digest")[0]

        payload = as_json(dataclasses_payload())
        added = schema_of(Added)
        return {
            "refold.json": Parser(
                parse=on_file(other / "log" / CONFIG_KEY, lambda path: open_log(str(path.parent)).head()),
                seeds=(as_json(description | {"format_version": 1}),),
                documents=(description, description | {"chain_after": 3, "chain_digest": "0" * 64}),
                encode=signed,
            ),
            "manifest": Parser(parse=manifest, documents=(manifest_values(log), named), encode=signed),
            "part of a manifest": Parser(parse=part, documents=(listed,), encode=signed),
            "manifest of format 1": Parser(
                parse=lambda data: manifest(data, has_digest=False), documents=(manifest_values(log),)
            ),
            "commit": Parser(
                parse=lambda data: commit.read_info(data, where="here"),
                seeds=(footer,),
                documents=(value_of(info),),
                encode=restamped,
                cost=3,
            ),
            "commit of format 1": Parser(
                parse=lambda data: commit.read_info(data, where="here", has_digest=False), seeds=(footer,), cost=3
            ),
            "segment": Parser(
                parse=on_file(Path(log.url, segment.key), lambda _: log.segment_path(segment)),
                seeds=(Path(log.url, segment.key).read_bytes(),),
            ),
            "stream heads": Parser(
                parse=on_file(Path(log.url, run.key), lambda _: heads()),
                seeds=(Path(log.url, run.key).read_bytes(),),
            ),
            "payload": Parser(
                parse=on_text(lambda text: read_stored(text, added)), seeds=(payload,), documents=(json.loads(payload),)
            ),
            "snapshot": Parser(parse=snapshot, documents=(kept,), encode=signed),
            "archive.json": Parser(parse=archive, documents=(claimed,), encode=signed),
        }

    def of_read_models(self) -> dict[str, Parser]:
        """Return those of published read models, and of what streams leave beside them."""
        published = open_generations(str(self.folder / "read-models"), "shop")
        now = datetime.now(UTC).isoformat()
        generation = Generation(
            number=1,
            file="files/a.duckdb",
            bytes=1,
            position=3,
            commit_number=3,
            recorded_at=now,
            published_at=now,
            parent=0,
            log_id=self.log.log_id,
            views={"v": "x"},
        )
        published.store.put("generations/00000000000000000001.json", encode_record(generation))
        older = {name: value for name, value in value_of(generation).items() if name != "commit_digest"}
        heartbeat = Heartbeat(3, 3, now, now, now, "host", 7, 3, 1.5)
        write_heartbeat(published.store, heartbeat)

        def newest(data: bytes) -> object:
            published.store.put("generations/00000000000000000001.json", data)
            found = published.newest()
            return found and (published.superseded_at(found), found.files)

        def beat(data: bytes) -> object:
            published.store.put("live/stream.json", data)
            found = read_heartbeat(published.store)
            return found and silent_seconds(published.store, found)

        return {
            "generation": Parser(parse=newest, documents=(value_of(generation),), encode=signed),
            "generation of 0.1.0": Parser(parse=newest, documents=(older,)),
            "heartbeat": Parser(parse=beat, documents=(value_of(heartbeat),)),
            "cursor": Parser(
                parse=on_text(lambda text: endpoint_queries._decoded(text, 2)),
                seeds=(endpoint_queries._encoded(["order-1", 7]).encode(),),
            ),
        }

    def of_staging(self) -> dict[str, Parser]:
        """Return those of what pipelines stage."""
        store = open_store(str(self.folder / "staging"))
        plan = replay_plan.ReplayPlan(
            "4f0c0a5e-2d3e-4c41-9d0c-0d4f5f1f7c11", self.log.url, "orders", ("a",), 2, self.sealed.number
        )
        staging = plan.staging(store)
        tables = encode_staged(Staged({"tills": pa.table({"a": [1, 2]})}))
        head, _, body = tables.partition(b"\n")
        content = json.loads(head)
        del content["digest"]
        content_digest = content | {"digest": digest_of(body)}

        def find(data: bytes) -> object:
            store.put("staging/plans/p", plan.plan_id.encode())
            staging.put("plan.json", data)
            return replay_plan.find_plan(store, "p")

        def failed(data: bytes) -> object:
            staging.put("staged/left_out/tills", data)
            return failed_folds.left_out(staging, "tills")

        left_out = LeftOut(rows=3, rejected=1, reasons=(Reason(reason="no", rows=1, file="f", line=2, example="no 7"),))

        def rejected(data: bytes) -> object:
            self.log.store.put("imports/a.json", data)
            return read_left_out(self.log, "a")

        journal = b'{"spool_id":"a","recorded_at":"2026-01-01T00:00:00+00:00","context":"4 x"}\n'
        journal += b'{"number":0,"base":0,"events":3,"source":{"row":3},"files":[]}\n'
        (self.folder / "spool").mkdir()
        return {
            "plan of a rebuild": Parser(parse=find, documents=(value_of(plan),), encode=signed),
            "result of a unit": Parser(
                parse=lambda data: decode_record(data, replay._Done),
                documents=({"key": "staged/done/a", "staged": [["a/1", "staged/x"]]},),
                encode=signed,
                errors=(RecordError,),
            ),
            "error of a worker": Parser(
                parse=lambda data: decode_record(data, ReportedError).error(),
                documents=({"kind": "LogError", "message": "It is gone."},),
                encode=signed,
                errors=(RecordError,),
            ),
            "rows of a micro-batch": Parser(
                parse=lambda data: decode_staged(data, where="here"),
                seeds=(tables,),
                documents=(content_digest,),
                encode=lambda document: signed(document) + b"\n" + body,
            ),
            "events that a fold refused": Parser(
                parse=failed,
                documents=({"reasons": {"7": "It overflows."}},),
                encode=signed,
                errors=(RecordError,),
            ),
            "rows that an import left out": Parser(parse=rejected, documents=(value_of(left_out),), encode=signed),
            "journal of an import": Parser(
                parse=on_file(self.folder / "spool" / "journal.jsonl", lambda path: read_journal(path.parent)),
                seeds=(journal,),
            ),
            "progress of an import": Parser(
                parse=on_file(self.folder / "commits.json", lambda path: spooled_commits._begun(self.log, path, 10)),
                documents=({"commit": 3, "commit_events": 10, "commits": 1, "events": 5},),
            ),
        }

    def of_users(self) -> dict[str, Parser]:
        """Return those of what users write: files, options, requests, declarations."""
        folder = self.folder / "user"
        folder.mkdir()
        secret = b"wq7JpY2Vt0hZ4nUe8sKd1A"
        lock = Path(__file__).parents[2].joinpath("event_schemas", "orders.lock.json").read_bytes()
        mapping = (
            b'delimiter = ";"\nnull_values = ["-"]\n[envelope]\nstream_id = "p-{nr}"\n'
            b'event_type = { column = "kind", pattern = "(.*)" }\noccurred_at = "ts"\n'
            b'[types]\na = "Lost"\nb = { event_type = "Sent", schema_version = 1 }\n'
        )
        settings_file = (
            b'[tool.refold]\ndomain = "a.b:C"\nlog = "data/log"\nread_models = "s3://x/y"\nrunner = "dask"\n'
        )
        commands = [cls for _, cls in ORDERS.commands.values()]
        bodies = [b'{"order_id":"o","sku":"s","quantity":2,"unit_price":"1.50","customer_id":"c","currency":"EUR"}']
        bodies.append(
            b'{"order_id":"o","payment_id":"4f0c0a5e-2d3e-4c41-9d0c-0d4f5f1f7c11","amount":1.5,"method":"card"}'
        )
        endpoints = [(Parameters(b), b.endpoint.path_names) for b in ORDERS.bound_endpoints]

        def body(data: bytes) -> object:
            values = read_object(data)
            return [quietly(lambda cls=cls: command_from_json(cls, values)) for cls in commands]  # type: ignore[misc]

        def request(data: bytes) -> object:
            path, _, query = data.partition(b"?")
            if check_request_line(path, query) is not None:
                return None
            text = path.decode("latin-1")
            return [quietly(lambda p=p, n=n: p.read(dict.fromkeys(n, text), query)) for p, n in endpoints]  # type: ignore[misc]

        def declared(sql: str) -> object:
            @event(schema_version=2)
            class Renamed:
                name: str

            @upcaster(Renamed, from_version=1, schema=pa.schema([pa.field("title", pa.string(), nullable=False)]))
            def rename() -> str:
                return sql

            return Domain(name="renamed", events=(Renamed,), upcasters=(rename,))

        def endpoint(text: str) -> object:
            path, _, sql = text.partition(" ")
            made = Report(path=path, text="It.", sql=sql) if sql else Lookup(path=path, table="tills", text="It.")
            return dataclasses.replace(CASTING, endpoints=(made,))

        return {
            "refold.toml": Parser(
                parse=on_file(folder / "refold.toml", lambda path: load_settings({}, {}, path.parent)),
                seeds=(settings_file,),
            ),
            "REFOLD_TOKENS": Parser(
                parse=on_text(lambda text: load_tokens({"REFOLD_TOKENS": text})),
                seeds=(b"shop:read+command:" + secret + b":2027-01-01, b:admin:sha256=" + b"0" * 64,),
            ),
            "file of tokens": Parser(
                parse=on_file(folder / "tokens.toml", lambda path: load_tokens({}, path)),
                seeds=(b'[tokens.shop]\nscopes = ["read"]\nsecret = "' + secret + b'"\nexpires = 2027-01-01\n',),
            ),
            "mapping": Parser(parse=on_file(folder / "mapping.toml", read_mapping), seeds=(mapping,)),
            "lock file": Parser(
                parse=on_text(lambda text: read_lock(text, where="here")), documents=(json.loads(lock),), cost=3
            ),
            "age or date": Parser(
                parse=on_text(lambda text: PastTime().convert(text, None, None)),
                seeds=(b"365d", b"1h30m", b"2025-01-01", b"2025-01-01T12:00:00Z", b"0001-01-01T00:00:00+23:59"),
            ),
            "duration": Parser(
                parse=on_text(lambda text: DURATION.convert(text, None, None)), seeds=(b"5s", b"1.5h", b"250ms", b"7")
            ),
            "--as-of": Parser(
                parse=on_text(lambda text: find_place(self.log, REGISTRY, text)),
                seeds=(b"2", b"2999-01-31T12:00:00Z"),
                cost=10,
            ),
            "--rate": Parser(parse=on_text(parse_rate), seeds=(b"100/second", b"6000/minute")),
            "--max-rejects": Parser(parse=on_text(RejectLimit.parse), seeds=(b"10", b"0.1%")),
            "body of a command": Parser(parse=body, seeds=tuple(bodies), documents=tuple(map(json.loads, bodies))),
            "request line": Parser(
                parse=request,
                seeds=(b"/orders/o-1?limit=7&after=bnVsbA&min_position=3&wait=2s", b"/r?from=2025-01-01&by=week"),
            ),
            "SQL of an upcaster": Parser(
                parse=on_source(declared),
                seeds=(
                    b"SELECT title AS name FROM event",
                    b"SELECT * EXCLUDE (title), upper(title) AS name FROM event",
                ),
                cost=20,
            ),
            "endpoint": Parser(
                parse=on_source(endpoint),
                seeds=(b"/tills/{till}", b"/tills/{till}/{pieces}", b"/best SELECT till FROM tills ORDER BY till"),
                cost=50,
            ),
        }

    def of_imports(self) -> dict[str, Parser]:
        """Return those of files to import."""
        rows = [row(event_id=f"e{n}", payload={"name": f"n{n}", "price": "1.50", "tags": ["x"]}) for n in range(4)]
        cloud = {
            "specversion": "1.0",
            "id": "a",
            "source": "s",
            "type": "Lost",
            "subject": "p-1",
            "time": "2024-05-01T12:00:00Z",
        }
        flat = pa.table(
            {
                "stream_id": ["p-1", "p-2"],
                "event_type": ["Described"] * 2,
                "occurred_at": ["2024-05-01T12:00:00Z"] * 2,
                "name": ["a", "b"],
            }
        )
        csv = b"stream_id,event_type,occurred_at,name\np-1,Described,2024-05-01T12:00:00Z,cup\n"
        csv += b'p-2,Described,2024-05-01,"a\nb"\n'
        parquet, arrow, as_orc = io.BytesIO(), io.BytesIO(), io.BytesIO()
        pq.write_table(flat, parquet)
        with pa.ipc.new_file(arrow, flat.schema) as writer:
            writer.write_table(flat)
        orc.write_table(flat, as_orc)
        xes = (
            b'<log><trace><string key="concept:name" value="p-1"/><event><string key="concept:name" value="Lost"/>'
            b'<date key="time:timestamp" value="2024-05-01T12:00:00Z"/></event></trace></log>'
        )
        files = {
            "jsonl": Parser(parse=self._import("jsonl"), seeds=(lines(*rows).encode(),), documents=tuple(rows)),
            "json": Parser(parse=self._import("json"), documents=(rows, {"events": rows})),
            "cloudevents": Parser(parse=self._import("cloudevents"), documents=([cloud], cloud)),
            "csv": Parser(parse=self._import("csv"), seeds=(csv,)),
            "parquet": Parser(parse=self._import("parquet"), seeds=(parquet.getvalue(),)),
            "arrow": Parser(parse=self._import("arrow"), seeds=(arrow.getvalue(),)),
            "orc": Parser(parse=self._import("orc"), seeds=(as_orc.getvalue(),)),
            "xes": Parser(parse=self._import("xes"), seeds=(xes,)),
        }
        return {f"import of {name}": dataclasses.replace(parser, cost=20) for name, parser in files.items()}

    def _import(self, format: str) -> Parse:
        def parse(data: bytes) -> object:
            place = self.folder / "imports" / str(next(self.numbers))
            place.mkdir(parents=True)
            file = place / "file"
            file.write_bytes(data)
            try:
                return read(place, file, format=format, workers=1)
            finally:
                shutil.rmtree(place)

        return parse


def commit_writer(log: EventLog) -> Callable[[int], None]:
    """Return a function that appends some commits."""
    appender = Appender(log, REGISTRY)

    def append(count: int) -> None:
        for number in range(count):
            appender.append(f"order-{number}", [Placed(customer="c", currency="EUR"), added()])

    return append


def dataclasses_payload() -> Any:
    """Return a payload with a value in every field."""
    return to_json(added(), schema_of(Added))


def quietly(parse: Callable[[], object]) -> object:
    """Parse, where an error ends the request."""
    try:
        return parse()
    except ERRORS as error:
        return str(error)


@pytest.fixture(scope="module")
def parsers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parser]:
    """All parsers."""
    return World(tmp_path_factory.mktemp("fuzzing")).parsers()


@pytest.fixture
def bounded() -> Iterator[None]:
    """End a test that takes too long, or too much memory."""

    def end(*_: object) -> None:
        raise AssertionError("the parser hangs")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, end)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, limits)


NAMES = (
    *(
        "refold.json",
        "manifest",
        "part of a manifest",
        "manifest of format 1",
        "commit",
        "commit of format 1",
        "segment",
        "stream heads",
    ),
    *("payload", "snapshot", "archive.json", "generation", "generation of 0.1.0", "heartbeat", "cursor"),
    *("plan of a rebuild", "result of a unit", "error of a worker", "rows of a micro-batch"),
    *("events that a fold refused", "rows that an import left out", "journal of an import", "progress of an import"),
    *("refold.toml", "REFOLD_TOKENS"),
    *("file of tokens", "mapping", "lock file", "age or date", "duration", "--as-of", "--rate", "--max-rejects"),
    *("body of a command", "request line", "SQL of an upcaster", "endpoint"),
    *(f"import of {name}" for name in ("jsonl", "json", "cloudevents", "csv", "parquet", "arrow", "orc", "xes")),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_parser(parsers: dict[str, Parser], name: str, bounded: None) -> None:
    """It returns a value, or raises an error of one line; it neither hangs nor takes much memory."""
    parser, counted = parsers[name], Counter[str]()
    errors: tuple[type[Exception], ...] = (*ERRORS, *parser.errors)

    @settings(max_examples=max(FUZZ // parser.cost // BATCH, 1), database=None, deadline=None)
    @given(st.integers(0, 1 << 64))
    def fuzz(seed: int) -> None:
        for data in parser.inputs(Random(seed)):
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                parser.parse(data)
                counted["values"] += 1
            except errors as error:
                counted["errors"] += 1
                text = str(error)
                assert text.strip(), data
                assert "\n" not in text, data
            except Exception as error:
                raise AssertionError(f"{error!r} for {data!r}") from error

    for data in parser.valid():
        parser.parse(data)
    try:
        fuzz()
    finally:
        if path := os.environ.get("REFOLD_FUZZ_REPORT"):
            with Path(path).open("a") as file:
                file.write(json.dumps({"parser": name, **counted}) + "\n")


def test_all_parsers_are_named(parsers: dict[str, Parser]) -> None:
    """Each parser has a test of its own."""
    assert set(parsers) == set(NAMES)
