"""A log, folded sequentially into the rows of read models: every commit in order, every event in order of position."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refold.event_schemas import PayloadError, RecordedEvent, Registry, Upcaster
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.personal.personal_data import PersonalData
from refold.warehouse.sequential_fold.combine import identity, with_one_zero
from refold.warehouse.sequential_fold.one_event import OneEvent
from refold.warehouse.sequential_fold.recorded import Recorded, recorded_commits
from refold.warehouse.sequential_fold.sample import Sample
from refold.warehouse.sequential_fold.table import Contribution, Table
from refold.warehouse.sequential_fold.upcast import InvalidError, newest, steps_to
from refold.warehouse.sequential_fold.values import MisfitError, parse, payload_of

Place = tuple[int, tuple[int, ...]]
"""Where a contribution is in the order of all: the position, and the place among events made of the same."""

NO_CONTRACT = ""
"""In place of a read model: the events that match no contract are missing from all of them."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a read model with a seed starts.

    Attributes:
        position: the position of its first rows.
        rows: these rows.
    """

    position: int
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Folded:
    """The result.

    Attributes:
        rows: read model to its rows.
        withheld: read model to its rows with a total that does not fit, and the position since which it does not.
        letters: read model to its dead letters by position: events that it leaves out, and those since which rows are
            withheld. Events of no contract are under ``NO_CONTRACT``.
        events: how many events were read.
    """

    rows: dict[str, list[dict[str, Any]]]
    withheld: dict[str, list[dict[str, Any]]]
    letters: dict[str, dict[int, Mapping[str, Any]]]
    events: int


def fold_log(
    store: ObjectStore,
    domain: Domain,
    models: Sequence[ReadModel],
    *,
    up_to: int,
    samples: Mapping[str, Sample] | None = None,
    starts: Mapping[str, Start] | None = None,
    personal: PersonalData | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> Folded:
    """Fold the events of a log up to a position.

    Args:
        store: the object store of the log.
        domain: contracts and upcasters.
        models: the read models to compute.
        up_to: the last position to apply.
        samples: read model to the keys to compute; all by default.
        starts: where read models with a seed start.
        personal: the personal data of the log; needed if the domain has any.
        report: called with the last position read, after each commit.
    """
    samples, starts = samples or {}, starts or {}
    sql = OneEvent()
    folds = [_ModelFold.of(m, domain, sql, samples.get(m.name), starts.get(m.name)) for m in models]
    by_stream = [f.table.sample for f in folds]
    invalid: dict[int, Mapping[str, Any]] = {}
    count = 0
    for commit in recorded_commits(
        store, lambda s: any(b is None or b.takes_stream(s) for b in by_stream), up_to=up_to
    ):
        count += len(commit)
        typed = []
        for recorded in commit:
            try:
                typed.append(_typed(recorded, domain.registry, personal))
            except MisfitError:
                invalid[recorded.envelope["position"]] = recorded.envelope
        for fold in folds:
            fold.add(typed)
        report(commit[-1].envelope["position"])
    sql.connection.close()
    tables = {f.table.model.name: f.table for f in folds}
    return Folded(
        rows={name: table.published() for name, table in tables.items()},
        withheld={name: table.withheld_rows() for name, table in tables.items()},
        letters={NO_CONTRACT: invalid, **{f.table.model.name: f.letters() for f in folds}},
        events=count,
    )


def _typed(recorded: Recorded, registry: Registry, personal: PersonalData | None) -> RecordedEvent:
    key = (recorded.envelope["event_type"], recorded.envelope["schema_version"])
    if not registry.knows(key):
        raise MisfitError(f"no contract declares {key}")
    payload = parse(recorded.payload) if isinstance(recorded.payload, str) else recorded.payload
    if fields := registry.personal(key):
        assert personal is not None, "a domain with personal fields needs personal="
        try:
            payload = {**payload, **personal.json_values(payload, fields, key[0])}
        except (PayloadError, AttributeError) as error:  # a value that is no ciphertext, and no text
            raise MisfitError(str(error)) from error
    return RecordedEvent(**recorded.envelope, payload=payload_of(payload, registry.schema(*key)))


@dataclass(slots=True)
class _ModelFold:
    """One read model on its way through the log."""

    table: Table
    registry: Registry
    steps: list[Upcaster]
    after: int = 0
    invalid: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    withheld: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: ReadModel, domain: Domain, sql: OneEvent, sample: Sample | None, start: Start | None
    ) -> _ModelFold:
        """Prepare a read model, with its first rows."""
        table = Table(model, sql, sample)
        for row in start.rows if start else ():
            key = tuple(with_one_zero(row[k]) for k in model.key)
            table.rows[identity(list(key))] = key, {c: row[c] for c in model.columns}
        return cls(table, domain.registry, steps_to(domain.registry, model.event_types), start.position if start else 0)

    def add(self, commit: Iterable[RecordedEvent]) -> None:
        """Apply the events of one commit, without those that turn out to be invalid."""
        sample = self.table.sample
        streams: dict[str, list[RecordedEvent]] = {}
        for event in commit:
            if event.position > self.after and (sample is None or sample.takes_stream(event.stream_id)):
                streams.setdefault(event.stream_id, []).append(event)
        found: dict[str, list[tuple[Place, list[Contribution]]]] = {}
        while True:
            try:
                for stream_id in streams.keys() - found.keys():
                    found[stream_id] = self._contributions(streams[stream_id])
                in_order = sorted(itertools.chain(*found.values()), key=lambda placed: placed[0])
                self.table.apply([contribution for _, mine in in_order for contribution in mine])
                break
            except InvalidError as failed:
                for stream_id, events in streams.items():
                    if bad := [e for e in events if e.position in failed.origins]:
                        self.invalid |= {e.position: _envelope(e) for e in bad}
                        streams[stream_id] = [e for e in events if e not in bad]
                        found.pop(stream_id, None)
        since = set(self.table.withheld.values())
        applied = itertools.chain(*streams.values())
        self.withheld |= {e.position: _envelope(e) for e in applied if e.position in since}

    def letters(self) -> dict[int, Mapping[str, Any]]:
        """Return the dead letters by position."""
        return self.invalid | {position: self.withheld[position] for position in self.table.withheld.values()}

    def _contributions(self, stream: list[RecordedEvent]) -> list[tuple[Place, list[Contribution]]]:
        """Return what the events that one commit appended to one stream contribute, with the place of each event."""
        made = newest(self.table.sql, self.registry, self.steps, stream)
        return [((m.event.position, m.path), self.table.contributions(m)) for m in made]


def _envelope(event: RecordedEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in ("stream_id", "event_type", "schema_version")}
