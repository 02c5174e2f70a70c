"""Decisions on the commands of one stream: the requests, the events that they lead to, and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from refold.event_schemas import CommandConflictError, ConcurrencyError, PayloadError
from refold.event_schemas.decider import Decider, Decision, Rejected
from refold.warehouse.commands.command_identity import event_id_of
from refold.warehouse.commands.snapshots import Applied, Loaded
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
        command_id: its identity; a stream applies each id once, and refuses it for another command. It becomes the
            ``causation_id`` of the events.
        expected_version: the version that the stream must have; None: any.
        correlation_id: the process or request that the command belongs to; copied to its events.
    """

    command: object
    command_id: str
    expected_version: int | None = None
    correlation_id: str | None = None


Answer = Handled | Rejected | ConcurrencyError | CommandConflictError


@dataclass(slots=True)
class Task:
    """A request while it is handled; ``settled`` once its answer is final. ``digest`` is that of the command."""

    request: CommandRequest
    decider: Decider[Any]
    stream_id: str
    digest: int
    answer: Answer | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class NewEvents:
    """The events of one command among those of its stream.

    Attributes:
        events: the number of its events.
        up_to: the number of the stream's new events up to its last one.
        digest: the digest of the command.
        repeated: whether it repeats an earlier command.
    """

    events: int
    up_to: int
    digest: int
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
        done = before.applied.get(request.command_id) or earlier.get(request.command_id)
        if done is not None:
            outcomes.append((task, _repeat(task, done)))
            continue
        version = before.stream_version + len(events)
        if request.expected_version not in (None, version):
            assert request.expected_version is not None
            error = ConcurrencyError(stream_id, expected_version=request.expected_version, actual_version=version)
            outcomes.append((task, error))
            continue
        decision = _decide(task, state)
        if isinstance(decision, Rejected):
            outcomes.append((task, decision))
            continue
        for number, event in enumerate(decision):
            state = decider.evolve(state, event)
            events.append(_new_event(event, task, number))
        made = NewEvents(len(decision), len(events), task.digest)
        outcomes.append((task, made))
        if decision:
            earlier[request.command_id] = made
    return StreamDecisions(stream_id, decider, before, state, events, outcomes)


def _decide(task: Task, state: Any) -> Decision:
    """Return a decision.

    Raises:
        PayloadError: the decider cannot calculate with the command's values.
    """
    try:
        return task.decider.decide(task.request.command, state)
    except (ArithmeticError, ValueError) as error:
        name, reason = type(task.request.command).__name__, " ".join(str(error).split()) or type(error).__name__
        raise PayloadError(
            f"Command {name}: decider {task.decider.name} cannot handle its values: {reason.rstrip('.')}. Nothing was "
            "appended. Change the values, or let the decider reject them."
        ) from error


def _repeat(task: Task, done: Applied | NewEvents) -> Answer | NewEvents:
    """Return the answer to a command whose id was applied before."""
    if done.digest not in (None, task.digest):
        return CommandConflictError(task.request.command_id, task.stream_id)
    if isinstance(done, NewEvents):
        return NewEvents(done.events, done.up_to, done.digest, repeated=True)
    return Handled(done.position, task.stream_id, done.stream_version, done.events, repeated=True)


def _new_event(event: object, task: Task, number: int) -> NewEvent:
    request = task.request
    return NewEvent(
        payload=event,
        event_id=event_id_of(task.stream_id, request.command_id, number, task.digest),
        causation_id=request.command_id,
        correlation_id=request.correlation_id,
    )


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
