"""An operator's wish carried out on a ledger, whether or not another process writes it: halt, reduce, resume, kill, accept.

Where nobody writes the ledger the command is decided and recorded here; where somebody does it is left in his request box
(`operator_requests.py`) and waited for. To add a wish: its row there, and a verb in `cli/control.py`.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from commands import Command
from commands.control import check_reason, is_killing
from mqd_ledger import lock, operator_requests
from mqd_ledger.app import BARS, MODES, SIMULATED
from mqd_ledger.engine import Engine, Reactor
from mqd_ledger.envelope import stored_names
from mqd_ledger.errors import BadInput, LedgerLocked, LedgerUnreadable
from mqd_ledger.events import AdjustmentBooked, DifferenceCleared, DifferenceFound, Event
from mqd_ledger.evolve.books import worth_of
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.operator_requests import kill_file, wish
from mqd_ledger.runs import fold
from mqd_ledger.snapshots import Snapshots
from mqd_ledger.state import State
from mqd_ledger.values import from_microseconds

ANSWER_SECONDS = 10.0
LAST_BOOKED = 10  # differences that are settled and still shown

Clock = Callable[[], datetime]


class Wish(NamedTuple):
    """`argument` names the one thing that it is about, where it is about one."""

    verb: str
    operator: str
    reason: str
    argument: str = ""

    def command(self, at: datetime) -> Command:
        return wish(self.verb, at, self.operator, self.reason, "", self.argument)


def carry_out(ledger: Path, asked: Wish, clock: Clock, patience: float = ANSWER_SECONDS) -> str:
    """Do what is asked, or have it done; a sentence that says what came of it."""
    check_reason(asked.reason)  # before anybody is asked
    try:
        state, events = _record(ledger, asked, clock)
    except LedgerLocked:
        holder = lock.holder(ledger)
        request = operator_requests.ask(ledger, asked.verb, asked.operator, asked.reason, asked.argument)
        if not operator_requests.wait_for_answer(request, patience, lambda: lock.holder(ledger) is not None):
            return carry_out(ledger, asked, clock, patience)  # it ended before it took the request
        return f"The running process ({holder}) has taken the request: {f'{asked.verb} {asked.argument}'.strip()}."
    if not events:
        return f"Trading was {state.trading_state} already; nothing was recorded."
    booked = f"{asked.argument} is booked. " if asked.argument else ""
    return f"{booked}Trading is {state.trading_state}.{_signal_left(ledger)}"


def _signal_left(ledger: Path) -> str:
    path = kill_file(ledger)
    if not path.exists():
        return ""
    return f" The signal file {path} still asks for the kill switch, and the next run obeys it: remove it if that is not wanted."


def _record(ledger: Path, asked: Wish, clock: Clock) -> tuple[State, list[Event]]:
    """Decide it here, as the one who writes the ledger."""
    with EventLog.open(ledger, durability="full") as log:
        state = fold(log, snapshots=Snapshots(ledger, read_only=True))
        events = Engine(state, log, _reactors(state)).handle(asked.command(_now_of(state, log, clock)))
        log.commit()
        return state, events


def _reactors(state: State) -> Iterable[Reactor]:
    """Those of the ledger's mode, as when it is run again: the simulated broker answers. Strategies are not shown wishes."""
    make = None if state.run is None else MODES[state.run.mode].reactors
    return () if make is None else make(state, {})


def _now_of(state: State, log: EventLog, clock: Clock) -> datetime:
    """A simulated ledger lives in its bars' time; any other in the clock's."""
    last = from_microseconds(log.head.recorded_at)
    if state.run is None or MODES[state.run.mode].time_from == BARS:
        return last
    return max(clock(), last)


# --- the kill switch --------------------------------------------------------------------------------------------------


def kill(
    ledger: Path,
    operator: str,
    reason: str,
    clock: Clock,
    *,
    patience: float = ANSWER_SECONDS,
    finish: Callable[[Path, State], str] | None = None,
) -> str:
    """Activate the kill switch by every way there is; a sentence that says what came of it and what is left to do.

    `finish` does at the broker what the record asks for, where no process trades; without it the next run does.
    """
    asked = Wish("kill", operator, reason)
    check_reason(reason)
    try:
        state, events = _record(ledger, asked, clock)
    except LedgerLocked:
        return _ask_to_kill(ledger, asked, clock, patience, finish)
    first = "The kill switch is recorded" if events else "The kill switch was active already"
    if finish is not None and state.account_number:
        try:
            return f"{first}. {finish(ledger, state)}"
        except BadInput as problem:
            raise BadInput(f"{first}, but nothing is closed at the broker yet: {problem}\n{_left(state)}") from problem
    return f"{first}: no order goes out any more. {_left(state)}"


