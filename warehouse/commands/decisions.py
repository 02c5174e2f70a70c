"""Decisions on the commands of one stream: the requests, the events that they lead to, and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from refold.event_schemas import ConcurrencyError
from refold.event_schemas.decider import Decider, Rejected
from refold.warehouse.commands.snapshots import Loaded
from refold.warehouse.event_log.new_events import NewEvent


@dataclass(frozen=True, slots=True)
class Handled:
    """The result of a command that was accepted.

    Attributes:
        position: the position of its last event; without events, that of the stream's last event.
        stream_id: the stream of the command.
        stream_version: the stream's version after the command.
        events: the number of its events.
        repeated: whether a command with this id was handled before; the other values are then those of the first time.
    """

    position: int
    stream_id: str
    stream_version: int
    events: int
    repeated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRequest:
    """A command with its metadata.

    Attributes:
        command: an instance of one of the domain's command classes.
        command_id: its identity; a stream applies each id once. It becomes the ``causation_id`` of the events.
        expected_version: the version that the stream must have; None: any.
        correlation_id: the process or request that the command belongs to; copied to its events.
    """

    command: object
    command_id: str
    expected_version: int | None = None
    correlation_id: str | None = None


Answer = Handled | Rejected | ConcurrencyError


@dataclass(slots=True)
class Task:
    """A request while it is handled; ``settled`` once its answer is final."""

    request: CommandRequest
    decider: Decider[Any]
    stream_id: str
    answer: Answer | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class NewEvents:
    """The events of one command among those of its stream.

    Attributes:
        events: the number of its events.
        up_to: the number of the stream's new events up to its last one.
        repeated: whether it repeats an earlier command.
    """

    events: int
    up_to: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class StreamDecisions:
    """The decisions on one stream in a round.

    Attributes:
        stream_id: the stream.
        decider: its decider.
        before: the stream before the commands.
        state: its state after the commands.
        events: the events to append.
        outcomes: each request, with its answer or its events.
    """

    stream_id: str
    decider: Decider[Any]
    before: Loaded
    state: Any
    events: list[NewEvent]
    outcomes: list[tuple[Task, Answer | NewEvents]]

    @property
    def is_unchecked(self) -> bool:
        """Whether an answer depends on the stream's version, but no append will check that version."""
        return not self.events and not all(isinstance(o, Handled) for _, o in self.outcomes)


def decide_stream(stream_id: str, before: Loaded, tasks: Sequence[Task]) -> StreamDecisions:
    """Decide on the commands of a stream, one after the other."""
    decider, state = tasks[0].decider, before.state
    events: list[NewEvent] = []
    outcomes: list[tuple[Task, Answer | NewEvents]] = []
    earlier: dict[str, NewEvents] = {}
    for task in tasks:
        request = task.request
        if (done := before.applied.get(request.command_id)) is not None:
            first = Handled(done.position, stream_id, done.stream_version, done.events, repeated=True)
            outcomes.append((task, first))
            continue
        if (same := earlier.get(request.command_id)) is not None:
            outcomes.append((task, NewEvents(same.events, same.up_to, repeated=True)))
            continue
        version = before.stream_version + len(events)
        if request.expected_version not in (None, version):
            assert request.expected_version is not None
            error = ConcurrencyError(stream_id, expected_version=request.expected_version, actual_version=version)
            outcomes.append((task, error))
            continue
        decision = decider.decide(request.command, state)
        if isinstance(decision, Rejected):
            outcomes.append((task, decision))
            continue
        for event in decision:
            state = decider.evolve(state, event)
            events.append(_new_event(event, request))
        outcomes.append((task, NewEvents(len(decision), len(events))))
        if decision:
            earlier[request.command_id] = NewEvents(len(decision), len(events))
    return StreamDecisions(stream_id, decider, before, state, events, outcomes)


def _new_event(event: object, request: CommandRequest) -> NewEvent:
    return NewEvent(payload=event, causation_id=request.command_id, correlation_id=request.correlation_id)


def settle(batch: StreamDecisions, position: int) -> None:
    """Set the answers to requests whose new events follow a position."""
    for task, outcome in batch.outcomes:
        if isinstance(outcome, NewEvents):
            task.answer = Handled(
                position=position + outcome.up_to if outcome.up_to else batch.before.position,
                stream_id=batch.stream_id,
                stream_version=batch.before.stream_version + outcome.up_to,
                events=outcome.events,
                repeated=outcome.repeated,
            )
        else:
            task.answer = outcome
        task.settled = True
