"""Watching: ``refold status`` again and again, in place on a terminal, line after line elsewhere."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.text import Text

from refold.pipelines.cli.support import output
from refold.pipelines.cli.support import status_report as standing
from refold.pipelines.cli.support.invocation import Invocation
from refold.pipelines.cli.support.signals import is_interrupt
from refold.pipelines.cli.support.status_report import StatusReport, look


def watch_standing(call: Invocation, *, interval: float, count: int | None) -> StatusReport | None:
    """Show one look after another.

    Args:
        call: the invocation.
        interval: seconds from one look to the next.
        count: how many looks; without end by default.

    Returns:
        The last look, or None if Ctrl-C ended it.
    """
    try:
        with _shown(call) as show:
            for number in itertools.count(1):
                seen = look(call)
                show(seen)
                if number == count:
                    return seen
                time.sleep(interval)
    except KeyboardInterrupt:  # how one stops watching
        return None
    except RuntimeError as error:
        if not is_interrupt(error):
            raise
    return None


@contextmanager
def _shown(call: Invocation) -> Iterator[Callable[[StatusReport], None]]:
    """Give what shows a look."""
    if call.json:
        yield _print_document
    elif not sys.stdout.isatty():
        yield lambda seen: output.say_line(standing.line(seen))
    else:
        with Live(console=output.stdout(), auto_refresh=False) as live:
            yield lambda seen: live.update(_page(seen), refresh=True)


def _print_document(seen: StatusReport) -> None:
    output.print_json(standing.document(seen))
    sys.stdout.flush()


def _page(seen: StatusReport) -> Group:
    told = [Text(line) for line in standing.lines(seen)]
    table = standing.rows(seen)
    return Group(*told, output.make_table(standing.COLUMNS, table)) if table else Group(*told)
