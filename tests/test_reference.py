"""The reference is complete: every public name, command, option, setting, metric and error is in it."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import refold
import refold.testing
from refold import RefoldError
from refold.event_schemas import errors
from refold.pipelines.cli.config import SETTINGS, Settings, option_of, variable_of
from refold.pipelines.cli.main import cli
from refold.pipelines.metrics import METRICS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Name a command and all commands below it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            sub = command.get_command(context, name)
            assert sub is not None
            yield from walk(sub, f"{path} {name}")


def all_errors(cls: type[RefoldError] = RefoldError) -> Iterator[type[RefoldError]]:
    """List the error tree as it is declared."""
    if cls.__module__ == errors.__name__:
        yield cls
        for sub in cls.__subclasses__():
            yield from all_errors(sub)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; a link that leads nowhere, or any other warning, is an error."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("module", [refold, refold.testing], ids=lambda m: m.__name__)
def test_every_public_name_is_in_the_reference(module: object) -> None:
    """A name that can be imported from the package is documented from its docstring."""
    pages = "".join(page.read_text() for page in (REFERENCE / "python.md", REFERENCE / "errors.md"))
    prefix = module.__name__  # type: ignore[attr-defined]
    documented = set(re.findall(rf"^\.\. auto\w+:: {re.escape(prefix)}\.(\w+)$", pages, re.MULTILINE))
    assert documented == set(module.__all__)  # type: ignore[attr-defined]


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    """The page is generated from the commands, and lacks none of them."""
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "reference" / "commands.html").read_text()))
    for path, command in walk(cli, "refold"):
        assert path in text
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1] in text, f"{path} {parameter.opts[-1]}"


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """No page names a script, style, font or image on another host."""
    elements = r'script|img|iframe|link rel="(?:stylesheet|preconnect|preload)"'
    loaded = re.compile(rf'<(?:{elements})[^>]*(?:src|href)="https?:')
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"""(?:@import|url\()\s*["']?https?:""", sheet.read_text()), sheet


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_is_in_the_reference(key: str) -> None:
    """A setting is documented with its variable, its option and its default."""
    default = getattr(Settings(), key)
    row = f"| `{key}` | `{variable_of(key)}` | `{option_of(key)}` | {f'`{default}`' if default else ''}"
    assert row in (REFERENCE / "settings.md").read_text()


def test_every_variable_is_in_the_reference() -> None:
    """A variable that the code reads is documented, unless a server sets it for its own workers."""
    sources = [path for room in ("event_schemas", "warehouse", "pipelines") for path in (ROOT / room).rglob("*.py")]
    read = {name for path in sources for name in re.findall(r"\bREFOLD_[A-Z_]*[A-Z]\b", path.read_text())}
    text = (REFERENCE / "settings.md").read_text()
    assert not [name for name in read if f"`{name}`" not in text and not name.startswith("REFOLD_SERVE_")]


def test_the_table_of_metrics_is_in_the_reference() -> None:
    """The page lists the declared metrics with their labels, types and help texts: first those of every process."""
    rows = re.findall(r"^\| `refold_.*$", (REFERENCE / "metrics.md").read_text(), re.MULTILINE)
    assert rows == [metric.reference_row() for metric in METRICS]


def test_every_error_is_in_the_reference() -> None:
    """An error is documented with the one above it and its exit code, and is public."""
    text = (REFERENCE / "errors.md").read_text()
    for error in all_errors():
        assert f"| `{error.__name__}` | `{error.__bases__[0].__name__}` |" in text
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{error.__name__}` |")]
        assert row.endswith(f"| {error.exit_code} |")
        assert error.__name__ in refold.__all__


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "AGENTS.md"])
def test_every_file_that_a_guide_names_exists(name: str) -> None:
    """The file that the guide names exists."""
    named = re.findall(r"`((?:[\w.-]+/)+[\w.*-]*)`", (ROOT / name).read_text())
    assert named
    for path in named:
        assert list(ROOT.glob(path.rstrip("/"))) or path.startswith("build/"), path
