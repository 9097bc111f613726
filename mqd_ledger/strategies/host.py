"""Runs the strategies of a run: shows them what they asked to see, turns their signals into commands, and keeps one that raises
from hurting the others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from commands import Command
from commands.control import StopStrategy
from commands.trading import RaiseSignal, is_tradable
from mqd_ledger.engine import Reaction
from mqd_ledger.events import BarClosed, Event, LotClosed, OrderFilled, RunEnded, RunStarted
from mqd_ledger.state import State
from mqd_ledger.strategies.base import ClosedPosition, Context, Signal, Signals, Strategy
from mqd_ledger.values import ZERO, Direction, Money, Symbol


class StrategyHost:
    """A reactor. `strategies` by name, in the order in which they are shown each event."""

    def __init__(self, state: State, strategies: Mapping[str, Strategy]) -> None:
        self._state = state
        self._strategies = dict(strategies)
        self._watching = [(name, strategy, strategy.parameters.symbols) for name, strategy in self._strategies.items()]
        self._round_trips: dict[tuple[str, Symbol], Money] = {}
        for name, strategy in self._strategies.items():
            strategy.context = Context(name, state)

    @property
    def reactions(self) -> dict[type[Event], Reaction]:
        return {
            RunStarted: self._start,
            BarClosed: self._bar,
            OrderFilled: self._fill,
            LotClosed: self._lot_closed,
            RunEnded: self._stop,
        }

    def _start(self, event: Event) -> Sequence[Command]:
        commands: list[Command] = []
        for name, strategy in self._strategies.items():
            try:
                strategy.on_start(strategy.context)
            except Exception as error:  # noqa: BLE001  as in `_bar`
                commands.append(_stopped(name, error, event.occurred_at))
        return commands

    def _bar(self, event: Event) -> Sequence[Command]:
        assert isinstance(event, BarClosed)
        bar = event.bar
        stopped = self._state.stopped_strategies
        commands: list[Command] = []
        for name, strategy, symbols in self._watching:
            if (symbols and bar.symbol not in symbols) or name in stopped:
                continue
            try:
                answer = strategy.on_bar(bar)
                if answer is not None:
                    commands += _signals(name, bar.symbol, answer, event.occurred_at)
            except Exception as error:  # noqa: BLE001  a user's strategy may raise anything; it is stopped, the run goes on
                commands.append(_stopped(name, error, event.occurred_at))
        return commands

    def _fill(self, event: Event) -> Sequence[Command]:
        assert isinstance(event, OrderFilled)
        order = self._state.orders[event.client_order_id]
        return self._show(order.strategy, order.symbol, event, lambda strategy: strategy.on_order_filled(order, event))

    def _lot_closed(self, event: Event) -> Sequence[Command]:
        assert isinstance(event, LotClosed)
        key = (event.strategy, event.symbol)
        realized = self._round_trips.pop(key, ZERO) + event.realized_pnl
        if self._state.strategy_positions.get(key, ZERO) * event.quantity > 0 or not self._is_last(event):
            self._round_trips[key] = realized
            return ()
        closed = ClosedPosition(event.symbol, realized, event.occurred_at)
        return self._show(event.strategy, event.symbol, event, lambda strategy: strategy.on_position_closed(closed))

    def _is_last(self, event: LotClosed) -> bool:
        """One trade may close several lots; the position is closed with the last of them."""
        execution = self._state.executions.get(event.execution_id)
        own = [] if execution is None else [closed for closed in execution.closed if closed.strategy == event.strategy]
        return not own or own[-1] == event

    def _stop(self, event: Event) -> Sequence[Command]:
        commands: list[Command] = []
        for name in self._strategies:
            commands += self._show(name, "", event, lambda strategy: strategy.on_stop())
        return commands

    def _show(self, name: str, symbol: Symbol, event: Event, tell: Callable[[Strategy], Signals]) -> Sequence[Command]:
        strategy = self._strategies.get(name)
        if strategy is None or name in self._state.stopped_strategies:
            return ()
        at = max(event.occurred_at, self._state.marks[symbol].at) if symbol in self._state.marks else event.occurred_at
        try:
            answer = tell(strategy)
            return () if answer is None else _signals(name, symbol, answer, at)
        except Exception as error:  # noqa: BLE001  as in `_bar`
            return [_stopped(name, error, at)]


def _signals(name: str, symbol: Symbol, answer: Signal | Iterable[Signal], at: datetime) -> list[Command]:
    signals = [answer] if isinstance(answer, Signal) else list(answer)
    return [_command(name, symbol, signal, at) for signal in signals]


def _command(name: str, symbol: Symbol, signal: object, at: datetime) -> RaiseSignal:
    if not isinstance(signal, Signal) or not isinstance(signal.direction, Direction):
        raise TypeError(f"a strategy answers with Signal(Direction…), found {signal!r}")
    for field in ("quantity", "notional", "stop_price", "target_price"):
        value = getattr(signal, field)
        if value is not None and not (isinstance(value, Decimal) and value.is_finite() and value > 0):
            raise TypeError(f"a signal's {field} is a Decimal above zero, found {value!r}")
    if signal.quantity is not None and not is_tradable(signal.quantity):
        raise ValueError(f"a signal's quantity has up to 9 decimals, found {signal.quantity}")
    for field in ("reason", "symbol", "confidence"):
        text = getattr(signal, field)
        if not isinstance(text, str) and (text is not None or field == "reason"):
            raise TypeError(f"a signal's {field} is text, found {text!r}")
    return RaiseSignal(
        at,
        name,
        signal.symbol or symbol,
        signal.direction,
        signal.reason,
        signal.quantity,
        signal.notional,
        signal.stop_price,
        signal.target_price,
        signal.confidence,
    )


def _stopped(name: str, error: Exception, at: datetime) -> StopStrategy:
    return StopStrategy(at, name, f"{type(error).__name__}: {error}")
