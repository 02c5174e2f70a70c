"""The status of log, stream and read models, as ``refold status`` prints it: lines, a table, or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from refold.pipelines.cli.support.output import (
    counted,
    format_duration,
    format_size,
    format_time,
)

if TYPE_CHECKING:
    from refold.pipelines.cli.support.invocation import Invocation
    from refold.pipelines.cli.support.published import FileStatus
    from refold.warehouse.event_log.clocks import WrongClock
    from refold.warehouse.read_models.generations.generations import Generation
    from refold.warehouse.read_models.lag import Lag, LogEnd
    from refold.warehouse.read_models.live.heartbeat import Heartbeat

SILENT_SECONDS = 5.0
"""A stream writes its heartbeat about once a second; after five without one it hangs or is dead."""

COLUMNS = ("read model", "rows", "position", "lag", "last updated")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """The status at one moment.

    Attributes:
        domain: the domain's name.
        log_url: the log, as in the settings.
        end: the end of the log.
        idle: seconds since the last commit; None for an empty log, or if it is unknown.
        newest: the newest generation.
        foreign: whether it was made from another log, so that positions cannot be compared.
        lag: how far the generation, and so each of its read models, is behind.
        file: what the generation's file records.
        unbuilt: names of read models that the domain declares and the generation lacks.
        unbuilt_lag: how far those are behind: the whole log.
        stream: the live stream's last heartbeat.
        stream_lag: how far the stream itself is behind.
        silent: seconds since that heartbeat; None if its clock is ahead, so that they are unknown.
    """

    domain: str
    log_url: str
    end: LogEnd
    idle: float | None
    newest: Generation | None
    foreign: bool
    lag: Lag
    file: FileStatus | None
    unbuilt: tuple[str, ...]
    unbuilt_lag: Lag
    stream: Heartbeat | None
    stream_lag: Lag
    silent: float | None


def read_status(call: Invocation) -> StatusReport:
    """Read the status of the log, the newest generation and the live stream."""
    from refold.pipelines.cli.support.published import read_file_status
    from refold.warehouse.read_models.database import Checkpoint
    from refold.warehouse.read_models.lag import (
        NEVER_BUILT,
        Lag,
        age_of,
        checkpoint_of,
        find_end,
        lag_of,
    )
    from refold.warehouse.read_models.live.heartbeat import read_heartbeat, silent_seconds

    log, generations = call.open_log(), call.open_generations()
    # The log last, so that it never ends before what was made from it.
    newest, stream = generations.newest(), read_heartbeat(generations.store)
    end = find_end(log)
    foreign = newest is not None and newest.log_id != log.log_id
    at = (
        Checkpoint(stream.position, stream.commit_number, stream.recorded_at, stream.commit_digest)
        if stream
        else NEVER_BUILT
    )
    names = [m.name for m in call.domain.read_models]
    return StatusReport(
        domain=log.domain_name,
        log_url=call.settings.log,
        end=end,
        idle=age_of(end.appended_at) if end.appended_at else None,
        newest=newest,
        foreign=foreign,
        lag=Lag(end.position, None) if foreign else lag_of(log, end, checkpoint_of(newest)),
        file=read_file_status(generations, newest) if newest else None,
        unbuilt=tuple(n for n in names if newest is None or n not in newest.tables),
        unbuilt_lag=lag_of(log, end, NEVER_BUILT),
        stream=stream,
        stream_lag=lag_of(log, end, at),
        silent=silent_seconds(generations.store, stream) if stream else None,
    )


def lines(seen: StatusReport) -> Iterator[str]:
    """Yield the lines above the table of read models."""
    end, newest = seen.end, seen.newest
    yield f"Log         {seen.log_url} (domain {seen.domain})"
    if not end.position:
        yield "            no events yet"
    else:
        recorded = format_time(end.recorded_at)
        yield f"            position {end.position:,}, recorded at {recorded}; {end.unsealed:,} not sealed yet"
    for ahead in clocks_ahead(seen):
        yield f"Clock       {ahead}"
    if seen.stream is not None:
        yield f"Stream      {_stream(seen)}"
    if newest is None:
        yield "Read models nothing is published yet; `refold rebuild` builds and publishes them"
        return
    published = f"at position {newest.position:,}, published at {format_time(newest.published_at)}"
    yield f"Generation  {newest.number} {published}, {format_size(newest.bytes)}"
    behind = lag_text(seen.lag)
    yield f"Lag         {behind if seen.lag.events else 'none, every event is applied'}"
    if seen.file and (seen.file.undecided or seen.file.discarded):
        yield (
            f"Dead letters {seen.file.undecided:,} open, {seen.file.discarded:,} discarded; "
            "see `refold dead-letters list`"
        )


def clocks_ahead(seen: StatusReport) -> list[WrongClock]:
    """Return the commits at the ends of log and read models whose clocks are ahead of this machine's."""
    found = (seen.lag.ahead, seen.unbuilt_lag.ahead, seen.stream_lag.ahead if seen.stream else None, seen.end.ahead)
    return list({ahead.commit_number: ahead for ahead in found if ahead is not None}.values())


