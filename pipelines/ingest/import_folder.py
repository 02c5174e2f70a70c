"""The folder of one import: exclusive to a process, kept if the import is killed, deleted when it is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
from filelock import FileLock, Timeout

from refold.event_schemas import UsageError
from refold.pipelines.ingest.source_file import SourceFile
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.object_store.mirror import default_cache_dir

_FILES = "files.json"


@contextmanager
def import_folder(log: EventLog, import_id: str) -> Iterator[Path]:
    """Lock the folder of an import; it is deleted unless an error ends the import.

    Raises:
        UsageError: another process has it locked.
    """
    parent = _parent(log)
    folder = parent / f"ingest-{import_id}"
    parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError("Another process is importing the same files into this log: wait until it is done.") from error
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()


def _parent(log: EventLog) -> Path:
    return Path(log.url) / "staging" if log.store.is_local else default_cache_dir() / "ingest"


def default_target(log: EventLog, source: SourceFile, import_id: str) -> Path:
    """Return where rejected rows go: beside a local file, or where the log keeps what it is working on."""
    name = os.path.basename(source.url.rstrip("/"))
    if source.path is not None and os.access(source.path.parent, os.W_OK):
        return source.path.parent / f"{name}.rejects.jsonl"
    return _parent(log) / "rejects" / f"{name}-{import_id[:8]}.rejects.jsonl"


def record_files(folder: Path, urls: Sequence[str]) -> None:
    """Record whose folder it is, for :func:`delete_outdated`."""
    (folder / _FILES).write_bytes(orjson.dumps(urls))


def delete_outdated(folder: Path, urls: Sequence[str]) -> None:
    """Delete the folders of killed imports of the same files, whose content was another one."""
    for path in folder.parent.glob(f"ingest-*/{_FILES}"):
        other = path.parent
        if other == folder or orjson.loads(path.read_bytes()) != urls:
            continue
        try:
            with FileLock(f"{other}.lock", timeout=0):
                shutil.rmtree(other)
                Path(f"{other}.lock").unlink(missing_ok=True)
        except Timeout:
            continue
