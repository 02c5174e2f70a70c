"""Build refold as it is committed, check what was built, and try the wheel on each Python that it supports.

The sdist and the wheel are built from a clean checkout, and a second wheel from the sdist: all must hold the same
modules. Each smoke test installs the wheel into a fresh environment and works in an empty folder. Whatever is built
ends in ``dist/``. A Python that is not found is named at the end, and the wheel is not tried on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
BUILD = (BIN / "python", "-m", "build", "--installer", "uv")
IMPORT_ALL = "import refold; [getattr(refold, name) for name in refold.__all__]"
PYTHONS = ("3.11", "3.12", "3.13")
SDIST_HOLDS = (
    "LICENSE",
    "CHANGELOG.md",
    "constraints.txt",
    "docs/tutorial.md",
    "src/refold/event_schemas/orders.lock.json",
    "src/refold/event_schemas/trading.lock.json",
)


def main() -> None:
    """Build, check, try."""
    with tempfile.TemporaryDirectory(prefix="refold-package-") as folder:
        sdist, wheel = build(Path(folder))
        check(sdist, wheel, Path(folder))
        missing = [version for version in PYTHONS if not smoke(wheel, version, Path(folder) / version)]
    if len(missing) == len(PYTHONS):
        sys.exit(f"No Python of {', '.join(PYTHONS)} was found: the wheel was not tried.")
    for version in missing:
        print(f"WARNING: Python {version} was not found, neither on PATH nor by pyenv: the wheel was not tried on it.")


def run(*command: str | Path, cwd: Path, clean: bool = False) -> str:
    """Run a command and return what it prints; its output is shown if it fails."""
    environment = {**os.environ, "NO_COLOR": "1"}
    if clean:  # nothing of this checkout or of the caller's settings may reach the installed package
        drop = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        environment = {k: v for k, v in environment.items() if k not in drop and not k.startswith("REFOLD_")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """Build the committed state into ``dist/``, and return the sdist and the wheel."""
    if run("git", "status", "--porcelain", cwd=ROOT):
        print("NOTE: only what is committed is built; this checkout has other changes.")
    checkout, dist = folder / "checkout", ROOT / "dist"
    run("git", "clone", "--quiet", ROOT, checkout, cwd=folder)
    shutil.rmtree(dist, ignore_errors=True)
    run(*BUILD, "--outdir", dist, "--sdist", "--wheel", checkout, cwd=folder)
    [sdist], [wheel] = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return sdist, wheel


def check(sdist: Path, wheel: Path, folder: Path) -> None:
    """Check the metadata and the contents of both, and that the sdist gives the same wheel."""
    run(BIN / "twine", "check", "--strict", sdist, wheel, cwd=folder)
    run(BIN / "check-wheel-contents", "--toplevel", "refold", wheel, cwd=folder)
    with tarfile.open(sdist) as archive:
        prefix = sdist.name.removesuffix(".tar.gz")
        names = {name.removeprefix(f"{prefix}/") for name in archive.getnames()}
        archive.extractall(folder, filter="data")
    if absent := [name for name in SDIST_HOLDS if name not in names]:
        sys.exit(f"The sdist lacks {', '.join(absent)}: see MANIFEST.in.")
    run(*BUILD, "--outdir", folder, "--wheel", folder / prefix, cwd=folder)
    ours, theirs = files_of(wheel), files_of(folder / wheel.name)
    if ours != theirs:
        sys.exit(f"The wheel of the sdist differs: {sorted(ours ^ theirs)}.")
    print(f"{sdist.name} ({len(names)} files) and {wheel.name} ({len(ours)} files) are good.")


def files_of(wheel: Path) -> set[tuple[str, int]]:
    """Return the name and checksum of each file, but for the wheel's own list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {(file.filename, file.CRC) for file in archive.infolist() if not file.filename.endswith("/RECORD")}


def smoke(wheel: Path, version: str, folder: Path) -> bool:
    """Install the wheel for one Python and use it; False if there is no such Python."""
    python = find_python(version)
    if python is None:
        return False
    environment, work = folder / "venv", folder / "work"
    work.mkdir(parents=True)
    uv, there = BIN / "uv", environment / "bin"
    run(uv, "venv", "--quiet", "--python", python, environment, cwd=folder)
    pip = (uv, "pip", "install", "--quiet", "--python", there / "python", "--constraint", ROOT / "constraints.txt")
    run(*pip, f"refold[serve] @ {wheel.as_uri()}", cwd=folder)
    run(there / "python", "-c", IMPORT_ALL, cwd=work, clean=True)
    run(there / "refold", "--help", cwd=work, clean=True)
    run(there / "refold", "demo", "--events", "2000", "--json", cwd=work, clean=True)
    print(f"Python {version}: the wheel is installed, imported, and runs the demo ({python}).")
    return True


def find_python(version: str) -> Path | None:
    """Find an interpreter: by its name on PATH, else by pyenv."""
    for candidate in (shutil.which(f"python{version}"), _in_pyenv(version)):
        if candidate and _says(candidate, "-c", "print(*__import__('sys').version_info[:2], sep='.')") == version:
            return Path(candidate)
    return None


def _in_pyenv(version: str) -> str | None:
    prefix = _says("pyenv", "prefix", version)
    return f"{prefix}/bin/python" if prefix else None


def _says(*command: str) -> str | None:
    """Return what a command prints; None if it is not there or fails, as pyenv's own stand-ins for a Python may."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    main()
