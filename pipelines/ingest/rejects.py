"""The reject file: a JSON line for every row that could not become an event, and a summary of the reasons."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from refold.event_schemas import UsageError

_MAX_TEXT = 1 << 16
"""A longer row is truncated in the reject file, so that one endless row does not fill the disk twice."""

_MAX_KINDS = 50
"""Reasons in a summary; the reject file has all of them."""

_OTHER = "other reasons"
_VALUE = re.compile(r",? found .*|(?<=this is no JSON): .*|(?<=this is no CSV): .*", re.S)
_INDEX = re.compile(r"\[\d+\]")
_LIMIT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason for rejected rows, with an example.

    Attributes:
        reason: without the values of single rows.
        rows: how many rows it rejected.
        file: of the first of them.
        line: of the first of them.
        example: the reason of the first of them, with its value.
    """

    reason: str
    rows: int
    file: str
    line: int
    example: str

    def __str__(self) -> str:
        """Return it as one line of text."""
        rows = "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        return f"{rows}: {self.reason}; first at {self.file}, line {self.line}: {self.example}"


@dataclass(frozen=True, slots=True)
class RejectLimit:
    """How many rows an import may reject: a number of rows, or a share of them in percent."""

    rows: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> RejectLimit:
        """Parse ``"10"`` or ``"0.5%"``.

        Raises:
            UsageError: it is neither.

        Example:
            >>> RejectLimit.parse("0.5%").allows(rejected=5, rows=1000)
            True
        """
        found = _LIMIT.fullmatch(text.strip())
        if found is None or (found[2] and float(found[2]) > 100):
            raise UsageError(
                f"--max-rejects is {text!r}; expected a number of rows such as 10, or a share such as 0.5%."
            )
        return cls(rows=int(found[1])) if found[1] else cls(percent=float(found[2]))

    def allows(self, *, rejected: int, rows: int) -> bool:
        """Check whether so many rejected rows, of so many rows in all, are within the limit."""
        return rejected <= self.rows if self.rows is not None else rejected * 100 <= (self.percent or 0) * rows

    def __str__(self) -> str:
        """Return it as the command line takes it."""
        return str(self.rows) if self.rows is not None else f"{self.percent:g}%"


class RejectFile:
    """Collects rejected rows beside the spool; those after the last chunk in the journal are dropped at the start.

    Args:
        path: where they are collected.
        size: of the file at the last chunk in the journal.
        count: of its rows then.
    """

    def __init__(self, path: Path, *, size: int, count: int) -> None:
        self._path = path
        self.size = size
        self.count = count
        if path.exists():
            os.truncate(path, size)

    def add(self, *, file: str, line: int, reason: str, text: str) -> None:
        """Write one rejected row."""
        reject = {"file": file, "line": line, "reason": reason, "text": text[:_MAX_TEXT]}
        if len(text) > _MAX_TEXT:
            reject["text_length"] = len(text)
        with self._path.open("ab") as sink:
            self.size += sink.write(orjson.dumps(reject) + b"\n")
        self.count += 1

    def first(self) -> dict[str, object]:
        """Return the first rejected row."""
        return next(self._rows())

    def summary(self) -> tuple[Reason, ...]:
        """Return the reasons, the most frequent first, each with the first row that it rejected."""
        found: dict[str, Reason] = {}
        for row in self._rows() if self.count else ():
            kind = reason_kind(row["reason"])
            kind = kind if kind in found or len(found) < _MAX_KINDS else _OTHER
            if kind in found:
                found[kind] = replace(found[kind], rows=found[kind].rows + 1)
            else:
                found[kind] = Reason(reason=kind, rows=1, file=row["file"], line=row["line"], example=row["reason"])
        return tuple(sorted(found.values(), key=lambda reason: -reason.rows))

    def deliver(self, target: Path) -> Path | None:
        """Copy the file to where the user wants it; return None if no row was rejected.

        Raises:
            UsageError: nothing can be written there.
        """
        if not self.count:
            return None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._path, target)
        except OSError as error:
            raise UsageError(
                f"The rejected rows cannot be written to {target}: {error.strerror or error}. They are in "
                f"{self._path}: name another file with --rejects."
            ) from error
        return target

    def _rows(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as source:
            for line in source:
                yield orjson.loads(line)


def reason_kind(reason: str) -> str:
    """Return what the reasons of many rows have in common.

    Example:
        >>> reason_kind("lines[3].count: expected int64, found 'NA'")
        'lines[].count: expected int64'
    """
    return _INDEX.sub("[]", _VALUE.sub("", reason, count=1))
