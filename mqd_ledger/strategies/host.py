"""Runs the strategies of a run: shows them what they asked to see, turns their signals into commands, and keeps one that raises
from hurting the others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from decimal import Context as Arithmetic
from decimal import Decimal, setcontext
from itertools import islice
from typing import Any

import msgspec

from commands import Command
from commands.control import StopStrategy
from commands.trading import RaiseSignal
from mqd_ledger.engine import Reaction
from mqd_ledger.errors import BadInput
from mqd_ledger.events import BarAggregated, BarClosed, Event, LotClosed, OrderFilled, RunEnded, RunStarted
from mqd_ledger.state import State
from mqd_ledger.strategies.base import ClosedPosition, Context, Signal, Signals, Strategy
from mqd_ledger.strategies.isolation import SIGNALS_MAX, check_signal, described
from mqd_ledger.values import ARITHMETIC, INTERVALS, ZERO, Money, Symbol


class StrategyHost:
    """A reactor. `strategies` by name, in the order in which they are shown each event."""

    def __init__(self, state: State, strategies: Mapping[str, Strategy]) -> None:
        self._state = state
        self._strategies = dict(strategies)
        self._round_trips: dict[tuple[str, Symbol], Money] = {}
        # A user's strategy computes in a context of its own: one that changes its precision may not change our money.
        self._our_arithmetic = ARITHMETIC.copy()
        self._arithmetic = {
            name: None if type(strategy).__module__.startswith("mqd_ledger.") else ARITHMETIC.copy()
            for name, strategy in self._strategies.items()
        }
        self._watching = {
            (kind, interval): [
                (name, strategy.on_bar, strategy.parameters.symbols, self._arithmetic[name])
                for name, strategy in self._strategies.items()
                if strategy.parameters.interval in wanted
            ]
            for interval in INTERVALS
            for kind, wanted in ((BarClosed, (None, interval)), (BarAggregated, (interval,)))
        }
        for name, strategy in self._strategies.items():
            strategy.context = Context(name, state)

    @property
    def reactions(self) -> dict[type[Event], Reaction]:
        return {
            RunStarted: self._start,
            BarClosed: self._bar,
            BarAggregated: self._bar,
            OrderFilled: self._fill,
            LotClosed: self._lot_closed,
            RunEnded: self._stop,
        }

    def save(self) -> dict[str, Any] | None:
        """What the strategies keep, each as JSON text; None where one of them does not offer it."""
        kept: dict[str, str] = {}
        for name, strategy in self._strategies.items():
            if name in self._state.stopped_strategies:
                continue
            text = self._kept(name, strategy)
            if text is None:
                return None
            kept[name] = text
        return {"strategies": kept, "round_trips": [[*key, str(money)] for key, money in self._round_trips.items()]}

    def _kept(self, name: str, strategy: Strategy) -> str | None:
        arithmetic = self._arithmetic[name]
        if "save" not in vars(type(strategy)):
            return None  # inherited: it does not know what the subclass knows
        if arithmetic is not None and not _is_ours(arithmetic):
            return None  # it computes in a way of its own, which nothing sets up again
        setcontext(arithmetic or self._our_arithmetic)
        try:
            value = strategy.save()
            return None if value is None else msgspec.json.encode(value).decode()
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001  as in `_bar`; it trades on, and is shown everything again after a restart
            return None
        finally:
            setcontext(self._our_arithmetic)

    def load(self, value: dict[str, Any]) -> None:
        for name, text in value["strategies"].items():
            setcontext(self._arithmetic[name] or self._our_arithmetic)
            try:
                self._strategies[name].load(msgspec.json.decode(text))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise BadInput(f"Strategy {name} cannot load what it saved: {described(error)}") from error
            finally:
                setcontext(self._our_arithmetic)
        self._round_trips = {(name, symbol): Decimal(money) for name, symbol, money in value["round_trips"]}

    def _start(self, _event: RunStarted, at: datetime) -> Sequence[Command]:
        commands: list[Command] = []
        for name in self._strategies:
            commands += self._show(name, "", at, lambda strategy: strategy.on_start(strategy.context))
        return commands

    def _bar(self, event: BarClosed | BarAggregated, at: datetime) -> Sequence[Command]:
        """As `_show`, written out: every bar comes by here."""
        bar = event.bar
        stopped = self._state.stopped_strategies
        commands: list[Command] = []
        for name, on_bar, symbols, arithmetic in self._watching[type(event), bar.interval]:
            if (symbols and bar.symbol not in symbols) or name in stopped:
                continue
            if arithmetic is not None:
                setcontext(arithmetic)
            try:
                answer = on_bar(bar)
                if answer is not None:
                    commands += _signals(name, bar.symbol, answer, at)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001  a strategy may raise anything, sys.exit() too; it is stopped, the run goes on
                commands.append(_stopped(name, error, at))
            finally:
                if arithmetic is not None:
                    setcontext(self._our_arithmetic)
        return commands

    def _fill(self, event: OrderFilled, at: datetime) -> Sequence[Command]:
        order = self._state.orders[event.client_order_id]
        if self._arithmetic.get(order.strategy) is not None:
            order = copy(order)  # what a user's strategy does to it is its own affair
        return self._show(order.strategy, order.symbol, at, lambda strategy: strategy.on_order_filled(order, event))

    def _lot_closed(self, event: LotClosed, at: datetime) -> Sequence[Command]:
        key = (event.strategy, event.symbol)
        realized = self._round_trips.pop(key, ZERO) + event.realized_pnl
        if self._state.strategy_positions.get(key, ZERO) * event.quantity > 0 or not self._is_last(event):
            self._round_trips[key] = realized
            return ()
        closed = ClosedPosition(event.symbol, realized, event.occurred_at)
        return self._show(event.strategy, event.symbol, at, lambda strategy: strategy.on_position_closed(closed))

    def _is_last(self, event: LotClosed) -> bool:
        """One trade may close several lots; the position is closed with the last of them."""
        execution = self._state.executions.get(event.execution_id)
        own = [] if execution is None else [closed for closed in execution.closed if closed.strategy == event.strategy]
        return not own or own[-1] == event

    def _stop(self, _event: RunEnded, at: datetime) -> Sequence[Command]:
        commands: list[Command] = []
        for name in self._strategies:
            commands += self._show(name, "", at, lambda strategy: strategy.on_stop())
        return commands

    def _show(self, name: str, symbol: Symbol, at: datetime, tell: Callable[[Strategy], Signals]) -> Sequence[Command]:
        strategy = self._strategies.get(name)
        if strategy is None or name in self._state.stopped_strategies:
            return ()
        setcontext(self._arithmetic[name] or self._our_arithmetic)
        try:
            answer = tell(strategy)
            return () if answer is None else _signals(name, symbol, answer, at)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  as in `_bar`
            return [_stopped(name, error, at)]
        finally:
            setcontext(self._our_arithmetic)


def _is_ours(arithmetic: Arithmetic) -> bool:
    """Whether a context computes as the one that every strategy is given."""
    first, other = ARITHMETIC.copy(), arithmetic.copy()
    for context in (first, other):
        context.clear_flags()
    return repr(first) == repr(other)


def _signals(name: str, symbol: Symbol, answer: Signal | Iterable[Signal], at: datetime) -> list[Command]:
    signals = [answer] if isinstance(answer, Signal) else list(islice(answer, SIGNALS_MAX + 1))
    if len(signals) > SIGNALS_MAX:
        raise ValueError(f"it answers one event with more than {SIGNALS_MAX} signals")
    return [_command(name, symbol, check_signal(signal), at) for signal in signals]


def _command(name: str, symbol: Symbol, signal: Signal, at: datetime) -> RaiseSignal:
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


def _stopped(name: str, error: BaseException, at: datetime) -> StopStrategy:
    return StopStrategy(at, name, described(error))
