"""Settings of the command line: files, then environment, then flags; the later wins.

A folder's settings stand in ``refold.toml`` (the table ``[tool.refold]``, or no table at all), or in ``[tool.refold]``
of ``pyproject.toml``. The nearest folder from the current one upwards that has either counts, and its relative paths
are meant from there.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refold.event_schemas import UsageError

KEYS = ("domain", "log", "read_models", "runner")
_PATHS = ("log", "read_models")
_EXAMPLES = {"domain": "my_shop.domain:SHOP", "log": "data/log", "read_models": "data/read-models", "runner": "dask"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the commands work on.

    Attributes:
        domain: entry-point name, or dotted path such as ``my_shop.domain:SHOP``.
        log: URL of the event log.
        read_models: URL below which read models are published.
        runner: a Beam runner's name; None for the local default.
        folder: of the file that they came from, else the current one; a domain may lie there.
    """

    domain: str = "orders"
    log: str = "./refold-data/log"
    read_models: str = "./refold-data/read-models"
    runner: str | None = None
    folder: Path = Path()


def load_settings(flags: Mapping[str, str | None], environ: Mapping[str, str], folder: Path) -> Settings:
    """Settle what the commands work on.

    Args:
        flags: key to what the command line says; None where it says nothing.
        environ: the environment, with ``REFOLD_DOMAIN``, ``REFOLD_LOG``, ``REFOLD_READ_MODELS`` and ``REFOLD_RUNNER``.
        folder: the current one.

    Raises:
        UsageError: a settings file cannot be read, or has a key that is not known.

    Example:
        >>> load_settings({"log": "s3://shop/log"}, {"REFOLD_LOG": "/old"}, Path("/")).log
        's3://shop/log'
    """
    found_in, values = _from_file(folder)
    named = {key: environ.get(f"REFOLD_{key.upper()}") or None for key in KEYS}
    for source in (named, flags):
        values |= {key: value for key, value in source.items() if value is not None}
    return dataclasses.replace(Settings(folder=found_in), **values)


def _from_file(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Find the nearest settings, and give them with the folder they stand in."""
    for place in (folder, *folder.parents):
        for file in (place / "refold.toml", place / "pyproject.toml"):
            values = _read(file) if file.is_file() else None
            if values is not None:
                return place, _checked(values, file, folder)
    return folder, {}


def _read(file: Path) -> Any:
    """Read a file's settings; None for a ``pyproject.toml`` without any."""
    try:
        found: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"The settings in {file} cannot be read: {error}. Mend the file.") from error
    tools = found.get("tool")
    table = tools.get("refold") if isinstance(tools, dict) else None
    return found if table is None and file.name == "refold.toml" else table


def _checked(values: Any, file: Path, folder: Path) -> dict[str, str]:
    if not isinstance(values, dict):
        raise UsageError(f"{file}: tool.refold is {values!r}; expected a table of {', '.join(KEYS)}.")
    checked: dict[str, str] = {}
    for key, value in values.items():
        if key not in KEYS:
            raise UsageError(f"{file}: unknown setting {key!r}; known are {', '.join(KEYS)}.")
        if not isinstance(value, str) or not value:
            raise UsageError(f'{file}: {key} is {value!r}; expected text, as in {key} = "{_EXAMPLES[key]}".')
        checked[key] = _from_there(value, file.parent, folder) if key in _PATHS else value
    return checked


def _from_there(url: str, place: Path, folder: Path) -> str:
    """Read a relative path from the settings' folder, and give it as seen from the current one."""
    if "://" in url or url.startswith("~"):
        return url
    path = place / url
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)
