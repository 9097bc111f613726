"""Alpaca's stream of market data: minute bars, their corrections, trading halts and, if wanted, quotes.

    feed = AlpacaFeed(keys, None, ["SPY"], inbox.put_nowait, clock, quotes=True).start()
    ("frame", "bars", raw, at)  ->  commands_of(raw, at)      on the thread that decides

The stream's thread only stamps and hands on. Quotes, of which there are many and of which only the last one counts, do not go
through the queue: they are in `feed.quotes`. Everything below `AlpacaFeed` is pure. Numbers come as floats; their shortest text is
what the exchange said, so that and nothing else becomes a decimal.

To take another message: a row in `READERS` and, if it has to be subscribed to, a line in `_make`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException
from types import MappingProxyType
from typing import Any, Protocol, Self

import msgspec

from commands import Command
from commands.market import ReportBadBar, ReportBar, ReportCorrectedBar, ReportQuote, ReportSymbolStatus
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.connection import Handler, Timing, Watched
from mqd_ledger.feeds.quotes import QuoteBook
from mqd_ledger.feeds.supervised import Sink, Supervised
from mqd_ledger.feeds.validation import Cells, check
from mqd_ledger.sessions import is_regular
from mqd_ledger.values import EPOCH, INTERVALS, Bar, Price

PROVIDER = "alpaca"
NAME = "bars"  # as the log calls this feed
INTERVAL = "1m"
CLOCK_AHEAD_MAX = timedelta(seconds=5)  # by so much the exchange's minute may end before ours
RAW_MAX = 500  # characters of an unusable message that are kept
# The two tapes' codes. What is not here, as "Q" for quotes before trading goes on, neither stops trading nor lets it go on.
IS_HALTED: Mapping[str, bool] = MappingProxyType({"2": True, "H": True, "P": True, "3": False, "T": False})


class AlpacaFeed:
    """`url` None is Alpaca itself. `quotes` are limited to 30 symbols by the free plan."""

    def __init__(  # noqa: PLR0913  what is asked for, and how it is watched
        self,
        keys: Keys,
        url: str | None,
        symbols: Sequence[str],
        sink: Sink,
        clock: Callable[[], datetime],
        *,
        feed: str = "iex",
        quotes: bool = False,
        expects: Callable[[], bool] | None = None,
        timing: Timing = Timing(),  # noqa: B008  frozen
    ) -> None:
        """`expects`: whether bars are due, by default in regular hours."""
        if not symbols:
            raise BadInput("A feed needs at least one symbol to ask for bars of.")
        self._keys, self._url, self._symbols, self._feed = keys, url, tuple(symbols), feed
        self._clock, self._wants_quotes = clock, quotes
        self.quotes = QuoteBook()
        self.stream = Supervised(
            NAME,
            self._make,
            sink,
            clock,
            decode=msgspec.msgpack.decode,
            expects=expects or (lambda: is_regular(clock())),
            timing=timing,
        )

    def start(self) -> Self:
        self.stream.start()
        return self

    def stop(self, timeout: float = 10) -> bool:
        return self.stream.stop(timeout)

    def _make(self, handle: Handler, websocket_params: Mapping[str, Any]) -> Watched:
        from alpaca.data.enums import DataFeed
        from alpaca.data.live.stock import StockDataStream

        class Stream(Watched, StockDataStream):
            pass

        stream = Stream(
            self._keys.key_id,
            self._keys.secret,
            raw_data=True,
            feed=DataFeed(self._feed),
            url_override=self._url,
            websocket_params=dict(websocket_params),
        )
        stream.subscribe_bars(handle, *self._symbols)
        stream.subscribe_updated_bars(handle, *self._symbols)
        stream.subscribe_trading_statuses(handle, *self._symbols)
        if self._wants_quotes:
            stream.subscribe_quotes(self._take_quote, *self._symbols)
        return stream

    async def _take_quote(self, raw: Any) -> None:
        quote = quote_of(raw, self._clock())
        if quote is not None:
            self.quotes.take(quote)


def commands_of(raw: Mapping[str, Any], at: datetime, *, regular_only: bool = True) -> list[Command]:
    """What one message tells the ledger; nothing for a bar before or after regular hours unless those are wanted too."""
    read = READERS.get(str(raw.get("T")))
    return [] if read is None else read(raw, at, regular_only)


def bar_of(raw: Mapping[str, Any], provider: str = PROVIDER) -> Bar:
    """A bar out of the stream or out of REST, or BadInput with the first reason why it is none."""
    texts = ["" if raw.get(key) is None else str(raw[key]) for key in "ohlcv"]
    return check(Cells(str(raw.get("S") or ""), "", *texts), instant_of(raw.get("t")), INTERVAL, provider, None, None)


class MessagePackTime(Protocol):
    seconds: int
    nanoseconds: int


def instant_of(time: Any) -> datetime:
    """Aware UTC, cut to microseconds: out of MessagePack's own type, or out of RFC 3339 with up to nine decimals."""
    try:
        if isinstance(time, str):
            instant = datetime.fromisoformat(time)
            if instant.tzinfo is None or instant.year < EPOCH.year:
                raise ValueError(time)
            return instant.astimezone(UTC)
        return EPOCH + timedelta(seconds=time.seconds, microseconds=time.nanoseconds // 1000)
    except (ValueError, AttributeError, OverflowError):
        raise BadInput(f"{str(time)[:60]!r} is not a time with its zone") from None


def _bar(raw: Mapping[str, Any], at: datetime, regular_only: bool) -> list[Command]:  # noqa: FBT001  one of a table's signature
    return _reported(raw, at, ReportBar, regular_only=regular_only)


def _corrected(raw: Mapping[str, Any], at: datetime, regular_only: bool) -> list[Command]:  # noqa: FBT001
    return _reported(raw, at, ReportCorrectedBar, regular_only=regular_only)


def _reported(
    raw: Mapping[str, Any], at: datetime, command: type[ReportBar] | type[ReportCorrectedBar], *, regular_only: bool
) -> list[Command]:
    try:
        bar = bar_of(raw)
        is_wanted = is_regular(bar.start_at) or not regular_only  # which knows no hours of times long past
    except BadInput as problem:
        return [bad_bar(raw, at, str(problem))]
    if not is_wanted:
        return []
    ends_at = bar.start_at + INTERVALS[INTERVAL]
    # A bar comes right after its minute by the exchange's clock, which may be a little ahead of ours.
    return [command(ends_at if at < ends_at <= at + CLOCK_AHEAD_MAX else at, bar)]


def bad_bar(raw: Mapping[str, Any], at: datetime, reason: str) -> ReportBadBar:
    symbol = raw.get("S")
    text = msgspec.json.encode(dict(raw), enc_hook=str).decode()[:RAW_MAX]
    return ReportBadBar(at, symbol if isinstance(symbol, str) else None, None, text, reason)


def quote_of(raw: Mapping[str, Any], at: datetime) -> ReportQuote | None:
    """None where it cannot be read: the next one comes in a moment."""
    try:
        bid, ask = _price(raw.get("bp")), _price(raw.get("ap"))
        occurred_at = instant_of(raw.get("t"))
    except BadInput:
        return None
    return ReportQuote(at, occurred_at, str(raw.get("S")), bid, _size(raw, "bs"), ask, _size(raw, "as"), PROVIDER)


def _price(value: Any) -> Price:
    try:
        price = Decimal(str(value))
    except DecimalException:
        raise BadInput(f"{str(value)[:60]!r} is not a price") from None
    if not price.is_finite():
        raise BadInput(f"{price} is not a price")
    return price


def _size(raw: Mapping[str, Any], key: str) -> int:
    size = raw.get(key)
    return int(size) if isinstance(size, int | float) and abs(size) < 2**53 else 0


def status_of(raw: Mapping[str, Any], at: datetime) -> ReportSymbolStatus | None:
    """None for what neither halts trading in a symbol nor lets it go on."""
    is_halted = IS_HALTED.get(str(raw.get("sc")))
    if is_halted is None or not isinstance(symbol := raw.get("S"), str):
        return None
    try:
        occurred_at = instant_of(raw.get("t"))
    except BadInput:
        occurred_at = at  # a halt counts, whatever its time looks like
    status, reason = (str(raw.get(key) or "")[:RAW_MAX] for key in ("sm", "rm"))
    return ReportSymbolStatus(at, occurred_at, symbol, is_halted, status, reason)


def _status(raw: Mapping[str, Any], at: datetime, _regular_only: bool) -> list[Command]:  # noqa: FBT001
    status = status_of(raw, at)
    return [] if status is None else [status]


READERS: Mapping[str, Callable[[Mapping[str, Any], datetime, bool], list[Command]]] = MappingProxyType(
    {"b": _bar, "u": _corrected, "s": _status}
)
