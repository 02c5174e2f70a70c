"""Files whose key ends in their digest, so that whoever has the key can check what it finds there.

::

    staged/till/unit-<SHA-256>.parquet
"""

from __future__ import annotations

import re
from pathlib import Path

from refold.warehouse.object_store.digests import check_file, file_digest
from refold.warehouse.object_store.store import ObjectStore

_DIGEST = re.compile(r"-([0-9a-f]{64})\.\w+$")


def put_checked_file(store: ObjectStore, name: str, path: Path) -> str:
    """Store a file under a name and its digest.

    Args:
        store: the store.
        name: the key without its ending.
        path: the file; its ending becomes that of the key. A local store may hard-link it: do not write to it again.

    Returns:
        The key.
    """
    key = f"{name}-{file_digest(path)}{path.suffix}"
    store.put_file(key, path)
    return key


def checked_path(store: ObjectStore, key: str) -> Path:
    """Return a local, read-only file with an object's content, after checking it against the digest in its key.

    Files that refold 0.1.0 published have no digest in their keys.

    Raises:
        ObjectNotFoundError: there is no such object.
        DigestError: its bytes are not those that were stored.

    Example:
        >>> import tempfile
        >>> from refold.warehouse.object_store import open_store
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "rows.csv")
        ...     _ = path.write_text("a,b")
        ...     key = put_checked_file(store := open_store(f"{folder}/store"), "staged/rows", path)
        ...     checked_path(store, key).read_text()
        'a,b'
    """
    path = store.local_path(key)
    if digest := _DIGEST.search(key):
        check_file(path, digest[1])
    return path