def _stream(seen: StatusReport) -> str:
    stream = seen.stream
    assert stream is not None
    where = f"process {stream.pid} on {stream.host}"
    at = f"position {stream.position:,}, lag {lag_text(seen.stream_lag)}"
    if seen.silent is None:
        return f"{at}; whether it runs is unknown, since the clock of {where} is ahead"
    if seen.silent > SILENT_SECONDS:
        return f"no heartbeat for {seen.silent:.0f} s from {where}, which hangs or was killed; it was at {at}"
    return f"{at}; {counted(stream.events, 'event')}, {stream.events_per_second:,.0f} a second ({where})"


def lag_text(lag: Lag) -> str:
    """Format a lag.

    Example:
        >>> from refold.warehouse.read_models.lag import Lag
        >>> lag_text(Lag(3, 2.04)), lag_text(Lag(0, 0.0))
        ('3 events, 2.0 s', 'none')
    """
    if not lag.events:
        return "none"
    age = "of unknown age" if lag.seconds is None and lag.ahead else ""
    age = age if lag.seconds is None else format_duration(lag.seconds)
    return counted(lag.events, "event") + (f", {age}" if age else "")


def lag_document(lag: Lag) -> dict[str, Any]:
    """Return a lag as JSON values."""
    return {"events": lag.events, "seconds": lag.seconds}


def rows(seen: StatusReport) -> list[tuple[Any, ...]]:
    """Return the rows of the table of read models, published or not built yet."""
    newest = seen.newest
    if newest is None:
        return []
    updated, behind = format_time(seen.file.last_updated if seen.file else ""), lag_text(seen.lag)
    built = [(name, table.rows, newest.position, behind, updated) for name, table in sorted(newest.tables.items())]
    return [*built, *((name, None, None, "not built yet", "") for name in seen.unbuilt)]


def line(seen: StatusReport) -> str:
    """Return the status in one line, for output that scrolls."""
    newest, stream = seen.newest, seen.stream
    parts = [f"log {seen.end.position:,}"]
    if stream is not None:
        late = seen.silent is not None and seen.silent > SILENT_SECONDS
        silent = f", no heartbeat for {seen.silent:.0f} s" if late else ""
        parts.append(f"stream {stream.position:,}{silent}")
    parts.append(f"generation {newest.number} at {newest.position:,}" if newest else "nothing published")
    return "  ".join([*parts, f"lag {lag_text(seen.lag)}"])


def document(seen: StatusReport) -> dict[str, Any]:
    """Return the status as JSON values."""
    newest, file, end = seen.newest, seen.file, seen.end
    updated = file.last_updated if file else None
    generation = newest and {
        "number": newest.number,
        "position": newest.position,
        "published_at": newest.published_at,
        "last_updated": updated,
        "bytes": newest.bytes,
    }
    stream = seen.stream and {
        **asdict(seen.stream),
        "lag": lag_document(seen.stream_lag),
        "silent_seconds": seen.silent,
        "silent": seen.silent is None or seen.silent > SILENT_SECONDS,
    }
    letters = file and file.undecided is not None and {"open": file.undecided, "discarded": file.discarded}
    return {
        "domain": seen.domain,
        "log": {
            "url": seen.log_url,
            "position": end.position,
            "commit": end.commit_number,
            "recorded_at": end.recorded_at or None,
            "sealed_position": end.sealed_position,
        },
        "idle_seconds": seen.idle,
        "clocks_ahead": [asdict(ahead) for ahead in clocks_ahead(seen)],
        "generation": generation,
        "lag": lag_document(seen.lag),
        "stream": stream,
        "dead_letters": letters or None,
        "read_models": [*_built(seen, updated), *_unbuilt(seen)],
    }


def _built(seen: StatusReport, updated: str | None) -> Iterator[dict[str, Any]]:
    for name, table in sorted(seen.newest.tables.items()) if seen.newest else ():
        at = seen.newest.position if seen.newest else 0
        yield {"name": name, "rows": table.rows, "position": at, "last_updated": updated, "lag": lag_document(seen.lag)}


def _unbuilt(seen: StatusReport) -> Iterator[dict[str, Any]]:
    for name in seen.unbuilt:
        yield {"name": name, "rows": None, "position": 0, "last_updated": None, "lag": lag_document(seen.unbuilt_lag)}
