"""When the US stock market is open: sessions, holidays, half days and New York's daylight saving, 1990 to 2028.

    session_on(date)            that day's session, or None on a weekend or holiday
    session_at(at)              the session whose regular hours hold that instant, or None
    next_session(at)            the first session that opens after that instant
    sessions_between(a, b)      every session from date a to date b, both included
    is_regular / is_extended    may one trade in regular hours (09:30-16:00) or in extended ones (04:00-20:00)?
    closes_at(bar)              when a bar is known
    midnight(at, "exchange")    when the day that holds that instant began, in New York or UTC

Every weekday is a session, but for the tables below. They are printed by `tools/make_calendar.py`, and a test compares
every session with exchange_calendars, which knows of no late opening since 1990. New York's offset is computed, so
no time zone database is needed.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Literal

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.values import INTERVALS, Bar

FIRST_DATE = date(1990, 1, 1)
HORIZON = date(2028, 12, 31)  # the last date whose hours are known

# Weekdays on which the exchange stays closed: year -> months and days.
HOLIDAYS = {
    1990: "0101 0219 0413 0528 0704 0903 1122 1225",
    1991: "0101 0218 0329 0527 0704 0902 1128 1225",
    1992: "0101 0217 0417 0525 0703 0907 1126 1225",
    1993: "0101 0215 0409 0531 0705 0906 1125 1224",
    1994: "0221 0401 0427 0530 0704 0905 1124 1226",
    1995: "0102 0220 0414 0529 0704 0904 1123 1225",
    1996: "0101 0219 0405 0527 0704 0902 1128 1225",
    1997: "0101 0217 0328 0526 0704 0901 1127 1225",
    1998: "0101 0119 0216 0410 0525 0703 0907 1126 1225",
    1999: "0101 0118 0215 0402 0531 0705 0906 1125 1224",
    2000: "0117 0221 0421 0529 0704 0904 1123 1225",
    2001: "0101 0115 0219 0413 0528 0704 0903 0911 0912 0913 0914 1122 1225",
    2002: "0101 0121 0218 0329 0527 0704 0902 1128 1225",
    2003: "0101 0120 0217 0418 0526 0704 0901 1127 1225",
    2004: "0101 0119 0216 0409 0531 0611 0705 0906 1125 1224",
    2005: "0117 0221 0325 0530 0704 0905 1124 1226",
    2006: "0102 0116 0220 0414 0529 0704 0904 1123 1225",
    2007: "0101 0102 0115 0219 0406 0528 0704 0903 1122 1225",
    2008: "0101 0121 0218 0321 0526 0704 0901 1127 1225",
    2009: "0101 0119 0216 0410 0525 0703 0907 1126 1225",
    2010: "0101 0118 0215 0402 0531 0705 0906 1125 1224",
    2011: "0117 0221 0422 0530 0704 0905 1124 1226",
    2012: "0102 0116 0220 0406 0528 0704 0903 1029 1030 1122 1225",
    2013: "0101 0121 0218 0329 0527 0704 0902 1128 1225",
    2014: "0101 0120 0217 0418 0526 0704 0901 1127 1225",
    2015: "0101 0119 0216 0403 0525 0703 0907 1126 1225",
    2016: "0101 0118 0215 0325 0530 0704 0905 1124 1226",
    2017: "0102 0116 0220 0414 0529 0704 0904 1123 1225",
    2018: "0101 0115 0219 0330 0528 0704 0903 1122 1205 1225",
    2019: "0101 0121 0218 0419 0527 0704 0902 1128 1225",
    2020: "0101 0120 0217 0410 0525 0703 0907 1126 1225",
    2021: "0101 0118 0215 0402 0531 0705 0906 1125 1224",
    2022: "0117 0221 0415 0530 0620 0704 0905 1124 1226",
    2023: "0102 0116 0220 0407 0529 0619 0704 0904 1123 1225",
    2024: "0101 0115 0219 0329 0527 0619 0704 0902 1128 1225",
    2025: "0101 0109 0120 0217 0418 0526 0619 0704 0901 1127 1225",
    2026: "0101 0119 0216 0403 0525 0619 0703 0907 1126 1225",
    2027: "0101 0118 0215 0326 0531 0618 0705 0906 1125 1224",
    2028: "0117 0221 0414 0529 0619 0704 0904 1123 1225",
}
# Half days, which end at one o'clock in New York; and those that ended at two.
CLOSES_AT_13 = {
    1993: "1126",
    1994: "1125",
    1995: "0703 1124",
    1996: "0705 1129 1224",
    1997: "0703 1128 1224 1226",
    1998: "1127 1224",
    1999: "1126 1231",
    2000: "0703 1124",
    2001: "0703 1123 1224",
    2002: "0705 1129 1224",
    2003: "0703 1128 1224 1226",
    2004: "1126",
    2005: "1125",
    2006: "0703 1124",
    2007: "0703 1123 1224",
    2008: "0703 1128 1224",
    2009: "1127 1224",
    2010: "1126",
    2011: "1125",
    2012: "0703 1123 1224",
    2013: "0703 1129 1224",
    2014: "0703 1128 1224",
    2015: "1127 1224",
    2016: "1125",
    2017: "0703 1124",
    2018: "0703 1123 1224",
    2019: "0703 1129 1224",
    2020: "1127 1224",
    2021: "1126",
    2022: "1125",
    2023: "0703 1124",
    2024: "0703 1129 1224",
    2025: "0703 1128 1224",
    2026: "1127 1224",
    2027: "1126",
    2028: "0703 1124",
}
CLOSES_AT_14 = {
    1990: "1224",
    1991: "1224",
    1992: "1127 1224",
}

_DAY = timedelta(days=1)
_OPEN, _CLOSE = timedelta(hours=9, minutes=30), timedelta(hours=16)
_STANDARD, _SUMMER = timedelta(hours=5), timedelta(hours=4)  # how far New York is behind UTC
_BEFORE_OPEN, _AFTER_CLOSE = timedelta(hours=5, minutes=30), timedelta(hours=4)  # extended hours on either side


class Session(msgspec.Struct, frozen=True):
    """One day of trading in regular hours: open_at <= t < close_at, both aware UTC."""

    date: date
    open_at: datetime
    close_at: datetime

    @property
    def extended_open_at(self) -> datetime:
        """04:00 in New York."""
        return self.open_at - _BEFORE_OPEN

    @property
    def extended_close_at(self) -> datetime:
        """20:00 in New York; 17:00 on a half day."""
        return self.close_at + _AFTER_CLOSE


def _dates(table: dict[int, str]) -> frozenset[date]:
    return frozenset(date(year, int(md[:2]), int(md[2:])) for year, days in table.items() for md in days.split())


_HOLIDAYS = _dates(HOLIDAYS)
_CLOSES = dict.fromkeys(_dates(CLOSES_AT_13), timedelta(hours=13)) | dict.fromkeys(
    _dates(CLOSES_AT_14), timedelta(hours=14)
)


def _sunday(year: int, month: int, day: int) -> date:
    """The first Sunday on or after that date."""
    first = date(year, month, day)
    return first + timedelta(days=(6 - first.weekday()) % 7)


@cache
def _summer_time(year: int) -> tuple[date, date]:
    """The Sundays on which clocks go forward and back, at two in the morning: the law of 1987, then that of 2007."""
    if year >= 2007:
        return _sunday(year, 3, 8), _sunday(year, 11, 1)
    return _sunday(year, 4, 1), _sunday(year, 10, 25)


def _midnight_in_new_york(day: date) -> datetime:
    """Both changes come at two o'clock, so the Sunday's midnight still has the old offset."""
    forward, back = _summer_time(day.year)
    behind = _SUMMER if forward < day <= back else _STANDARD
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + behind


def midnight(at: datetime, day_starts: Literal["utc", "exchange"]) -> datetime:
    """The start of the day that holds that instant, midnight in UTC or in New York."""
    at = at.astimezone(UTC)
    if day_starts == "utc":
        return at.replace(hour=0, minute=0, second=0, microsecond=0)
    today = _midnight_in_new_york(at.date())
    return today if today <= at else _midnight_in_new_york(at.date() - _DAY)


@cache
def session_on(day: date) -> Session | None:
    if not FIRST_DATE <= day <= HORIZON:
        raise BadInput(
            f"The exchange calendar knows {FIRST_DATE} to {HORIZON}, but {day} was asked for. "
            "Use data inside that range, or extend the tables in mqd_ledger/sessions.py with tools/make_calendar.py."
        )
    if day.weekday() >= 5 or day in _HOLIDAYS:
        return None
    forward, back = _summer_time(day.year)
    behind = _SUMMER if forward < day < back else _STANDARD
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) + behind
    return Session(day, start + _OPEN, start + _CLOSES.get(day, _CLOSE))


def _session_near(at: datetime) -> Session | None:
    """The session of that instant's date in New York; an hour's error after midnight matters to no session."""
    return session_on((at.astimezone(UTC) - _STANDARD).date())


def session_at(at: datetime) -> Session | None:
    session = _session_near(at)
    return session if session is not None and session.open_at <= at < session.close_at else None


def is_regular(at: datetime) -> bool:
    return session_at(at) is not None


def is_extended(at: datetime) -> bool:
    """Whether an instant is in a session's long day, regular hours included."""
    session = _session_near(at)
    return session is not None and session.extended_open_at <= at < session.extended_close_at


def next_session(after: datetime) -> Session:
    day = (after.astimezone(UTC) - _STANDARD).date()
    while True:
        session = session_on(day)  # raises beyond the horizon
        if session is not None and session.open_at > after:
            return session
        day += _DAY


def sessions_between(first_date: date, last_date: date) -> Iterator[Session]:
    day = first_date
    while day <= last_date:
        session = session_on(day)
        if session is not None:
            yield session
        day += _DAY


def closes_at(bar: Bar) -> datetime:
    """When a bar is known: at its end, and a daily one at the close of its session, not at the midnight after it."""
    if bar.interval == "1d" and FIRST_DATE <= (day := bar.start_at.date()) <= HORIZON and (session := session_on(day)):
        return session.close_at
    return bar.start_at + INTERVALS[bar.interval]  # bar.end_at without the call: every bar comes by here
