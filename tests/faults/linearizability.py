"""A checker of histories: could what each caller saw have come from one log that does one thing after the other?

A history has the calls of many callers, each with the times of its call and its answer. It is linearizable if every
operation can be given one instant between these, so that a log which executes them in that order answers all of them as
they were answered. This is the algorithm of Wing and Gong [1] with Lowe's memory of configurations [2]; each stream is
checked alone, because linearizability is local [3].

[1] J. M. Wing, C. Gong: Testing and Verifying Concurrent Objects. J. Parallel Distrib. Comput. 17, 1993.
[2] G. Lowe: Testing for Linearizability. Concurrency Computat.: Pract. Exper. 29, 2017.
[3] M. Herlihy, J. M. Wing: Linearizability: A Correctness Condition for Concurrent Objects. ACM TOPLAS 12, 1990.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import inf


class Outcome(StrEnum):
    """How a call ended."""

    READ = "read"
    APPENDED = "appended"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call on a stream.

    Attributes:
        called: time of the call.
        answered: time of its answer; infinite if the answer was lost, since it may take effect at any time, or never.
        outcome: how it ended.
        version: the stream's version in the answer.
        count: number of events to append.
        expected: the version that the stream must have; None for any.
    """

    called: float
    answered: float = inf
    outcome: Outcome = Outcome.UNKNOWN
    version: int = 0
    count: int = 0
    expected: int | None = None

    def apply(self, version: int) -> int | None:
        """Execute it on a stream of some version, and return the next version; None if it would answer otherwise."""
        holds = self.expected in (None, version)
        if self.outcome is Outcome.READ or (self.outcome is Outcome.REFUSED and not holds):
            return version if self.version == version else None
        after = version + self.count
        if self.outcome is Outcome.REFUSED or not holds:
            return None
        return after if self.outcome is Outcome.UNKNOWN or self.version == after else None


def is_linearizable(history: Iterable[Operation]) -> bool:
    """Check the history of one stream, which has no events at first."""
    operations = sorted(history, key=lambda operation: operation.called)
    answered = sum(1 << i for i, operation in enumerate(operations) if operation.answered < inf)
    start = (0, 0)
    seen, waiting = {start}, [start]
    while waiting:
        done, version = waiting.pop()
        if done & answered == answered:
            return True
        for i in _first_ones(operations, done):
            following = operations[i].apply(version)
            if following is not None and (state := (done | 1 << i, following)) not in seen:
                seen.add(state)
                waiting.append(state)
    return False


def _first_ones(operations: list[Operation], done: int) -> Iterator[int]:
    """Yield those of the others that may come first: none of the others was answered before they were called."""
    end = inf
    for i in range((~done & (done + 1)).bit_length() - 1, len(operations)):
        if done >> i & 1:
            continue
        if operations[i].called > end:
            return
        end = min(end, operations[i].answered)
        yield i
