"""Longer bars out of closed one-minute bars, for strategies that ask for them with their parameter `interval`.

Windows are aligned to the hour. A window is complete when a bar closes at its end, or, where nothing traded in its last minutes,
when a later bar of its symbol or the close of the session comes. Sessions open on the half hour and close on the full one, so a
first hour is half as long and no window spans a close. A bar is made of what strategies were shown: corrections that came later
change nothing.

To add an interval: a row in `LONGER`, if it divides the hour.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import structs

from commands import Command
from commands.market import AggregateBar
from mqd_ledger.engine import Reaction
from mqd_ledger.errors import BadInput
from mqd_ledger.events import BarClosed, Event, RunStarted, SessionClosed
from mqd_ledger.values import EPOCH, INTERVALS, Bar, Symbol

MINUTE = "1m"
LONGER = ("5m", "15m", "30m", "1h")  # in the order in which they are told


def made_for(wanted: Iterable[str | None]) -> tuple[str, ...]:
    """Of the intervals that strategies ask for, those to be made here."""
    asked = set(wanted)
    return tuple(interval for interval in LONGER if interval in asked)


class Aggregator:
    """A reactor without a look at the state. It comes after the strategies, which so see a minute before the hour it ends."""

    def __init__(self, intervals: Sequence[str]) -> None:
        if unknown := [interval for interval in intervals if interval not in LONGER]:
            raise BadInput(
                f"Bars of {', '.join(unknown)} are not made out of shorter ones; allowed are {', '.join(LONGER)}."
            )
        self._lengths = {interval: INTERVALS[interval] for interval in made_for(intervals)}
        self._open: dict[tuple[Symbol, str], Bar] = {}  # windows with at least one bar
        self._told: dict[tuple[Symbol, str], datetime] = {}  # where the last complete one starts

    @property
    def reactions(self) -> dict[type[Event], Reaction]:
        return {RunStarted: self._start, BarClosed: self._bar, SessionClosed: self._close}

    def save(self) -> dict[str, Any]:
        """What is under way, for a snapshot, as JSON can hold it."""
        told = [(*key, start_at) for key, start_at in self._told.items()]
        kept: dict[str, Any] = msgspec.to_builtins({"open": list(self._open.values()), "told": told})
        return kept

    def load(self, value: dict[str, Any]) -> None:
        windows = msgspec.convert(value["open"], list[Bar])
        self._open = {(window.symbol, window.interval): window for window in windows}
        told = msgspec.convert(value["told"], list[tuple[Symbol, str, datetime]])
        self._told = {(symbol, interval): start_at for symbol, interval, start_at in told}

    def _start(self, _event: RunStarted, _at: datetime) -> Sequence[Command]:
        self._open.clear()
        self._told.clear()
        return ()

    def _bar(self, event: BarClosed, at: datetime) -> Sequence[Command]:
        bar = event.bar
        if bar.interval != MINUTE:
            return ()
        complete: list[Command] = []
        ends_at = bar.end_at
        for interval, length in self._lengths.items():
            key = bar.symbol, interval
            start_at = bar.start_at - (bar.start_at - EPOCH) % length
            if start_at == self._told.get(key):
                continue  # the session was closed before its last bar came
            window = self._open.pop(key, None)
            if window is not None and window.start_at != start_at:
                complete.append(self._complete(window, at))
                window = None
            window = _first(bar, interval, start_at) if window is None else _with(window, bar)
            if ends_at - start_at == length:
                complete.append(self._complete(window, at))
            else:
                self._open[key] = window
        return complete

    def _complete(self, window: Bar, at: datetime) -> Command:
        self._told[window.symbol, window.interval] = window.start_at
        return AggregateBar(at, window)

    def _close(self, _event: SessionClosed, at: datetime) -> Sequence[Command]:
        """Nothing more comes for these windows."""
        complete = [self._complete(window, at) for window in self._open.values()]
        self._open.clear()
        return complete


def _first(bar: Bar, interval: str, start_at: datetime) -> Bar:
    return structs.replace(bar, interval=interval, start_at=start_at)


def _with(window: Bar, bar: Bar) -> Bar:
    return structs.replace(
        window,
        high=max(window.high, bar.high),
        low=min(window.low, bar.low),
        close=bar.close,
        volume=window.volume + bar.volume,
    )
