"""The made-up bars: the same on every machine, valid, labeled as made up, and worth trading."""

import hashlib
from collections import deque
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.bars import open_bars, write_bars
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.sessions import is_regular
from mqd_ledger.values import Bar


def fingerprint(bars: list[Bar]) -> str:
    texts = (f"{b.symbol} {b.start_at.isoformat()} {b.open} {b.high} {b.low} {b.close} {b.volume}" for b in bars)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def test_a_seed_gives_the_same_bars_for_ever() -> None:
    bars = list(sample_bars())
    assert len(bars) == 2 * 5 * 390
    assert bars == list(sample_bars())
    assert fingerprint(bars) == "88e6b6004bb09fe2020b49799e8d3ab54651bb1e33e3606b0534102b977934d7"
    assert fingerprint(bars) != fingerprint(list(sample_bars(seed=8)))


def test_every_bar_is_of_a_regular_session_and_labeled_synthetic() -> None:
    bars = list(sample_bars(("SYNB", "SYNA"), sessions=3, start=date(2024, 11, 28)))
    assert {bar.symbol for bar in bars} == {"SYNA", "SYNB"}
    assert {bar.provider for bar in bars} == {"synthetic"}
    assert all(is_regular(bar.start_at) for bar in bars)
    assert bars[0].start_at == datetime(2024, 11, 29, 14, 30, tzinfo=UTC)  # Thanksgiving is passed over
    assert len(bars) == 2 * (210 + 390 + 390)  # and the half day after it ends early
    assert [(b.start_at, b.symbol) for b in bars] == sorted((b.start_at, b.symbol) for b in bars)
    with pytest.raises(BadInput, match="'SPY' cannot be a made-up symbol"):
        next(sample_bars(("SPY",)))


def test_prices_are_whole_cents_and_each_minute_opens_where_the_last_one_closed() -> None:
    bars = list(sample_bars(("SYNA",), sessions=2))
    for before, bar in pairwise(bars):
        assert bar.open == before.close or before.start_at.date() < bar.start_at.date()
    assert all(price % Decimal("0.01") == 0 for bar in bars for price in (bar.open, bar.high, bar.low, bar.close))


def test_the_bars_pass_the_same_tests_as_any_file(tmp_path: Path) -> None:
    bars = list(sample_bars(sessions=2))
    write_bars(tmp_path / "sample.csv", bars)
    assert list(open_bars(tmp_path / "sample.csv", strict=True)) == bars


def test_a_mean_reversion_rule_finds_several_trades_in_a_session_that_win_and_that_lose() -> None:
    won = lost = 0
    bars = list(sample_bars(sessions=20))
    sessions = 20
    for _, group in groupby(sorted(bars, key=lambda bar: bar.symbol), key=lambda bar: bar.symbol):
        window: deque[Bar] = deque(maxlen=20)
        entry = Decimal(0)
        for bar in group:
            window.append(bar)
            if entry and (bar.close >= entry * Decimal("1.015") or bar.close <= entry * Decimal("0.98")):
                won, lost = (won + 1, lost) if bar.close > entry else (won, lost + 1)
                entry = Decimal(0)
            traded = sum((b.close * b.volume for b in window), Decimal(0))
            vwap = traded / sum(b.volume for b in window)
            if not entry and len(window) == 20 and bar.close < vwap * Decimal("0.98"):
                entry = bar.close
    assert won + lost >= 2 * sessions
    assert won > lost > 0
