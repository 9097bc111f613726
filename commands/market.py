"""What the market and its feed tell: bars, quotes, halts, silence, sessions."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from commands.base import Command
from mqd_ledger.events import (
    BarAggregated,
    BarClosed,
    BarCorrected,
    BarRejected,
    CancelRequested,
    Event,
    FeedGapFilled,
    FeedRecovered,
    FeedStale,
    QuoteTaken,
    SessionClosed,
    SessionEnding,
    SessionOpened,
    SymbolStatusChanged,
)
from mqd_ledger.sessions import closes_at
from mqd_ledger.state import State
from mqd_ledger.values import Bar, Price, Symbol


class ReportBar(Command, frozen=True, gc=False):
    """A bar that the feed has validated row by row; `at` is not before its end."""

    bar: Bar


class ReportBadBar(Command, frozen=True, gc=False):
    """A row of a feed that is no usable bar, with its place and the reason."""

    symbol: Symbol | None
    line: int | None
    raw: str
    reason: str


class ReportCorrectedBar(Command, frozen=True, gc=False):
    bar: Bar


class AggregateBar(Command, frozen=True, gc=False):
    """A longer bar whose parts have all closed."""

    bar: Bar


class ReportQuote(Command, frozen=True, gc=False):
    """`occurred_at` is the exchange's time of the quote."""

    occurred_at: datetime
    symbol: Symbol
    bid: Price
    bid_size: int
    ask: Price
    ask_size: int
    provider: str


class ReportSymbolStatus(Command, frozen=True, gc=False):
    occurred_at: datetime
    symbol: Symbol
    halted: bool
    status: str
    reason: str


class ReportFeedStale(Command, frozen=True, gc=False):
    feed: str
    reason: str


class ReportFeedRecovered(Command, frozen=True, gc=False):
    feed: str
    reason: str


class ReportGapFilled(Command, frozen=True, gc=False):
    feed: str
    symbol: Symbol
    first_start_at: datetime
    last_start_at: datetime
    bars: int


class OpenSession(Command, frozen=True, gc=False):
    session: str
    closes_at: datetime


class EndSession(Command, frozen=True, gc=False):
    """The close is near: what the policy takes back before it is asked back now."""

    session: str
    policy: str


class CloseSession(Command, frozen=True, gc=False):
    session: str
    policy: str


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


def report_corrected_bar(command: ReportCorrectedBar, state: State) -> list[Event]:
    """Of a bar that never closed here there is nothing to correct: it comes with the gap's filling."""
    last = state.last_bars.get((command.bar.symbol, command.bar.interval))
    if last is None or command.bar.start_at > last:
        return []
    return [BarCorrected(command.at, command.bar)]


def aggregate_bar(command: AggregateBar, _state: State) -> list[Event]:
    return [BarAggregated(command.at, command.bar)]


def report_quote(command: ReportQuote, state: State) -> list[Event]:
    """A crossed or empty quote says nothing of the price; neither does one that is older than what is known."""
    mark = state.marks.get(command.symbol)
    is_news = mark is None or command.occurred_at > mark.at
    if not (is_news and command.bid > 0 and command.ask >= command.bid):
        return []
    return [
        QuoteTaken(
            command.occurred_at,
            command.symbol,
            command.bid,
            command.bid_size,
            command.ask,
            command.ask_size,
            command.provider,
        )
    ]


def report_symbol_status(command: ReportSymbolStatus, state: State) -> list[Event]:
    if command.halted == (command.symbol in state.halted_symbols):
        return []
    return [SymbolStatusChanged(command.occurred_at, command.symbol, command.halted, command.status, command.reason)]


def report_feed_stale(command: ReportFeedStale, state: State) -> list[Event]:
    return [] if f"feed {command.feed}" in state.blocks else [FeedStale(command.at, command.feed, command.reason)]


def report_feed_recovered(command: ReportFeedRecovered, state: State) -> list[Event]:
    is_stale = f"feed {command.feed}" in state.blocks
    return [FeedRecovered(command.at, command.feed, command.reason)] if is_stale else []


def report_gap_filled(command: ReportGapFilled, _state: State) -> list[Event]:
    return [
        FeedGapFilled(
            command.at, command.feed, command.symbol, command.first_start_at, command.last_start_at, command.bars
        )
    ]


def open_session(command: OpenSession, state: State) -> list[Event]:
    return [] if state.session == command.session else [SessionOpened(command.at, command.session, command.closes_at)]


def end_session(command: EndSession, state: State) -> list[Event]:
    if state.session != command.session or "session" in state.blocks:
        return []
    cancels = [
        CancelRequested(command.at, order.client_order_id, f"the session is ending: {command.policy}")
        for orders in state.working.values()
        for order in orders.values()
        if not order.cancel_requested
    ]
    return [SessionEnding(command.at, command.session, command.policy), *cancels]


def close_session(command: CloseSession, state: State) -> list[Event]:
    return [SessionClosed(command.at, command.session, command.policy)] if state.session == command.session else []


DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    ReportBar: report_bar,
    ReportBadBar: report_bad_bar,
    ReportCorrectedBar: report_corrected_bar,
    AggregateBar: aggregate_bar,
    ReportQuote: report_quote,
    ReportSymbolStatus: report_symbol_status,
    ReportFeedStale: report_feed_stale,
    ReportFeedRecovered: report_feed_recovered,
    ReportGapFilled: report_gap_filled,
    OpenSession: open_session,
    EndSession: end_session,
    CloseSession: close_session,
}
READ_BACK: Mapping[type[Event], Callable[[Any, datetime], Command]] = {
    BarClosed: lambda event, at: ReportBar(at, event.bar),
    BarRejected: lambda event, _: (
        ReportBadBar(event.occurred_at, event.symbol, event.line, event.raw, event.reason)
        if event.bar is None
        else ReportBar(event.occurred_at, event.bar)
    ),
    BarCorrected: lambda event, _: ReportCorrectedBar(event.occurred_at, event.bar),
    BarAggregated: lambda event, _: AggregateBar(event.occurred_at, event.bar),
    QuoteTaken: lambda event, at: ReportQuote(
        at,
        event.occurred_at,
        event.symbol,
        event.bid,
        event.bid_size,
        event.ask,
        event.ask_size,
        event.provider,
    ),
    SymbolStatusChanged: lambda event, at: ReportSymbolStatus(
        at, event.occurred_at, event.symbol, event.halted, event.status, event.reason
    ),
    FeedStale: lambda event, _: ReportFeedStale(event.occurred_at, event.feed, event.reason),
    FeedRecovered: lambda event, _: ReportFeedRecovered(event.occurred_at, event.feed, event.reason),
    FeedGapFilled: lambda event, _: ReportGapFilled(
        event.occurred_at, event.feed, event.symbol, event.first_start_at, event.last_start_at, event.bars
    ),
    SessionOpened: lambda event, _: OpenSession(event.occurred_at, event.session, event.closes_at),
    SessionEnding: lambda event, _: EndSession(event.occurred_at, event.session, event.policy),
    SessionClosed: lambda event, _: CloseSession(event.occurred_at, event.session, event.policy),
}
