"""A strategy that does at each bar what its plan says: for tests, which know the prices and want to say what is traded when."""

from decimal import Decimal

from mqd_ledger.strategies.base import Signal, Signals, Strategy, StrategyParameters
from mqd_ledger.values import Bar, Direction


class Scheduled(Strategy):
    """`plan` is "14:31 SPY LONG 5; 06T14:33 SPY FLAT": at the close of the bar that started then, on every day or on that one.

    "14:31 SPY@QQQ FLAT" decides about SPY at a bar of QQQ.
    """

    class Parameters(StrategyParameters):
        plan: str = ""

    parameters: Parameters

    def on_bar(self, bar: Bar) -> Signals:
        """By the bar alone, so that it answers the same after every restart."""
        start = f"{bar.start_at:%Y-%m-%dT%H:%M}"
        found: list[Signal] = []
        for row in filter(None, (row.split() for row in self.parameters.plan.split(";"))):
            when, symbols, direction, *size = row
            symbol, _, shown = symbols.partition("@")
            if (shown or symbol) == bar.symbol and start.endswith(when):
                quantity = Decimal(size[0]) if size else None
                found.append(Signal(Direction(direction), f"planned for {when}", symbol, quantity=quantity))
        return found
