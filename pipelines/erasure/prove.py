"""``refold erase --prove``: a search for what is still readable of a subject's personal data.

A proof looks at the places in which refold keeps data. In the log, a value is unreadable if it is encrypted under a key
that does not exist any more. What was made from the log (snapshots, read models with their dead letters, staged rows)
holds no ciphertext to look for: it is clean if it was made after the erasure, from events whose key was gone; each of
these objects says how many erasures the log had when its events were read.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from refold.event_schemas import KeyStoreError, ObjectNotFoundError, Registry
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.erasure.erase import holding_models, subjects_of
from refold.pipelines.rebuild.replay_plan import outdated_plans
from refold.warehouse.commands.snapshots import outdated_snapshots
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import first_line, literal, quote
from refold.warehouse.event_log.erasures import erasures_of
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.reads.scan import live_segments
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.mirror import default_cache_dir
from refold.warehouse.personal.ciphertext import KEY_ID_LENGTH, PREFIX
from refold.warehouse.personal.key_store import Subject
from refold.warehouse.read_models.generations.generations import Generations, open_generations
from refold.warehouse.replay.event_ranges import typed_range

_STAGING = "staging"
_WORK = "work"
_SEARCHED_TEXT = ("staging/rejects", "staging/ingest-")
"""Where an import keeps rows of its files as they are: those that could not become events, and were not encrypted."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in which personal data of the subject is readable, or may be.

    Attributes:
        kind: ``key``, ``event``, ``erasure``, ``snapshot``, ``generation``, ``staging``, ``working file``, ``rejected
            rows`` or ``cache``.
        where: the object.
        what: what it holds, and what removes it.
    """

    kind: str
    where: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a search found.

    Attributes:
        subject: the value that was searched for.
        events: events of the log that hold personal data of the subject, readable or not.
        values: their encrypted values.
        destroyed: the subject's keys that are destroyed.
        searched: kind of place to how many were searched.
        traces: where something is left; empty if nothing readable is.
    """

    subject: str
    events: int
    values: int
    destroyed: tuple[str, ...]
    searched: dict[str, int]
    traces: tuple[Trace, ...]


def prove_erasure(
    log: EventLog, domain_ref: str, read_models_url: str, subject: str, *, field: str | None = None
) -> Proof:
    """Search for readable personal data of a subject; before an erasure, the result says where the data is.

    Args:
        log: the log, with its archive and its key store.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        subject: the value that names the subject in events.
        field: the field that names the subject, if the domain has several; all by default.

    Raises:
        UsageError: the domain has no personal fields.
        KeyStoreError: the key store is missing, or belongs to another log.
        DamagedLogError: the log cannot be read.
    """
    domain = load_domain(domain_ref)
    log.personal_data.forget_keys()
    search = _Search(log, domain, open_generations(read_models_url, domain.name))
    for one in subjects_of(domain.registry, subject, field):
        search.keys(one)
        search.events(one)
        number = search.erasure(one)
        search.made_before(number)
    search.rejected_rows(subject)
    return Proof(
        subject=subject,
        events=search.event_count,
        values=search.value_count,
        destroyed=tuple(search.destroyed),
        searched=search.searched,
        traces=tuple(dict.fromkeys(search.traces)),
    )


