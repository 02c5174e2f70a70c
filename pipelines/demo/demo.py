"""``refold demo``: the sample history of a domain in a log on disk.

The history is appended as any other: with expected versions, and concurrently, so that appends share commits. After a
crash, the demo resumes where it was: the version of a stream shows whether an append is in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from refold.event_schemas import LogError, Registry, UsageError
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log.append import Appender
from refold.warehouse.event_log.layout import DEFAULT_BUCKET_COUNT
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.new_events import StreamAppend
from refold.warehouse.event_log.opening import create_log

DOMAIN = "orders"
"""The domain of the demo, unless another is named."""
DEFAULT_EVENTS = 100_000
DEFAULT_SEED = 7

_CONCURRENT_APPENDS = 256
"""How many appends may share a commit; each waits in a thread."""
_EVENTS_PER_BUCKET = 25_000
"""Fewer would make small segments: a small log has fewer buckets, down to two."""
_SETTINGS = """\
# Written by `refold demo`: in this folder, every command works on the demo.
domain = "{domain}"
log = "log"
read_models = "read-models"
"""


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo in a folder, as its ``demo.json`` describes it.

    Attributes:
        folder: holds the log, the read models and the settings.
        events: how many events were asked for.
        seed: of the history.
        made: how many events the finished history has; 0 until it is finished.
        domain: whose sample history it is, by entry-point name or dotted path.
    """

    folder: Path
    events: int
    seed: int
    made: int = 0
    domain: str = DOMAIN

    @property
    def log_url(self) -> str:
        """The URL of the log."""
        return str(self.folder / "log")

    @property
    def read_models_url(self) -> str:
        """The URL of the read models."""
        return str(self.folder / "read-models")


def prepare(folder: Path, *, events: int | None = None, seed: int | None = None, domain_ref: str | None = None) -> Demo:
    """Find the demo in a folder, or start a new one.

    Args:
        folder: created if it does not exist.
        events: how many events at least; by default those of the demo in the folder.
        seed: of the history; by default that of the demo in the folder.
        domain_ref: the domain, by entry-point name or dotted path; by default that of the demo in the folder.

    Raises:
        UsageError: the folder holds a different demo, or a log that does not belong to a demo.
    """
    description = folder / "demo.json"
    if description.exists():
        return _found(folder, description, events, seed, domain_ref)
    if (folder / "log").exists() or (folder / "read-models").exists():
        raise UsageError(f"{folder} holds a log or read models that do not belong to a demo. Name another --folder.")
    folder.mkdir(parents=True, exist_ok=True)
    seed = DEFAULT_SEED if seed is None else seed
    demo = Demo(folder, events or DEFAULT_EVENTS, seed, domain=domain_ref or DOMAIN)
    _describe(demo)
    (folder / "refold.toml").write_text(_SETTINGS.format(domain=demo.domain), encoding="utf-8")
    return demo


def _found(folder: Path, description: Path, events: int | None, seed: int | None, domain_ref: str | None) -> Demo:
    try:
        demo = Demo(folder, **orjson.loads(description.read_bytes()))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{description} is invalid ({error}). Delete {folder}, or name another --folder.") from error
    given = (events, demo.events), (seed, demo.seed), (domain_ref, demo.domain)
    if any(wanted not in (None, found) for wanted, found in given):
        raise UsageError(
            f"{folder} holds a demo of {demo.events:,} events of domain {demo.domain} with seed {demo.seed}. Leave out "
            "--events, --seed and --domain to use it, name another --folder, or delete this one."
        )
    return demo


def _describe(demo: Demo) -> None:
    values = asdict(demo)
    del values["folder"]
    (demo.folder / "demo.json").write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))


def make_history(demo: Demo, *, report: Callable[[int], None] = lambda _: None) -> Demo:
    """Append the history, or the missing rest of it, to the log.

    Args:
        demo: as prepared.
        report: called with the number of events in the log so far.

    Returns:
        The demo, with its number of events.

    Raises:
        UsageError: the domain has no sample history.
        LogError: the log of a finished demo has lost events.
    """
    domain = load_domain(demo.domain)
    if domain.sample_history is None:
        raise UsageError(f"Domain {domain.name} has no sample history: declare one, Domain(sample_history=...).")
    buckets = min(max(demo.events // _EVENTS_PER_BUCKET, 2), DEFAULT_BUCKET_COUNT)
    log = create_log(demo.log_url, domain_name=domain.name, bucket_count=buckets)
    if demo.made:
        if log.head().position < demo.made:
            raise LogError(
                f"The log of the demo in {demo.folder} has fewer events than were appended. Delete the folder, "
                "and run `refold demo` again."
            )
        return demo
    history = domain.sample_history(demo.events, demo.seed)
    finished = replace(demo, made=_append_all(log, domain.registry, history, report))
    _describe(finished)
    return finished


def _append_all(
    log: EventLog, registry: Registry, history: Iterator[Sequence[StreamAppend]], report: Callable[[int], None]
) -> int:
    appender = Appender(log, registry)
    made, resuming = 0, log.head().position > 0
    with ThreadPoolExecutor(_CONCURRENT_APPENDS) as pool:
        for appends in history:
            missing = [a for a in appends if not _is_in_log(appender, a)] if resuming else appends
            resuming = resuming and not missing
            _append_concurrently(pool, appender, missing)
            made += sum(len(append.events) for append in appends)
            report(made)
    return made


def _is_in_log(appender: Appender, append: StreamAppend) -> bool:
    return appender.version(append.stream_id) >= (append.expected_version or 0) + len(append.events)


def _append_concurrently(pool: ThreadPoolExecutor, appender: Appender, appends: Sequence[StreamAppend]) -> None:
    """Append to different streams at once: appends that wait for a commit share the next one."""

    def append(one: StreamAppend) -> None:
        appender.append(one.stream_id, one.events, expected_version=one.expected_version)

    for start in range(0, len(appends), _CONCURRENT_APPENDS):
        list(pool.map(append, appends[start : start + _CONCURRENT_APPENDS]))
