"""Bars from Parquet: the same bars as from CSV, whatever types the columns have, and every bad row named with its number."""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.bars import open_bars, write_bars
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.feeds.validation import RejectedRow
from mqd_ledger.values import Bar
from tests.test_bars_csv import BARS, SHARED, bars_of, minute, needs_shared, some_bars

Table = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """A Parquet file from SQL, with `n` from 0 to 4 for the five bars of the CSV tests."""

    def make(select: str, name: str = "SPY_1min.parquet") -> Path:
        path = tmp_path / name
        duckdb.sql("set TimeZone = 'UTC'")
        duckdb.sql(f"copy (select {select} from range(5) t(n) order by n) to '{path.as_posix()}' (format parquet)")
        return path

    return make


START = "timestamptz '2024-01-17 14:30:00+00' + n * interval 1 minute"
NUMBERS = "471.8 as open, 472 as high, 471.5 as low, 471.9 as close, 1000 as volume"
QUOTED = "'471.80' as open, '472.0' as high, '471.5' as low, '471.9' as close, '1000' as volume"
WAYS: dict[str, tuple[str, str | None]] = {
    "zoned times and decimals": (f"'SPY' as symbol, {START} as timestamp, {NUMBERS}", None),
    "doubles": (
        f"{START} as t, 471.8::double as o, 472::double as h, 471.5::double as l, 471.9::double as c, 1e3::double as v",
        None,
    ),
    "texts": (
        f"'SPY' as ticker, strftime({START}, '%Y-%m-%dT%H:%M:%SZ') as timestamp, {QUOTED}",
        None,
    ),
    "times of the exchange": (
        f"timestamp '2024-01-17 09:30:00' + n * interval 1 minute as datetime, {NUMBERS}",
        "America/New_York",
    ),
    "nanosecond times": (
        f"(timestamp '2024-01-17 14:30:00' + n * interval 1 minute)::timestamp_ns as datetime, {NUMBERS}",
        "UTC",
    ),
    "milliseconds": (f"(1705501800000 + 60000 * n)::bigint as time, {NUMBERS}", None),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_bars_are_read_whatever_the_columns_types(table: Table, way: str) -> None:
    select, zone = WAYS[way]
    bars = bars_of(open_bars(table(select), zone=zone, strict=True))
    assert bars == BARS
    assert [str(bar.open) for bar in bars] == ["471.8"] * 5
    assert [str(bar.high) for bar in bars] == ["472"] * 5


def test_times_without_a_zone_are_asked_about(table: Table) -> None:
    with pytest.raises(BadInput, match="no zone"):
        open_bars(table(WAYS["times of the exchange"][0]))


def test_a_bad_row_is_rejected_with_its_number_and_the_others_are_kept(table: Table) -> None:
    path = table(
        f"'SPY' as symbol, {START} as timestamp, case n when 1 then 'nan'::double else 471.8 end as open, 472 as high, "
        "471.5 as low, case n when 3 then null else 471.9 end as close, 1000 as volume"
    )
    items = list(open_bars(path))
    assert [item for item in items if isinstance(item, Bar)] == [BARS[0], BARS[2], BARS[4]]
    refused = [(item.line, item.reason) for item in items if isinstance(item, RejectedRow)]
    assert refused == [(2, "open 'nan' is not a finite number"), (4, "close is empty")]
    with pytest.raises(BadInput, match=r"SPY_1min.parquet, line 2: open 'nan'"):
        list(open_bars(path, strict=True))


def test_rows_out_of_order_are_named_as_such_in_files_of_one_symbol_and_of_several(tmp_path: Path) -> None:
    order = [0, 1, 3, 2, 3, 4]
    for symbols in (("SPY",), ("SPY", "QQQ")):
        rows = ", ".join(
            f"('{symbol}', timestamptz '2024-01-17 14:30:00+00' + interval {n} minute)"
            for symbol in symbols
            for n in order
        )
        path = tmp_path / f"bars{len(symbols)}.parquet"
        duckdb.sql(
            f"copy (select symbol, timestamp, {NUMBERS} from (values {rows}) v(symbol, timestamp)) "
            f"to '{path.as_posix()}' (format parquet)"
        )
        items = list(open_bars(path))
        for place, symbol in enumerate(symbols):
            mine = [item for item in items if item.symbol == symbol]
            kept = [item.start_at for item in mine if isinstance(item, Bar)]
            assert kept == [minute(n) for n in (0, 1, 3, 4)]
            reasons = [(item.line, item.reason.split(":")[0]) for item in mine if isinstance(item, RejectedRow)]
            assert reasons == [(4 + 6 * place, "out of order"), (5 + 6 * place, "duplicate")]
        order_of_bars = [(item.start_at, item.symbol) for item in items if isinstance(item, Bar)]
        assert order_of_bars == sorted(order_of_bars)


def test_a_damaged_or_empty_or_foreign_table_is_refused(table: Table, tmp_path: Path) -> None:
    whole = table(WAYS["doubles"][0]).read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "junk": b"x" * 500, "nothing": b""}.items():
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        with pytest.raises(BadInput, match="cannot be read as Parquet"):
            open_bars(path)
    with pytest.raises(BadInput, match="no column for timestamp, open, high, low, close, volume"):
        open_bars(table("n"))
    path = tmp_path / "SPY.parquet"
    duckdb.sql(f"copy (select {WAYS['doubles'][0]} from range(0) t(n)) to '{path.as_posix()}' (format parquet)")
    with pytest.raises(BadInput, match="no rows"):
        open_bars(path)


