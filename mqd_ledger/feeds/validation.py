"""What makes a row of market data a usable bar, and the sentence that says why it is not one.

`check` is the careful path: it takes a row's texts apart one by one and names the first thing wrong. Reading a file
does the same tests inline (`rows.read_rows`) and comes here only with a row that failed one of them.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from typing import NamedTuple

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.sessions import HORIZON, midnight
from mqd_ledger.values import EPOCH, INTERVALS, ZERO, Bar, iso, plain

# Prices are below a billion dollars with at most 18 decimals and 19 digits; anything else raises, nothing is rounded.
PRICE_CONTEXT = Context(prec=19, Emin=0, Emax=8, traps=[InvalidOperation, Overflow, Inexact])
PRICE_END = Decimal(10**9)
VOLUME_MAX = 2**63 - 1
LAST_INSTANT = datetime(
    HORIZON.year + 1, 1, 1, tzinfo=UTC
)  # one typo of a year must not make all later rows "too early"
SYMBOL = re.compile(r"[A-Za-z0-9^][A-Za-z0-9.\-/^=_]{0,23}")
PROVIDER = re.compile(r"[A-Za-z0-9_.\-]{1,40}")
NOTHING = timedelta(0)


class RejectedRow(msgspec.Struct, frozen=True):
    """A row that is no bar. `line` counts from 1 with the header (in Parquet: rows); `raw` is the row as it stands."""

    line: int
    raw: str
    reason: str
    symbol: str | None = None


class Cells(NamedTuple):
    """One row's texts, in the order in which everything here takes them."""

    symbol: str
    timestamp: str
    open: str
    high: str
    low: str
    close: str
    volume: str


class Prices(dict[str, Decimal]):
    """Price by its text, exact, positive, without trailing zeros: "167.50" and "167.5000" are one and the same bytes.

    Prices repeat all day long, so most look-ups cost no arithmetic. Raises ValueError or DecimalException.
    """

    def __missing__(self, text: str) -> Decimal:
        price = PRICE_CONTEXT.create_decimal(text)
        if not ZERO < price < PRICE_END:  # which raises for NaN
            raise ValueError(text)
        if text[-1] == "0" or "e" in text or "E" in text:
            price = Decimal(plain(price))
        if len(self) >= 20_000:  # memory stays flat however long the file
            self.clear()
        self[text] = price
        return price


def whole_number(text: str) -> int:
    """A volume such as "1000.0", as data frames write it. Raises ValueError or DecimalException."""
    try:
        return int(text)
    except ValueError:
        number = Decimal(text)
        if not number.is_finite() or number != number.to_integral_value():
            raise ValueError(text) from None
        return int(max(Decimal(-1), min(number, Decimal(VOLUME_MAX + 1))))  # as 1e999999999 it would fill the memory


def on_grid(start_at: datetime, interval: str) -> bool:
    """Daily bars start at midnight in New York or UTC, hourly ones on the hour or half, others on their multiples."""
    if interval == "1d":
        return start_at in {midnight(start_at, "exchange"), midnight(start_at, "utc")}
    step = timedelta(minutes=30) if interval == "1h" else INTERVALS[interval]
    return (start_at - EPOCH) % step == NOTHING


def shortest_gap(interval: str) -> timedelta:
    """How far apart two bars start at least: a day of the spring change has 23 hours."""
    return INTERVALS[interval] - (timedelta(hours=1) if interval == "1d" else NOTHING)


def check(
    cells: Cells, start_at: datetime, interval: str, provider: str, last: datetime | None, now: datetime | None
) -> Bar:
    """The bar, or BadInput with the first reason why there is none. `last` is where the symbol's last bar starts."""
    check_symbol(cells.symbol)
    _check_time(start_at, interval, last, now)
    prices = {name: _price(name, text) for name, text in zip(("open", "high", "low", "close"), cells[2:6], strict=True)}
    open_, high, low, close = prices.values()
    if high < max(prices.values()):
        other = "low" if high < low else "open" if high < open_ else "close"
        raise BadInput(f"high {plain(high)} is below {other} {plain(prices[other])}")
    if low > min(prices.values()):
        other = "open" if low > open_ else "close"
        raise BadInput(f"low {plain(low)} is above {other} {plain(prices[other])}")
    volume = _volume(cells.volume)
    if not PROVIDER.fullmatch(provider):
        raise BadInput(f"provider {shown(provider)} is not a name of letters, digits, '.', '-' and '_'")
    return Bar(cells.symbol, interval, start_at, open_, high, low, close, volume, provider)


def shown(text: str) -> str:
    """A text from outside as it goes into a sentence: quoted, and never longer than a line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def check_symbol(symbol: str) -> str:
    if SYMBOL.fullmatch(symbol):
        return symbol
    if not symbol:
        raise BadInput("the symbol is empty")
    raise BadInput(f"{shown(symbol)} is no symbol: one to 24 letters, digits and . - / ^ = _")


def _check_time(start_at: datetime, interval: str, last: datetime | None, now: datetime | None) -> None:
    if start_at >= LAST_INSTANT:
        raise BadInput(f"{iso(start_at)} is after {HORIZON}, where the exchange calendar ends")
    if now is not None and start_at + INTERVALS[interval] > now:
        raise BadInput(f"the bar ends at {iso(start_at + INTERVALS[interval])}, in the future of {iso(now)}")
    if not on_grid(start_at, interval):
        raise BadInput(f"{iso(start_at)} is not the start of a bar of {interval}")
    if last is None or start_at - last >= shortest_gap(interval):
        return
    if start_at == last:
        raise BadInput(f"duplicate: there is a bar of {iso(last)} already")
    if start_at > last:
        raise BadInput(f"overlap: {iso(start_at)} is inside the bar of {iso(last)}")
    raise BadInput(f"out of order: {iso(start_at)} comes after the bar of {iso(last)}")


def _price(name: str, text: str) -> Decimal:
    if not text:
        raise BadInput(f"{name} is empty")
    try:
        number = Decimal(text) if "_" not in text else Decimal("NaN")
    except DecimalException:
        raise BadInput(f"{name} {shown(text)} is not a number") from None
    if not number.is_finite():
        raise BadInput(f"{name} {shown(text)} is not a finite number")
    if number <= 0:
        raise BadInput(f"{name} {shown(text)} is not positive")
    try:
        return Prices()[text]
    except (ValueError, DecimalException):
        what = "a billion or more" if number >= 10**9 else "finer than 18 decimals or 19 digits"
        raise BadInput(f"{name} {shown(text)} is {what}; no price of a share is") from None


def _volume(text: str) -> int:
    if not text:
        raise BadInput("volume is empty")
    try:
        volume = whole_number(text)
    except (ValueError, DecimalException):
        raise BadInput(f"volume {shown(text)} is not a whole number of shares") from None
    if not 0 <= volume <= VOLUME_MAX:
        raise BadInput(f"volume {shown(text)} is {'negative' if volume < 0 else 'larger than any volume'}")
    return volume
