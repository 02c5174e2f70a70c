"""Output of commands: tables for people, JSON for programs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_NO_END = 100_000
"""Width of a pipe or file: nothing is truncated or wrapped there."""

_WRAPPED_WIDTH = 20
"""Narrowest a wrapped column may become; where even this does not fit, rows are printed as records."""

_WIDTHS_FROM = 1_000
"""In a pipe, the first rows decide the widths of columns; longer values further down only lose the alignment."""


@lru_cache(maxsize=2)
def _console(*, to_stderr: bool, file: Any) -> Console:
    return Console(file=file, stderr=to_stderr, width=None if file.isatty() else _NO_END, highlight=False)


def stdout() -> Console:
    """Return the console of the answer."""
    return _console(to_stderr=False, file=sys.stdout)


def stderr() -> Console:
    """Return the console of everything beside the answer."""
    return _console(to_stderr=True, file=sys.stderr)


def print_text(text: str = "") -> None:
    """Print a paragraph of an answer."""
    stdout().print(Text(text))


def print_line(text: str) -> None:
    """Print one line of an answer, truncated to the terminal, and flush it."""
    stdout().print(Text(text), no_wrap=True, overflow="ellipsis")
    sys.stdout.flush()


def print_note(text: str) -> None:
    """Print a paragraph on stderr, beside the answer."""
    stderr().print(Text(text, style="dim"))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, wrap_last: bool = False) -> None:
    """Print rows under their columns; in a pipe nothing is truncated, and rows pass through as they come.

    Args:
        columns: their names.
        rows: any number of them.
        wrap_last: whether the last column may wrap on a narrow terminal. Where that does not help, each row becomes a
            record of lines.
    """
    if not sys.stdout.isatty():
        _print_plain(columns, iter(rows))
        return
    kept = list(rows)
    table = make_table(columns, kept, wrap_last=wrap_last)
    console = stdout()
    needed = Measurement.get(console, console.options.update(width=_NO_END), table).minimum
    if needed <= console.width:
        console.print(table)
    else:
        _print_records(columns, kept)


def make_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, wrap_last: bool = False) -> Table:
    """Lay out rows for a terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numbers = any(isinstance(row[index], int | float | Decimal) for row in rows)
        wraps = wrap_last and index == len(columns) - 1
        justify: JustifyMethod = "right" if numbers else "left"
        table.add_column(Text(name), justify=justify, no_wrap=not wraps, min_width=_WRAPPED_WIDTH if wraps else None)
    for row in rows:
        table.add_row(*(Text(as_text(value)) for value in row))
    return table


def _print_records(columns: Sequence[str], rows: list[Sequence[Any]]) -> None:
    width = max(map(len, columns))
    for number, row in enumerate(rows, 1):
        stdout().print(Text(f"row {number}", style="bold"))
        for name, value in zip(columns, row, strict=True):
            print_line(f"  {name:<{width}}  {as_text(value)}")


def _print_plain(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    first = [[as_text(value) for value in row] for row in itertools.islice(rows, _WIDTHS_FROM)]
    widths = [max(len(text) for text in column) for column in zip(columns, *first, strict=True)]
    for row in itertools.chain([columns], first, ([as_text(v) for v in row] for row in rows)):
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def print_json(document: Any) -> None:
    """Print one JSON document, on one line."""
    click.echo(to_json(document))


def print_json_stream(head: Mapping[str, Any], name: str, rows: Iterable[Any]) -> None:
    """Print one JSON object whose last value is a long list, without holding the list in memory.

    Args:
        head: keys before the list.
        name: key of the list.
        rows: its elements; an error that the first of them raises leaves stdout empty.
    """
    out = sys.stdout.buffer
    opening = to_json(head)[:-1] + (b"," if head else b"") + to_json(name) + b":["
    for row in rows:
        out.write(opening + to_json(row))
        opening = b","
    out.write((b"" if opening == b"," else opening) + b"]}\n")
    out.flush()


def to_json(document: Any) -> bytes:
    """Serialize as JSON; decimals are text, as in payloads of the log, and times RFC 3339 in UTC.

    Example:
        >>> to_json({"amount": Decimal("2.50")})
        b'{"amount":"2.50"}'
    """
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
    try:
        return orjson.dumps(document, default=_plain, option=options)
    except TypeError:
        return orjson.dumps(_without_big_integers(document), default=_plain, option=options)


def _without_big_integers(value: Any) -> Any:
    """Replace integers beyond 64 bits, which orjson refuses, by text."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, Mapping):
        return {key: _without_big_integers(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_big_integers(v) for v in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def as_text(value: Any) -> str:
    """Format a value for people.

    Example:
        >>> as_text(1234567), as_text(None), as_text(Decimal("1234.50"))
        ('1,234,567', '', '1,234.50')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, dict | list | tuple):
        return to_json(value).decode()
    return str(value)


def counted(number: int, noun: str, plural_noun: str = "") -> str:
    """Format a number of things.

    Example:
        >>> counted(1, "event"), counted(2500, "event"), counted(2, "batch", "batches")
        ('1 event', '2,500 events', '2 batches')
    """
    return f"{number:,} {noun if number == 1 else plural_noun or f'{noun}s'}"


def format_time(at: datetime | str) -> str:
    """Format a time to the second, in UTC; empty for the empty text.

    Example:
        >>> format_time("2025-03-01T12:00:00.123456+01:00")
        '2025-03-01 11:00:00Z'
    """
    if isinstance(at, str):
        if not at:
            return ""
        at = datetime.fromisoformat(at)
    if at.tzinfo is None:
        return at.strftime("%Y-%m-%d %H:%M:%S")
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def format_duration(seconds: float) -> str:
    """Format a duration.

    Example:
        >>> format_duration(0.42), format_duration(75), format_duration(90061)
        ('0.4 s', '1 min 15 s', '1 d 1 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    full = int(seconds)
    for name, size, part_name, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if full >= size:
            return f"{full // size} {name} {full % size // part} {part_name}"
    return f"{full} s"


def format_size(count: int) -> str:
    """Format a number of bytes.

    Example:
        >>> format_size(812), format_size(3_682_304)
        ('812 B', '3.5 MiB')
    """
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
