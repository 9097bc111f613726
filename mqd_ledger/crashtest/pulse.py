"""Two strategies that are never quiet, so that there is always something to lose. They go by what they are shown alone."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from mqd_ledger.events import OrderFilled
from mqd_ledger.orders import Order
from mqd_ledger.strategies.base import Signal, Signals, Strategy, StrategyParameters
from mqd_ledger.values import Bar, Direction, Side


class _Restless(Strategy):
    class Parameters(StrategyParameters):
        notional: Decimal = Decimal(900)
        cycle: int = 4  # minutes, four or more

    parameters: Parameters

    def _in(self, bar: Bar) -> Signal:
        return Signal(Direction.LONG, "in", quantity=max(Decimal(1), self.parameters.notional // bar.close))


class Pulse(_Restless):
    """In at one minute, out two minutes later, in every symbol."""

    def on_bar(self, bar: Bar) -> Signals:
        beat = bar.start_at.minute % self.parameters.cycle
        if beat == 0:
            return self._in(bar)
        if beat == 2:
            return Signal(Direction.FLAT, "out")
        return None

    def save(self) -> list[Any]:
        return []

    def load(self, value: list[Any]) -> None:
        """There is nothing to know."""


class Waver(_Restless):
    """It takes its orders back while they work: when the next symbol's bar comes, and when only a part was filled."""

    def __init__(self, parameters: StrategyParameters) -> None:
        super().__init__(parameters)
        self._wanted = ""  # the symbol of the last bar that made it buy

    def on_bar(self, bar: Bar) -> Iterator[Signal]:
        beat = bar.start_at.minute % self.parameters.cycle
        if self._wanted and self._wanted != bar.symbol:
            yield Signal(Direction.FLAT, "another one came", symbol=self._wanted)
            self._wanted = ""
        if beat == 1:
            self._wanted = bar.symbol
            yield self._in(bar)
        elif beat == 3:
            yield Signal(Direction.FLAT, "out")

    def on_order_filled(self, order: Order, fill: OrderFilled) -> Signals:
        if order.side is Side.BUY and fill.leaves_quantity:
            return Signal(Direction.FLAT, "a part is enough", symbol=order.symbol)
        return None

    def save(self) -> str:
        return self._wanted

    def load(self, value: str) -> None:
        self._wanted = value