def test_a_name_with_signs_of_patterns_and_quotes_is_one_file(table: Table, tmp_path: Path) -> None:
    path = table(WAYS["doubles"][0]).rename(tmp_path / "it's [1].parquet")
    assert bars_of(open_bars(path, symbol="SPY")) == BARS
    copy = tmp_path / "SPY 'copy' [2].parquet"
    write_bars(copy, BARS)
    assert bars_of(open_bars(copy)) == BARS


@settings(max_examples=12, deadline=None)
@given(some_bars())
def test_what_is_written_is_read_back_exactly(bars: list[Bar]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.parquet"
        assert write_bars(path, bars) == len(bars)
        assert list(open_bars(path, strict=True)) == bars


def test_prices_finer_than_nine_decimals_are_kept(tmp_path: Path) -> None:
    fine = Decimal("108.16000366210938")
    bars = [
        Bar("SPY", "1d", datetime(2024, 1, day, tzinfo=UTC), fine, fine, Decimal("1E-17"), fine, 0, "file")
        for day in (17, 18)
    ]
    write_bars(tmp_path / "fine.parquet", bars)
    assert list(open_bars(tmp_path / "fine.parquet", strict=True)) == bars


def test_symbols_one_after_another_come_out_by_time_and_symbol(tmp_path: Path) -> None:
    bars = list(sample_bars(("SYNA", "SYNB", "SYNC"), sessions=4))
    blocky = sorted(bars, key=lambda bar: (bar.symbol, bar.start_at))
    for name, written in (("sorted", bars), ("blocky", blocky)):
        for ending in ("csv", "parquet"):
            path = tmp_path / f"{name}.{ending}"
            write_bars(path, written)
            assert list(open_bars(path, strict=True)) == bars
    assert open_bars(tmp_path / "blocky.parquet").detection.order.startswith("not by time")
    assert open_bars(tmp_path / "sorted.parquet").detection.order.startswith("by time")
    later = bars[0].start_at + timedelta(hours=1)
    assert next(iter(open_bars(tmp_path / "blocky.parquet", start=later))) == bars[180]


@needs_shared
def test_csv_and_parquet_of_the_same_real_data_give_the_same_bars() -> None:
    files = [*SHARED.glob("lean/minute/*.csv"), *SHARED.glob("other/*/*.csv"), *SHARED.glob("lean/daily/S*.csv")]
    assert len(files) > 12
    for path in files:
        from_csv, from_parquet = open_bars(path), open_bars(path.with_suffix(".parquet"))
        left, right = bars_of(from_csv), bars_of(from_parquet)
        assert left == right
        assert [str(bar.close) for bar in left] == [str(bar.close) for bar in right]
        assert from_csv.detection.symbols == from_parquet.detection.symbols
