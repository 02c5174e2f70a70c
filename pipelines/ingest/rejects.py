"""The reject file: a JSON line for every row that could not become an event."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import orjson

_SHOWN = 1 << 16


class RejectFile:
    """Collects rejects beside the spool; what is behind the last chunk in the journal is cut off.

    Args:
        path: where they are collected.
        size: how long the file was at the last chunk in the journal.
        count: how many rejects it held then.
    """

    def __init__(self, path: Path, *, size: int, count: int) -> None:
        self._path = path
        self.size = size
        self.count = count
        if path.exists():
            os.truncate(path, size)

    def add(self, *, file: str, line: int, reason: str, text: str) -> None:
        """Write one reject; an endless text is cut."""
        told = {"file": file, "line": line, "reason": reason, "text": text[:_SHOWN]}
        if len(text) > _SHOWN:
            told["text_length"] = len(text)
        with self._path.open("ab") as sink:
            self.size += sink.write(orjson.dumps(told) + b"\n")
        self.count += 1

    def first(self) -> dict[str, object]:
        """Give the first reject."""
        with self._path.open("rb") as source:
            return dict(orjson.loads(source.readline()))

    def deliver(self, target: Path) -> Path | None:
        """Copy the file to where the user wants it; None if there is no reject."""
        if not self.count:
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._path, target)
        return target
