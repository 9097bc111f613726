"""Bars from CSV: many ways to write the same bars are understood, and every bad row is named, in its place."""

import csv
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.bars import BarFile, open_bars, write_bars
from mqd_ledger.feeds.importing import import_bars
from mqd_ledger.feeds.validation import RejectedRow
from mqd_ledger.values import INTERVALS, Bar, iso

HEADER = "symbol,timestamp,open,high,low,close,volume"
SHARED = Path(__file__).resolve().parents[2] / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared market data is not on this machine")
FIRST = datetime(2024, 1, 17, 14, 30, tzinfo=UTC)


def minute(number: int) -> datetime:
    return FIRST + timedelta(minutes=number)


def row(number: int, symbol: str = "SPY", close: str = "471.9") -> str:
    return f"{symbol},{iso(minute(number))},471.8,472,471.5,{close},1000"


def put(folder: Path, *lines: str, header: str = HEADER, name: str = "SPY_1min.csv", end: str = "\n") -> Path:
    path = folder / name
    path.write_bytes(end.join((header, *lines, "")).encode())
    return path


def bars_of(file: BarFile) -> list[Bar]:
    items = list(file)
    assert [item for item in items if isinstance(item, RejectedRow)] == []
    return [item for item in items if isinstance(item, Bar)]


def rejected(file: BarFile) -> list[RejectedRow]:
    return [item for item in file if isinstance(item, RejectedRow)]


GOOD = [row(number) for number in range(5)]
BARS = [
    Bar("SPY", "1m", minute(n), Decimal("471.8"), Decimal(472), Decimal("471.5"), Decimal("471.9"), 1000, "file")
    for n in range(5)
]


# --- the same bars, written in many ways ---------------------------------------------------------------------------------

NUMBERS = "471.8,472,471.5,471.9,1000"
WAYS: dict[str, tuple[str, Sequence[str], str | None]] = {
    "plain": (HEADER, GOOD, None),
    "our own": (f"{HEADER},interval,provider", [f"{line},1m,file" for line in GOOD], None),
    "any case and order": (
        "Volume,Close,LOW,High,Open,DateTime,Ticker",
        [f"1000,471.9,471.5,472,471.8,{iso(minute(n))},SPY" for n in range(5)],
        None,
    ),
    "Alpaca": ("t,o,h,l,c,v,n,vw", [f"{iso(minute(n))},{NUMBERS},17,471.77" for n in range(5)], None),
    "Yahoo": (
        "Datetime,Open,High,Low,Close,Adj Close,Volume",
        [f"2024-01-17 09:{30 + n}:00-05:00,471.80000,472.0,471.50,471.9,470.11,1000" for n in range(5)],
        None,
    ),
    "date and time": (
        "Date;Time;Open;High;Low;Close;Vol",
        [f"2024-01-17;09:{30 + n};471.8;472;471.5;471.9;1000" for n in range(5)],
        "America/New_York",
    ),
    "date and time, another zone": (
        "date\ttime\topen\thigh\tlow\tclose\tvolume",
        [f"20240117\t143{n}00\t471.8\t472\t471.5\t471.9\t1000.0" for n in range(5)],
        "UTC",
    ),
    "seconds": ("time,open,high,low,close,volume", [f"{1705501800 + 60 * n},{NUMBERS}" for n in range(5)], None),
    "milliseconds": ("t,o,h,l,c,v", [f"{1705501800 + 60 * n}000,{NUMBERS}" for n in range(5)], None),
    "microseconds": ("t,o,h,l,c,v", [f"{1705501800 + 60 * n}000000,{NUMBERS}" for n in range(5)], None),
    "nanoseconds": ("t,o,h,l,c,v", [f"{1705501800 + 60 * n}000000000,{NUMBERS}" for n in range(5)], None),
    "quoted": (
        '"symbol","timestamp","open","high","low","close","volume"',
        [f'"SPY","{iso(minute(n))}","471.8","472","471.5","471.9","1000"' for n in range(5)],
        None,
    ),
    "spaces and data frame numbers": (
        HEADER.replace(",", ", "),
        [f"SPY, {iso(minute(n))}, 471.8, 472.0 ,471.5,4.719e2, 1000.0" for n in range(5)],
        None,
    ),
    "byte order mark": (f"\ufeff{HEADER}", GOOD, None),
    "blank lines": (f"\n\n{HEADER}", ["", *GOOD[:3], "", "   ", *GOOD[3:], ""], None),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ("\n", "\r\n"))
