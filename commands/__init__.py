"""The write side: what may be asked of the ledger, and what is decided.

`decide(command, state)` gives the events of one command. What makes no sense raises `CommandRefused` and leaves no trace; what
changes nothing gives no events; what the business forbids is an event; the last line of every function is the good case. Nothing
here changes the state, reads a clock or knows which mode is running.

Every command's first event carries all that the command carried, so `command_of` can read the inputs back from the log and take
every decision again.

To add a command: write the class, its function and (where it can open a group) how it is read back, in the file of its kind, and
add them to that file's `DECIDERS` and `READ_BACK`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from commands import broker_reports, cash, control, executions, market, trading, truth
from commands.base import Command
from mqd_ledger.errors import BrokenPromise
from mqd_ledger.events import Event
from mqd_ledger.state import State

DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    **market.DECIDERS,
    **broker_reports.DECIDERS,
    **executions.DECIDERS,
    **trading.DECIDERS,
    **cash.DECIDERS,
    **control.DECIDERS,
    **truth.DECIDERS,
}
READ_BACK: Mapping[type[Event], Callable[[Any, datetime], Command]] = {
    **market.READ_BACK,
    **broker_reports.READ_BACK,
    **executions.READ_BACK,
    **trading.READ_BACK,
    **cash.READ_BACK,
    **control.READ_BACK,
    **truth.READ_BACK,
}


def decide(command: Command, state: State) -> list[Event]:
    """The events of one command, in order; an empty list where it changes nothing."""
    return DECIDERS[type(command)](command, state)


def command_of(event: Event, recorded_at: datetime) -> Command:
    """The command whose first event this is."""
    read_back = READ_BACK.get(type(event))
    if read_back is None:
        raise BrokenPromise(
            f"A group of events begins with {type(event).__name__}, which only ever follows another event: "
            "an event was recorded that nothing decided."
        )
    return read_back(event, recorded_at)


__all__ = ["DECIDERS", "Command", "command_of", "decide"]
