"""What a run with the simulated broker decides by itself: the kill switch to its end, the day's loss, the close.

A pure reactor, recorded and rehearsed like the others. It stands after the broker and before the strategies: what it stops at a
bar, no strategy orders at that bar. With a broker elsewhere `desk/` does the same by the clock and by what the broker shows; here
the time is the end of the bar.

A backtest comes by here with every bar, so where the policy asks for nothing a look at one attribute has to do. To have it decide
something else: a command in `_due`, and what asks for it in `_asks_nothing`; a reason to kill belongs into `killing.breach`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from commands import Command
from commands.market import CloseSession, EndSession, OpenSession
from commands.trading import ClosePosition
from commands.truth import ReportReachable, ReportUnreachable
from mqd_ledger.engine import Reaction
from mqd_ledger.events import (
    BarClosed,
    Event,
    KillSwitchActivated,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    RunStarted,
)
from mqd_ledger.killing import breach, simulated_steps
from mqd_ledger.remembering import KeepsNothing
from mqd_ledger.sessions import Session, session_at
from mqd_ledger.state import State
from mqd_ledger.values import INTERVALS, Bar, TradingState

AT_THE_CLOSE = "policy at the close"  # who asks for it
FLATTEN = "flatten"  # the block that stands where the policy could not be followed


class Unattended(KeepsNothing):
    def __init__(self, state: State) -> None:
        self._state = state
        self._is_idle = _asks_nothing(state)

    @property
    def reactions(self) -> dict[type[Event], Reaction]:
        return {
            RunStarted: self._begin,
            BarClosed: self._bar,
            # Whatever may bring the kill switch on; it is at rest between them.
            KillSwitchActivated: self._kill,
            OrderCanceled: self._kill,
            OrderExpired: self._kill,
            OrderFilled: self._kill,
        }

    def _begin(self, _event: RunStarted, at: datetime) -> Sequence[Command]:
        self._is_idle = _asks_nothing(self._state)
        return simulated_steps(self._state, at)

    def _kill(self, _event: Event, at: datetime) -> Sequence[Command]:
        return () if self._state.kill_switch is None else simulated_steps(self._state, at)

    def _bar(self, event: BarClosed, at: datetime) -> Sequence[Command]:
        return () if self._is_idle else self._due(event.bar, at)

    def _due(self, bar: Bar, at: datetime) -> Sequence[Command]:
        wanted = breach(self._state, at)
        return [wanted] if wanted is not None else self._session(bar, at)

    def _session(self, bar: Bar, at: datetime) -> list[Command]:
        """A daily bar ends with its session: it is in none, and has no close before it."""
        state, at_close = self._state, self._state.policy.unattended.at_close
        session = session_at(at)
        name = "" if session is None else session.date.isoformat()
        steps: list[Command] = []
        if state.session and state.session != name:
            steps += [ReportReachable(at, FLATTEN, "its session is over"), CloseSession(at, state.session, at_close)]
        if session is None or at_close == "hold":
            return steps
        if state.session != name:
            steps.append(OpenSession(at, name, session.close_at))
        return [*steps, *self._before_the_close(session, name, bar, at)]

    def _before_the_close(self, session: Session, name: str, bar: Bar, at: datetime) -> list[Command]:
        """What is ordered now meets the next bar, so that has to begin before the close."""
        state, rules = self._state, self._state.policy.unattended
        before = max(timedelta(seconds=rules.close_before), INTERVALS[bar.interval])
        if state.kill_switch is not None or at < session.close_at - before:
            return []
        steps: list[Command] = [EndSession(at, name, rules.at_close)]
        return [*steps, *flatten(name, state, at)] if rules.at_close == "flatten" else steps


def flatten(name: str, state: State, at: datetime) -> list[Command]:
    """Before the close of a session. A halt is stronger: nothing is traded, and that something stays is recorded, with an alert."""
    held = sorted(symbol for symbol in state.positions if symbol not in state.working)
    if state.trading_state is TradingState.HALTED and state.kill_switch is None:
        what = (
            f"{', '.join(held)} will be held over the close of {name}: trading is halted ({state.trading_state_reason})"
        )
        advice = "`mqd-ledger reduce` or `mqd-ledger resume` lets it be closed, and so does `kill`"
        return [ReportUnreachable(at, FLATTEN, f"{what}. {advice}")] if held else []
    closes = [ClosePosition(at, symbol, AT_THE_CLOSE, f"{name} is ending") for symbol in held]
    return [ReportReachable(at, FLATTEN, "positions are closed before the close again"), *closes]


def _asks_nothing(state: State) -> bool:
    """Also a session that a run with other settings has left open has to end."""
    rules = state.policy.unattended
    return rules.kill_at_daily_loss is None and rules.at_close == "hold" and not state.session