def test_the_same_bars_are_read_however_they_are_written(tmp_path: Path, way: str, end: str) -> None:
    header, lines, zone = WAYS[way]
    bars = bars_of(open_bars(put(tmp_path, *lines, header=header, end=end), strict=True, zone=zone))
    assert bars == BARS
    assert [str(bar.open) for bar in bars] == ["471.8"] * 5  # 471.80 would be other bytes in the log
    assert [str(bar.high) for bar in bars] == ["472"] * 5


def test_what_was_understood_is_stated(tmp_path: Path) -> None:
    header, lines, zone = WAYS["date and time"]
    stated = str(open_bars(put(tmp_path, *lines, header=header), zone=zone).detection)
    assert "(CSV, separated by ;)" in stated
    assert "date=Date, time=Time, open=Open" in stated
    assert "zone America/New_York" in stated
    assert "interval: 1m (from the first 5 rows)" in stated
    assert "symbols: SPY (from the file's name)" in stated
    header, lines, _ = WAYS["Yahoo"]
    assert "ignored: Adj Close" in str(open_bars(put(tmp_path, *lines, header=header)).detection)


def test_the_symbol_comes_from_the_caller_or_the_name_or_is_asked_for(tmp_path: Path) -> None:
    header, lines, _ = WAYS["Alpaca"]
    path = put(tmp_path, *lines, header=header, name="data.csv")
    with pytest.raises(BadInput, match=r"no symbol column and its name does not begin with one. Pass --symbol"):
        open_bars(path)
    assert {bar.symbol for bar in bars_of(open_bars(path, symbol="BRK.B"))} == {"BRK.B"}
    assert open_bars(put(tmp_path, *lines, header=header, name="qqq.csv")).detection.symbols == ("QQQ",)
    two = put(tmp_path, row(0), row(0, "QQQ"), row(1), row(1, "QQQ"))
    assert {bar.symbol for bar in bars_of(open_bars(two, symbol="QQQ"))} == {"QQQ"}
    with pytest.raises(BadInput, match="no bars of IWM; it has QQQ, SPY"):
        open_bars(two, symbol="IWM")


def test_times_without_a_zone_are_asked_about_and_never_guessed(tmp_path: Path) -> None:
    path = put(tmp_path, *(f"SPY,2024-01-17 09:3{n}:00,{NUMBERS}" for n in range(5)))
    with pytest.raises(BadInput, match=r"no zone, from line 2 on.*--zone America/New_York.*--zone UTC"):
        open_bars(path)
    assert bars_of(open_bars(path, zone="America/New_York")) == BARS
    with pytest.raises(BadInput, match="'Mars' is no time zone"):
        open_bars(path, zone="Mars")


def test_times_that_clocks_show_twice_or_never_are_rejected(tmp_path: Path) -> None:
    days = ["2024-03-10 01:59", "2024-03-10 02:30", "2024-03-10 03:00", "2024-11-03 01:30", "2024-11-03 02:00"]
    path = put(tmp_path, *(f"SPY,{day}:00,{NUMBERS}" for day in days))
    items = list(open_bars(path, zone="America/New_York", interval="1m"))
    kept = [iso(item.start_at) for item in items if isinstance(item, Bar)]
    assert kept == ["2024-03-10T06:59:00Z", "2024-03-10T07:00:00Z", "2024-11-03T07:00:00Z"]
    assert all("twice or never" in item.reason for item in items if isinstance(item, RejectedRow))


