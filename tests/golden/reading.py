"""Golden files in a folder: their layout, and their rows as lines of JSON text."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import orjson

from refold.event_schemas import RecordedEvent

PACKED = "files.tar.xz"
"""The log and the read models of a set."""

_RELATIONS = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY table_name"


def event_lines(events: Iterable[RecordedEvent]) -> list[str]:
    """Write events, envelope and payload."""
    return [_line(asdict(event)) for event in events]


def table_lines(database: Path) -> list[str]:
    """Write all rows of the tables and views that readers see in a database, each under its relation's name."""
    lines = []
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for [name] in connection.execute(_RELATIONS).fetchall():
            rows = connection.sql(f"FROM {name} ORDER BY ALL").to_arrow_table().to_pylist()
            lines += [_line({"relation": name, **row}) for row in rows]
    return lines


def _line(values: dict[str, Any]) -> str:
    return orjson.dumps(values, default=_text, option=orjson.OPT_UTC_Z).decode()


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"no text for {value!r}")


def read_lines(path: Path) -> list[str]:
    """Read frozen lines."""
    return path.read_text(encoding="utf-8").splitlines()


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Freeze lines."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def pack(folder: Path, packed: Path) -> None:
    """Put folders of a set into one archive: footers are most of such small files, and much the same in all."""
    with tarfile.open(packed, "w:xz") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                archive.add(path, path.relative_to(folder).as_posix(), filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack(packed: Path, folder: Path) -> Path:
    """Extract the folders of a set to any folder."""
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder
