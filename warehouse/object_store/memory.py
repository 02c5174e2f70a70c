"""This process's memory, as fsspec keeps it, under a lock of ours: for tests and examples."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from refold.warehouse.object_store.remote import RemoteStore
from refold.warehouse.object_store.store import check_source

Result = TypeVar("Result")

# fsspec keeps one memory for the whole process, and looks before it writes: one lock makes both one step.
_LOCK = threading.Lock()


class MemoryStore(RemoteStore):
    """Objects in this process's memory: another process that receives the store finds it empty."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Look and write in one step; fsspec's own look would go through all objects."""
        fs, path = self._locate(key)

        def create() -> bool:
            if fs.isfile(path):
                return False
            fs.pipe_file(path, data)
            return True

        return self._attempt(f"create {key!r}", create)

    def put_file_if_absent(self, key: str, path: Path) -> bool:
        """Read the file: fsspec would show the object before it is whole."""
        return self.put_if_absent(key, check_source(path).read_bytes())

    def put_file(self, key: str, path: Path) -> None:
        """Read the file: fsspec would show the object before it is whole."""
        self.put(key, check_source(path).read_bytes())

    def _attempt(self, doing: str, operation: Callable[[], Result]) -> Result:
        with _LOCK:
            return super()._attempt(doing, operation)