@pytest.mark.parametrize("interval", INTERVALS)
def test_the_interval_is_found_even_with_gaps_and_a_stray_row(tmp_path: Path, interval: str) -> None:
    step = INTERVALS[interval]
    start = FIRST.replace(hour=0, minute=0)
    steps = [*range(30), *range(35, 60), *range(70, 90)]
    lines = [f"SPY,{iso(start + number * step)},{NUMBERS}" for number in steps]
    lines.insert(50, f"SPY,{iso(start + steps[49] * step + timedelta(milliseconds=1))},{NUMBERS}")
    file = open_bars(put(tmp_path, *lines))
    assert file.detection.interval == interval
    assert [item.line for item in rejected(file)] == [52]


def test_daily_bars_are_dates_of_sessions_in_new_york(tmp_path: Path) -> None:
    path = put(tmp_path, *(f"2024-03-{day},{NUMBERS}" for day in ("07", "08", "11", "12")), header="Date,O,H,L,C,V")
    file = open_bars(path, strict=True)
    assert [iso(bar.start_at)[5:13] for bar in bars_of(file)] == ["03-07T05", "03-08T05", "03-11T04", "03-12T04"]
    assert file.detection.interval == "1d"
    assert "dates of sessions" in file.detection.zone


# --- bad rows ------------------------------------------------------------------------------------------------------------

AT = iso(minute(2))
BAD_ROWS = {
    f"SPY,{AT},NaN,472,471,471.9,1000": "open 'NaN' is not a finite number",
    f"SPY,{AT},sNaN,472,471,471.9,1000": "open 'sNaN' is not a finite number",
    f"SPY,{AT},471.8,inf,471,471.9,1000": "high 'inf' is not a finite number",
    f"SPY,{AT},471.8,1e999,471,471.9,1000": "high '1e999' is a billion or more",
    f"SPY,{AT},471.8,472,1e-30,471.9,1000": "low '1e-30' is finer than 18 decimals",
    f"SPY,{AT},471.8,472,0,471.9,1000": "low '0' is not positive",
    f"SPY,{AT},471.8,472,-471,471.9,1000": "low '-471' is not positive",
    f"SPY,{AT},471.8,472,471,,1000": "close is empty",
    f"SPY,{AT},471.8,472,471,4_71,1000": "close '4_71' is not",
    f"SPY,{AT},471.8,472,471,n/a,1000": "close 'n/a' is not a number",
    f"SPY,{AT},471.8,471.85,471,471.9,1000": "high 471.85 is below close 471.9",
    f"SPY,{AT},471.8,470,471,471.9,1000": "high 470 is below low 471",
    f"SPY,{AT},471.8,472,471.85,471.9,1000": "low 471.85 is above open 471.8",
    f"SPY,{AT},471.8,472,471,471.9,-1": "volume '-1' is negative",
    f"SPY,{AT},471.8,472,471,471.9,0.5": "volume '0.5' is not a whole number",
    f"SPY,{AT},471.8,472,471,471.9,NaN": "volume 'NaN' is not a whole number",
    f"SPY,{AT},471.8,472,471,471.9,1e99": "volume '1e99' is larger than any volume",
    f"SPY,{AT},471.8,472,471,471.9,": "volume is empty",
    f"SPY,{AT},471.8,472": "the row is cut short: 4 of 7 columns",
    f"SPY,{AT},471.8,472,471,471.9,1000,9": "the row is too long: 8 of 7 columns",
    f"S P Y,{AT},471.8,472,471,471.9,1000": "'S P Y' is no symbol",
    f",{AT},471.8,472,471,471.9,1000": "the symbol is empty",
    "SPY,,471.8,472,471,471.9,1000": "the time is empty",
    "SPY,2024-01-17T14:32:00,471.8,472,471,471.9,1000": "has no zone",
    "SPY,2024-01-17T09:32:00-05:00,471.8,472,471,471.9,1000": "another one than the rows before",
    "SPY,yesterday,471.8,472,471,471.9,1000": "time 'yesterday': no time written as ISO-8601",
    "SPY,2024-01-17T14:31:30Z,471.8,472,471,471.9,1000": "not the start of a bar of 1m",
    "SPY,2024-01-17T14:31:00Z,471.8,472,471,471.9,1000": "duplicate: there is a bar of 2024-01-17T14:31:00Z",
    "SPY,2024-01-17T14:29:00Z,471.8,472,471,471.9,1000": "out of order: 2024-01-17T14:29:00Z comes after",
    "SPY,2099-01-17T14:29:00Z,471.8,472,471,471.9,1000": "after 2028-12-31, where the exchange calendar ends",
    '"SPY,2024-01-17T14:32:00Z,471.8,472,471,471.9,1000': "the row is cut short: 1 of 7 columns",
}


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_is_rejected_in_its_place_with_line_and_reason(tmp_path: Path, bad: str) -> None:
    path = put(tmp_path, *GOOD[:2], bad, *GOOD[2:])
    items = list(open_bars(path, interval="1m"))
    assert [item for item in items if isinstance(item, Bar)] == BARS
    refused = items[2]
    assert isinstance(refused, RejectedRow)
    assert BAD_ROWS[bad] in refused.reason
    assert (refused.line, refused.raw) == (4, bad)
    with pytest.raises(BadInput, match=r"SPY_1min.csv, line 4: "):
        list(open_bars(path, interval="1m", strict=True))


