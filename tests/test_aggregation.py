"""Longer bars out of minutes: the right minutes, once each, at the first moment at which they are complete."""

import json
from itertools import groupby
from typing import Any, ClassVar

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from commands import Command
from commands.control import StartRun
from commands.market import CloseSession, OpenSession, ReportBar
from mqd_ledger.engine import Engine, rehearse
from mqd_ledger.errors import BadInput
from mqd_ledger.events import BarAggregated, BarClosed
from mqd_ledger.feeds.aggregation import LONGER, Aggregator, made_for
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.state import State
from mqd_ledger.strategies import registry
from mqd_ledger.strategies.base import Signals, Strategy, StrategyParameters
from mqd_ledger.strategies.host import StrategyHost
from mqd_ledger.values import EPOCH, INTERVALS, Bar
from tests.dsl import MINUTE, OPEN, OPENING, SOURCE, Tape, at, bar, fold

START = StartRun(OPENING, "backtest", "0", SOURCE, (), OPEN)


class Desk:
    """An engine that is shown bars; what it has aggregated."""

    def __init__(self, *intervals: str, others: tuple[Any, ...] = ()) -> None:
        self.state, self.tape = State(), Tape()
        reactors = [*(other(self.state) for other in others), Aggregator(intervals)]
        self.engine = Engine(self.state, self.tape, reactors)
        self.engine.handle(START)

    def show(self, *bars: str | Bar) -> list[str]:
        for one in bars:
            shown = bar(one) if isinstance(one, str) else one
            self.engine.handle(ReportBar(shown.end_at, shown))
        return self.told

    def handle(self, *commands: Command) -> list[str]:
        for command in commands:
            self.engine.handle(command)
        return self.told

    @property
    def made(self) -> list[Bar]:
        return [event.bar for event in self.tape.events if isinstance(event, BarAggregated)]

    @property
    def told(self) -> list[str]:
        return [
            f"{one.symbol} {one.interval} {one.start_at:%H:%M} {one.open} {one.high} {one.low} {one.close} v{one.volume}"
            for one in self.made
        ]


def test_five_minutes_make_one_bar_as_soon_as_the_last_has_closed() -> None:
    desk = Desk("5m")
    assert desk.show("SPY 14:30 100 101 99 100 v10", "SPY 14:31 100 103 100 102 v20", "SPY 14:32 102 v5") == []
    assert desk.show("SPY 14:33 98 v5", "SPY 14:34 98 99 97 99 v60") == ["SPY 5m 14:30 100 103 97 99 v100"]
    made = desk.tape.recorded[-1]
    assert (made.event.occurred_at, made.causation) == (at("14:35"), made.position - 1)


def test_a_window_whose_last_minutes_had_no_trade_is_complete_with_the_next_bar() -> None:
    desk = Desk("5m")
    assert desk.show("SPY 14:30 100", "SPY 14:32 101", "QQQ 14:36 50") == [], "another symbol's bar says nothing"
    assert desk.show("SPY 14:41 102") == ["SPY 5m 14:30 100 101 100 101 v2000"]
    assert desk.show("SPY 14:44 103")[1:] == ["SPY 5m 14:40 102 103 102 103 v2000"]


def test_a_bar_may_end_one_window_and_fill_another() -> None:
    desk = Desk("5m")
    desk.show("SPY 14:31 100")
    assert desk.show("SPY 14:39 101") == ["SPY 5m 14:30 100 100 100 100 v1000", "SPY 5m 14:35 101 101 101 101 v1000"]


