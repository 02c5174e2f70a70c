"""Every example in a docstring of refold does what it shows."""

from __future__ import annotations

import doctest
import importlib
import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
ROOMS = ("event_schemas", "warehouse", "pipelines")


def modules_with_examples() -> list[str]:
    """Name the modules with examples, by their text: collecting tests imports none of them."""
    files = [*(SRC / "refold").glob("*.py"), *(f for room in ROOMS for f in (SRC / "refold" / room).rglob("*.py"))]
    found = [f for f in files if ">>> " in f.read_text(encoding="utf-8")]
    return sorted(".".join(f.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__") for f in found)


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples(module: str) -> None:
    """The examples of one module."""
    said = io.StringIO()
    with redirect_stdout(said):
        failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried, "no example was found"
    assert not failed, said.getvalue()
