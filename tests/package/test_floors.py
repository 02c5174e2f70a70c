"""The import contracts of pyproject.toml apply to modules that they do not list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

REFUSED = {
    "warehouse/replay/new_module.py": "import refold.warehouse.orders.domain",
    "warehouse/engine/new_module.py": "import refold.event_schemas.trading.events",
    "event_schemas/new_module.py": "import refold.event_schemas.orders",
    "event_schemas/other_module.py": "import refold.warehouse.engine.sql",
    "warehouse/orders/new_module.py": "import refold.warehouse.trading.domain",
    "warehouse/event_log/new_module.py": "import refold.warehouse.replay.history",
    "warehouse/new_room/__init__.py": "",
    "pipelines/roomless.py": "",
    "pipelines/rebuild/new_module.py": "import refold.pipelines.serving.settings",
    "pipelines/demo/new_module.py": "import refold.pipelines.serving.settings",
    "pipelines/init/new_module.py": "import refold.pipelines.cli.config",
}
"""A forbidden module, and its imports; a package without a layer violates the contracts on its own."""


def test_modules_are_refused(tmp_path: Path) -> None:
    """import-linter reports each module when all are added to a copy of the code."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("src", "event_schemas", "warehouse", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in REFUSED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "COLUMNS": "300"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    modules = ["refold." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in REFUSED]
    assert [module for module in modules if f"- {module}" not in done.stdout] == []
