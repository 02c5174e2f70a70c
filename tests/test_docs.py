"""Every command line and code block in the README and the docs does what it says: here they are run.

A block belongs to the file whose name is in backticks at the end of the paragraph before it (``as
`tickets.jsonl`:``), and is then written; other Python blocks are executed, and each line of a ``console`` block
that starts with ``$`` is run in a shell. The blocks of one document share a folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md", "llms.txt")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"\bas\s`([\w./-]+)`[^`\n]*:\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str
    file: str | None


def blocks_of(document: Path) -> list[Block]:
    """Read the fenced blocks of a document, in order."""
    text = document.read_text()
    found = []
    for match in FENCE.finditer(text):
        named = NAMED.search(text[: match.start()].rstrip())
        found.append(Block(match[1], match[2], named[1] if named else None))
    return found


def run(command: list[str] | str, folder: Path) -> str:
    """Run a command of a document as a reader would, with this environment's programs first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("REFOLD_")}, "PATH": path}
    shell = isinstance(command, str)
    done = subprocess.run(
        command, shell=shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make_targets() -> set[str]:
    """Name the targets of the Makefile."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_block_runs(document: Path, tmp_path: Path) -> None:
    """Files are written, Python is executed, commands are run, in the order of the page."""
    exports = ""
    for block in blocks_of(document):
        if block.file:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text)
            if block.language == "python":
                run([sys.executable, block.file], tmp_path)
        elif block.language == "python":
            run([sys.executable, "-c", block.text], tmp_path)
        elif block.language == "console":
            for line in (ln[2:] for ln in block.text.splitlines() if ln.startswith("$ ")):
                if line.startswith("make "):
                    assert line.split()[1] in make_targets(), line
                elif line.startswith("export "):
                    exports += f"{line}; "
                else:
                    run(exports + line, tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """A link to a file of this repository names one that is there."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_workflow_is_yaml(document: Path) -> None:
    """What a reader would copy into a repository can be read there, and has steps that run."""
    for block in blocks_of(document):
        if block.language == "yaml":
            jobs = yaml.safe_load(block.text)["jobs"].values()
            assert all(any("run" in step for step in job["steps"]) for job in jobs)


def test_the_example_in_the_readme_is_short() -> None:
    """Declaring one's own event, upcaster and read model takes 20 lines of code."""
    [example] = [b for b in blocks_of(ROOT / "README.md") if b.file == "support_desk.py"]
    assert len([line for line in example.text.splitlines() if line.strip()]) <= 20