def _ask_to_kill(
    ledger: Path, asked: Wish, clock: Clock, patience: float, finish: Callable[[Path, State], str] | None
) -> str:
    holder = lock.holder(ledger)
    request = operator_requests.ask(ledger, asked.verb, asked.operator, asked.reason)
    try:
        is_done = operator_requests.wait_for_answer(request, patience, lambda: lock.holder(ledger) is not None)
    except BadInput:
        signal = leave_signal(ledger, f"{asked.reason} ({asked.operator})")
        return (
            f"The process that writes this ledger ({holder}) has not answered within {patience:g} s. The signal file {signal} is "
            "left for it: it activates the kill switch as soon as it looks, and if it never does, the next run does so first. "
            "If it hangs, end it and start `mqd-ledger run` again; orders and positions can also be closed in the broker's own "
            "web page. `mqd-ledger status` shows when the kill switch is active."
        )
    if not is_done:  # it ended before it took the request
        return kill(ledger, asked.operator, asked.reason, clock, patience=patience, finish=finish)
    return (
        f"The running process ({holder}) has taken the request: the kill switch is active. `mqd-ledger status` shows when every "
        "order and position is gone."
    )


def leave_signal(ledger: Path, text: str) -> Path:
    """The signal file, whole or not at all; one that is there already says enough."""
    path = kill_file(ledger)
    if path.exists():
        return path
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise LedgerUnreadable(
            f"The running process has not answered, and the signal file {path} cannot be written either: {error.strerror}. End "
            "the process, and close orders and positions in the broker's own web page."
        ) from error
    return path


def _left(state: State) -> str:
    """What is still open, and who closes it."""
    orders = sum(len(orders) for orders in state.working.values())
    if not orders and not state.positions and not is_killing(state):
        return "Everything is closed; `mqd-ledger resume` lets trading begin again."
    if state.run is not None and MODES[state.run.mode].money == SIMULATED:
        return (
            f"No run plays bars on this ledger now; it has {len(state.positions)} positions and {orders} working orders. What "
            "closes them fills at the next bar of each symbol, and the next `mqd-ledger run` plays that; then the kill switch has "
            "completed."
        )
    where = f"the {state.environment} account {state.account_number}" if state.account_number else "this ledger"
    return (
        f"No process trades on this ledger now; as far as it knows {where} has {len(state.positions)} positions and {orders} "
        "working orders. The next `mqd-ledger run` of it closes them first and then makes sure that nothing is left."
    )


# --- differences to the broker's account ------------------------------------------------------------------------------


def differences(ledger: Path) -> dict[str, list[dict[str, Any]]]:
    """The open differences to the broker's account, and the last ones that were booked."""
    found: dict[str, DifferenceFound] = {}
    booked: list[dict[str, Any]] = []
    with LogReader.open(ledger) as log:
        for recorded in log.replay(types=stored_names(DifferenceFound, DifferenceCleared, AdjustmentBooked)):
            event = recorded.event
            if isinstance(event, DifferenceFound):
                found[event.difference_id] = event
            elif isinstance(event, DifferenceCleared):
                del found[event.difference_id]
            elif isinstance(event, AdjustmentBooked):
                settled = _row(found.pop(event.difference_id))
                by = {"booked_at": event.occurred_at, "operator": event.operator, "reason": event.reason}
                booked.append(settled | by)
    return {"open": [_row(event) for event in found.values()], "booked": booked[: -LAST_BOOKED - 1 : -1]}


def _row(event: DifferenceFound) -> dict[str, Any]:
    return {
        "difference_id": event.difference_id,
        "kind": event.kind,
        "subject": event.subject,
        "ours": event.ours,
        "theirs": event.theirs,
        "worth": worth_of(event.quantity, event.price, event.amount),
        "since": event.occurred_at,
        "needs_acceptance": event.needs_acceptance,
        "evidence": event.evidence,
    }
