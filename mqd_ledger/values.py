"""The nouns of the market: sides, order types, states, intervals, a bar. Exact, immutable, no behavior beyond their meaning.

Money, prices and quantities are `Decimal`; times are aware UTC `datetime`s. The aliases say which of them a field holds.
"""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import StrEnum

import msgspec

Symbol = str  # as the exchange writes it: "SPY", "BRK.B"
Price = Decimal  # US dollars per share
Quantity = Decimal  # shares, up to 9 decimals, never negative in an order
Money = Decimal  # US dollars

ZERO = Decimal(0)
ARITHMETIC = Context(prec=28, rounding=ROUND_HALF_EVEN)  # the one context in which money is computed
QUANTITY_STEP = Decimal("0.000000001")  # the finest fraction of a share that Alpaca takes
CENT = Decimal("0.01")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP = "STOP"
    STOP_LIMIT = "STOP_LIMIT"
    TRAILING_STOP = "TRAILING_STOP"


class TimeInForce(StrEnum):
    DAY = "DAY"
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    OPG = "OPG"
    CLS = "CLS"


class OrderState(StrEnum):
    """The seven states of an order; `orders.TRANSITIONS` says how one becomes another."""

    PENDING = "PENDING"
    SUBMITTED = "SUBMITTED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


class Direction(StrEnum):
    """What a strategy wants to hold."""

    LONG = "LONG"
    SHORT = "SHORT"
    FLAT = "FLAT"


class TradingState(StrEnum):
    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"  # only orders that make a position smaller
    HALTED = "HALTED"  # no orders at all


class LotMethod(StrEnum):
    FIFO = "FIFO"
    LIFO = "LIFO"
    HIFO = "HIFO"
    AVERAGE = "AVERAGE"


class LotCause(StrEnum):
    """Why a lot was closed."""

    TRADE = "TRADE"
    MERGE = "MERGE"
    BUST = "BUST"
    ADJUSTMENT = "ADJUSTMENT"  # the books followed the broker


class Anomaly(StrEnum):
    """What the market does although the table says it should not. Each is told to the operator."""

    FILL_BEFORE_ACKNOWLEDGEMENT = "FILL_BEFORE_ACKNOWLEDGEMENT"
    FILL_AFTER_CANCEL = "FILL_AFTER_CANCEL"
    FILL_AFTER_EXPIRY = "FILL_AFTER_EXPIRY"
    FILL_AFTER_REJECT = "FILL_AFTER_REJECT"
    OVERFILL = "OVERFILL"
    CANCEL_AFTER_FILL = "CANCEL_AFTER_FILL"
    EXPIRY_AFTER_FILL = "EXPIRY_AFTER_FILL"
    REJECT_AFTER_FILL = "REJECT_AFTER_FILL"
    REJECT_AFTER_CANCEL = "REJECT_AFTER_CANCEL"
    ACKNOWLEDGEMENT_AFTER_REJECT = "ACKNOWLEDGEMENT_AFTER_REJECT"
    EXECUTION_BUSTED = "EXECUTION_BUSTED"
    EXECUTION_CORRECTED = "EXECUTION_CORRECTED"
    UNKNOWN_ORDER = "UNKNOWN_ORDER"
    UNKNOWN_EXECUTION = "UNKNOWN_EXECUTION"
    UNKNOWN_STATUS = "UNKNOWN_STATUS"  # the broker says of an order what no version of this program has heard of


class DifferenceKind(StrEnum):
    """Why the broker's account is not what the ledger says."""

    OPENING = "OPENING"  # what the account held before this ledger began
    MISSED_FILL = "MISSED_FILL"
    MANUAL_TRADE = "MANUAL_TRADE"
    MANUAL_ORDER = "MANUAL_ORDER"
    CORPORATE_ACTION = "CORPORATE_ACTION"
    CASH = "CASH"
    UNKNOWN = "UNKNOWN"


# One row per bar length: its name in files, streams and settings, and how long it lasts.
INTERVALS: dict[str, timedelta] = {
    "1s": timedelta(seconds=1),
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "30m": timedelta(minutes=30),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}


class Bar(msgspec.Struct, frozen=True, gc=False):
    """One interval's trades. `start_at` is its first instant (aware UTC); it is known only once it has closed, at `end_at`."""

    symbol: Symbol
    interval: str  # a key of INTERVALS
    start_at: datetime
    open: Price
    high: Price
    low: Price
    close: Price
    volume: int  # whole shares
    provider: str  # "file", "synthetic", "alpaca"

    @property
    def end_at(self) -> datetime:
        return self.start_at + INTERVALS[self.interval]


def microseconds(at: datetime) -> int:
    """An aware time as whole microseconds since 1970 UTC: how the log's columns store it."""
    return (at - EPOCH) // MICROSECOND


def from_microseconds(value: int) -> datetime:
    return EPOCH + value * MICROSECOND


def iso(at: datetime) -> str:
    """ISO-8601 with Z, as every program-readable output prints a time."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def plain(number: Decimal) -> str:
    """A decimal without exponent or trailing zeros: 1E+3 is "1000", 1.50 is "1.5"."""
    text = str(number)
    if "E" in text:
        text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text
