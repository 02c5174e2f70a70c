"""This process's memory, as fsspec keeps it, under a lock of our own: for tests and examples."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from refold.warehouse.object_store.remote import RemoteStore
from refold.warehouse.object_store.store import check_source

Result = TypeVar("Result")

# fsspec keeps one memory per process, and checks for a key before it writes: the lock makes both one step.
_LOCK = threading.Lock()


class MemoryStore(RemoteStore):
    """Objects in this process's memory: another process that receives the store finds it empty."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Check and write under the lock; fsspec's own check would scan all objects."""
        fs, path = self._locate(key)

        def create() -> bool:
            if fs.isfile(path):
                return False
            fs.pipe_file(path, data)
            return True

        return self._attempt(f"create {key!r}", create)

    def put_file(self, key: str, path: Path) -> None:
        """Read the file first: fsspec would expose a partial object."""
        self.put(key, check_source(path).read_bytes())

    def _attempt(self, doing: str, operation: Callable[[], Result]) -> Result:
        with _LOCK:
            return super()._attempt(doing, operation)
