"""The identity of a function: its source, and all that it reads, in a form that no Python version changes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from refold.event_schemas import RefoldError
from refold.warehouse.declarations.code_identity.values import describe
from refold.warehouse.declarations.code_identity.walk import Walk

_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class CodeIdentity:
    """What a function depends on.

    Attributes:
        digest: differs if the function, a helper, a constant or another package's version differs.
        unseen: what it depends on that cannot be seen; a change of it does not change the digest.
    """

    digest: str
    unseen: tuple[str, ...]


def code_identity(function: Any, *, version: str | None = None, is_complete: bool = True) -> CodeIdentity:
    """Return the identity of a function, a class or an object that is called, or of a tuple of them.

    Args:
        function: what is called.
        version: stands for what cannot be seen.
        is_complete: whether all modules are loaded, so that a name without a value is an error.

    Example:
        >>> RATE = 2
        >>> def fold(state, event):
        ...     return (state or 0) + RATE * event.cents
        >>> before = code_identity(fold).digest
        >>> RATE = 3
        >>> code_identity(fold).digest == before
        False
    """
    walk = Walk(describe, _module_of(function[0] if isinstance(function, tuple) else function), is_complete)
    root = walk.describe(function)
    text = json.dumps([root, walk.nodes, version], sort_keys=True)
    return CodeIdentity(hashlib.sha256(text.encode()).hexdigest()[:32], tuple(dict.fromkeys(walk.unseen)))


def _module_of(function: Any) -> str | None:
    """Return the module of the user's function, behind decorators and partial applications."""
    while (inner := getattr(function, "__wrapped__", getattr(function, "func", None))) is not None:
        function = inner
    return getattr(function, "__module__", None) or type(function).__module__


def checked_digest(
    function: Any, where: str, *, version: str | None, error: type[RefoldError], is_complete: bool = True
) -> str:
    """Return the digest of code that is declared.

    Args:
        function: as in :func:`code_identity`.
        where: what it is declared for; the start of an error message.
        version: the declared version; None if there is none.
        error: the class of the error.
        is_complete: as in :func:`code_identity`.

    Raises:
        RefoldError: it depends on something that cannot be seen, and no version is declared.
    """
    if version is not None and not (isinstance(version, str) and version):
        raise error(f'{where}: version={version!r}; expected text, such as version="1".')
    found = code_identity(function, version=version, is_complete=is_complete)
    if found.unseen and version is None:
        shown = "; ".join(found.unseen[:_MAX_NAMED]) + ("; and more" if len(found.unseen) > _MAX_NAMED else "")
        raise error(
            f"{where} depends on what refold cannot see: {shown}. A change of it would go unnoticed. Make it a "
            'constant, or add version="1" to the declaration and change the version with every change of it.'
        )
    return found.digest
