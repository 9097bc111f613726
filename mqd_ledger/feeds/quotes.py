"""The last best bid and offer of each symbol, as the feed tells them: for whoever needs a price that is fresher than the last bar.

Quotes come by the thousand, so they are no events. Only the one that a decision needs is recorded, as `ReportQuote`, and from then
on it is what the decision was taken on. What is no price is not kept: one side empty, crossed, or so far apart that the middle of
both says nothing, as quotes of thin symbols and outside of trading hours are.

Written by the stream's thread, read by others: a quote is replaced as a whole.
"""

from datetime import datetime, timedelta
from decimal import Decimal

from msgspec import structs

from commands.market import ReportQuote
from mqd_ledger.state import Mark
from mqd_ledger.values import Price, Symbol

SPREAD_PERCENT_MAX = Decimal(5)
HUNDRED = Decimal(100)
AHEAD_MAX = timedelta(minutes=1)  # of our clock; a stamp further in the future would stay the last one until then


class QuoteBook:
    def __init__(self, spread_percent_max: Decimal = SPREAD_PERCENT_MAX) -> None:
        """`spread_percent_max` of the middle."""
        self._widest = spread_percent_max
        self._best: dict[Symbol, ReportQuote] = {}

    def take(self, quote: ReportQuote) -> None:
        if quote.bid <= 0 or quote.ask < quote.bid or self._is_wide(quote) or quote.occurred_at > quote.at + AHEAD_MAX:
            return
        known = self._best.get(quote.symbol)
        if known is None or quote.occurred_at >= known.occurred_at:
            self._best[quote.symbol] = quote

    def _is_wide(self, quote: ReportQuote) -> bool:
        return (quote.ask - quote.bid) * 2 * HUNDRED > (quote.ask + quote.bid) * self._widest

    def best(self, symbol: Symbol) -> ReportQuote | None:
        return self._best.get(symbol)

    def spread(self, symbol: Symbol) -> Price | None:
        quote = self._best.get(symbol)
        return None if quote is None else quote.ask - quote.bid

    def mid(self, symbol: Symbol) -> Price | None:
        quote = self._best.get(symbol)
        return None if quote is None else (quote.bid + quote.ask) / 2

    def age(self, symbol: Symbol, now: datetime) -> timedelta | None:
        quote = self._best.get(symbol)
        return None if quote is None else now - quote.occurred_at

    def needed(self, symbol: Symbol, mark: Mark | None, now: datetime, stale_after: int | None) -> ReportQuote | None:
        """The quote to record before a decision: where the mark is older than `stale_after` seconds and the quote is not. The
        exchange's clock may be ahead of ours; what it says of the future is of now.
        """
        quote = self._best.get(symbol)
        if quote is None or stale_after is None:
            return None
        oldest = now - timedelta(seconds=stale_after)
        if quote.occurred_at < oldest or (mark is not None and mark.at >= oldest):
            return None
        return structs.replace(quote, at=now, occurred_at=min(quote.occurred_at, now))
