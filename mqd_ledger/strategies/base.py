"""What a strategy is: a class that is shown closed bars and fills and answers with signals.

    class MyStrategy(Strategy):
        class Parameters(StrategyParameters):
            lookback: int = 20

        def on_bar(self, bar):
            if ...:
                return Signal(Direction.LONG, reason="close is under the average")

A strategy keeps its state in itself and gets it back after a restart because its recorded inputs are shown to it again. So it
must answer the same inputs with the same signals: no clock, no randomness, no files, no network.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from mqd_ledger.events import OrderFilled
from mqd_ledger.orders import Order
from mqd_ledger.state import State
from mqd_ledger.values import INTERVALS, ZERO, Bar, Direction, Money, Price, Quantity, Symbol


class StrategyParameters(BaseModel):
    """Base of a strategy's parameters: unknown names are errors, values are frozen. Empty `symbols` means all; without an
    `interval` a strategy is shown the feed's own bars, with one only bars of that length.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    symbols: tuple[str, ...] = ()
    # Not recorded where nothing is asked for: runs that began before there was such a parameter go on.
    interval: str | None = Field(default=None, exclude_if=lambda value: value is None)

    @field_validator("interval")
    @classmethod
    def _is_an_interval(cls, interval: str | None) -> str | None:
        if interval is not None and interval not in INTERVALS:
            raise ValueError(f"allowed are {', '.join(INTERVALS)}")
        return interval


class Signal(msgspec.Struct, frozen=True):
    """What to hold from now on. Without quantity (shares) or notional (dollars) the policy's sizing applies; without a symbol
    it is the bar's.
    """

    direction: Direction
    reason: str
    symbol: Symbol | None = None
    quantity: Quantity | None = None
    notional: Money | None = None
    stop_price: Price | None = None
    target_price: Price | None = None
    confidence: str | None = None


Signals = Signal | Iterable[Signal] | None


class ClosedPosition(msgspec.Struct, frozen=True):
    symbol: Symbol
    realized_pnl: Money  # of the whole round trip, before commissions
    closed_at: datetime


class Context:
    """What a strategy may look at: its own holdings and the account. Read only."""

    def __init__(self, strategy: str, state: State) -> None:
        self._strategy, self._state = strategy, state

    def position(self, symbol: Symbol) -> Quantity:
        """Shares that this strategy holds, negative when short."""
        return self._state.strategy_positions.get((self._strategy, symbol), ZERO)

    def average_price(self, symbol: Symbol) -> Price | None:
        """Average cost per share of what this strategy holds, or None."""
        lots = [lot for lot in self._state.lots.get(symbol, ()) if lot.strategy == self._strategy]
        quantity = sum((lot.quantity for lot in lots), ZERO)
        return sum((lot.cost_basis for lot in lots), ZERO) / quantity if quantity else None

    @property
    def equity(self) -> Money:
        return self._state.equity

    @property
    def cash(self) -> Money:
        return self._state.cash


class Strategy:
    """Base of all strategies. Override what you need; every `on_…` may return a Signal, several, or None."""

    Parameters: ClassVar[type[StrategyParameters]] = StrategyParameters
    context: Context  # given by the host before anything is shown

    def __init__(self, parameters: StrategyParameters) -> None:
        self.parameters = parameters

    def on_start(self, context: Context) -> None:
        """The run begins. The same context is `self.context` from now on."""

    def on_bar(self, bar: Bar) -> Signals:
        return None

    def on_order_filled(self, order: Order, fill: OrderFilled) -> Signals:
        return None

    def on_position_closed(self, position: ClosedPosition) -> Signals:
        return None

    def on_stop(self) -> None:
        """The run has ended in good order."""

    def save(self) -> Any:
        """All that this strategy knows, as JSON can hold it; it changes nothing. None says that it is not offered. A class that
        inherits it has to say it again, for it may know more.
        """
        return None

    def load(self, value: Any) -> None:
        """Know what was saved, as JSON gives it back (lists for tuples, texts for decimals): called on a new strategy instead of
        `on_start` and all that followed it, so that a long run goes on quickly after a restart. From there the same inputs have
        to be answered with the same signals. Without it all recorded inputs are shown again, which cannot go wrong.
        """
        raise NotImplementedError
