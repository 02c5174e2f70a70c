"""The chain of commits: each has the digest of the one before it, and the first that of the log's description.

Whoever changes, removes, swaps or restores a commit breaks the chain, and the next reader says so. The digest at its
end proves the whole history: an auditor keeps it elsewhere, and compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from refold.event_schemas import DamagedLogError


@dataclass(frozen=True, slots=True)
class Link:
    """A place between two commits.

    Attributes:
        commit_number: number of the commit before it; 0 at the beginning.
        position: position of that commit's last event; -1 if it is not known.
        digest: digest of that commit; empty if it is not known, or in a log of format 1, which has no chain.
    """

    commit_number: int
    position: int
    digest: str

    @classmethod
    def after(cls, commit_number: int) -> Link:
        """Return the place after a commit of which only the number is known."""
        return cls(commit_number, -1, "")


BEGINNING = Link(0, 0, "")
"""The beginning of a log whose description is not known."""


def check_next(before: Link, number: int, first_position: int, previous: str, *, where: str) -> None:
    """Check that a commit follows a link.

    Args:
        before: the link.
        number: the commit's number, from its footer.
        first_position: position of its first event.
        previous: the digest that it has of the commit before it.
        where: URL of its object.

    Raises:
        DamagedLogError: it follows another commit.
    """
    if number != before.commit_number + 1:
        found = f"it is commit {number}, expected {before.commit_number + 1}"
    elif before.position >= 0 and first_position != before.position + 1:
        found = f"it begins at position {first_position}, expected {before.position + 1}"
    elif before.digest and previous != before.digest:
        found = (
            f"it follows a commit {before.commit_number} with the digest {previous[:16] or 'none'}…, but that has "
            f"{before.digest[:16]}…"
        )
    else:
        return
    raise DamagedLogError(
        f"{where} does not follow what is before it: {found}. One of the two was changed, swapped, or restored from "
        "another copy of the log. `refold events verify` shows what is still whole."
    )
