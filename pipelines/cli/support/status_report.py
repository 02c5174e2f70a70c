"""Where everything stands: what ``refold status`` found in one look, as lines, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from refold.pipelines.cli.support.output import (
    duration,
    moment,
    plural,
    size,
)

if TYPE_CHECKING:
    from refold.pipelines.cli.support.invocation import Invocation
    from refold.pipelines.cli.support.published import Inside
    from refold.warehouse.read_models.generations.generations import Generation
    from refold.warehouse.read_models.lag import Lag, LogEnd
    from refold.warehouse.read_models.live.heartbeat import Heartbeat

SILENT_SECONDS = 5.0
"""A stream that has said nothing for so long, though it speaks about once a second, is told to be silent."""

COLUMNS = ("read model", "rows", "position", "lag", "last updated")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """What one look found.

    Attributes:
        domain: the domain's name.
        log_url: the log, as the settings have it.
        end: the end of the log.
        idle: seconds since the last commit; None for an empty log.
        newest: the newest generation.
        foreign: whether that was made from another log, so that positions cannot be compared.
        lag: how far the generation, and so each of its read models, is behind.
        inside: what the generation's file tells.
        unbuilt: names of read models that the domain has and the generation has not.
        unbuilt_lag: how far those are behind: by the whole log.
        stream: what the live stream said last.
        stream_lag: how far the stream itself is behind.
        silent: seconds since the stream said it.
    """

    domain: str
    log_url: str
    end: LogEnd
    idle: float | None
    newest: Generation | None
    foreign: bool
    lag: Lag
    inside: Inside | None
    unbuilt: tuple[str, ...]
    unbuilt_lag: Lag
    stream: Heartbeat | None
    stream_lag: Lag
    silent: float | None


def look(call: Invocation) -> StatusReport:
    """Look at the log, at what is published, and at what the live stream says."""
    from refold.pipelines.cli.support.published import look_inside
    from refold.warehouse.read_models.database import Checkpoint
    from refold.warehouse.read_models.lag import (
        NEVER_BUILT,
        Lag,
        age_of,
        checkpoint_of,
        find_end,
        lag_of,
    )
    from refold.warehouse.read_models.live.heartbeat import read_heartbeat

    log, generations = call.open_log(), call.open_generations()
    # The readers first: the log never ends before what was made from it.
    newest, stream = generations.newest(), read_heartbeat(generations.store)
    end = find_end(log)
    foreign = newest is not None and newest.log_id != log.log_id
    at = Checkpoint(stream.position, stream.commit_number, stream.recorded_at) if stream else NEVER_BUILT
    names = [m.name for m in call.domain.read_models]
    return StatusReport(
        domain=log.domain_name,
        log_url=call.settings.log,
        end=end,
        idle=age_of(end.recorded_at) if end.recorded_at else None,
        newest=newest,
        foreign=foreign,
        lag=Lag(end.position, None) if foreign else lag_of(log, end, checkpoint_of(newest)),
        inside=look_inside(generations, newest) if newest else None,
        unbuilt=tuple(n for n in names if newest is None or n not in newest.tables),
        unbuilt_lag=lag_of(log, end, NEVER_BUILT),
        stream=stream,
        stream_lag=lag_of(log, end, at),
        silent=age_of(stream.updated_at) if stream else None,
    )


def lines(seen: StatusReport) -> Iterator[str]:
    """Tell it to people, above the table of read models."""
    end, newest = seen.end, seen.newest
    yield f"Log         {seen.log_url} (domain {seen.domain})"
    if not end.position:
        yield "            holds no events yet"
    else:
        recorded = moment(end.recorded_at)
        yield f"            position {end.position:,}, recorded at {recorded}; {end.unsealed:,} not sealed yet"
    if seen.stream is not None:
        yield f"Stream      {_stream(seen)}"
    if newest is None:
        yield "Read models nothing published yet; `refold rebuild` builds and publishes them"
        return
    published = f"at position {newest.position:,}, published at {moment(newest.published_at)}"
    yield f"Generation  {newest.number} {published}, {size(newest.bytes)}"
    behind = lag_text(seen.lag)
    yield f"Lag         {behind if seen.lag.events else 'none: the read models show every event'}"
    if seen.inside and (seen.inside.undecided or seen.inside.discarded):
        yield (
            f"Dead letters {seen.inside.undecided:,} open, {seen.inside.discarded:,} discarded; "
            "see `refold dead-letters list`"
        )


def _stream(seen: StatusReport) -> str:
    stream = seen.stream
    assert stream is not None
    assert seen.silent is not None
    where = f"process {stream.pid} on {stream.host}"
    at = f"position {stream.position:,}, lag {lag_text(seen.stream_lag)}"
    if seen.silent > SILENT_SECONDS:
        return f"no word for {seen.silent:.0f} s from {where}, which hangs or was killed; it was at {at}"
    return f"{at}; {plural(stream.events, 'event')}, {stream.events_per_second:,.0f} a second ({where})"


def lag_text(lag: Lag) -> str:
    """Write a lag.

    Example:
        >>> from refold.warehouse.read_models.lag import Lag
        >>> lag_text(Lag(3, 2.04)), lag_text(Lag(0, 0.0))
        ('3 events, 2.0 s', 'none')
    """
    if not lag.events:
        return "none"
    return plural(lag.events, "event") + ("" if lag.seconds is None else f", {duration(lag.seconds)}")


def rows(seen: StatusReport) -> list[tuple[Any, ...]]:
    """Give the table of read models: those that are published, and those that were never built."""
    newest = seen.newest
    if newest is None:
        return []
    updated, behind = moment(seen.inside.last_updated if seen.inside else ""), lag_text(seen.lag)
    built = [(name, table.rows, newest.position, behind, updated) for name, table in sorted(newest.tables.items())]
    return [*built, *((name, None, None, "not built yet", "") for name in seen.unbuilt)]


def line(seen: StatusReport) -> str:
    """Tell the least of it, for a line that is followed by the next look's."""
    newest, stream = seen.newest, seen.stream
    told = [f"log {seen.end.position:,}"]
    if stream is not None and seen.silent is not None:
        silent = f", no word for {seen.silent:.0f} s" if seen.silent > SILENT_SECONDS else ""
        told.append(f"stream {stream.position:,}{silent}")
    told.append(f"generation {newest.number} at {newest.position:,}" if newest else "nothing published")
    return "  ".join([*told, f"lag {lag_text(seen.lag)}"])


