"""Writes the table of the fault matrix: ``python -m tests.faults.fault_table FOLDER > docs/reference/fault-matrix.md``.

The folder is what ``REFOLD_FAULT_TABLE`` named when ``tests/faults/test_store_faults.py`` ran.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from tests.faults.faulty_store import Fault
from tests.faults.test_store_faults import BEFORE

_HEAD = """\
# Fault matrix

Each action was run once for each operation of its store and each fault, in a process of its own. After the fault the
log was sound and showed what it did before the action, or after it. The action was run again and completed, and what
the dead process had left was removed. In no case was an event lost, doubled or wrong; otherwise the run would have
failed. `tests/faults/test_store_faults.py` is the run.

| action | store | {faults} | cases |
|---|---|{lines}---|
"""


def table(folder: Path) -> str:
    """Return the page."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    found.sort(key=lambda one: (list(BEFORE).index(one["action"]), one["store"]))
    page = _HEAD.format(faults=" | ".join(Fault), lines="---|" * len(Fault))
    total: Counter[str] = Counter()
    for one in found:
        cases = one["cases"]
        total.update(cases)
        numbers = " | ".join(str(cases.get(fault, 0)) for fault in Fault)
        page += f"| {one['action']} | {one['store']} | {numbers} | {sum(cases.values())} |\n"
    numbers = " | ".join(str(total[fault]) for fault in Fault)
    return page + f"| **all** | | {numbers} | {sum(total.values())} |\n"


if __name__ == "__main__":
    print(table(Path(sys.argv[1])), end="")
