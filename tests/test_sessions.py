"""The calendar: every session's hours, half days, holidays and daylight saving, against two independent sources."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from mqd_ledger.errors import BadInput
from mqd_ledger.sessions import (
    HORIZON,
    is_extended,
    is_regular,
    midnight,
    next_session,
    session_at,
    session_on,
    sessions_between,
)

NEW_YORK = ZoneInfo("America/New_York")
MARKET_HOURS = Path(__file__).resolve().parents[2] / "shared/data/lean/market_hours_equity_usa.json"


def at(text: str) -> datetime:
    """A time in New York."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between exchange_calendars and pandas, none of ours
def test_every_session_from_1998_to_2027_opens_and_closes_as_exchange_calendars_says() -> None:
    exchange_calendars = pytest.importorskip("exchange_calendars", reason="exchange_calendars is a dev dependency")
    calendar = exchange_calendars.get_calendar("XNYS", start="1998-01-01", end="2027-12-31")
    theirs = [
        (label.date(), calendar.opens[label].to_pydatetime(), calendar.closes[label].to_pydatetime())
        for label in calendar.sessions
    ]
    ours = [(s.date, s.open_at, s.close_at) for s in sessions_between(date(1998, 1, 1), date(2027, 12, 31))]
    assert len(ours) > 7500
    assert ours == theirs


@pytest.mark.skipif(not MARKET_HOURS.exists(), reason="the shared market data is not on this machine")
def test_holidays_and_half_days_agree_with_a_second_source() -> None:
    hours = json.loads(MARKET_HOURS.read_text(encoding="utf-8"))

    def dates(texts: list[str]) -> set[date]:
        parsed = (date(int(y), int(m), int(d)) for m, d, y in (text.split("/") for text in texts))
        return {day for day in parsed if day.weekday() < 5 and 2000 <= day.year <= 2027}

    days = (date(2000, 1, 1) + timedelta(days=n) for n in range(28 * 365 + 7))
    holidays = {day for day in days if day.weekday() < 5 and session_on(day) is None}
    assert holidays == dates(hours["holidays"])
    every = list(sessions_between(date(2000, 1, 1), date(2027, 12, 31)))
    assert {s.date for s in every if s.close_at - s.open_at < timedelta(hours=6.5)} == dates(list(hours["earlyCloses"]))


def test_regular_hours_include_the_open_and_exclude_the_close() -> None:
    assert not is_regular(at("2024-01-17T09:29:59.999999"))
    assert is_regular(at("2024-01-17T09:30"))
    assert is_regular(at("2024-01-17T15:59:59.999999"))
    assert not is_regular(at("2024-01-17T16:00"))
    session = session_at(at("2024-07-17T12:00"))
    assert session is not None
    assert session.open_at == datetime(2024, 7, 17, 13, 30, tzinfo=UTC)


def test_extended_hours_run_from_four_to_eight_and_to_five_on_half_days() -> None:
    for day in ("2024-01-17", "2024-07-17"):  # in winter they end at 01:00 UTC of the next day, in summer at 00:00
        assert not is_extended(at(f"{day}T03:59:59"))
        assert is_extended(at(f"{day}T04:00"))
        assert is_extended(at(f"{day}T12:00"))
        assert is_extended(at(f"{day}T19:59:59"))
        assert not is_extended(at(f"{day}T20:00"))
    assert is_extended(at("2024-11-29T16:59"))
    assert not is_extended(at("2024-11-29T17:00"))
    assert not is_extended(at("2024-12-25T12:00"))


def test_the_next_session_skips_weekends_and_holidays() -> None:
    assert next_session(at("2024-12-24T09:29")).date == date(2024, 12, 24)
    assert next_session(at("2024-12-24T09:30")).date == date(2024, 12, 26)
    assert next_session(at("2025-01-08T20:00")).date == date(2025, 1, 10)  # a day of mourning between
    assert next_session(at("2024-03-08T23:30")).date == date(2024, 3, 11)


def test_a_date_past_the_horizon_is_refused_with_the_range_that_is_known() -> None:
    with pytest.raises(BadInput, match=r"knows 1990-01-01 to 2028-12-31, but 2029-01-01"):
        session_on(HORIZON + timedelta(days=1))
    with pytest.raises(BadInput, match="2029-01-01"):
        next_session(datetime(2028, 12, 30, tzinfo=UTC))
    with pytest.raises(BadInput, match="1989-12-29"):
        session_on(date(1989, 12, 29))


def test_midnight_in_new_york_is_right_on_every_day_and_around_each_change_of_clocks() -> None:
    for days in range(39 * 365):
        noon = datetime(1990, 1, 1, 12, tzinfo=NEW_YORK) + timedelta(days=days)  # wall clock arithmetic
        start = noon.replace(hour=0).astimezone(UTC)
        assert midnight(start, "exchange") == midnight(noon, "exchange") == start
        assert midnight(start - timedelta(microseconds=1), "exchange") < start
    assert midnight(at("2024-01-17T20:30"), "utc") == datetime(2024, 1, 18, tzinfo=UTC)


def test_a_time_in_any_zone_is_understood() -> None:
    assert is_regular(datetime(2024, 1, 17, 23, 45, tzinfo=ZoneInfo("Asia/Tokyo"))) is True
    assert is_regular(datetime(2024, 1, 18, 6, 30, tzinfo=ZoneInfo("Asia/Tokyo"))) is False
