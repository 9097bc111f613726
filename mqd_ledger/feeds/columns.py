"""Find out what a bar file holds: which column is which, how its times are written, how long its bars are.

Everything found is stated in a `Detection`, so that a user sees what was understood and can say otherwise. To add a
name for a column, add it to its row in `NAMES`; to add a way of writing times, add a row to `TIME_FORMATS`.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.validation import check_symbol, on_grid, shortest_gap, shown
from mqd_ledger.values import EPOCH, INTERVALS

# What a column is called in the files of Alpaca, Yahoo, pandas, LEAN and ourselves, in lower case; the first counts.
NAMES: Mapping[str, tuple[str, ...]] = {
    "symbol": ("symbol", "ticker", "s"),
    "timestamp": ("timestamp", "datetime", "date_time", "start_at", "t"),
    "date": ("date", "day"),
    "time": ("time",),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c"),
    "volume": ("volume", "vol", "v"),
    "interval": ("interval",),
    "provider": ("provider",),
}
REQUIRED = ("open", "high", "low", "close", "volume")
NOT_A_SYMBOL = {"BAR", "BARS", "CSV", "DATA", "INPUT", "OHLC", "OHLCV", "PRICE", "SAMPLE", "STOCK", "TEST", "TRADE"}
NEW_YORK = "America/New_York"

TimeParser = Callable[[str], datetime]


class Detection(msgspec.Struct, frozen=True):
    """What was understood of a file. Printing it gives one line for each thing found."""

    path: str
    form: str  # "CSV" or "Parquet"
    delimiter: str | None
    columns: dict[str, str]  # meaning -> the column's own name
    ignored: tuple[str, ...]
    time_format: str
    zone: str
    interval: str
    interval_from: str
    symbols: tuple[str, ...]
    symbol_from: str
    order: str

    def sentences(self) -> list[str]:
        names = ", ".join(self.symbols[:12]) + (f" and {len(self.symbols) - 12} more" if len(self.symbols) > 12 else "")
        split = {"\t": "tab", None: None}.get(self.delimiter, self.delimiter)
        lines = {
            "file": f"{self.path} ({self.form}{f', separated by {split}' if split else ''})",
            "columns": ", ".join(f"{what}={name}" for what, name in self.columns.items()),
            "ignored": ", ".join(self.ignored),
            "times": f"{self.time_format}, zone {self.zone}",
            "interval": f"{self.interval} ({self.interval_from})",
            "symbols": f"{names} ({self.symbol_from})",
            "order": self.order,
        }
        return [f"{name}: {text}" for name, text in lines.items() if text]

    def __str__(self) -> str:
        return "\n".join(self.sentences())


def find_columns(names: Sequence[str], path: str) -> dict[str, int]:
    """Meaning -> place in the row. A table with the date and the time in two columns gives both."""
    lowered = [name.strip().strip('"').lower() for name in names]
    found: dict[str, int] = {}
    for meaning, aliases in NAMES.items():
        place = next((lowered.index(alias) for alias in aliases if alias in lowered), None)
        if place is not None:
            found[meaning] = place
    missing = [meaning for meaning in REQUIRED if meaning not in found]
    if not {"timestamp", "date", "time"} & set(found):
        missing.insert(0, "timestamp")
    if missing:
        raise BadInput(
            f"{path} has no column for {', '.join(missing)}; its first line is {shown(','.join(names))}. "
            "Give it a header with symbol, timestamp, open, high, low, close and volume."
        )
    if "timestamp" in found:
        found.pop("date", None)
        found.pop("time", None)
    return found


def time_columns(found: Mapping[str, int]) -> list[int]:
    """The one place of the timestamp, or the two of date and time."""
    return [found[name] for name in ("timestamp", "date", "time") if name in found]


# --- how times are written -------------------------------------------------------------------------------------------

_CLOCK = r"[T ]\d{2}:?\d{2}(:?\d{2}([.,]\d+)?)?"
_DATE = r"\d{4}-?\d{2}-?\d{2}"
TIME_FORMATS: Mapping[str, re.Pattern[str]] = {
    "ISO-8601, UTC": re.compile(rf"{_DATE}{_CLOCK}(Z|[+-]00:?00)"),
    "ISO-8601 with offset": re.compile(rf"{_DATE}{_CLOCK}[+-]\d{{2}}(:?\d{{2}})?"),
    "ISO-8601 without zone": re.compile(rf"{_DATE}{_CLOCK}"),
    "dates": re.compile(_DATE),
    "seconds since 1970": re.compile(r"\d{9,10}"),
    "milliseconds since 1970": re.compile(r"\d{12,13}"),
    "microseconds since 1970": re.compile(r"\d{15,16}"),
    "nanoseconds since 1970": re.compile(r"\d{18,19}"),
}
_PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def time_format(text: str) -> str | None:
    return next((name for name, pattern in TIME_FORMATS.items() if pattern.fullmatch(text)), None)


def find_time_format(samples: Sequence[str], path: str) -> str:
    """The format of most of the first rows; rows written otherwise are rejected one by one later."""
    known = Counter(name for name in map(time_format, samples) if name is not None)
    if not known:
        raise BadInput(
            f"{path}: the time {shown(samples[0])} is not understood. Times are ISO-8601 (2024-01-17T14:30:00Z, "
            "2024-01-17 09:30:00-05:00, 2024-01-17) or whole seconds, milli-, micro- or nanoseconds since 1970."
        )
    return known.most_common(1)[0][0]


def find_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInput(f"{name!r} is no time zone. Pass --zone {NEW_YORK} or UTC.") from None


def time_parser(form: str, zone: str | None, path: str, first_line: int) -> tuple[TimeParser, str]:
    """A function from text to aware UTC time, which raises ValueError, and the zone it reads times in."""
    if form == "ISO-8601, UTC":
        return datetime.fromisoformat, "UTC"  # whoever calls checks that the result is UTC
    if form == "ISO-8601 with offset":
        return _with_offset, "as written"
    if form == "dates":
        return _local(find_zone(zone or NEW_YORK), _whole_day), zone or f"{NEW_YORK} (dates of sessions)"
    if form == "ISO-8601 without zone":
        if zone is None:
            raise BadInput(
                f"{path}: the times have no zone, from line {first_line} on, so nobody can tell when those bars were. "
                f"Pass --zone {NEW_YORK} if they are exchange time, or --zone UTC."
            )
        return _local(find_zone(zone), _wall_clock), zone
    return _epoch(_PER_SECOND[form.split(" ", 1)[0]]), "UTC"


def _with_offset(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(text)
    return at.astimezone(UTC)


def _epoch(per_second: int) -> TimeParser:
    def parse(text: str) -> datetime:
        seconds, rest = divmod(int(text), per_second)
        try:
            at = datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, OSError):
            raise ValueError(text) from None
        return at + timedelta(microseconds=rest * 1_000_000 // per_second) if rest else at

    return parse


def _wall_clock(text: str) -> datetime:
    return datetime.fromisoformat(text + "Z")  # which fails where a zone is written


def _whole_day(text: str) -> datetime:
    day = date.fromisoformat(text)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _local(zone: ZoneInfo, read: TimeParser) -> TimeParser:
    """Wall clock time to UTC. A day's offset is looked up once; on a day when clocks change, every time is."""
    behind: dict[date, timedelta | None] = {}

    def parse(text: str) -> datetime:
        wall = read(text)  # the wall clock's figures, called UTC for now
        day = wall.date()
        if day not in behind:
            ends = [_offset(wall.replace(hour=hour, minute=0, second=0, microsecond=0), zone) for hour in (0, 23)]
            behind[day] = ends[0] if ends[0] == ends[1] else None
        offset = behind[day]
        return wall - (offset if offset is not None else _offset_of(wall, zone))

    return parse


