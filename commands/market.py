"""What the market tells: a bar has closed, or something came that is not a usable bar."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from commands.base import Command
from mqd_ledger.events import BarClosed, BarRejected, Event
from mqd_ledger.sessions import closes_at
from mqd_ledger.state import State
from mqd_ledger.values import Bar, Symbol


class ReportBar(Command, frozen=True, gc=False):
    """A bar that the feed has validated row by row; `at` is not before its end."""

    bar: Bar


class ReportBadBar(Command, frozen=True, gc=False):
    """A row of a feed that is no usable bar, with its place and the reason."""

    symbol: Symbol | None
    line: int | None
    raw: str
    reason: str


def report_bar(command: ReportBar, state: State) -> list[Event]:
    bar = command.bar
    last = state.last_bars.get((bar.symbol, bar.interval))
    if last is not None and bar.start_at <= last:
        what = "is a duplicate of" if bar.start_at == last else "comes after a later bar, of"
        reason = f"the bar of {bar.start_at:%Y-%m-%dT%H:%M:%SZ} {what} {last:%Y-%m-%dT%H:%M:%SZ}"
        return [BarRejected(command.at, bar.symbol, None, "", reason, bar)]
    end_at = closes_at(bar)
    if end_at > command.at:
        reason = f"it ends at {end_at:%Y-%m-%dT%H:%M:%SZ}, in the future of {command.at:%Y-%m-%dT%H:%M:%SZ}"
        return [BarRejected(command.at, bar.symbol, None, "", reason, bar)]
    return [BarClosed(end_at, bar)]


def report_bad_bar(command: ReportBadBar, _state: State) -> list[Event]:
    return [BarRejected(command.at, command.symbol, command.line, command.raw, command.reason, None)]


DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    ReportBar: report_bar,
    ReportBadBar: report_bad_bar,
}
READ_BACK: Mapping[type[Event], Callable[[Any, datetime], Command]] = {
    BarClosed: lambda event, at: ReportBar(at, event.bar),
    BarRejected: lambda event, _: (
        ReportBadBar(event.occurred_at, event.symbol, event.line, event.raw, event.reason)
        if event.bar is None
        else ReportBar(event.occurred_at, event.bar)
    ),
}