def test_latin_1_bytes_spoil_their_own_row_only(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_bytes("\n".join((HEADER, GOOD[0], f"CAF\xc9,{AT},{NUMBERS}", *GOOD[1:])).encode("latin-1"))
    [refused] = rejected(open_bars(path))
    assert refused.line == 3
    assert "is no symbol" in refused.reason
    assert len([item for item in open_bars(path) if isinstance(item, Bar)]) == 5


def test_a_bar_that_has_not_ended_is_rejected_when_the_time_is_known(tmp_path: Path) -> None:
    path = put(tmp_path, *GOOD)
    assert rejected(open_bars(path, now=minute(5))) == []
    [refused] = rejected(open_bars(path, now=minute(5) - timedelta(seconds=1)))
    assert refused.line == 6
    assert "ends at 2024-01-17T14:35:00Z, in the future of 2024-01-17T14:34:59Z" in refused.reason


# --- several symbols -----------------------------------------------------------------------------------------------------


def items_in_order(path: Path) -> list[tuple[str, str]]:
    return [
        (item.symbol, f"{item.start_at:%H:%M}") if isinstance(item, Bar) else ("rejected", str(item.line))
        for item in open_bars(path)
    ]


def test_symbols_one_after_another_or_mixed_come_out_by_time_and_symbol(tmp_path: Path) -> None:
    names = ("QQQ", "IWM", "SPY")
    blocky = put(tmp_path, *(row(n, s) for s in names for n in range(700)), name="blocky.csv")
    mixed = put(tmp_path, *(row(n, s) for n in range(700) for s in names), name="mixed.csv")
    torn = put(tmp_path, *(row(n, s) for k in (0, 350) for s in names for n in range(k, k + 350)), name="torn.csv")
    expected = [(s, f"{minute(n):%H:%M}") for n in range(700) for s in sorted(names)]
    assert items_in_order(blocky) == items_in_order(mixed) == items_in_order(torn) == expected
    assert open_bars(mixed).detection.order.startswith("by time")
    assert open_bars(blocky).detection.order.startswith("not by time")
    assert open_bars(torn).detection.symbols == ("IWM", "QQQ", "SPY")


def test_a_rejected_row_stays_beside_its_symbols_neighbors_and_keeps_its_line(tmp_path: Path) -> None:
    bad = f"SPY,{iso(minute(1))},471.8,472,471,NaN,1000"
    lines = [row(0, "SPY"), bad, row(2, "SPY"), "broken", row(0, "QQQ"), row(1, "QQQ"), row(2, "QQQ")]
    path = put(tmp_path, "nonsense", *lines)
    expected = [
        "rejected 2",
        "QQQ 14:30",
        "SPY 14:30",
        "rejected 4",
        "QQQ 14:31",
        "QQQ 14:32",
        "SPY 14:32",
        "rejected 6",
    ]
    assert [" ".join(item) for item in items_in_order(path)] == expected


def test_a_row_out_of_order_never_puts_the_other_symbols_bars_out_of_order(tmp_path: Path) -> None:
    lines = [row(0), row(5), row(1), row(2, "QQQ"), row(3, "QQQ"), "SPY,when?,1,1,1,1,1", row(4, "QQQ"), row(6)]
    file = open_bars(put(tmp_path, *lines), interval="1m")
    bars = [(item.start_at, item.symbol) for item in file if isinstance(item, Bar)]
    assert bars == sorted(bars)
    assert [item.line for item in rejected(file)] == [4, 7]


def test_only_the_time_asked_for_is_given(tmp_path: Path) -> None:
    file = open_bars(put(tmp_path, *GOOD), start=minute(1), end=minute(4))
    assert bars_of(file) == BARS[1:4]


# --- files that are no bar files -----------------------------------------------------------------------------------------

NO_BAR_FILES = {
    b"": "is empty",
    b"\n\n": "is empty",
    HEADER.encode(): "only a header",
    f"{HEADER}\n\n".encode(): "only a header",
    f"{HEADER}\na,b\n".encode(): "no row with 7 columns",
    b"\x00\x01\x02\x03" * 100: "is binary",
    b"PAR1" + b"\xff" * 100: "cannot be read as Parquet",
    b"PK\x03\x04rest": "is a zip archive",
    b"\x1f\x8brest": "is compressed with gzip",
    HEADER.encode("utf-16"): "is UTF-16",
    b"symbol,timestamp,bid,ask\nSPY,2024-01-17T14:30:00Z,1,2\n": "no column for open, high, low, close, volume",
    GOOD[0].encode(): "no column for timestamp",
    f"{HEADER}\nSPY,01/17/2024 09:30,{NUMBERS}\n".encode(): "the time '01/17/2024 09:30' is not understood",
    f"{HEADER}\n{GOOD[0]}\n".encode(): "one bar of each symbol, so their length cannot be told. Pass --interval",
    f"{HEADER}\n".encode() + b"x" * 3_000_000: "longer than",
}


@pytest.mark.parametrize("content", NO_BAR_FILES, ids=list(NO_BAR_FILES.values()))
def test_a_file_that_cannot_be_understood_is_refused_with_the_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "SPY.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=NO_BAR_FILES[content]):
        list(open_bars(path))


def test_a_directory_a_missing_file_and_a_wrong_interval_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a directory"):
        open_bars(tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        open_bars(tmp_path / "none.csv")
    with pytest.raises(BadInput, match=r"'2m' is no bar length. Allowed: 1s, 1m"):
        open_bars(put(tmp_path, *GOOD), interval="2m")


# --- writing and importing -----------------------------------------------------------------------------------------------

PRICES = st.decimals("0.000000001", "99999999", places=9, allow_nan=False, allow_infinity=False)


@st.composite
def some_bars(draw: st.DrawFn) -> list[Bar]:
    interval = draw(st.sampled_from(["1s", "1m", "5m"]))
    bars = []
    for symbol in draw(st.lists(st.sampled_from(["SPY", "BRK.B", "^VIX"]), min_size=1, unique=True)):
        for number in sorted(draw(st.sets(st.integers(0, 500), min_size=1, max_size=6))):
            low, *inside, high = sorted(draw(st.lists(PRICES, min_size=4, max_size=4)))
            start_at = FIRST + number * INTERVALS[interval]
            volume = draw(st.integers(0, 2**63 - 1))
            bars.append(Bar(symbol, interval, start_at, inside[0], high, low, inside[1], volume, "alpaca"))
    return sorted(bars, key=lambda bar: (bar.start_at, bar.symbol))


@settings(max_examples=40, deadline=None)
@given(some_bars())
def test_what_is_written_is_read_back_exactly(bars: list[Bar]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.csv"
        assert write_bars(path, bars) == len(bars)
        assert list(open_bars(path, strict=True)) == bars


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_bars(path, BARS)
    before = path.read_bytes()
    longer = Bar("SPY", "5m", minute(10), *(Decimal(1),) * 4, 1, "file")
    for bad in ([], [*BARS, longer]):
        with pytest.raises(BadInput):
            write_bars(path, bad)
    with pytest.raises(BadInput, match=r"must end in .parquet or .csv"):
        write_bars(tmp_path / "out.txt", BARS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


def test_an_import_reports_what_it_read_wrote_rejected_and_missed(tmp_path: Path) -> None:
    bad = f"SPY,{iso(minute(2))},471.8,472,471,NaN,1000"
    lines = [row(0), row(1), bad, row(4), row(387), row(0, "QQQ"), row(389, "QQQ"), row(400, "QQQ")]
    report = import_bars(put(tmp_path, *lines, name="mine.csv"), tmp_path / "bars")
    assert (report.read, report.written, report.rejected) == (8, 7, 1)
    assert report.out == tmp_path / "bars" / "mine.parquet"
    counts = {symbol.symbol: (symbol.count, symbol.missing) for symbol in report.symbols}
    assert counts == {"SPY": (4, 388 - 4), "QQQ": (3, 390 - 2)}  # the bar after the close is no regular one
    assert report.symbols[1].last_at == minute(387)
    assert report.rejects[0].line == 4
    assert report.rejects_file is not None
    with report.rejects_file.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["line", "reason", "raw"], ["4", "close 'NaN' is not a finite number", bad]]
    assert bars_of(open_bars(report.out)) == [item for item in open_bars(report.source) if isinstance(item, Bar)]
    again = import_bars(put(tmp_path, *GOOD, name="mine.csv"), tmp_path / "bars")
    assert again.rejects_file is None
    assert [file.name for file in (tmp_path / "bars").iterdir()] == ["mine.parquet"]


def test_an_import_of_nothing_good_says_why_and_writes_nothing(tmp_path: Path) -> None:
    path = put(tmp_path, *(f"SPY,{iso(minute(n))},0,0,0,0,0" for n in range(3)), name="bad.csv")
    with pytest.raises(BadInput, match=r"3 rows of .* were rejected; the first, line 2: open '0' is not positive"):
        import_bars(path, tmp_path / "bars")
    assert not list((tmp_path / "bars").glob("*.parquet"))
    with pytest.raises(BadInput, match="written over itself"):
        import_bars(path, path)


# --- real data -----------------------------------------------------------------------------------------------------------


@needs_shared
def test_all_real_minute_and_daily_files_read_without_a_rejected_row() -> None:
    files = [*SHARED.glob("lean/minute/*.csv"), *SHARED.glob("lean/daily/*.csv"), *SHARED.glob("other/*/*.csv")]
    assert len(files) > 25
    for path in files:
        file = open_bars(path)
        bars = bars_of(file)
        assert len(bars) == len(path.read_text(encoding="utf-8").splitlines()) - 1
        assert file.detection.interval == ("1d" if "daily" in path.name else "1m")
        order = [(bar.end_at, bar.symbol) for bar in bars]
        assert order == sorted(order)
