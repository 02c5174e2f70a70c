"""Findings of a verification: each says what is wrong, where, and what to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_MAX_PER_KIND = 20
MAX_EXAMPLES = 20
"""Findings of one query: a damaged log may have millions, and a few show what happened."""
RESTORE = "Restore the object from a backup of the store."
REPAIR = "Run `refold log repair`, or restore the object from a backup of the store."


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a log.

    Attributes:
        kind: ``manifest``, ``commit``, ``chain``, ``segment``, ``schema``, ``stream``, ``heads``, ``position`` or
            ``event_id``.
        where: the object, stream or position.
        what: what is expected, and what was found.
        advice: what to do.
    """

    kind: str
    where: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.advice}"


@dataclass(slots=True)
class Findings:
    """Collects the first findings of each kind, and what could not be checked because of them.

    Attributes:
        found: the findings so far.
        unchecked: what could not be checked.
        left_out: number of further findings of each kind.
    """

    found: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """The number of findings, with those that are left out."""
        return len(self.found) + self.left_out.total()

    def add(self, kind: str, where: str, what: str, advice: str = RESTORE) -> None:
        """Add a finding."""
        if sum(f.kind == kind for f in self.found) < _MAX_PER_KIND:
            self.found.append(Finding(kind, where, what, advice))
        else:
            self.left_out[kind] += 1

    def skip(self, what: str) -> None:
        """Record that something cannot be checked."""
        if what not in self.unchecked:
            self.unchecked.append(what)

    def extend(self, others: Findings) -> None:
        """Add what another check collected."""
        for finding in others.found:
            self.add(finding.kind, finding.where, finding.what, finding.advice)
        self.left_out.update(others.left_out)
        for what in others.unchecked:
            self.skip(what)
