"""The account as the log tells it so far: the few numbers that no single event carries, kept beside the place in the log.

Which trading day it is, cash, what is held and what it was last worth: folded from every event, bars included, by the same
rules as the state that decisions use, so that equity, its peak and its drawdown are exact although no table has a row per bar.
Bars are the bulk of a log: those of a symbol that is not held are kept unread until something asks for its price.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from mqd_ledger import events as e
from mqd_ledger.envelope import decode
from mqd_ledger.evolve.books import INCOME, is_split, split_price
from mqd_ledger.sessions import closes_at, midnight
from mqd_ledger.values import (
    ZERO,
    DifferenceKind,
    Money,
    Price,
    Quantity,
    Side,
    Symbol,
    from_microseconds,
    microseconds,
)

VERSION = 2  # of the rules here: a new one makes every projection build itself anew

BAR = e.STORED_NAME[e.BarClosed]


class _Closing(msgspec.Struct):
    close: Price


class _ClosingBar(msgspec.Struct):
    """All that is read of a stored bar."""

    bar: _Closing


class _Start(msgspec.Struct):
    start_at: datetime


class _StartingBar(msgspec.Struct):
    bar: _Start


_closing_bar = msgspec.json.Decoder(_ClosingBar).decode
_starting_bar = msgspec.json.Decoder(_StartingBar).decode


class Account(msgspec.Struct):
    """Mutable; whoever folds owns it. Times are microseconds. It is written to JSON and back between two readings."""

    day_starts: Literal["utc", "exchange"] = "utc"
    day: str = ""  # ISO date of the trading day we are in
    day_starts_at: int = 0
    day_ends_at: int = 0
    last_at: int = 0  # the last time heard of in this day
    position: int = 0  # of the last event
    start_equity: Money = ZERO  # of the day, moved by deposits and withdrawals
    cash: Money = ZERO
    equity: Money = ZERO
    peak: Money = ZERO
    max_drawdown: Decimal = ZERO
    consecutive_losses: int = 0
    held: dict[Symbol, Quantity] = {}
    marks: dict[Symbol, Price] = {}
    marked_at: dict[Symbol, int] = {}
    unread: dict[Symbol, tuple[int, Any]] = {}  # symbol that is not held -> its last bar as stored, and when it closed
    last_bars: dict[str, int] = {}  # stream -> start of its last bar, as far as read
    unread_bars: dict[str, Any] = {}  # stream -> its last bar as stored
    corporate_actions: set[str] = set()  # open differences of that kind

    @property
    def drawdown(self) -> Decimal:
        return (self.peak - self.equity) / self.peak if self.peak > 0 else ZERO

    def start_day(self, occurred_at: int) -> None:
        starts_at = midnight(from_microseconds(occurred_at), self.day_starts)
        self.day = starts_at.date().isoformat()
        self.day_starts_at, self.day_ends_at = microseconds(starts_at), self._midnight_after(starts_at)
        self.last_at, self.start_equity = occurred_at, self.equity

    def _midnight_after(self, starts_at: datetime) -> int:
        return microseconds(midnight(starts_at + timedelta(hours=36), self.day_starts))

    def trade_date(self, occurred_at: int) -> str:
        """The trading day that holds an instant."""
        if self.day_starts_at <= occurred_at < self.day_ends_at:
            return self.day
        return midnight(from_microseconds(occurred_at), self.day_starts).date().isoformat()

    def bar(self, symbol: Symbol, stream: str, at: int, payload: str | bytes) -> None:
        """A bar as it is stored in its current shape."""
        self.unread_bars[stream] = payload
        quantity = self.held.get(symbol)
        if quantity is None:
            self.unread[symbol] = at, payload
            return
        close = _closing_bar(payload).bar.close
        self.equity += quantity * (close - self.marks[symbol])
        self.marks[symbol], self.marked_at[symbol] = close, at
        self.look_at_peak()

    def mark(self, symbol: Symbol, price: Price, at: int) -> None:
        """A price from elsewhere than a bar's close."""
        self.read(symbol)
        held = self.held.get(symbol)
        if held is not None:
            self.equity += held * (price - self.marks[symbol])
            self.look_at_peak()
        self.marks[symbol], self.marked_at[symbol] = price, at

    def read(self, symbol: Symbol) -> None:
        """Take in the last bar of a symbol that was not held."""
        if symbol in self.unread:
            self.marked_at[symbol], payload = self.unread.pop(symbol)
            self.marks[symbol] = _closing_bar(payload).bar.close

    def look_at_peak(self) -> None:
        if self.equity > self.peak:
            self.peak = self.equity
        elif self.peak - self.equity > self.max_drawdown * self.peak:  # a division saved for most bars
            self.max_drawdown = max(self.max_drawdown, self.drawdown)

    def trade(self, event: Any, quantity: Quantity, price: Price) -> None:
        """What an execution's event says of `quantity`, which is below zero for what is taken back."""
        signed = quantity if event.side is Side.BUY else -quantity
        self.hold(event.symbol, signed, price, microseconds(event.occurred_at))

    def hold(self, symbol: Symbol, signed: Quantity, price: Price, at: int) -> None:
        """Shares against cash; what lies between the price and the mark is equity won or lost at once."""
        self.read(symbol)
        mark = self.marks.setdefault(symbol, price)
        self.marked_at.setdefault(symbol, at)
        held = self.held.get(symbol, ZERO) + signed
        if held:
            self.held[symbol] = held
        else:
            self.held.pop(symbol, None)
        self.cash -= signed * price
        self.equity += signed * (mark - price)

    def pay(self, money: Money) -> None:
        self.cash -= money
        self.equity -= money

    def take(self, event: e.Event) -> None:
        """Any event but a bar."""
        fold = _FOLDS.get(type(event))
        if fold is not None:
            fold(self, event)

    def last_bar(self, stream: str) -> int | None:
        """When the last bar of a stream began."""
        if stream in self.unread_bars:
            self.last_bars[stream] = microseconds(_starting_bar(self.unread_bars.pop(stream)).bar.start_at)
        return self.last_bars.get(stream)

    def rebase(self, amount: Money) -> None:
        """Money in or out is neither profit nor loss: the day and the peak begin that much higher or lower."""
        self.peak += amount
        self.start_equity += amount

    def to_json(self) -> str:
        """What has to be remembered; the same for the same events, however often reading was interrupted."""
        for symbol in list(self.unread):
            self.read(symbol)
        for stream in list(self.unread_bars):
            self.last_bar(stream)
        return msgspec.json.encode(self, order="deterministic").decode()


