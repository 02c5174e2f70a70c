"""Records are decoded from any thread."""

from __future__ import annotations

import sys
import threading
from dataclasses import make_dataclass
from multiprocessing import get_context
from typing import Any

from refold.warehouse.object_store.records import decode_record, encode_record

CLASSES = 100
THREADS = 4


def decode_in_threads() -> None:
    """Let threads decode nested dataclasses that nobody has decoded before."""
    sys.setswitchinterval(1e-6)
    for _ in range(CLASSES):
        inner: Any = make_dataclass("Inner", [(f"f{i}", list[int]) for i in range(30)])
        outer: Any = make_dataclass("Outer", [("one", inner), ("more", list[inner])])
        data = encode_record(outer(inner(*[[1]] * 30), []))
        together = threading.Barrier(THREADS)

        def decode(wanted: Any = outer, data: bytes = data, together: threading.Barrier = together) -> None:
            together.wait()
            assert decode_record(data, wanted).more == []

        threads = [threading.Thread(target=decode) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_threads_may_decode_a_dataclass_for_the_first_time() -> None:
    """Left alone, msgspec ends the process with a segmentation fault."""
    process = get_context("spawn").Process(target=decode_in_threads)
    process.start()
    process.join()
    assert process.exitcode == 0