class _Search:
    """One search; notes what it finds."""

    def __init__(self, log: EventLog, domain: Domain, generations: Generations) -> None:
        self._log = log
        self._domain = domain
        self._registry: Registry = domain.registry
        self._generations = generations
        self.traces: list[Trace] = []
        self.destroyed: list[str] = []
        self.searched: dict[str, int] = {}
        self.event_count = self.value_count = 0

    def keys(self, subject: Subject) -> None:
        """Look for the subject's keys."""
        keys = self._log.personal_data.keys
        found = keys.key_ids(subject)
        self.searched["keys"] = self.searched.get("keys", 0) + len(found)
        for key_id, exists in found.items():
            if exists:
                self._note("key", f"{keys.url}, key {key_id}", "it exists; `refold erase` destroys it")
            else:
                self.destroyed.append(key_id)

    def events(self, subject: Subject) -> None:
        """Look at all stored values of the subject: in unsealed commits, segments and the archive.

        Sealed commits that still exist, and segments that others replaced, hold the same values.
        """
        head = self._log.head()
        self.searched["segments"] = len(live_segments(head))
        self.searched["unsealed commits"] = len(head.tail)
        wanted = [
            k
            for k in self._registry.personal_keys
            if any(f.subject == subject.field for f in self._registry.personal(k))
        ]
        with tempfile.TemporaryDirectory(prefix="refold-") as folder, connect(temp_directory=folder) as connection:
            typed = typed_range(
                connection, self._log, self._registry, head, schema_keys=wanted, after=0, up_to=head.position
            )
            for key in wanted:
                if key in typed.relations:
                    self._values(connection, key, typed.relations[key], subject)
            for event in typed.invalid_events:
                if (event.event_type, event.schema_version) in wanted and subject.value in event.payload:
                    self._note_key_ids(event.payload, f"{self._log.url}, position {event.position}")

    def _values(self, connection: duckdb.DuckDBPyConnection, key: SchemaKey, relation: str, subject: Subject) -> None:
        names = [f.name for f in self._registry.personal(key) if f.subject == subject.field]
        mine = f"(FROM {relation} WHERE CAST({quote(subject.field)} AS VARCHAR) = {literal(subject.value)})"
        [(count,)] = connection.execute(f"SELECT count(*) FROM {mine}").fetchall()
        self.event_count += count
        for name in names:
            value = quote(name)
            query = (
                f"SELECT CASE WHEN starts_with({value}, {literal(PREFIX)}) "
                f"THEN substr({value}, {len(PREFIX) + 1}, {KEY_ID_LENGTH}) END, count(*), min(position) "
                f"FROM {mine} WHERE {value} IS NOT NULL GROUP BY 1"
            )
            for key_id, values, position in connection.execute(query).fetchall():
                self.value_count += values
                place = f"{self._log.url}, {key[0]} v{key[1]}, field {name}, from position {position}"
                if key_id is None:
                    self._note("event", place, f"{values} values are not encrypted; `refold log rewrite` replaces them")
                elif self._is_readable(key_id):
                    self._note("event", place, f"{values} values can be decrypted with key {key_id}")

    def _note_key_ids(self, payload: str, place: str) -> None:
        """Look at an event that matches no contract: what it holds may be encrypted or not."""
        found = [part[:KEY_ID_LENGTH] for part in payload.split(PREFIX)[1:]]
        if not found or any(map(self._is_readable, found)):
            self._note("event", place, "an event that matches no contract holds values that may be readable")

    def _is_readable(self, key_id: str) -> bool:
        try:
            return self._log.personal_data.keys.find(key_id) is not None
        except KeyStoreError:  # lost: nobody reads it, but a backup may bring it back
            self._note("key", self._log.personal_data.keys.url, f"key {key_id} is missing, but was not destroyed")
            return False

    def erasure(self, subject: Subject) -> int | None:
        """Return the number of the subject's last erasure; None if there was none."""
        destroyed = {k for k, exists in self._log.personal_data.keys.key_ids(subject).items() if not exists}
        last = None
        for erasure in erasures_of(self._log, self._registry, subject):
            destroyed -= set(erasure.key_ids)
            last = erasure.number
        if destroyed:
            text = "no event says so; run `refold erase` again, which completes it"
            self._note("erasure", self._log.url, f"the keys {', '.join(sorted(destroyed))} are destroyed, but {text}")
        return last

    def made_before(self, number: int | None) -> None:
        """Look for what was made from the log before the erasure of a number; without one, for all that was made."""
        if number is None and not self.event_count:
            return
        erasures = 1 << 62 if number is None else number
        advice = "`refold erase` renews it" if number is None else "it was made before the erasure"
        store, stored = self._generations.store, self._log.store
        self.searched["snapshots"] = sum(1 for _ in stored.list_from("snapshots"))
        for key in outdated_snapshots(self._log, erasures=erasures):
            self._note("snapshot", f"{stored.url}/{key}", f"a state of a stream: {advice}")
        generations = self._generations.all()
        self.searched["generations"] = len(generations)
        for generation in generations:
            if models := holding_models(self._domain, self._log, generation, erasures):
                self._note(
                    "generation",
                    f"{store.url}/{generation.file}",
                    f"generation {generation.number}, read models {', '.join(models)}: {advice}; `refold generations "
                    "gc` removes it if it is superseded",
                )
        for _, plan in outdated_plans(store, self._log, erasures=erasures):
            place = plan.staging(store)
            self._note("staging", place.url, f"rows staged by a rebuild: {advice}; `refold erase` removes them")
        self._unpublished(store, {g.file for g in generations}, erasures)

    def _unpublished(self, store: ObjectStore, published: set[str], erasures: int) -> None:
        """Look into database files that no generation names: of writers that run or died, and cached copies."""
        keys = [key for key in store.list_from("files") if key not in published]
        for key in keys:
            self._database("working file", store.local_path(key), f"{store.url}/{key}", erasures)
        working = sorted(Path(store.url).glob(f"{_WORK}/**/*.duckdb")) if store.is_local else []
        for path in working:
            self._database("working file", path, str(path), erasures)
        cache = store.cache_dir or default_cache_dir()
        cached = [] if store.is_local else sorted(cache.glob("*/files/*"))
        for path in cached:
            self._database("cache", path, str(path), erasures)
        self.searched["working files"] = len(keys) + len(working)
        self.searched["cached files"] = len(cached)

    def _database(self, kind: str, path: Path, where: str, erasures: int) -> None:
        try:
            found = _erasures_in(path, self._log.log_id)
        except FileNotFoundError:
            return
        except duckdb.Error as error:
            self._note(kind, where, f"it cannot be read ({first_line(error)}), so it may hold the data")
            return
        models = {m.name for m in self._domain.read_models if self._registry.reads_personal(m.event_types)}
        if held := sorted(name for name, number in found.items() if name in models and number < erasures):
            self._note(
                kind,
                where,
                f"read models {', '.join(held)} from before the erasure; a running stream takes over the newest "
                "generation within seconds, and `refold generations gc` removes what a dead writer left",
            )

    def rejected_rows(self, subject: str) -> None:
        """Look for the subject's id in rows that imports could not turn into events."""
        count = 0
        for key in self._log.store.list_from(_STAGING):
            if not key.startswith(_SEARCHED_TEXT):
                continue
            count += 1
            try:
                data = self._log.store.get(key)
            except ObjectNotFoundError:
                continue
            if key.endswith((".jsonl", "rejects")) and subject.encode() in data:
                self._note(
                    "rejected rows",
                    f"{self._log.url}/{key}",
                    "rows of an import that were rejected, and are kept as they were in the file: delete it",
                )
        self.searched["import files"] = count

    def _note(self, kind: str, where: str, what: str) -> None:
        self.traces.append(Trace(kind, where, what))


def _erasures_in(path: Path, log_id: str) -> dict[str, int]:
    """Return for each read model of a database file how many erasures the log had when its events were read.

    Files of other logs have none. The file is copied first: its writer may have it open.
    """
    with tempfile.TemporaryDirectory(prefix="refold-") as folder:
        copy = shutil.copyfile(path, Path(folder) / "copy.duckdb")
        with closing(connect(copy, read_only=True)) as connection:
            try:
                logs = connection.execute("SELECT log_id FROM refold.checkpoint").fetchall()
                names = connection.sql("FROM refold.projections").columns
            except duckdb.CatalogException:
                return {}
            if (log_id,) not in logs:
                return {}
            number = "coalesce(erasures, 0)" if "erasures" in names else "0"
            return dict(connection.execute(f"SELECT name, {number} FROM refold.projections").fetchall())
