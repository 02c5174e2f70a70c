"""One walk through all that a function depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any


@dataclass(slots=True)
class Walk:
    """What was found so far.

    Functions, classes and objects are described once, in the order in which they are found, and named by their number:
    so a cycle ends, and no name of a module or a file is part of an identity.

    Attributes:
        describer: describes any value; called as ``describer(value, walk, depth)``.
        root: the module of the declared function.
        is_shallow: whether code is described by name only.
        nodes: the description of each function, class and object.
        unseen: what cannot be seen, with the way to it.
        pending: names that have no value yet, since their module is still being loaded, with the way to them.
        path: the way to what is described now.
        classes: how many classes are being described.
        inside: the ids of the containers that are being described.
    """

    describer: Callable[[Any, Walk, int], Any]
    root: str | None
    is_shallow: bool = False
    nodes: list[Any] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    classes: int = 0
    inside: list[int] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _kept: list[Any] = field(default_factory=list)  # so that no id is used again

    def describe(self, value: Any, depth: int = 0) -> Any:
        """Describe a value; ``depth`` is how many levels of a mapping are used only to look up keys."""
        return self.describer(value, self, depth)

    def alone(self, value: Any) -> Any:
        """Describe a value alone, with code by name only: enough to put the items of a set in order."""
        walk = Walk(self.describer, self.root, is_shallow=True)
        return [walk.describe(value), walk.nodes]

    def container(self, value: Any, make: Callable[[], Any]) -> Any:
        """Describe a container, which may contain itself."""
        if id(value) in self.inside:
            return ["cycle", len(self.inside) - self.inside.index(id(value))]
        self.inside.append(id(value))
        try:
            return make()
        finally:
            self.inside.pop()

    def node(self, value: Any, make: Callable[[], Any]) -> Any:
        """Return the number of an object's description, which is made at its first visit."""
        if self.is_shallow and isinstance(value, type | FunctionType):
            return [value.__qualname__, getattr(getattr(value, "__code__", None), "co_firstlineno", 0)]
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self.nodes)
            self._kept.append(value)
            self.nodes.append(None)
            self.nodes[number] = make()
        return ["#", number]

    def hide(self, what: str) -> Any:
        """Note something that cannot be seen, and return its description."""
        self.unseen.append(" > ".join([*self.path, what]))
        return ["unseen", what]

    def wait_for(self, what: str) -> Any:
        """Note a name that has no value yet, and return its description."""
        self.pending.append(" > ".join([*self.path, what]))
        return ["pending", what]

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Add a step to the way."""
        self.path.append(name)
        try:
            yield
        finally:
            self.path.pop()
