"""The single writer: one input at a time, with all that follows from it.

A **turn** is one input and everything that pure reactors make of it (the simulated broker, the strategies): commands are decided,
their events recorded and taken into the state, and shown to the reactors, whose commands are handled in the same way, depth
first. A turn is committed as a whole. What touches the world happens after the commit, and what the world answers is a new input.

The order of things inside one bar follows from the order of the reactors: the broker first, so working orders meet the bar; then
the strategies, which see it closed with the fills booked; what they order waits for the next bar.

Starting and recovering are the same code: `rehearse` handles the recorded inputs again; what is recorded has to come out again,
and where the record ends, in the middle of a turn or after it, recording goes on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from commands import DECIDERS, Command, command_of
from mqd_ledger.envelope import encode
from mqd_ledger.errors import BrokenPromise
from mqd_ledger.events import Event
from mqd_ledger.evolve import evolve
from mqd_ledger.state import State

Reaction = Callable[[Any], Sequence[Command]]


class Reactor(Protocol):
    """Who answers events with commands. `reactions` names the events it answers."""

    @property
    def reactions(self) -> dict[type[Event], Reaction]: ...


class Journal(Protocol):
    """Where the engine records; `log.EventLog` is one."""

    def record(self, events: Sequence[Event], recorded_at: datetime, causation: int = 0, correlation: int = 0) -> int:
        """Append the events of one command; the position of the first."""


class Engine:
    def __init__(self, state: State, journal: Journal, reactors: Iterable[Reactor] = ()) -> None:
        self.state = state
        self.journal = journal
        self._reactions: dict[type[Event], list[Reaction]] = {}
        for reactor in reactors:
            for event_type, reaction in reactor.reactions.items():
                self._reactions.setdefault(event_type, []).append(reaction)

    def handle(self, command: Command, causation: int = 0, correlation: int = 0) -> list[Event]:
        """Decide, record, evolve, react; the events of this command alone."""
        state = self.state
        events = DECIDERS[type(command)](command, state)
        if not events:
            return events
        position = place = self.journal.record(events, command.at, causation, correlation)
        for event in events:
            evolve(state, event)
        for event in events:
            for react in self._reactions.get(type(event), ()):
                for answer in react(event):
                    self.handle(answer, place, correlation or position)
            place += 1
        return events


class Recorded(NamedTuple):
    """One event read back: where it stands, when it was recorded, what it answers."""

    position: int
    recorded_at: datetime
    correlation: int
    causation: int
    event: Event


class Rehearsal:
    """A journal that compares with what is recorded as long as there is any, then hands on to `onward`."""

    def __init__(self, recorded: Iterable[Recorded], onward: Journal) -> None:
        self._recorded: Iterator[Recorded] = iter(recorded)
        self._onward = onward
        self._next: Recorded | None = next(self._recorded, None)

    @property
    def upcoming(self) -> Recorded | None:
        return self._next

    def record(self, events: Sequence[Event], recorded_at: datetime, causation: int = 0, correlation: int = 0) -> int:
        first = 0
        for place, event in enumerate(events):
            expected = self._next
            if expected is None:
                if not place:
                    return self._onward.record(events, recorded_at, causation, correlation)
                for missing in events[place:]:
                    self._onward.record([missing], recorded_at, first, correlation or first)
                return first
            if event != expected.event:
                raise DecidedDifferently(expected, event)
            first = first or expected.position
            self._next = next(self._recorded, None)
        return first


class DecidedDifferently(BrokenPromise):
    """What comes out now is not what was recorded."""

    exit_code = 1

    def __init__(self, expected: Recorded, decided: Event) -> None:
        self.position = expected.position
        super().__init__(
            f"Event {expected.position} is recorded as {_text(expected.event)}, but the same inputs now give {_text(decided)}. "
            "The code, or a strategy, decides differently from the one that wrote the log."
        )


def _text(event: Event) -> str:
    return f"{type(event).__name__} {encode(event).decode()}"


def rehearse(engine: Engine, recorded: Iterable[Recorded]) -> None:
    """Bring the engine, its broker and its strategies to where the record ends; an unfinished turn is finished and recorded."""
    onward = engine.journal
    rehearsal = Rehearsal(recorded, onward)
    engine.journal = rehearsal
    while (lead := rehearsal.upcoming) is not None:
        before = lead.position
        engine.handle(
            command_of(lead.event, lead.recorded_at), lead.causation, lead.correlation if lead.causation else 0
        )
        if rehearsal.upcoming is not None and rehearsal.upcoming.position == before:
            raise BrokenPromise(
                f"Event {before} ({_text(lead.event)}) is recorded, but its command now changes nothing. "
                "The code decides differently from the one that wrote the log."
            )
    engine.journal = onward
