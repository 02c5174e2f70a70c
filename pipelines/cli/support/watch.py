"""``refold status --watch``: the status again and again, in place on a terminal, line after line elsewhere."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.text import Text

from refold.pipelines.cli.support import output, status_report
from refold.pipelines.cli.support.invocation import Invocation
from refold.pipelines.cli.support.signals import is_interrupt
from refold.pipelines.cli.support.status_report import StatusReport, read_status


def watch_status(call: Invocation, *, interval: float, count: int | None) -> StatusReport | None:
    """Show the status at intervals.

    Args:
        call: the invocation.
        interval: seconds between two reads.
        count: how many reads; without end if None.

    Returns:
        The last status, or None if Ctrl-C ended it.
    """
    try:
        with _shown(call) as show:
            for number in itertools.count(1):
                seen = read_status(call)
                show(seen)
                if number == count:
                    return seen
                time.sleep(interval)
    except KeyboardInterrupt:  # the way to end it
        return None
    except RuntimeError as error:
        if not is_interrupt(error):
            raise
    return None


@contextmanager
def _shown(call: Invocation) -> Iterator[Callable[[StatusReport], None]]:
    """Yield a function that shows a status."""
    if call.json:
        yield _print_document
    elif not sys.stdout.isatty():
        yield lambda seen: output.print_line(status_report.line(seen))
    else:
        with Live(console=output.stdout(), auto_refresh=False) as live:
            yield lambda seen: live.update(_page(seen), refresh=True)


def _print_document(seen: StatusReport) -> None:
    output.print_json(status_report.document(seen))
    sys.stdout.flush()


def _page(seen: StatusReport) -> Group:
    lines = [Text(line) for line in status_report.lines(seen)]
    table = status_report.rows(seen)
    return Group(*lines, output.make_table(status_report.COLUMNS, table)) if table else Group(*lines)
