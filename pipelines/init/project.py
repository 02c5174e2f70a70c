"""Make a new project from the template, in which its names stand as placeholders."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import refold
from refold.event_schemas.errors import UsageError

TEMPLATE = Path(__file__).parent / "template"
# Python compiles the template's modules when refold is installed; the caches belong to no project.
_NOT_COPIED = shutil.ignore_patterns("__pycache__")
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def make_project(name: str, parent: Path) -> Path:
    """Make a project in a new folder; after an error there is none.

    Args:
        name: the name of the folder and of the project; its Python package has underscores for hyphens.
        parent: where the folder goes.

    Returns:
        The new folder.

    Raises:
        UsageError: the folder exists or cannot be made, or the name is not usable for a Python package.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in make_project("help-desk", Path(folder)).glob("[a-z]*"))
        ['help_desk', 'pyproject.toml', 'refold.toml', 'sample', 'tests']
    """
    folder = parent / name
    package = _package_of(name)
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists already. Give another name, or move it away.")
    if (TEMPLATE / package).exists():
        raise UsageError(f"Every project has a folder named {package}. Give another name.")
    if importlib.util.find_spec(package) is not None:
        raise UsageError(f"A Python module named {package} is installed; the project would hide it. Give another name.")
    values = {"package_name": package, "project-name": name, "refold>=0.0.0": f"refold>={refold.__version__}"}
    try:
        with tempfile.TemporaryDirectory(prefix=".refold-init-", dir=parent) as unfinished:
            made = Path(unfinished) / name
            shutil.copytree(TEMPLATE, made, ignore=_NOT_COPIED)
            _fill(made, values)
            made.rename(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error}. Check the folder above it.") from error
    return folder


def _package_of(name: str) -> str:
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(package):
        raise UsageError(
            f"{name!r} is not a usable project name. Give lower-case letters, digits and single hyphens or "
            f"underscores, starting with a letter, and no word of the Python language; for example help-desk."
        )
    return package


def _fill(folder: Path, values: Mapping[str, str]) -> None:
    """Replace the placeholders in every file, and in the name of the package's folder."""
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        text = file.read_text(encoding="utf-8")
        for placeholder, value in values.items():
            text = text.replace(placeholder, value)
        file.write_text(text, encoding="utf-8")
    (folder / "package_name").rename(folder / values["package_name"])
