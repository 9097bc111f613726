"""Historical bars as Alpaca's REST gives them: longer bars made from those that were played, page by page.

`limit` counts all symbols together; rows come by symbol, then by time. A bar that has not ended is left out, as is one of which
nothing was played. To add a timeframe, add a row to `UNITS`.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from types import MappingProxyType
from typing import Any

from msgspec import structs

from mqd_ledger.loopback.clock import NEW_YORK
from mqd_ledger.loopback.market import Market
from mqd_ledger.loopback.tickets import INVALID, Refused
from mqd_ledger.loopback.views import bar_json
from mqd_ledger.sessions import midnight
from mqd_ledger.values import Bar, Symbol

LIMIT_DEFAULT, LIMIT_MAX = 1000, 10_000
TIMEFRAME = re.compile(r"(\d+)(Min|T|Hour|H|Day|D|Week|W)")
FRACTION = re.compile(r"\.(\d+)")
WEEK = timedelta(days=7)


def _minutes(count: int) -> Callable[[datetime], datetime]:
    """Counted from New York's midnight, so that an hour begins at the full hour there."""

    def start(at: datetime) -> datetime:
        day = midnight(at, "exchange")
        return day + (at - day) // timedelta(minutes=count) * timedelta(minutes=count)

    return start


def _day(at: datetime) -> datetime:
    return midnight(at, "exchange")


def _week(at: datetime) -> datetime:
    local = at.astimezone(NEW_YORK)
    return midnight(at - timedelta(days=local.weekday()), "exchange")


UNITS: Mapping[str, Callable[[int], Callable[[datetime], datetime]]] = MappingProxyType(
    {
        "Min": _minutes,
        "T": _minutes,
        "Hour": lambda count: _minutes(60 * count),
        "H": lambda count: _minutes(60 * count),
        "Day": lambda _count: _day,
        "D": lambda _count: _day,
        "Week": lambda _count: _week,
        "W": lambda _count: _week,
    }
)


def comparable(text: str) -> str:
    """A time with up to nine digits as text that sorts like `nanosecond_text`."""
    digits = FRACTION.search(text)
    at = datetime.fromisoformat(FRACTION.sub("", text))
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{(digits[1] if digits else '')[:9]:0<9}Z"


def symbols_of(query: Mapping[str, str]) -> list[Symbol]:
    symbols = sorted({symbol for symbol in query.get("symbols", "").upper().split(",") if symbol})
    if not symbols:
        raise Refused(400, INVALID, "symbols is required")
    return symbols


def bars_page(market: Market, query: Mapping[str, str]) -> dict[str, Any]:
    """The answer to GET /stocks/bars."""
    symbols = symbols_of(query)
    start_of = _timeframe(query.get("timeframe", ""))
    text = query.get("limit") or str(LIMIT_DEFAULT)
    if not text.isdecimal() or not 0 < int(text) <= LIMIT_MAX:
        raise Refused(400, INVALID, f"invalid limit: it is 1 to {LIMIT_MAX}")
    start, end = (_time(query.get(name)) for name in ("start", "end"))
    newest_first = query.get("sort") == "desc"
    after = _read_token(query.get("page_token"))
    found = [
        bar
        for symbol in symbols
        for bar in _sorted(_longer(market.history.get(symbol, ()), start_of), newest_first=newest_first)
        if (start is None or bar.start_at >= start) and (end is None or bar.start_at <= end)
    ]
    if after is not None:
        places = [(bar.symbol, bar.start_at) for bar in found]
        found = found[places.index(after) + 1 :] if after in places else []
    page, rest = found[: int(text)], found[int(text) :]
    bars: dict[str, list[dict[str, Any]]] = {}
    for bar in page:
        bars.setdefault(bar.symbol, []).append(bar_json(bar))
    return {"bars": bars, "next_page_token": _token(page[-1]) if rest else None}


def _timeframe(text: str) -> Callable[[datetime], datetime]:
    match = TIMEFRAME.fullmatch(text)
    if match is None or not int(match[1]):
        raise Refused(400, INVALID, f"invalid timeframe: {text}")
    return UNITS[match[2]](int(match[1]))


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Refused(400, INVALID, f"invalid time: {text}") from error
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _sorted(bars: Iterable[Bar], *, newest_first: bool) -> Iterable[Bar]:
    return reversed(list(bars)) if newest_first else bars


def _longer(bars: Iterable[Bar], start_of: Callable[[datetime], datetime]) -> Iterator[Bar]:
    for start, group in groupby(bars, lambda bar: start_of(bar.start_at)):
        parts = list(group)
        yield structs.replace(
            parts[0],
            start_at=start,
            high=max(bar.high for bar in parts),
            low=min(bar.low for bar in parts),
            close=parts[-1].close,
            volume=sum(bar.volume for bar in parts),
        )


def _token(last: Bar) -> str:
    return base64.urlsafe_b64encode(f"{last.symbol}|{last.start_at.isoformat()}".encode()).decode()


def _read_token(token: str | None) -> tuple[Symbol, datetime] | None:
    if not token:
        return None
    try:
        symbol, _, at = base64.urlsafe_b64decode(token).decode().partition("|")
        return symbol, datetime.fromisoformat(at)
    except (ValueError, binascii.Error) as error:
        raise Refused(400, INVALID, "invalid page_token") from error
