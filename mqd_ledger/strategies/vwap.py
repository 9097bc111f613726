"""VWAP mean reversion: buy what has fallen far under its volume-weighted average price, sell on a fixed gain or loss."""

from collections import deque
from decimal import Decimal
from typing import Any

from pydantic import Field

from mqd_ledger.events import OrderFilled
from mqd_ledger.orders import Order
from mqd_ledger.strategies.base import ClosedPosition, Signal, Signals, Strategy, StrategyParameters
from mqd_ledger.values import ZERO, Bar, Direction, Price, Symbol

HUNDRED = Decimal(100)
THREE = Decimal(3)


class VwapParameters(StrategyParameters):
    """Percentages are of 100: 2 means 2 %."""

    lookback: int = Field(default=20, ge=2, le=10_000)
    entry_percent: Decimal = Field(default=Decimal(2), gt=0, lt=100)
    stop_loss_percent: Decimal = Field(default=Decimal(2), gt=0, lt=100)
    take_profit_percent: Decimal = Field(default=Decimal("1.5"), gt=0)


class _Window:
    """The last bars of one symbol as running sums: exact, because decimals are added and taken away again without loss."""

    __slots__ = ("bars", "entry_price", "price_volume", "volume")

    def __init__(self, lookback: int) -> None:
        self.bars: deque[tuple[Decimal, int]] = deque(maxlen=lookback)
        self.price_volume = ZERO  # sum of (high + low + close) x volume: three times the typical price
        self.volume = 0
        self.entry_price: Price | None = None


class VwapMeanReversion(Strategy):
    """Long when the close is `entry_percent` or more under the VWAP of the last `lookback` bars (this one included); out when
    the close is `stop_loss_percent` under or `take_profit_percent` over the average entry price.
    """

    Parameters = VwapParameters
    parameters: VwapParameters

    def __init__(self, parameters: VwapParameters) -> None:
        super().__init__(parameters)
        self._windows: dict[Symbol, _Window] = {}
        self._lookback = parameters.lookback
        self._entry = (HUNDRED - parameters.entry_percent) / HUNDRED
        self._stop = (HUNDRED - parameters.stop_loss_percent) / HUNDRED
        self._target = (HUNDRED + parameters.take_profit_percent) / HUNDRED

    def save(self) -> dict[str, Any]:
        return {
            symbol: {name: getattr(window, name) for name in _Window.__slots__ if name != "bars"}
            | {"bars": list(window.bars)}
            for symbol, window in self._windows.items()
        }

    def load(self, value: dict[str, Any]) -> None:
        for symbol, saved in value.items():
            window = self._windows[symbol] = _Window(self._lookback)
            window.bars.extend((Decimal(price_volume), volume) for price_volume, volume in saved["bars"])
            window.price_volume, window.volume = Decimal(saved["price_volume"]), saved["volume"]
            window.entry_price = None if saved["entry_price"] is None else Decimal(saved["entry_price"])

    def on_bar(self, bar: Bar) -> Signals:
        window = self._windows.get(bar.symbol)
        if window is None:
            window = self._windows[bar.symbol] = _Window(self._lookback)
            window.entry_price = self.context.average_price(bar.symbol)  # held since an earlier run
        bars = window.bars
        price_volume = (bar.high + bar.low + bar.close) * bar.volume
        if len(bars) == self._lookback:
            old_price_volume, old_volume = bars[0]
            window.price_volume += price_volume - old_price_volume
            window.volume += bar.volume - old_volume
        else:
            window.price_volume += price_volume
            window.volume += bar.volume
        bars.append((price_volume, bar.volume))
        if window.entry_price is not None:
            return self._exit(bar, window.entry_price)
        # close <= vwap x entry, without the division: vwap is price_volume / (3 x volume).
        if (
            len(bars) == self._lookback
            and window.volume
            and bar.close * (3 * window.volume) <= window.price_volume * self._entry
        ):
            return self._enter(bar, window)
        return None

    def _enter(self, bar: Bar, window: _Window) -> Signal:
        vwap = window.price_volume / (THREE * window.volume)
        under = (vwap - bar.close) * HUNDRED / vwap
        reason = f"close {bar.close} is {under:.2f} % under the {self._lookback}-bar VWAP {vwap:.4f}"
        return Signal(Direction.LONG, reason, stop_price=bar.close * self._stop, target_price=bar.close * self._target)

    def _exit(self, bar: Bar, entry_price: Price) -> Signal | None:
        if bar.close <= entry_price * self._stop:
            return Signal(Direction.FLAT, f"stop loss: close {bar.close}, entry {entry_price:.4f}")
        if bar.close >= entry_price * self._target:
            return Signal(Direction.FLAT, f"take profit: close {bar.close}, entry {entry_price:.4f}")
        return None

    def on_order_filled(self, order: Order, fill: OrderFilled) -> None:
        window = self._windows.get(order.symbol)
        if window is not None:
            window.entry_price = self.context.average_price(order.symbol)

    def on_position_closed(self, position: ClosedPosition) -> None:
        window = self._windows.get(position.symbol)
        if window is not None:
            window.entry_price = None