def document(seen: StatusReport) -> dict[str, Any]:
    """Tell it to machines."""
    newest, inside, end = seen.newest, seen.inside, seen.end
    updated = inside.last_updated if inside else None
    generation = newest and {
        "number": newest.number,
        "position": newest.position,
        "published_at": newest.published_at,
        "last_updated": updated,
        "bytes": newest.bytes,
    }
    stream = seen.stream and {
        **asdict(seen.stream),
        "lag": asdict(seen.stream_lag),
        "silent_seconds": seen.silent,
        "silent": (seen.silent or 0.0) > SILENT_SECONDS,
    }
    letters = inside and inside.undecided is not None and {"open": inside.undecided, "discarded": inside.discarded}
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
        "generation": generation,
        "lag": asdict(seen.lag),
        "stream": stream,
        "dead_letters": letters or None,
        "read_models": [*_built(seen, updated), *_unbuilt(seen)],
    }


def _built(seen: StatusReport, updated: str | None) -> Iterator[dict[str, Any]]:
    for name, table in sorted(seen.newest.tables.items()) if seen.newest else ():
        at = seen.newest.position if seen.newest else 0
        yield {"name": name, "rows": table.rows, "position": at, "last_updated": updated, "lag": asdict(seen.lag)}


def _unbuilt(seen: StatusReport) -> Iterator[dict[str, Any]]:
    for name in seen.unbuilt:
        yield {"name": name, "rows": None, "position": 0, "last_updated": None, "lag": asdict(seen.unbuilt_lag)}
