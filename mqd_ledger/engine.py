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
from mqd_ledger.errors import BrokenPromise, CommandRefused
from mqd_ledger.events import Event
from mqd_ledger.evolve import evolve
from mqd_ledger.state import State

SHOWN_MAX = 120  # characters of a value in a message
CHANGES_NOTHING = "its command now changes nothing"

Reaction = Callable[[Any, datetime], Sequence[Command]]  # an event and when it was learned: what it is answered with


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
        self.reactors = tuple(reactors)
        self._reactions: dict[type[Event], list[Reaction]] = {}
        for reactor in self.reactors:
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
                for answer in react(event, command.at):
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

    def __init__(self, expected: Recorded, decided: Event | str) -> None:
        """`decided` is the event that comes out, or a sentence's end that says why none does."""
        self.position = expected.position
        there = f"Event {expected.position} is recorded as {type(expected.event).__name__}"
        how = f", but {decided}" if isinstance(decided, str) else _difference(expected.event, decided)
        super().__init__(f"{there}{how}. The code, or a strategy, decides differently from the one that wrote the log.")


def _difference(recorded: Event, decided: Event) -> str:
    """The first thing in which two events differ."""
    if type(recorded) is not type(decided):
        return f", but the same inputs now give {type(decided).__name__}"
    name = next(name for name in recorded.__struct_fields__ if getattr(recorded, name) != getattr(decided, name))
    then, now = _cut(getattr(recorded, name)), _cut(getattr(decided, name))
    return f" with {name} {then}, but the same inputs now give {now}"


def refusal(refused: CommandRefused) -> str:
    return f"its command is now refused ({_cut(str(refused))})"


def _cut(value: object) -> str:
    text = encode(value).decode()
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def rehearse(engine: Engine, recorded: Iterable[Recorded]) -> None:
    """Bring the engine, its broker and its strategies to where the record ends; an unfinished turn is finished and recorded."""
    onward = engine.journal
    rehearsal = Rehearsal(recorded, onward)
    engine.journal = rehearsal
    while (lead := rehearsal.upcoming) is not None:
        if lead.causation:  # every reactor that is rehearsed is pure: what it answered once it has to answer again
            raise DecidedDifferently(
                lead, f"event {lead.causation}, which it answers, is not answered with it any more"
            )
        command = command_of(lead.event, lead.recorded_at)
        try:
            engine.handle(command)
        except CommandRefused as refused:
            if rehearsal.upcoming is None:
                raise  # beyond the record
            raise DecidedDifferently(rehearsal.upcoming, refusal(refused)) from refused
        if rehearsal.upcoming is lead:
            raise DecidedDifferently(lead, CHANGES_NOTHING)
    engine.journal = onward