def _offset(wall: datetime, zone: ZoneInfo) -> timedelta:
    return wall.replace(tzinfo=zone).utcoffset() or timedelta(0)


def _offset_of(wall: datetime, zone: ZoneInfo) -> timedelta:
    """Raises ValueError for a time that the clocks of that zone show twice or never."""
    offset = _offset(wall, zone)
    if wall.replace(tzinfo=zone, fold=1).utcoffset() != offset:
        raise ValueError(
            f"{wall:%Y-%m-%d %H:%M} is shown twice or never by the clocks of {zone}, which change that day"
        )
    return offset


# --- how long the bars are, and whose they are -----------------------------------------------------------------------


def find_interval(starts: Mapping[str, Sequence[datetime]], path: str) -> str:
    """The longest interval that the first rows agree with, nineteen of twenty: a stray row must not decide it."""
    pairs = [(later, later - at) for times in starts.values() for at, later in pairwise(times) if later > at]
    if not pairs:
        raise BadInput(f"{path} has one bar of each symbol, so their length cannot be told. Pass --interval 1m, say.")
    for interval in reversed(INTERVALS):
        shortest = shortest_gap(interval)
        if sum(gap >= shortest and on_grid(at, interval) for at, gap in pairs) >= 0.95 * len(pairs):
            return interval
    starts_at = (pairs[0][0] - EPOCH) % timedelta(minutes=1)
    raise BadInput(
        f"{path}: the bars fit none of the lengths {', '.join(INTERVALS)} (one starts {starts_at.total_seconds()} s "
        "after a full minute). The timestamp is a bar's start; pass --interval to have other rows rejected one by one."
    )


def check_interval(interval: str) -> str:
    if interval not in INTERVALS:
        raise BadInput(f"{interval!r} is no bar length. Allowed: {', '.join(INTERVALS)}.")
    return interval


def symbol_from_name(stem: str, path: str) -> str:
    """SPY_1min.csv and spy.csv are about SPY; data.csv says nothing."""
    name = re.split(r"[_\s]", stem, maxsplit=1)[0].upper()
    if not re.fullmatch(r"[A-Z]{1,5}([.-][A-Z])?", name) or name.rstrip("S") in NOT_A_SYMBOL or name in NOT_A_SYMBOL:
        raise BadInput(f"{path} has no symbol column and its name does not begin with one. Pass --symbol SPY, say.")
    return check_symbol(name)
