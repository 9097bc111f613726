"""What a person who watches is told as it happens: one line for each event that matters, none while a record is rehearsed.

A line is said once its event is on the disk and the orders of its turn are on their way.

To tell of another event: a row in `_LINES`.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

from commands import Command
from mqd_ledger import events as e
from mqd_ledger.engine import Reaction
from mqd_ledger.remembering import KeepsNothing
from mqd_ledger.state import State
from mqd_ledger.values import plain

NOT_YET = "it is not connected yet"  # of a way to the broker, at a start
UNSAID_MAX = 10_000  # lines
Line = Callable[[Any, State], str]


def _order(event: e.OrderSent, state: State) -> str:
    order = state.orders[event.client_order_id]
    size = plain(order.quantity) if order.quantity is not None else f"${plain(order.notional or order.filled_notional)}"
    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
    return f"order     {order.side} {size} {order.symbol} {order.order_type} {order.client_order_id}{again}"


def _fill(event: e.OrderFilled, _state: State) -> str:
    left = f", {plain(event.leaves_quantity)} left" if event.leaves_quantity else ""
    return (
        f"fill      {event.side} {plain(event.last_quantity)} {event.symbol} at {plain(event.last_price)} "
        f"{event.client_order_id}{left}"
    )


def _step(event: e.RecoveryStepTaken, _state: State) -> str:
    return f"{'passed' if event.passed else 'FAILED':<9} {event.step} {event.name}: {event.detail}"


def _difference(event: e.DifferenceFound, _state: State) -> str:
    wait = f"; waits for: mqd-ledger reconcile --accept {event.difference_id}" if event.needs_acceptance else ""
    return (
        f"DIFFERS   {event.difference_id} {event.kind} {event.subject}: {event.theirs} at the broker, "
        f"{event.ours} in the ledger{wait}"
    )


_LINES: Mapping[type[e.Event], Line] = MappingProxyType(
    {
        e.RecoveryStepTaken: _step,
        e.OrderSent: _order,
        e.OrderFilled: _fill,
        e.OrderDenied: lambda event, _: f"denied    {event.client_order_id}: {event.reasons[0]}",
        e.OrderRejected: lambda event, _: f"REJECTED  {event.client_order_id}: {event.reason}",
        e.OrderCanceled: lambda event, _: f"canceled  {event.client_order_id}: {event.reason}",
        e.OrderExpired: lambda event, _: f"expired   {event.client_order_id}: {event.reason}",
        e.OrderAnomalyFound: lambda event, _: f"ANOMALY   {event.client_order_id}: {event.anomaly}: {event.detail}",
        e.DifferenceFound: _difference,
        e.AdjustmentBooked: lambda event, _: f"booked    {event.difference_id} by {event.operator}: {event.reason}",
        e.FeedStale: lambda event, _: f"STALE     {event.reason}",
        e.FeedRecovered: lambda event, _: f"fresh     {event.reason}",
        e.FeedGapFilled: lambda event, _: f"filled    {event.bars} bars of {event.symbol} from the history",
        e.BrokerUnreachable: lambda event, _: (
            f"{'waits' if event.detail == NOT_YET else 'DOWN':<9} {event.what}: {event.detail}"
        ),
        e.BrokerReachable: lambda event, _: f"up        {event.what}: {event.detail}",
        e.BrokerReportIgnored: lambda event, _: f"IGNORED   {event.what}: {event.reason}",
        e.SymbolStatusChanged: lambda event, _: (
            f"{'HALTED' if event.halted else 'resumed':<9} {event.symbol}: {event.status} {event.reason}"
        ),
        e.SessionOpened: lambda event, _: f"session   {event.session} is open until {event.closes_at:%H:%M}Z",
        e.SessionEnding: lambda event, _: f"session   {event.session} is ending: {event.policy}",
        e.SessionClosed: lambda event, _: f"session   {event.session} is closed",
        e.TradingHalted: lambda event, _: f"HALTED    by {event.operator}: {event.reason}",
        e.TradingReduced: lambda event, _: f"REDUCING  by {event.operator}: {event.reason}",
        e.TradingResumed: lambda event, _: f"resumed   by {event.operator}: {event.reason}",
        e.KillSwitchActivated: lambda event, _: f"KILL      by {event.operator}: {event.reason}",
        e.KillSwitchCompleted: lambda event, _: f"KILLED    {event.detail}",
        e.StrategyStopped: lambda event, _: f"STOPPED   strategy {event.strategy}: {event.error}",
    }
)


class Narrator(KeepsNothing):
    """A reactor that only talks."""

    def __init__(self, state: State, tell: Callable[[str], None]) -> None:
        self._state, self._tell = state, tell
        self._unsaid: list[tuple[datetime, Line, e.Event]] = []  # worded when nothing is about to be sent
        self.is_muted = True

    @property
    def reactions(self) -> dict[type[e.Event], Reaction]:
        return {event_type: self._say(line) for event_type, line in _LINES.items()}

    def _say(self, line: Line) -> Reaction:
        def said(event: e.Event, at: datetime) -> Sequence[Command]:
            if not self.is_muted:
                self._unsaid.append((at, line, event))
            return ()

        return said

    def speak(self) -> None:
        for at, line, event in self._unsaid:
            self._tell(f"{at:%Y-%m-%d %H:%M:%S}Z  {line(event, self._state)}")
        self._unsaid.clear()


class Teller:
    """Hands lines to who watches on a thread of its own: a terminal that was stopped, or a pipe that nobody reads, takes none for
    hours, and trading does not wait for it. What is too much then is not said; the log has it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="teller", daemon=True)
        self._thread.start()

    def tell(self, line: str) -> None:
        if self._lines.qsize() < UNSAID_MAX:
            self._lines.put(line)

    def stop(self, seconds: float) -> bool:
        """Whether everything was said in that time."""
        self._lines.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            self._say(line)
