"""From rows of text to bars, quickly: the one loop that every bar file, CSV or Parquet, goes through.

The loop does every test inline and builds the bar; a row that fails any of them goes to `validation.check`, which
takes it apart again slowly and says what is wrong (or finds that it is a bar after all, such as one with spaces
around a number).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import DecimalException
from operator import itemgetter
from typing import NamedTuple

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.columns import TimeParser
from mqd_ledger.feeds.validation import (
    LAST_INSTANT,
    NOTHING,
    PROVIDER,
    SYMBOL,
    VOLUME_MAX,
    Cells,
    Prices,
    RejectedRow,
    check,
    check_symbol,
    shown,
    whole_number,
)
from mqd_ledger.values import INTERVALS, Bar

Item = Bar | RejectedRow
NEVER = datetime.max.replace(tzinfo=UTC)  # later than any bar, so that a symbol's first bar gets the careful look


class Block(NamedTuple):
    """Some rows in a row: their line numbers, their cells, and how to get a row as it stands in the file."""

    numbers: Iterable[int]
    rows: Iterable[Sequence[str]]
    raw: Callable[[int, Sequence[str]], str]


class Layout(msgspec.Struct, frozen=True):
    """How to read a file's rows. Column places are -1 where there is no such column."""

    width: int
    symbol: int
    times: list[int]  # one place, or those of date and time
    numbers: list[int]  # open, high, low, close, volume
    interval_column: int
    provider_column: int
    constant_symbol: str
    interval: str
    parse_time: TimeParser
    time_format: str
    parse_volume: Callable[[str], int]
    now: datetime | None

    def picker(self) -> Callable[[Sequence[str]], Sequence[str]]:
        """A function from a row to its seven texts in the order of `Cells`."""
        if self.symbol >= 0 and len(self.times) == 1:
            return itemgetter(self.symbol, self.times[0], *self.numbers)
        numbers, symbol, place = itemgetter(*self.numbers), self.constant_symbol, self.symbol
        times = itemgetter(*self.times)
        stamp = times if len(self.times) == 1 else lambda row: "T".join(times(row))
        return lambda row: (row[place] if place >= 0 else symbol, stamp(row), *numbers(row))


def volume_parser(samples: Iterable[str]) -> Callable[[str], int]:
    """`int` where volumes are written as whole numbers, something slower where they are "1000.0"."""
    return whole_number if any("." in text or "e" in text.lower() for text in samples) else int


def read_rows(blocks: Iterable[Block], layout: Layout) -> Iterator[Item]:
    """Bars and rejected rows in the order of the rows; blank rows are passed over."""
    width, pick, parse_time, parse_volume = layout.width, layout.picker(), layout.parse_time, layout.parse_volume
    interval, step = layout.interval, INTERVALS[layout.interval]
    interval_column, provider_column = layout.interval_column, layout.provider_column
    latest = LAST_INSTANT if layout.now is None else min(LAST_INSTANT, layout.now - step + datetime.resolution)
    prices = Prices()
    last: dict[str, datetime] = {}  # symbol -> where its latest bar starts
    symbol, provider = "", "file"  # of the row before, so that each is looked at once
    before = NEVER  # last[symbol], kept at hand

    for numbers, rows, raw in blocks:
        for number, row in zip(numbers, rows, strict=True):
            try:
                its_symbol, stamp, open_text, high_text, low_text, close_text, volume_text = pick(row)
                if its_symbol != symbol:
                    if before is not NEVER:
                        last[symbol] = before
                    before, symbol = last.get(its_symbol, NEVER), its_symbol
                if provider_column >= 0 and row[provider_column] != provider:
                    provider = _provider(row[provider_column])
                start_at = parse_time(stamp)
                open_, high, low, close = prices[open_text], prices[high_text], prices[low_text], prices[close_text]
                volume = parse_volume(volume_text)
                gap = start_at - before
                if (
                    (gap == step or (gap > NOTHING and gap % step == NOTHING))
                    and low <= open_ <= high
                    and low <= close <= high
                    and 0 <= volume <= VOLUME_MAX
                    and start_at < latest
                    and len(row) == width
                    and start_at.tzinfo is UTC
                    and (interval_column < 0 or row[interval_column] == interval)
                ):
                    before = start_at
                    yield Bar(symbol, interval, start_at, open_, high, low, close, volume, provider)
                    continue
            except (ValueError, TypeError, IndexError, DecimalException):
                pass
            if before is not NEVER:
                last[symbol] = before
            item = _explain(number, row, raw(number, row), layout, last)
            if item is not None:
                yield item
            before = last.get(symbol, NEVER)


def _provider(name: str) -> str:
    if PROVIDER.fullmatch(name):
        return name
    raise ValueError(name)


def _explain(number: int, row: Sequence[str], raw: str, layout: Layout, last: dict[str, datetime]) -> Item | None:
    """What a row that the quick loop did not take is: nothing, a bar, or rejected for its first fault."""
    if not raw.strip():
        return None
    row = [(text or "").strip() for text in row]
    symbol: str | None = layout.constant_symbol or None
    try:
        if len(row) != layout.width:
            what = "cut short" if len(row) < layout.width else "too long"
            if 0 <= layout.symbol < len(row) and SYMBOL.fullmatch(row[layout.symbol]):
                symbol = row[layout.symbol]
            raise BadInput(f"the row is {what}: {len(row)} of {layout.width} columns")
        cells = Cells(*layout.picker()(row))
        symbol = check_symbol(cells.symbol)
        if layout.interval_column >= 0 and row[layout.interval_column] != layout.interval:
            raise BadInput(f"a bar of {shown(row[layout.interval_column])} in a file of {layout.interval}")
        provider = row[layout.provider_column] if layout.provider_column >= 0 else "file"
        bar = check(cells, _time(cells, layout), layout.interval, provider, last.get(symbol), layout.now)
    except BadInput as problem:
        return RejectedRow(number, raw, str(problem), symbol)
    last[symbol] = bar.start_at
    return bar


def _time(cells: Cells, layout: Layout) -> datetime:
    if not cells.timestamp:
        raise BadInput("the time is empty")
    try:
        at = layout.parse_time(cells.timestamp)
    except (ValueError, OverflowError) as problem:
        known = str(problem) if "clocks" in str(problem) else f"no time written as {layout.time_format}"
        raise BadInput(f"time {shown(cells.timestamp)}: {known}") from None
    if at.tzinfo is not UTC:
        raise BadInput(f"time {shown(cells.timestamp)} has no zone, or another one than the rows before it")
    return at
