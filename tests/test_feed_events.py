"""What the market and its feed tell besides bars: corrections, longer bars, quotes, halts, silence, gaps, sessions."""

from datetime import timedelta

import pytest

from commands.base import Command
from commands.broker_reports import ReportSubmitted
from commands.market import (
    AggregateBar,
    CloseSession,
    EndSession,
    OpenSession,
    ReportBar,
    ReportCorrectedBar,
    ReportFeedRecovered,
    ReportFeedStale,
    ReportGapFilled,
    ReportQuote,
    ReportSymbolStatus,
)
from mqd_ledger import events as e
from mqd_ledger.state import Mark, State
from tests.dsl import (
    MINUTE,
    OPENING,
    D,
    Desk,
    Given,
    at,
    bar,
    books_balance,
    closed,
    given,
    kinds,
    submit,
    working,
    world,
)

NOW = OPENING
SECOND = timedelta(seconds=1)
TODAY = "2026-01-05"
BAR = closed("SPY 14:29 100")


def after(state: State) -> Given:
    return Given(state)


def quote(bid: str, ask: str, when: str = "14:30:05") -> ReportQuote:
    return ReportQuote(at(when) + SECOND, at(when), "SPY", D(bid), 3, D(ask), 5, "alpaca")


# --- corrections and longer bars -------------------------------------------------------------------------------------------


def test_a_correction_of_the_last_bar_moves_the_mark_and_the_equity() -> None:
    desk = Desk()
    desk.trade("BUY 10 SPY", "100")
    changed = bar("SPY 14:29 100 103 99 102")
    assert desk.do(ReportCorrectedBar(NOW + SECOND, changed)) == [e.BarCorrected(NOW + SECOND, changed)]
    assert (desk.state.marks["SPY"], desk.state.equity) == (Mark(D(102), NOW), D(100020))
    assert desk.state.bars_total == 2
    books_balance(desk.state)


def test_a_correction_of_an_older_bar_is_recorded_and_moves_nothing() -> None:
    state = given(world(), BAR, closed("SPY 14:30 101")).when(ReportCorrectedBar(at("14:32"), bar("SPY 14:29 90")))
    assert state.then(e.BarCorrected).marks["SPY"].price == D(101)


def test_a_fresher_quote_is_not_moved_by_a_correction() -> None:
    state = given(world(), BAR).when(quote("101", "103")).then(e.QuoteTaken)
    state = after(state).when(ReportCorrectedBar(at("14:31"), bar("SPY 14:29 90"))).then(e.BarCorrected)
    assert state.marks["SPY"].price == D(102)


@pytest.mark.parametrize("early", (bar("SPY 14:30 90"), bar("QQQ 14:29 90"), bar("SPY 14:25 90", "5m")))
def test_what_never_closed_here_cannot_be_corrected(early: e.Event) -> None:
    given(world(), BAR).when(ReportCorrectedBar(at("14:36"), early)).then_nothing()  # type: ignore[arg-type]


def test_a_longer_bar_is_kept_and_moves_nothing() -> None:
    five = bar("SPY 14:25 99 101 98 100 v5000", "5m")
    state = given(world(), BAR).when(AggregateBar(NOW, five)).then(e.BarAggregated(NOW, five))
    assert (state.bars_total, state.marks["SPY"], ("SPY", "5m") in state.last_bars) == (1, Mark(D(100), NOW), False)


# --- quotes ----------------------------------------------------------------------------------------------------------------


def test_a_quote_is_the_mark_at_its_middle_until_the_next_bar() -> None:
    desk = Desk()
    desk.trade("BUY 10 SPY", "100")
    (taken,) = desk.do(quote("101", "101.5"))
    assert taken == e.QuoteTaken(at("14:30:05"), "SPY", D(101), 3, D("101.5"), 5, "alpaca")
    assert (desk.state.marks["SPY"], desk.state.equity) == (Mark(D("101.25"), at("14:30:05")), D("100012.5"))
    books_balance(desk.state)
    desk.bar("SPY 14:30 99")
    assert (desk.state.marks["SPY"].price, desk.state.equity) == (D(99), D(99990))


@pytest.mark.parametrize(
    "useless", (quote("101", "100.9"), quote("0", "101"), quote("101", "102", "14:30"), quote("101", "102", "14:29:59"))
)
def test_a_crossed_empty_or_old_quote_says_nothing(useless: ReportQuote) -> None:
    given(world(), BAR).when(useless).then_nothing()


def test_the_first_price_of_a_symbol_may_be_a_quote() -> None:
    state = given(world()).when(quote("101", "101")).then(e.QuoteTaken)
    assert state.marks["SPY"].price == D(101)


# --- halts of the exchange ---------------------------------------------------------------------------------------------------


