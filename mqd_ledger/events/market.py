"""What the market and its feed tell."""

from datetime import datetime

from mqd_ledger.events.base import Event
from mqd_ledger.values import Bar, Price, Symbol


class BarClosed(Event, frozen=True, gc=False):
    bar: Bar


class BarRejected(Event, frozen=True, gc=False):
    """A bar that no strategy ever saw: a row of a source (`line` and `raw`), or a whole bar that came too late or too early."""

    symbol: Symbol | None
    line: int | None
    raw: str
    reason: str
    bar: Bar | None = None


class BarCorrected(Event, frozen=True, gc=False):
    """The provider changed a bar that had closed: late trades. Strategies are not shown it again; the mark follows."""

    bar: Bar


class BarAggregated(Event, frozen=True, gc=False):
    """A bar of a longer interval, made from closed bars of a shorter one. Only strategies look at it."""

    bar: Bar


class QuoteTaken(Event, frozen=True, gc=False):
    """Best bid and offer at an instant, recorded where a decision needed a fresher price than that of the last bar."""

    symbol: Symbol
    bid: Price
    bid_size: int  # round lots or shares, as the feed has it: advisory
    ask: Price
    ask_size: int
    provider: str


class SymbolStatusChanged(Event, frozen=True, gc=False):
    """The exchange halted trading in a symbol, or lets it go on."""

    symbol: Symbol
    halted: bool
    status: str  # the exchange's own words
    reason: str


class FeedEvent(Event, frozen=True, gc=False):
    """The stream of market data itself."""

    feed: str  # "bars"


class FeedStale(FeedEvent, frozen=True, gc=False):
    """Nothing came for longer than is allowed while the market was open: no order goes out on what is known."""

    reason: str


class FeedRecovered(FeedEvent, frozen=True, gc=False):
    reason: str


class FeedGapFilled(FeedEvent, frozen=True, gc=False):
    """Bars that the stream did not bring were read from the provider's history: those recorded right before this event."""

    symbol: Symbol
    first_start_at: datetime
    last_start_at: datetime
    bars: int


class SessionEvent(Event, frozen=True, gc=False):
    """The exchange's day. `session` is its date in New York, as 2026-01-05."""

    session: str


class SessionOpened(SessionEvent, frozen=True, gc=False):
    closes_at: datetime


class SessionEnding(SessionEvent, frozen=True, gc=False):
    """The close is near and the policy says what has to be done before: no new order from here to the next session."""

    policy: str  # cancel, flatten


class SessionClosed(SessionEvent, frozen=True, gc=False):
    policy: str  # what was done with orders and positions before: hold, cancel, flatten
