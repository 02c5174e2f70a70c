"""A second way to the rows of read models: one event after the other, in Python, from the recorded objects of the log.

It is slow and small, and shares no code with what writes, seals, parses and replays the log; an import contract in
``pyproject.toml`` holds it to that. So it finds the faults that all other ways have in common.
"""

from refold.warehouse.sequential_fold.fold import Folded, Start, fold_log
from refold.warehouse.sequential_fold.sample import Sample
from refold.warehouse.sequential_fold.table import NotByStreamError, exact_in_python
from refold.warehouse.sequential_fold.write import write_folded

__all__ = ["Folded", "NotByStreamError", "Sample", "Start", "exact_in_python", "fold_log", "write_folded"]
