"""Settings of the command line: files, then environment, then options; the later wins.

The nearest folder from the current one upwards that has settings counts: either in ``refold.toml`` (the table
``[tool.refold]``, or no table at all) or in ``[tool.refold]`` of ``pyproject.toml``. Relative paths in the file are
relative to its folder.

``Settings`` declares each setting once: its key, default, help and example. Option and environment variable follow
from the key.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any


class Origin(IntEnum):
    """Where a setting comes from; the higher wins."""

    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    OPTION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the command line says about one setting.

    Attributes:
        metavar: what its value is called in a help page.
        help: the sentence of a help page.
        example: a value, for error messages.
        is_path: whether a relative value in a settings file is relative to that file's folder.
    """

    metavar: str
    help: str
    example: str
    is_path: bool = False


def _setting(default: str | None, **described: Any) -> Any:
    return field(default=default, metadata={"setting": Setting(**described)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the commands work on.

    Attributes:
        domain: entry-point name, or dotted path such as ``my_shop.domain:SHOP``; None if nobody named one.
        log: URL of the event log.
        keys: URL of the key store of personal data; None for the default, beside the log.
        read_models: URL below which read models are published.
        runner: a Beam runner's name; None for the local default.
        window: for how long ``refold log gc`` keeps what a log no longer needs; at least an hour.
        folder: the settings file's folder, else the current one; modules in it are importable.
        origins: where each setting that is no default comes from.
    """

    domain: str | None = _setting(
        None,
        metavar="NAME",
        help="An installed domain, or a path such as my_shop.domain:SHOP; by default the log's.",
        example="my_shop.domain:SHOP",
    )
    log: str = _setting(
        "./refold-data/log", metavar="URL", help="Where the event log is.", example="data/log", is_path=True
    )
    keys: str | None = _setting(
        None,
        metavar="URL",
        help="Where the keys of personal data are; by default the log's URL with -keys after it.",
        example="data/log-keys",
        is_path=True,
    )
    read_models: str = _setting(
        "./refold-data/read-models",
        metavar="URL",
        help="Where read models are published.",
        example="data/read-models",
        is_path=True,
    )
    runner: str | None = _setting(
        None, metavar="NAME", help="A Beam runner; a fast local one by default.", example="dask"
    )
    window: str = _setting(
        "7d", metavar="DURATION", help="Keep what was needed this recently; 7d by default.", example="30d"
    )
    folder: Path = Path()
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def origin(self, key: str) -> Origin:
        """Return where a setting comes from."""
        return self.origins.get(key, Origin.DEFAULT)


SETTINGS: Mapping[str, Setting] = {
    f.name: f.metadata["setting"] for f in dataclasses.fields(Settings) if "setting" in f.metadata
}


def option_of(key: str) -> str:
    """Name the option of a setting.

    Example:
        >>> option_of("read_models"), variable_of("read_models")
        ('--read-models', 'REFOLD_READ_MODELS')
    """
    return f"--{key.replace('_', '-')}"


def variable_of(key: str) -> str:
    """Name the environment variable of a setting."""
    return f"REFOLD_{key.upper()}"


def load_settings(options: Mapping[str, str | None], environ: Mapping[str, str], folder: Path) -> Settings:
    """Merge the settings of all sources.

    Args:
        options: key to what the command line says; None where it says nothing.
        environ: the environment; an empty variable counts as unset.
        folder: the current one.

    Raises:
        UsageError: a settings file is unreadable or invalid.

    Example:
        >>> load_settings({"log": "s3://shop/log"}, {"REFOLD_LOG": "/old"}, Path("/")).log
        's3://shop/log'
    """
    found_in, from_file = _from_file(folder)
    from_environment = {key: environ.get(variable_of(key)) or None for key in SETTINGS}
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for origin, source in (
        (Origin.FILE, from_file),
        (Origin.ENVIRONMENT, from_environment),
        (Origin.OPTION, options),
    ):
        given = {key: value for key, value in source.items() if value is not None}
        values |= given
        origins |= dict.fromkeys(given, origin)
    return Settings(folder=found_in, origins=origins, **values)


def _from_file(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return the nearest settings, and the folder of their file."""
    for place in (folder, *folder.parents):
        for file in (place / "refold.toml", place / "pyproject.toml"):
            values = _read(file) if file.is_file() else None
            if values is not None:
                return place, _checked(values, file, folder)
    return folder, {}


def _read(file: Path) -> Any:
    """Read a file's settings; None for a ``pyproject.toml`` without any."""
    from refold.event_schemas import UsageError

    try:
        content: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"The settings file {file} is unreadable: {error}. Fix or remove it.") from error
    tools = content.get("tool")
    table = tools.get("refold") if isinstance(tools, dict) else None
    return content if table is None and file.name == "refold.toml" else table


def _checked(values: Any, file: Path, folder: Path) -> dict[str, str]:
    from refold.event_schemas import UsageError

    known = ", ".join(SETTINGS)
    if not isinstance(values, dict):
        raise UsageError(f"{file}: tool.refold is {values!r}; expected a table with the keys {known}.")
    checked: dict[str, str] = {}
    for key, value in values.items():
        if key not in SETTINGS:
            raise UsageError(f"{file}: unknown setting {key!r}; the settings are {known}.")
        if not isinstance(value, str) or not value:
            example = SETTINGS[key].example
            raise UsageError(f'{file}: {key} is {value!r}; expected a string, as in {key} = "{example}".')
        checked[key] = _seen_from(folder, file.parent, value) if SETTINGS[key].is_path else value
    return checked


def _seen_from(folder: Path, place: Path, url: str) -> str:
    """Resolve a path that is relative to a settings file's folder; a URL or an absolute path stays as it is."""
    if "://" in url or url.startswith("~"):
        return url
    path = place / url
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)