@pytest.mark.parametrize("interval", LONGER)
def test_windows_are_aligned_to_the_hour_and_none_spans_a_close(interval: str) -> None:
    """Of a half day, which ends at one o'clock, and the next day. The first hour begins at half past."""
    desk = Desk(interval)
    bars = list(sample_bars(["SYNA"], sessions=3, start=at("2026-11-25T00:00").date()))[390:]
    assert (bars[0].start_at, bars[209].end_at) == (at("2026-11-27T14:30"), at("2026-11-27T18:00"))
    desk.show(*bars)
    step = INTERVALS[interval]
    windows = [list(group) for _, group in groupby(bars, lambda one: (one.start_at - EPOCH) // step)]
    assert desk.made == [
        Bar(
            "SYNA",
            interval,
            EPOCH + (parts[0].start_at - EPOCH) // step * step,
            parts[0].open,
            max(one.high for one in parts),
            min(one.low for one in parts),
            parts[-1].close,
            sum(one.volume for one in parts),
            "synthetic",
        )
        for parts in windows
    ]
    assert len({one.start_at.date() for parts in windows for one in parts}) == 2
    assert all(len({one.start_at.date() for one in parts}) == 1 for parts in windows)


def test_the_close_of_the_session_completes_what_is_open_and_a_late_bar_does_not_make_it_twice() -> None:
    desk = Desk("5m", "1h")
    desk.handle(OpenSession(at("20:00"), "2026-01-05", at("21:00")))
    desk.show("SPY 20:55 100", "SPY 20:57 101")
    told = desk.handle(CloseSession(at("21:00"), "2026-01-05", "hold"))
    assert told == ["SPY 5m 20:55 100 101 100 101 v2000", "SPY 1h 20:00 100 101 100 101 v2000"]
    assert desk.show("SPY 20:59 105") == told
    assert desk.show("SPY 2026-01-06T14:34 102")[2:] == ["SPY 5m 14:30 102 102 102 102 v1000"]


def test_bars_that_are_no_minutes_are_left_alone() -> None:
    desk = Desk("1h")
    assert desk.show(bar("SPY 14:00 100", "30m"), bar("SPY 14:30 100", "30m")) == []


def test_only_intervals_that_divide_the_hour_are_made() -> None:
    assert made_for([None, "1h", "1m", "5m", "1d"]) == ("5m", "1h")
    with pytest.raises(BadInput, match="Bars of 1d are not made out of shorter ones; allowed are 5m, 15m, 30m, 1h"):
        Aggregator(["5m", "1d"])


@examples(st.sets(st.integers(0, 179), min_size=1), st.integers(0, 180), st.sampled_from(LONGER))
def test_nothing_is_lost_doubled_or_changed_by_a_restart(minutes: set[int], restart: int, interval: str) -> None:
    """Of any minutes; what is under way survives as JSON."""
    whole, first, second = Desk(interval), Aggregator([interval]), Aggregator([interval])
    bars = [bar(f"SPY {OPENING + minute * MINUTE:%H:%M} {100 + minute} v1") for minute in sorted(minutes)]
    whole.show(*bars)
    answers: list[Command] = []
    for number, one in enumerate(bars):
        if number == restart:
            second.load(json.loads(json.dumps(first.save())))
        aggregator = second if number >= restart else first
        answers += aggregator.reactions[BarClosed](BarClosed(one.end_at, one), one.end_at)
    assert [command.bar for command in answers if hasattr(command, "bar")] == whole.made
    open_volume = sum(window.volume for window in (second if restart < len(bars) else first)._open.values())
    assert sum(one.volume for one in whole.made) + open_volume == len(bars)
    starts = [one.start_at for one in whole.made]
    assert starts == sorted(set(starts))


class Watcher(Strategy):
    """Notes what it is shown."""

    seen: ClassVar[list[tuple[str | None, str]]] = []

    def on_bar(self, bar: Bar) -> Signals:
        self.seen.append((self.parameters.interval, f"{bar.interval} {bar.start_at:%H:%M}"))
        return None


def hosted(state: State) -> StrategyHost:
    wanted = {"own": None, "five": "5m", "ten": "15m"}
    return StrategyHost(state, {name: Watcher(StrategyParameters(interval=one)) for name, one in wanted.items()})


def test_a_strategy_sees_the_bars_that_it_asks_for_and_no_others() -> None:
    Watcher.seen.clear()
    desk = Desk("5m", "15m", others=(hosted,))
    desk.show(*(f"SPY {OPENING + number * MINUTE:%H:%M} 100" for number in range(5)))
    assert Watcher.seen == [*((None, f"1m 14:3{number}") for number in range(5)), ("5m", "5m 14:30")]
    Watcher.seen.clear()
    desk.show(bar("SPY 14:45 100", "5m"))
    assert Watcher.seen == [(None, "5m 14:45"), ("5m", "5m 14:45")], "a file may have them ready"


def test_what_was_aggregated_comes_out_again_when_the_record_is_rehearsed() -> None:
    desk = Desk("5m", others=(hosted,))
    desk.show(*(f"SPY {OPENING + number * MINUTE:%H:%M} 100" for number in range(12)))
    assert len(desk.made) == 2
    state, tape = State(), Tape()
    rehearse(Engine(state, tape, [hosted(state), Aggregator(["5m"])]), desk.tape.recorded)
    assert tape.recorded == []
    assert state == desk.state
    assert state.marks == fold(desk.tape.events).marks


def test_an_interval_is_recorded_only_where_one_is_asked_for() -> None:
    """Runs of earlier versions go on: what they recorded of their parameters is still what would be recorded."""
    assert "interval" not in registry.load("vwap", "vwap", {})[0].parameters
    spec, strategy = registry.load("vwap", "vwap", {"interval": "5m"})
    assert (spec.parameters["interval"], strategy.parameters.interval) == ("5m", "5m")
    with pytest.raises(BadInput, match=r"interval: found '7m'.*allowed are 1s, 1m, 5m, 15m, 30m, 1h, 1d"):
        registry.load("vwap", "vwap", {"interval": "7m"})
