"""``refold query``: read-only SQL on the newest generation, with the log position of the answer."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.invocation import (
    Command,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    import duckdb

_CHUNK = 1_000
"""Rows fetched at a time: few enough that a long answer starts at once and stays out of memory."""

_SCREENFUL = 100
"""Rows shown on a terminal by default; `--limit` changes it."""

_EXAMPLE = """\
refold query "SELECT month, net_revenue FROM revenue_by_month ORDER BY month"
refold query --csv "FROM inventory_status" > inventory.csv"""


@dataclass
class Answer:
    """A result whose rows are read as they are taken.

    Attributes:
        columns: their names, each once.
        rows: read from the database as they are taken.
    """

    columns: list[str]
    rows: Iterator[Sequence[Any]]


@click.command(cls=Command, example=_EXAMPLE)
@click.argument("sql")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="ROWS",
    help=f"Show at most this many rows; 0 for all. By default {_SCREENFUL} on a terminal, otherwise all.",
)
@common_options("domain", "read_models")
@pass_invocation
def query(call: Invocation, sql: str, as_csv: bool, limit: int | None) -> None:
    """Run SQL on the newest generation.

    Tables are the domain's read models and views; `SHOW ALL TABLES` lists them. The log position of the answer, and
    when it was last updated, are printed to stderr, with --json beside the rows. JSON has decimals as text.
    """
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.published import newest_generation, open_generation, read_last_updated

    if call.json and as_csv:
        raise click.UsageError("--json and --csv exclude each other.")
    generations = call.open_generations()
    newest = newest_generation(generations)
    with open_generation(generations, newest) as connection:
        source: dict[str, Any] = {"generation": newest.number, "position": newest.position}
        source["last_updated"] = read_last_updated(connection) or newest.published_at
        answer = _ask(connection, sql)
        on_screen = not (call.json or as_csv) and sys.stdout.isatty()
        most = (_SCREENFUL if on_screen else 0) if limit is None else limit
        taken = islice(answer.rows, most) if most else answer.rows
        if call.json:
            rows = (dict(zip(answer.columns, row, strict=True)) for row in taken)
            output.print_json_stream({**source, "columns": answer.columns}, "rows", rows)
        elif as_csv:
            _print_csv(answer.columns, taken)
        else:
            output.print_table(answer.columns, taken)
        if most and next(answer.rows, None) is not None:
            output.print_note(f"The first {most:,} rows; --limit 0 shows all.")
        if not call.json:
            updated = output.format_time(source["last_updated"])
            output.print_note(f"position {newest.position:,}, last updated {updated}, generation {newest.number}")


def _ask(connection: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    with _translate_errors():
        connection.execute(sql)
        columns = _unique([column[0] for column in connection.description or ()])
    return Answer(columns, _fetch(connection))


def _fetch(connection: duckdb.DuckDBPyConnection) -> Iterator[Sequence[Any]]:
    while True:
        with _translate_errors():
            chunk = connection.fetchmany(_CHUNK)
        if not chunk:
            return
        yield from chunk


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate DuckDB's errors: an invalid query is a usage error, any other a failure."""
    import duckdb

    from refold.event_schemas import RefoldError, UsageError
    from refold.warehouse.engine.sql import first_line

    try:
        yield
    except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
        raise UsageError(f"The query is invalid: {first_line(error)}") from error
    except duckdb.Error as error:
        if "read-only" in str(error):
            raise UsageError(
                "The query would change a published generation, which is read-only: append events to the log instead. "
                f"DuckDB reports: {first_line(error)}"
            ) from error
        raise RefoldError(f"The query failed: {first_line(error)}") from error


def _unique(names: list[str]) -> list[str]:
    """Number repeated names, since the keys of a JSON object are unique."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique


def _print_csv(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    from refold.pipelines.cli.support.output import to_json

    def cell(value: Any) -> Any:
        return to_json(value).decode() if isinstance(value, dict | list) else value

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(value) for value in row])
