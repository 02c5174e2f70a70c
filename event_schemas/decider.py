"""Deciders: the write side of a domain as three pure functions, and commands as contracts like events are.

``initial_state`` says what a stream is before its first event, ``evolve`` what one event makes of that, and ``decide``
which events a command leads to, or why it is refused. A refusal is a value, not an error: it is an answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, dataclass_transform

import pyarrow as pa

from refold.event_schemas.errors import ContractError, PayloadError
from refold.event_schemas.event import dataclass_schema
from refold.event_schemas.payload import from_json, to_json
from refold.event_schemas.values import instance_of

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a command was refused; nothing happened.

    Attributes:
        code: for programs, such as ``already_shipped``.
        reason: for people, one sentence.
    """

    code: str
    reason: str


Decision = Sequence[object] | Rejected
"""What a command leads to: events in their order (none: there is nothing to do), or why it is refused."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def command(cls: type[T]) -> type[T]:
    """Make a class a command: a frozen, slotted dataclass whose annotations have Arrow types, as events do.

    Raises:
        ContractError: an annotation has no Arrow type.

    Example:
        >>> @command
        ... class OpenDoor:
        ...     door: str
        >>> OpenDoor(door="front")
        OpenDoor(door='front')
    """
    made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    made.__command_schema__ = dataclass_schema(made, where=f"Command {cls.__name__}")  # type: ignore[attr-defined]
    return made


def is_command(cls: object) -> bool:
    """Tell whether a class was made by ``@command``."""
    return isinstance(cls, type) and hasattr(cls, "__command_schema__")


def command_schema(cls: type) -> pa.Schema:
    """Give the Arrow schema of a command's fields.

    Raises:
        ContractError: the class is no command.
    """
    if not is_command(cls):
        raise ContractError(f"{cls!r} is no command: decorate the class with @command.")
    return cls.__command_schema__  # type: ignore[attr-defined]


def command_from_json(cls: type[T], values: Mapping[str, Any]) -> T:
    """Make a command of parsed JSON.

    Args:
        cls: the command's class.
        values: field name to value; decimals as text or numbers, times as RFC 3339.

    Raises:
        PayloadError: a field is missing, unknown, or its value does not fit; the message names it.

    Example:
        >>> @command
        ... class OpenDoor:
        ...     door: str
        >>> command_from_json(OpenDoor, {"door": "front"})
        OpenDoor(door='front')
        >>> command_from_json(OpenDoor, {"door": 7})
        Traceback (most recent call last):
        refold.event_schemas.errors.PayloadError: Command OpenDoor: door: expected string, found 7. Nothing was done.
    """
    schema = command_schema(cls)
    try:
        return instance_of(cls, from_json(to_json(values, schema), schema))
    except PayloadError as error:
        raise PayloadError(f"Command {cls.__name__}: {error}. Nothing was done.") from error


@dataclass(frozen=True, slots=True)
class StateCodec(Generic[S]):
    """How a state is kept as JSON in a snapshot.

    Attributes:
        shape: text that changes when the kept form does; snapshots of another shape are not read.
        dump: a state to what JSON can hold.
        load: back again.
    """

    schema_key: str
    dump: Callable[[S], Any]
    load: Callable[[Any], S]


def dataclass_codec(cls: type[S]) -> StateCodec[S]:
    """Keep states of a dataclass whose annotations have Arrow types.

    Raises:
        ContractError: an annotation has no Arrow type.

    Example:
        >>> @dataclass(frozen=True)
        ... class Door:
        ...     open: bool
        >>> codec = dataclass_codec(Door)
        >>> codec.load(codec.dump(Door(True)))
        Door(open=True)
    """
    schema = dataclass_schema(cls, where=f"State {cls.__name__}")
    schema_key = ", ".join(f"{f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in schema)
    return StateCodec(
        schema_key, lambda state: to_json(state, schema), lambda kept: instance_of(cls, from_json(kept, schema))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider(Generic[S]):
    """The write side of one kind of stream; all functions are pure.

    Args:
        name: what it decides on, such as ``order``.
        commands: the command classes that it takes.
        stream_id: tells the one stream that a command goes to.
        initial_state: gives the state before the first event.
        evolve: gives the state after an event, an instance of its newest class; one that it does not care for leaves
            the state as it is.
        decide: tells the events that a command leads to from a state, or why it is refused.
        snapshot: how the state is kept; by default as the dataclass that ``initial_state`` gives, if it is one.

    Raises:
        ContractError: a command class is none, or the state is a dataclass with a field that has no Arrow type.

    Example:
        >>> from refold.event_schemas.event import event
        >>> @event(schema_version=1)
        ... class DoorOpened:
        ...     door: str
        >>> @command
        ... class OpenDoor:
        ...     door: str
        >>> DOOR = Decider(
        ...     name="door",
        ...     commands=(OpenDoor,),
        ...     stream_id=lambda command: f"door-{command.door}",
        ...     initial_state=lambda: False,
        ...     evolve=lambda is_open, event: True,
        ...     decide=lambda command, is_open: (
        ...         Rejected("open", "The door is open.") if is_open else [DoorOpened(door=command.door)]
        ...     ),
        ... )
        >>> DOOR.decide(OpenDoor(door="front"), DOOR.initial_state())
        [DoorOpened(door='front')]
    """

    name: str
    commands: tuple[type, ...]
    stream_id: Callable[[Any], str]
    initial_state: Callable[[], S]
    evolve: Callable[[S, Any], S]
    decide: Callable[[Any, S], Decision]
    snapshot: StateCodec[S] | None = None

    def __post_init__(self) -> None:
        for cls in self.commands:
            if not is_command(cls):
                raise ContractError(f"Decider {self.name}: {cls!r} is no command; decorate the class with @command.")
        if self.snapshot is None and dataclasses.is_dataclass(state := self.initial_state()):
            object.__setattr__(self, "snapshot", dataclass_codec(type(state)))