def test_a_halted_symbol_is_not_traded_and_others_are() -> None:
    desk = Desk()
    halt = ReportSymbolStatus(NOW, NOW, "SPY", halted=True, status="Trading Halt", reason="LUDP")
    assert desk.do(halt) == [e.SymbolStatusChanged(NOW, "SPY", True, "Trading Halt", "LUDP")]
    assert desk.do(halt) == []
    denied = desk.do(submit("BUY 1 SPY"))[1]
    assert isinstance(denied, e.OrderDenied)
    assert "blocked_by halt of SPY (Trading Halt: LUDP)" in denied.reasons[0]
    assert kinds(desk.do(submit("BUY 1 QQQ")))[1] == "OrderApproved"
    goes_on = ReportSymbolStatus(NOW, NOW, "SPY", halted=False, status="Trading Resume", reason="over")
    assert len(desk.do(goes_on)) == 1
    assert desk.do(goes_on) == []
    assert kinds(desk.do(submit("BUY 1 SPY")))[1] == "OrderApproved"


# --- the feed ----------------------------------------------------------------------------------------------------------------


def test_silence_is_told_once_and_so_is_its_end() -> None:
    stale, recovered = ReportFeedStale(NOW, "bars", "95 s"), ReportFeedRecovered(NOW, "bars", "back")
    given(world()).when(recovered).then_nothing()
    state = given(world()).when(stale).then(e.FeedStale(NOW, "bars", "95 s"))
    assert state.blocks == {"feed bars": "95 s"}
    after(state).when(ReportFeedStale(NOW, "bars", "120 s")).then_nothing()
    state = after(state).when(recovered).then(e.FeedRecovered(NOW, "bars", "back"))
    assert state.blocks == {}


def test_a_filled_gap_is_recorded() -> None:
    filled = ReportGapFilled(NOW, "bars", "SPY", at("14:27"), at("14:29"), 3)
    given(world()).when(filled).then(e.FeedGapFilled(NOW, "bars", "SPY", at("14:27"), at("14:29"), 3))


# --- sessions ----------------------------------------------------------------------------------------------------------------


def test_a_session_opens_ends_and_closes_once() -> None:
    opens, ends, closes = (
        OpenSession(NOW, TODAY, at("21:00")),
        EndSession(NOW, TODAY, "cancel"),
        CloseSession(NOW, TODAY, "cancel"),
    )
    for early in (ends, closes):
        given(world()).when(early).then_nothing()
    orders = *working("o", "BUY 1 SPY LIMIT 90"), *working("p", "BUY 1 QQQ LIMIT 90"), e.CancelRequested(NOW, "p", "x")
    state = given(world(), orders).when(opens).then(e.SessionOpened(NOW, TODAY, at("21:00")))
    after(state).when(opens).then_nothing()
    state = (
        after(state)
        .when(ends)
        .then(e.SessionEnding(NOW, TODAY, "cancel"), e.CancelRequested(NOW, "o", "the session is ending: cancel"))
    )
    assert state.blocks == {"session": "2026-01-05 is ending: cancel"}
    after(state).when(ends).then_nothing()
    state = after(state).when(closes).then(e.SessionClosed(NOW, TODAY, "cancel"))
    assert (state.session, state.blocks) == ("", {})
    after(state).when(closes).then_nothing()


def test_a_session_that_was_never_closed_here_is_over_when_the_next_one_opens() -> None:
    ending = e.SessionOpened(NOW, TODAY, at("21:00")), e.SessionEnding(NOW, TODAY, "flatten")
    given(world(), ending).when(OpenSession(NOW, TODAY, at("21:00"))).then_nothing()
    tomorrow = OpenSession(NOW, "2026-01-06", at("2026-01-06T21:00"))
    state = given(world(), ending).when(tomorrow).then(e.SessionOpened)
    assert (state.session, state.blocks) == ("2026-01-06", {})


def test_what_is_recorded_late_is_decided_again_as_it_was() -> None:
    """The log's recorded time never goes back: an event can stand there with a later one than it was decided at."""
    desk = Desk()
    desk.bar("SPY 14:40 100")
    early = at("14:31")
    late: list[Command] = [
        ReportCorrectedBar(early, bar("SPY 14:30 99")),
        AggregateBar(early, bar("SPY 14:25 100", "5m")),
        ReportGapFilled(early, "bars", "SPY", NOW, NOW, 1),
        ReportFeedStale(early, "bars", "silent"),
        ReportFeedRecovered(early, "bars", "back"),
        OpenSession(early, TODAY, at("21:00")),
        EndSession(early, TODAY, "flatten"),
        CloseSession(early, TODAY, "flatten"),
        ReportSymbolStatus(early, early, "SPY", halted=True, status="H", reason="news"),
        ReportQuote(early, at("14:41:01"), "SPY", D(100), 1, D(101), 1, "alpaca"),
        ReportBar(early + MINUTE, bar("SPY 14:41 100")),  # rejected: it ends in its own future
    ]
    for command in late:
        assert desk.do(command), command
    order = desk.order("BUY 1 QQQ")
    desk.do(ReportSubmitted(early, early, order, "b"))  # the fixture takes every decision again
