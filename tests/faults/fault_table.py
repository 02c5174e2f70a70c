"""Writes the table of the fault matrix: ``python -m tests.faults.fault_table FOLDER > docs/reference/fault-matrix.md``.

The folder is what ``REFOLD_FAULT_TABLE`` named when ``test_store_faults.py`` and ``test_damage.py`` ran.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.faults.faulty_store import Fault
from tests.faults.test_damage import KINDS, TIMES
from tests.faults.test_store_faults import BEFORE

_HEAD = """\
# Fault matrix

How often an operation of a store failed, and how often an object was damaged, in the run of which these numbers are.
Each number counts cases that passed; in no case was an event or a row lost, doubled or wrong. `make test-long` runs all
cases; a number below shows how many of them this run had.

## Failing operations

An action ran in a process of its own, and one operation of its store failed. After that the log was sound, and log and
read models showed what they did before the action, or after it. The action was run again and completed, what the dead
process had left was removed, and all was sound again. What is published after an action agrees with a sequential fold
of the events. `tests/faults/test_store_faults.py` is the run.

Both kinds of stores: *killed* is the end of the process before the operation, after it, or with half an object written;
*answer lost* is a success that is reported as a failure; a *stale listing* lacks its newest key. A disk: *I/O error*.
S3: *unavailable* is longer than all retries, *409*, *500*, *503* and *timeout* are the answer to the first request.
After *disk full*, half of the object is there; *folder gone* takes the folder of
log and read models away, and puts it back when the action has ended; the clock jumps by a day *back* or *ahead*.
Each fault is tried where it can happen: no answer of a listing is half written. The S3 servers are `moto` and
`localbucket`.

"""
_DAMAGE = """
## Damaged objects

After each damage, every reader returned what is right, or an error; the events verification named what was flipped,
truncated or emptied in a log; and no append took a wrong version. Staged objects were made again, snapshots were not
used. *Swap* exchanges two objects of a kind, or puts one of another log in its place; *older* restores all objects of
the kind from an older backup. `tests/faults/test_damage.py` is the run.

"""


def page(folder: Path) -> str:
    """Return the page."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    actions = [([one["action"], one["store"]], one["cases"]) for one in found if "action" in one]
    kinds = [([one["kind"]], one["damages"]) for one in found if "kind" in one]
    actions.sort(key=lambda row: (list(BEFORE).index(row[0][0]), row[0][1]))
    kinds.sort(key=lambda row: list(KINDS).index(row[0][0]))
    failing = table(["action", "store"], list(Fault), actions)
    return _HEAD + failing + _DAMAGE + table(["object"], [damage.__name__ for damage in TIMES], kinds)


def table(names: Sequence[str], columns: Sequence[str], rows: Iterable[tuple[list[str], dict[str, int]]]) -> str:
    """Return a table of counts, with their sums."""
    total: Counter[str] = Counter()
    lines = [[*names, *columns, "cases"], ["---"] * (len(names) + len(columns) + 1)]
    for row, counts in rows:
        total.update(counts)
        lines.append([*row, *(str(counts.get(c, "")) for c in columns), str(sum(counts.values()))])
    blank = [""] * (len(names) - 1)
    lines.append(["**all**", *blank, *(str(total[c]) for c in columns), str(sum(total.values()))])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(page(Path(sys.argv[1])), end="")
