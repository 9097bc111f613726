"""Take every recorded decision again: the handlers, run over the recorded inputs, have to give the recorded events."""

from collections import deque
from collections.abc import Iterable

from commands import command_of, decide
from mqd_ledger.engine import CHANGES_NOTHING, DecidedDifferently, Recorded, refusal
from mqd_ledger.errors import BrokenPromise, CommandRefused
from mqd_ledger.events import Event
from mqd_ledger.evolve import evolve
from mqd_ledger.state import State


def redecide(recorded_events: Iterable[Recorded]) -> int:
    """Walk a log from its start; the number of decisions taken again. The first that comes out differently raises.

    A group of events begins with the one that carries its command; the others have to follow exactly as decided.
    """
    state = State()
    expected: deque[Event] = deque()
    decisions = position = 0
    for recorded in recorded_events:
        position, event = recorded.position, recorded.event
        if not expected:
            expected.extend(_decided_again(recorded, state))
            decisions += 1
        if not expected:
            raise DecidedDifferently(recorded, CHANGES_NOTHING)
        decided = expected.popleft()
        if decided != event:
            raise DecidedDifferently(recorded, decided)
        evolve(state, event)
    if expected:
        missing = ", ".join(type(event).__name__ for event in expected)
        raise BrokenPromise(f"The log ends after event {position}, but what was decided there goes on with {missing}.")
    return decisions


def _decided_again(recorded: Recorded, state: State) -> list[Event]:
    try:
        return decide(command_of(recorded.event, recorded.recorded_at), state)
    except CommandRefused as refused:
        raise DecidedDifferently(recorded, refusal(refused)) from refused
