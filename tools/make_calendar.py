"""Print the holidays and half days of `mqd_ledger/sessions.py` from exchange_calendars, to paste when there are more.

    python tools/make_calendar.py

After pasting, move `FIRST_DATE` and `HORIZON` along and run `tests/test_sessions.py`, which compares every session.
"""

from collections import defaultdict
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import exchange_calendars

from mqd_ledger.sessions import FIRST_DATE, HORIZON

NEW_YORK = ZoneInfo("America/New_York")


def table(name: str, dates: list[date]) -> str:
    """One row per year, each date as month and day: how the tables are written in the source."""
    years: defaultdict[int, list[str]] = defaultdict(list)
    for day in dates:
        years[day.year].append(f"{day:%m%d}")
    rows = "".join(f'    {year}: "{" ".join(days)}",\n' for year, days in sorted(years.items()))
    return f"{name} = {{\n{rows}}}\n"


def main() -> None:
    # Its default range ends one year from today, so the range is always given.
    calendar = exchange_calendars.get_calendar("XNYS", start=FIRST_DATE.isoformat(), end=HORIZON.isoformat())
    hours = {
        label.date(): (calendar.opens[label].astimezone(NEW_YORK), calendar.closes[label].astimezone(NEW_YORK))
        for label in calendar.sessions
    }
    days = (FIRST_DATE + timedelta(days=n) for n in range((HORIZON - FIRST_DATE).days + 1))
    tables: dict[str, list[date]] = {"HOLIDAYS": [], "CLOSES_AT_13": [], "CLOSES_AT_14": []}
    for day in days:
        if day.weekday() >= 5:
            if day in hours:
                raise SystemExit(f"{day} is a session on a weekend; sessions.py has no table for that yet.")
        elif day not in hours:
            tables["HOLIDAYS"].append(day)
        else:
            opens, closes = (f"{at:%H:%M}" for at in hours[day])
            early = {"16:00": None, "13:00": "CLOSES_AT_13", "14:00": "CLOSES_AT_14"}
            if opens != "09:30" or closes not in early:
                raise SystemExit(f"{day} is open {opens}-{closes}; sessions.py has no table for those hours yet.")
            if name := early[closes]:
                tables[name].append(day)
    print(f"# from exchange_calendars {exchange_calendars.__version__}")
    print("\n".join(table(name, dates) for name, dates in tables.items()))


if __name__ == "__main__":
    main()
