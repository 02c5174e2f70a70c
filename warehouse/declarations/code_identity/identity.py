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
        pending: names that have no value yet; their module may still be being loaded.
    """

    digest: str
    unseen: tuple[str, ...]
    pending: tuple[str, ...]


def code_identity(function: Any, *, version: str | None = None) -> CodeIdentity:
    """Return the identity of a function, a class or an object that is called, or of a tuple of them.

    Args:
        function: what is called.
        version: stands for what cannot be seen.

    Example:
        >>> RATE = 2
        >>> def fold(state, event):
        ...     return (state or 0) + RATE * event.cents
        >>> before = code_identity(fold).digest
        >>> RATE = 3
        >>> code_identity(fold).digest == before
        False
    """
    walk = Walk(describe, _module_of(function[0] if isinstance(function, tuple) else function))
    root = walk.describe(function)
    digest = hashlib.sha256(json.dumps([root, walk.nodes, version], sort_keys=True).encode()).hexdigest()[:32]
    return CodeIdentity(digest, tuple(dict.fromkeys(walk.unseen)), tuple(dict.fromkeys(walk.pending)))


def _module_of(function: Any) -> str | None:
    """Return the module of the user's function, behind decorators and partial applications."""
    while (inner := getattr(function, "__wrapped__", getattr(function, "func", None))) is not None:
        function = inner
    return getattr(function, "__module__", None) or type(function).__module__


@dataclass(frozen=True, slots=True)
class DeclaredCode:
    """Code that is declared.

    Attributes:
        where: what it is declared for; the start of an error message.
        function: as in :func:`code_identity`.
        version: the declared version; None if there is none.
        error: the class of an error.
    """

    where: str
    function: Any
    version: str | None
    error: type[RefoldError]

    def check(self) -> str | None:
        """Return the digest, None while a name that the code uses has no value: its module is still being loaded.

        Raises:
            RefoldError: the code depends on something that cannot be seen, and no version is declared.
        """
        if self.version is not None and not (isinstance(self.version, str) and self.version):
            raise self.error(f'{self.where}: version={self.version!r}; expected text, such as version="1".')
        found = code_identity(self.function, version=self.version)
        self._refuse(found.unseen)
        return None if found.pending else found.digest

    def digest(self) -> str:
        """Return the digest once all modules are loaded.

        Raises:
            RefoldError: as :meth:`check`; or a name has no value, and no version is declared.
        """
        found = code_identity(self.function, version=self.version)
        self._refuse((*found.unseen, *found.pending))
        return found.digest

    def _refuse(self, unseen: tuple[str, ...]) -> None:
        if not unseen or self.version is not None:
            return
        shown = "; ".join(unseen[:_MAX_NAMED]) + ("; and more" if len(unseen) > _MAX_NAMED else "")
        raise self.error(
            f"{self.where} depends on what refold cannot see: {shown}. A change of it would go unnoticed. Make it a "
            'constant, or add version="1" to the declaration and change the version with every change of it.'
        )
