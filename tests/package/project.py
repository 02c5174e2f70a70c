"""A user's project that has packages named like refold's own rooms, and a domain module that prints when imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

GREETING = "the domain module is imported"

_FILES = {
    "refold.toml": 'domain = "warehouse.domain:VISITS"\nlog = "log"\nread_models = "read-models"\n',
    "pipelines/__init__.py": '"""A package of the user\'s own."""\n',
    "event_schemas/__init__.py": "",
    "event_schemas/events.py": """
import pyarrow as pa
from refold import event, upcaster

@event(schema_version=2)
class GateOpened:
    visitor: str
    gate: str

V1 = pa.schema([pa.field("visitor", pa.string(), nullable=False)])

@upcaster(GateOpened, from_version=1, schema=V1)
def add_gate(event):
    return [GateOpened(visitor=event.payload["visitor"], gate="main")]
""",
    "warehouse/__init__.py": "",
    "warehouse/domain.py": f"""
import pipelines
from event_schemas.events import GateOpened, add_gate
from refold import Decider, Domain, Fold, Lookup, Projection, command, count, latest

print({GREETING!r}, flush=True)

@command
class OpenGate:
    visitor: str
    gate: str

GATE = Decider(
    name="gate",
    commands=(OpenGate,),
    stream_id=lambda command: f"visitor-{{command.visitor}}",
    initial_state=lambda: 0,
    evolve=lambda opened, event: opened + 1,
    decide=lambda command, opened: [GateOpened(visitor=command.visitor, gate=command.gate)],
)
VISITS_BY_VISITOR = Projection(
    name="visits_by_visitor",
    key={{"visitor": "VARCHAR"}},
    columns={{"visits": count(), "last_gate": latest("VARCHAR")}},
    on={{GateOpened: "SELECT visitor, 1 AS visits, gate AS last_gate"}},
)

def run_of(state, event):
    same = state is not None and state["gate"] == event.gate
    return {{"gate": event.gate, "length": state["length"] + 1 if same else 1}}

RUNS = Fold(
    name="runs",
    key={{"visitor": "VARCHAR"}},
    columns={{"gate": "VARCHAR", "length": "BIGINT"}},
    on={{GateOpened: "SELECT visitor, gate"}},
    fold=run_of,
)
VISITS = Domain(
    name="visits",
    events=(GateOpened,),
    upcasters=(add_gate,),
    read_models=(VISITS_BY_VISITOR, RUNS),
    deciders=(GATE,),
    endpoints=(Lookup(path="/visitors/{{visitor}}", table="visits_by_visitor", text="One visitor."),),
)
""",
}


def write_project(folder: Path) -> None:
    """Write the project, with two files of events: ``first.jsonl`` and ``second.jsonl``."""
    for name, text in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    rows = [_event(number) for number in range(40)]
    (folder / "first.jsonl").write_text("".join(rows[:30]))
    (folder / "second.jsonl").write_text("".join(rows[30:]))


def _event(number: int) -> str:
    version, visitor = 1 + number % 2, f"v{number % 3}"
    payload = {"visitor": visitor} | ({"gate": "side"} if version == 2 else {})
    envelope = {
        "stream_id": f"visitor-{visitor}",
        "event_type": "GateOpened",
        "schema_version": version,
        "event_id": f"e{number}",
        "correlation_id": "monday",
        "occurred_at": f"2026-01-05T09:{number:02}:00Z",
    }
    return json.dumps(envelope | {"payload": payload}) + "\n"


ROWS = [
    {"visitor": "v0", "visits": 14, "last_gate": "side", "gate": "side", "length": 1},
    {"visitor": "v1", "visits": 13, "last_gate": "side", "gate": "side", "length": 1},
    {"visitor": "v2", "visits": 13, "last_gate": "main", "gate": "main", "length": 1},
]
"""The rows of the read models after both files."""


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run refold in the project's folder, as its user does, and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("REFOLD_")}
    command = [str(Path(sys.executable).with_name("refold")), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == code, f"{arguments}\n{done.stdout}{done.stderr}"
    return done.stdout


def rows(folder: Path) -> list[dict[str, object]]:
    """Query both read models of the newest generation."""
    printed = run(folder, "query", "--json", "FROM visits_by_visitor JOIN runs USING (visitor) ORDER BY visitor")
    answer = json.loads(printed.splitlines()[-1])
    found: list[dict[str, object]] = answer["rows"]
    return found
