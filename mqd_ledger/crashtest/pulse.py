"""A strategy that is never quiet: in at one minute, out two minutes later, in every symbol."""

from decimal import Decimal

from mqd_ledger.strategies.base import Signal, Signals, Strategy, StrategyParameters
from mqd_ledger.values import Bar, Direction


class Pulse(Strategy):
    class Parameters(StrategyParameters):
        notional: Decimal = Decimal(900)

    parameters: Parameters

    def on_bar(self, bar: Bar) -> Signals:
        """By the bar alone, so that it answers the same after every restart."""
        beat = bar.start_at.minute % 4
        if beat == 0:
            return Signal(Direction.LONG, "in", quantity=max(Decimal(1), self.parameters.notional // bar.close))
        if beat == 2:
            return Signal(Direction.FLAT, "out")
        return None
