"""``refold demo``: a shop's year on disk, from its first append to published read models.

The history goes through the same door as any other: appends with an expected version, many at a time, so that they
share commits. A demo that was killed goes on where it was, since an append that is there already is known by its
stream's version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from refold.event_schemas import LogError, UsageError
from refold.pipelines.demo.order_history import Append, history
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log.append import Appender
from refold.warehouse.event_log.layout import DEFAULT_BUCKET_COUNT
from refold.warehouse.event_log.log import EventLog, create_log

DOMAIN = "orders"
DEFAULT_EVENTS = 100_000
DEFAULT_SEED = 7

_SIDE_BY_SIDE = 256
_EVENTS_PER_BUCKET = 25_000
_SETTINGS = """\
# Written by `refold demo`: inside this folder every command works on the demo.
domain = "orders"
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
        made: how many events were made; 0 as long as they are not all there.
    """

    folder: Path
    events: int
    seed: int
    made: int = 0

    @property
    def log_url(self) -> str:
        """Where its log is."""
        return str(self.folder / "log")

    @property
    def read_models_url(self) -> str:
        """Where its read models are."""
        return str(self.folder / "read-models")


def prepare(folder: Path, *, events: int | None = None, seed: int | None = None) -> Demo:
    """Find the demo in a folder, or lay down a new one.

    Args:
        folder: made if it is not there.
        events: how many events at least; by default as many as the demo has that is there.
        seed: of the history; by default that of the demo that is there.

    Raises:
        UsageError: the folder holds another demo than the one asked for, or a log that is no demo's.
    """
    description = folder / "demo.json"
    if description.exists():
        return _found(folder, description, events, seed)
    if (folder / "log").exists() or (folder / "read-models").exists():
        raise UsageError(f"{folder} holds a log or read models that are no demo's. Name another --folder.")
    folder.mkdir(parents=True, exist_ok=True)
    demo = Demo(folder, events or DEFAULT_EVENTS, DEFAULT_SEED if seed is None else seed)
    _describe(demo)
    (folder / "refold.toml").write_text(_SETTINGS, encoding="utf-8")
    return demo


def _found(folder: Path, description: Path, events: int | None, seed: int | None) -> Demo:
    try:
        demo = Demo(folder, **orjson.loads(description.read_bytes()))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{description} describes no demo ({error}). Delete {folder}, or name another.") from error
    if events not in (None, demo.events) or seed not in (None, demo.seed):
        raise UsageError(
            f"{folder} holds a demo of {demo.events:,} events with seed {demo.seed}. Leave out --events and --seed to "
            "use it, name another --folder, or delete this one."
        )
    return demo


def _describe(demo: Demo) -> None:
    values = asdict(demo)
    del values["folder"]
    (demo.folder / "demo.json").write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))


def make_history(demo: Demo, *, report: Callable[[int], None] = lambda _: None) -> Demo:
    """Append the demo's history, or what is missing of it, to its log.

    Args:
        demo: as prepared.
        report: called with the number of events that are there so far.

    Returns:
        The demo, with how many events were made.

    Raises:
        LogError: the log of a finished demo is gone.
    """
    buckets = min(max(demo.events // _EVENTS_PER_BUCKET, 2), DEFAULT_BUCKET_COUNT)
    log = create_log(demo.log_url, domain_name=DOMAIN, bucket_count=buckets)
    if demo.made:
        if log.head().position < demo.made:
            raise LogError(
                f"The log of the demo in {demo.folder} has lost events. Delete the folder, and run it again."
            )
        return demo
    made = _append_all(log, demo, report)
    finished = Demo(demo.folder, demo.events, demo.seed, made)
    _describe(finished)
    return finished


def _append_all(log: EventLog, demo: Demo, report: Callable[[int], None]) -> int:
    appender = Appender(log, load_domain(DOMAIN).registry)
    made, resuming = 0, log.head().position > 0
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        for appends in history(demo.events, demo.seed):
            missing = [a for a in appends if not _is_there(appender, a)] if resuming else appends
            resuming = resuming and not missing
            _append_side_by_side(pool, appender, missing)
            made += sum(len(append.events) for append in appends)
            report(made)
    return made


def _is_there(appender: Appender, append: Append) -> bool:
    return appender.version(append.stream_id) >= append.expected_version + len(append.events)


def _append_side_by_side(pool: ThreadPoolExecutor, appender: Appender, appends: Sequence[Append]) -> None:
    """Append to different streams at once: whoever waits for a commit goes into the next one together."""

    def append(one: Append) -> None:
        appender.append(one.stream_id, one.events, expected_version=one.expected_version)

    for start in range(0, len(appends), _SIDE_BY_SIDE):
        list(pool.map(append, appends[start : start + _SIDE_BY_SIDE]))