from_json: Callable[[str], Account] = msgspec.json.Decoder(Account).decode


def current_payload(name: str, payload: str | bytes) -> str | bytes:
    """A stored bar in the current shape."""
    return payload if name == BAR else msgspec.json.encode(decode(name, payload))


def _run_started(account: Account, event: e.RunStarted) -> None:
    """A policy with another midnight moves the end of the day, never its loss so far."""
    account.day_starts = event.policy.day_starts
    starts_at = midnight(event.occurred_at, account.day_starts)
    if microseconds(starts_at) != account.day_starts_at:
        account.day_ends_at = account._midnight_after(starts_at)  # noqa: SLF001 - its own module


def _filled(account: Account, event: e.OrderFilled) -> None:
    account.trade(event, event.last_quantity, event.last_price)
    account.pay(event.commission)
    account.look_at_peak()


def _busted(account: Account, event: e.ExecutionBusted) -> None:
    account.trade(event, -event.last_quantity, event.last_price)
    account.pay(-event.commission)
    account.look_at_peak()


def _corrected(account: Account, event: e.ExecutionCorrected) -> None:
    account.trade(event, -event.previous_quantity, event.previous_price)
    account.trade(event, event.last_quantity, event.last_price)
    account.look_at_peak()


def _lot_closed(account: Account, event: e.LotClosed) -> None:
    if event.realized_pnl < 0:
        account.consecutive_losses += 1
    elif event.realized_pnl > 0:
        account.consecutive_losses = 0


def _cash_moved(account: Account, event: e.CashMoved) -> None:
    account.pay(-event.amount)
    if event.kind in INCOME:
        account.look_at_peak()
    else:
        account.rebase(event.amount)


def _fee_charged(account: Account, event: e.FeeCharged) -> None:
    account.pay(event.amount)
    account.look_at_peak()


def _quote_taken(account: Account, event: e.QuoteTaken) -> None:
    account.mark(event.symbol, (event.bid + event.ask) / 2, microseconds(event.occurred_at))


def _bar_corrected(account: Account, event: e.BarCorrected) -> None:
    bar = event.bar
    if account.last_bar(e.STREAM_OF[e.BarCorrected](event)) == microseconds(bar.start_at):
        account.read(bar.symbol)
        marked_at = account.marked_at[bar.symbol]
        if marked_at <= microseconds(closes_at(bar)):
            account.mark(bar.symbol, bar.close, marked_at)


def _difference_found(account: Account, event: e.DifferenceFound) -> None:
    if event.kind is DifferenceKind.CORPORATE_ACTION:
        account.corporate_actions.add(event.difference_id)


def _difference_cleared(account: Account, event: e.DifferenceCleared) -> None:
    account.corporate_actions.discard(event.difference_id)


def _adjustment_booked(account: Account, event: e.AdjustmentBooked) -> None:
    symbol, held = event.symbol, account.held.get(event.symbol, ZERO)
    is_action = event.difference_id in account.corporate_actions
    account.corporate_actions.discard(event.difference_id)
    if event.quantity:
        kind = DifferenceKind.CORPORATE_ACTION if is_action else DifferenceKind.UNKNOWN
        if is_split(kind, held, event.quantity, event.price):
            price = split_price(account.marks[symbol], held, event.quantity)
            account.equity += held * (price - account.marks[symbol])
            account.marks[symbol] = price
        account.hold(symbol, event.quantity, event.price, microseconds(event.occurred_at))
        account.look_at_peak()
    if event.amount:
        account.pay(-event.amount)
        account.rebase(event.amount)


_FOLDS: Mapping[type[e.Event], Callable[[Account, Any], None]] = MappingProxyType(
    {
        e.RunStarted: _run_started,
        e.OrderFilled: _filled,
        e.ExecutionBusted: _busted,
        e.ExecutionCorrected: _corrected,
        e.LotClosed: _lot_closed,
        e.CashMoved: _cash_moved,
        e.FeeCharged: _fee_charged,
        e.QuoteTaken: _quote_taken,
        e.BarCorrected: _bar_corrected,
        e.DifferenceFound: _difference_found,
        e.DifferenceCleared: _difference_cleared,
        e.AdjustmentBooked: _adjustment_booked,
    }
)
