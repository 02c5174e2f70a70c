"""The reject file: a JSON line for every row that could not become an event."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import orjson

_MAX_TEXT = 1 << 16
"""A longer row is truncated in the reject file, so that one endless row does not fill the disk twice."""


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
        with self._path.open("rb") as source:
            return dict(orjson.loads(source.readline()))

    def deliver(self, target: Path) -> Path | None:
        """Copy the file to where the user wants it; return None if no row was rejected."""
        if not self.count:
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._path, target)
        return target
