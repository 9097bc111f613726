"""The ways to one broker's account, as the desk uses them; `app.py` makes one for Alpaca or for the loopback server."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mqd_ledger.brokers.alpaca import AlpacaBroker
from mqd_ledger.brokers.alpaca_stream import TradeUpdates
from mqd_ledger.events import Source
from mqd_ledger.feeds.alpaca import AlpacaFeed
from mqd_ledger.feeds.supervised import Sink
from mqd_ledger.feeds.validation import RejectedRow
from mqd_ledger.values import Bar, Symbol


@dataclass(frozen=True)
class Connection:
    source: Source  # of its bars
    environment: str  # "paper", "live", "loopback"
    broker: AlpacaBroker
    trades: Callable[[Sink], TradeUpdates]
    feed: Callable[[Sink], AlpacaFeed]
    history: Callable[
        [Mapping[Symbol, datetime | None], datetime], Sequence[Bar | RejectedRow]
    ]  # bars after those, up to a time
    symbols: tuple[Symbol, ...]
    clock: Callable[[], datetime]
    rate: Callable[[], float] = lambda: 1.0  # seconds of that clock in a second of the wall's
    is_over: Callable[[], bool] = lambda: False  # a market played from a file comes to an end
