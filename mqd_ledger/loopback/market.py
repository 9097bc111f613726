"""The market: bars that are played one after another, the price of the moment that follows from them, quotes, history, halts.

Nobody sees a bar before its end. What is known before is its open, which is the price from its start on. Between bars the price is
the last close. Bars are read a day ahead and no further, so a file of any length can be played.
"""

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from msgspec import structs

from mqd_ledger.errors import BadInput
from mqd_ledger.loopback.chance import draw
from mqd_ledger.loopback.clock import NEW_YORK, MarketClock
from mqd_ledger.sessions import closes_at, next_session, session_at
from mqd_ledger.values import CENT, EPOCH, Bar, Price, Symbol

BPS = Decimal("0.0001")
TENTH_OF_A_CENT = Decimal("0.0001")


class Quote(NamedTuple):
    symbol: Symbol
    at: datetime
    bid: Price
    bid_size: int
    ask: Price
    ask_size: int


class Status(NamedTuple):
    """A trading status: "H" with its reason, "T" when trading goes on."""

    symbol: Symbol
    at: datetime
    code: str
    message: str
    reason: str


def next_bell(after: datetime) -> datetime:
    """The next open or close of the exchange."""
    session = session_at(after)
    return session.close_at if session is not None else next_session(after).open_at


class Market:
    def __init__(self, bars: Iterable[object], clock: MarketClock, seed: int = 0) -> None:
        """`bars` in the order of their ends; what is no bar (a rejected row of a file) is passed over."""
        self._bars = (bar for bar in bars if isinstance(bar, Bar))
        self._ahead = next(self._bars, None)
        self.provider = "" if self._ahead is None else self._ahead.provider  # of all of them, as the first one has it
        self.clock = clock
        self.seed = seed
        self.played_until = clock.now()
        self.history: dict[Symbol, list[Bar]] = {}
        self.halted: set[Symbol] = set()
        self.dropped: set[Symbol] = set()  # symbols whose bars are lost for the time being: a gap in the data
        self.on_play: list[Callable[[datetime, list[Bar]], None]] = []  # at each end of a bar and each bell
        self.on_status: list[Callable[[Status], None]] = []
        self.on_correction: list[Callable[[Bar], None]] = []
        self._coming: deque[Bar] = deque()
        self._upcoming: dict[Symbol, deque[Bar]] = {}
        self._read_a_day()

    def _read_a_day(self) -> None:
        if self._ahead is None:
            return
        day = self._ahead.start_at.astimezone(NEW_YORK).date()
        while self._ahead is not None and self._ahead.start_at.astimezone(NEW_YORK).date() == day:
            self._coming.append(self._ahead)
            self._upcoming.setdefault(self._ahead.symbol, deque()).append(self._ahead)
            self._ahead = next(self._bars, None)

    @property
    def symbols(self) -> list[Symbol]:
        return sorted({*self.history, *self._upcoming})

    @property
    def is_over(self) -> bool:
        return not self._coming

    def due(self) -> datetime:
        """The next instant at which something happens: a bar ends, or the bell rings."""
        bell = next_bell(self.played_until)
        return min(closes_at(self._coming[0]), bell) if self._coming else bell

    def play(self, at: datetime) -> list[Bar]:
        """Everything that is due at an instant."""
        bars = self._take(at)
        self.played_until = max(self.played_until, at)
        for tell in self.on_play:
            tell(at, bars)
        return bars

    def _take(self, at: datetime) -> list[Bar]:
        bars: list[Bar] = []
        while self._coming and closes_at(self._coming[0]) <= at:
            bar = self._coming.popleft()
            self._upcoming[bar.symbol].popleft()
            if bar.symbol not in self.halted | self.dropped:  # nothing trades in a halt
                self.history.setdefault(bar.symbol, []).append(bar)
                bars.append(bar)
            if not self._coming:
                self._read_a_day()
        return bars

    def catch_up(self, at: datetime) -> None:
        """Put what was played before a restart into the history; nobody is told again."""
        self._take(at)
        self.played_until = max(self.played_until, at)

    def price(self, symbol: Symbol) -> Price | None:
        """The price of this moment, None for a symbol that the market does not know."""
        upcoming, history = self._upcoming.get(symbol), self.history.get(symbol)
        if upcoming and (not history or (upcoming[0].start_at <= self.clock.now() and symbol not in self.halted)):
            return upcoming[0].open
        return history[-1].close if history else None

    def last_day_close(self, symbol: Symbol) -> Price | None:
        """The last close of the session before this one."""
        today = self.clock.now().astimezone(NEW_YORK).date()
        for bar in reversed(self.history.get(symbol, [])):
            if bar.start_at.astimezone(NEW_YORK).date() < today:
                return bar.close
        return None

    def quote(self, symbol: Symbol, at: datetime) -> Quote | None:
        price = self.price(symbol)
        if price is None:
            return None
        step = CENT if price >= 1 else TENTH_OF_A_CENT
        half = max(step, (price * BPS).quantize(step))
        sizes = draw(2**16, self.seed, "quote", symbol, (at - EPOCH).total_seconds())
        return Quote(symbol, at, max(step, price - half), 1 + sizes % 20, price + half, 1 + sizes // 256 % 20)

    def halt(self, symbol: Symbol, reason: str = "Halt - News Pending") -> None:
        self._require(symbol)
        self.halted.add(symbol)
        self._tell_status(Status(symbol, self.clock.stamp(), "H", "Trading Halt", reason))

    def resume(self, symbol: Symbol) -> None:
        self.halted.discard(symbol)
        self._tell_status(Status(symbol, self.clock.stamp(), "T", "Trading Resumption", ""))

    def correct(self, symbol: Symbol, close: Price) -> Bar:
        """A late trade changes the last bar of a symbol: the `u` message with the bar as it is now."""
        self._require(symbol)
        if not self.history.get(symbol):
            raise BadInput(f"No bar of {symbol} has been played yet, so there is none to correct. Play one first.")
        last = self.history[symbol][-1]
        corrected = structs.replace(last, close=close, high=max(last.high, close), low=min(last.low, close))
        self.history[symbol][-1] = corrected
        for tell in self.on_correction:
            tell(corrected)
        return corrected

    def _tell_status(self, status: Status) -> None:
        for tell in self.on_status:
            tell(status)

    def _require(self, symbol: Symbol) -> None:
        if symbol not in self.history and symbol not in self._upcoming:
            raise BadInput(f"{symbol} is not traded here. The bars being played are of {', '.join(self.symbols)}.")
