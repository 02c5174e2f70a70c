"""Deciders: the write side of a domain as three pure functions, and commands, which have contracts as events do.

``initial_state`` returns the state of a stream before its first event, ``evolve`` the state after one more event, and
``decide`` the events that a command leads to, or a rejection. A rejection is a value, not an exception: rejecting a
command is a normal outcome.
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
from refold.event_schemas.personal import with_marks
from refold.event_schemas.values import instance_of

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a command was rejected. A rejected command has no effect.

    Attributes:
        code: for programs, such as ``already_shipped``.
        reason: for people, one sentence.
    """

    code: str
    reason: str


Decision = Sequence[object] | Rejected
"""The outcome of a command: events in order (none if there is nothing to do), or a rejection."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def command(cls: type[T]) -> type[T]:
    """Turn a class into a command: a frozen, slotted dataclass whose annotations have Arrow types, as those of events.

    A field marked with :class:`~refold.event_schemas.personal.Personal` is no part of the digest of a command, which
    the ids of its events keep for ever: nobody can confirm a guess of its value.

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
    where = f"Command {cls.__name__}"
    schema = with_marks(made, dataclass_schema(made, where=where), where=where)
    made.__command_schema__ = schema  # type: ignore[attr-defined]
    return made


def is_command(cls: object) -> bool:
    """Check whether a class was made by ``@command``."""
    return isinstance(cls, type) and hasattr(cls, "__command_schema__")


def command_schema(cls: type) -> pa.Schema:
    """Return the Arrow schema of a command's fields.

    Raises:
        ContractError: the class is not a command.
    """
    if not is_command(cls):
        raise ContractError(f"{cls!r} is not a command. Decorate the class with @command.")
    return cls.__command_schema__  # type: ignore[attr-defined]


def command_from_json(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a command from parsed JSON.

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
        refold.event_schemas.errors.PayloadError: Command OpenDoor: door: expected string, found 7. Nothing changed.
    """
    schema = command_schema(cls)
    try:
        return instance_of(cls, from_json(to_json(values, schema), schema))
    except PayloadError as error:
        raise PayloadError(f"Command {cls.__name__}: {error}. Nothing changed.") from error


@dataclass(frozen=True, slots=True)
class StateCodec(Generic[S]):
    """The conversion between a state and the JSON of its snapshot.

    Attributes:
        schema: text that describes the JSON form; a snapshot whose schema differs is not read.
        dump: converts a state to a JSON value.
        load: converts it back.
    """

    schema: str
    dump: Callable[[S], Any]
    load: Callable[[Any], S]


def dataclass_codec(cls: type[S]) -> StateCodec[S]:
    """Return the codec of a dataclass whose annotations have Arrow types.

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
    text = ", ".join(f"{f.name}: {f.type}{'' if f.nullable else ' not null'}" for f in schema)
    return StateCodec(
        text, lambda state: to_json(state, schema), lambda stored: instance_of(cls, from_json(stored, schema))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider(Generic[S]):
    """The write side of one kind of stream. All functions are pure.

    Args:
        name: what it decides on, such as ``order``.
        commands: the command classes that it accepts.
        stream_id: returns the one stream that a command goes to.
        initial_state: returns the state before the first event.
        evolve: returns the state after an event, which is an instance of the newest class of its event type. It
            returns the state unchanged for an event that does not matter to decisions.
        decide: returns the events that a command leads to in a state, or a rejection.
        snapshot: the codec of the state; by default that of the dataclass which ``initial_state`` returns, if any.
        version: stands for what ``evolve``, ``initial_state`` or the codec depend on and refold cannot see, such as a
            file; change it with every change of that.

    Raises:
        ContractError: a class in ``commands`` is not a command, or the state is a dataclass with a field that has no
            Arrow type.

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
    version: str | None = None

    def __post_init__(self) -> None:
        for cls in self.commands:
            if not is_command(cls):
                raise ContractError(f"Decider {self.name}: {cls!r} is not a command. Decorate the class with @command.")
        if self.snapshot is None and dataclasses.is_dataclass(state := self.initial_state()):
            object.__setattr__(self, "snapshot", dataclass_codec(type(state)))
