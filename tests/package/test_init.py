"""``refold init`` makes a project that works at once, wherever refold's wheel is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from refold.pipelines.cli.main import cli
from refold.pipelines.init.project import TEMPLATE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run a command without any setting of this checkout; programs of ``path`` come first."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("REFOLD_")}
    if path:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def make(name: str, *, code: int = 0) -> str:
    """Run ``refold init`` in the current folder."""
    result = CliRunner().invoke(cli, ["init", name])
    assert result.exit_code == code, result.output
    return result.output


def test_the_two_commands_of_a_new_project_work_in_a_fresh_environment(tmp_path: Path) -> None:
    """The project works with the built wheel and pytest alone."""
    source, there = tmp_path / "source", tmp_path / "venv" / "bin"
    for name in ("src", "event_schemas", "warehouse", "pipelines"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    run(BIN / "python", "-m", "build", "--installer", "uv", "--wheel", "--outdir", tmp_path, source, cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    run(BIN / "uv", "venv", "--python", sys.executable, there.parent, cwd=tmp_path)
    install = (BIN / "uv", "pip", "install", "--python", there / "python", "--constraint", ROOT / "constraints.txt")
    run(*install, wheel, "pytest", cwd=tmp_path)

    run(there / "refold", "init", "help-desk", cwd=tmp_path)
    project = tmp_path / "help-desk"
    printed = run("make", "demo", cwd=project, path=there)
    assert "ada       2       1       1" in printed
    assert "cyd" not in printed.partition("FROM customers_waiting")[2]
    assert "4 passed" in run("make", "test", cwd=project, path=there)

    run(*install, "--editable", project, cwd=tmp_path)
    listed = run(there / "refold", "--domain", "help_desk", "schemas", "list", "--json", cwd=tmp_path)
    assert [s["event_type"] for s in json.loads(listed)["schemas"]] == ["TicketClosed", "TicketOpened", "TicketOpened"]


def test_a_new_project_is_tidy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all files of the template, placeholders filled in, and passes lint and types."""
    monkeypatch.chdir(tmp_path)
    assert "cd help-desk" in make("help-desk")
    project = tmp_path / "help-desk"
    template = {f.relative_to(TEMPLATE) for f in TEMPLATE.rglob("*") if f.is_file() and f.suffix != ".pyc"}
    made = {f.relative_to(project) for f in project.rglob("*") if f.is_file()}
    assert made == {Path(*("help_desk" if p == "package_name" else p for p in file.parts)) for file in template}
    texts = [(project / file).read_text() for file in made]
    assert not [text for text in texts if any(word in text for word in ("package_name", "project-name", "0.0.0"))]
    workflow = yaml.safe_load((project / ".github/workflows/test.yml").read_text())
    assert [s["run"] for s in workflow["jobs"]["test"]["steps"] if "run" in s][-2:] == ["make test", "make demo"]
    run(BIN / "ruff", "check", "--line-length=120", "--select=E,F,I,B,UP,D1", project, cwd=project)
    run(BIN / "mypy", "--strict", "--ignore-missing-imports", "help_desk", cwd=project)


@pytest.mark.parametrize("name", ["Help", "class", "1st", "a--b", "../up", "", "a b"])
def test_a_name_that_is_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error shows a valid name, and nothing is created."""
    monkeypatch.chdir(tmp_path)
    assert "for example help-desk" in make(name, code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is taken by a folder, an installed module or another folder of the project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert "here exists already" in make("here", code=2)
    assert "module named numpy is installed" in make("numpy", code=2)
    assert "has a folder named tests" in make("tests", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the project's folder and the reason."""
    monkeypatch.chdir(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    assert "help-desk cannot be made: [Errno 28] No space left on device" in make("help-desk", code=2)
    assert list(tmp_path.iterdir()) == []
