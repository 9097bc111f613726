"""What the broker, the market and the bank report: each command's good case, its refusals, and that a repeat changes nothing."""

import pytest

from commands.base import Command
from commands.broker_reports import (
    ReportCanceled,
    ReportCancelRejected,
    ReportExpired,
    ReportRejected,
    ReportSubmitted,
    ReportUnknownOrder,
)
from commands.cash import ReportCash, ReportFee
from commands.executions import ReportBust, ReportCorrection, ReportFill
from commands.market import ReportBadBar, ReportBar
from mqd_ledger import events as e
from mqd_ledger.values import Anomaly, LotCause, OrderState
from tests.dsl import (
    BUY,
    MINUTE,
    OPENING,
    SELL,
    D,
    Desk,
    at,
    bar,
    books_balance,
    closed,
    given,
    kinds,
    lots_of,
    working,
    world,
)

NOW = OPENING
BUYING = working("o", "BUY 10 SPY")
FILL = ReportFill(NOW, NOW, "o", "x", "SPY", BUY, D(4), D(100), D("0.35"))
FILLED = (
    e.OrderFilled(NOW, "o", "x", "SPY", BUY, D(4), D(100), D("0.35"), D(4), D(6)),
    e.LotOpened(NOW, "x", "SPY", "", "x", D(4), D(100), D(400), NOW),
)


def test_an_acknowledgement_is_recorded_with_the_brokers_own_id_and_time() -> None:
    earlier = NOW - MINUTE
    state = (
        given(world(), BUYING[:3])
        .when(ReportSubmitted(NOW, earlier, "o", "b"))
        .then(e.OrderSubmitted(earlier, "o", "b"))
    )
    assert (state.orders["o"].state, state.orders["o"].submitted_at) == (OrderState.SUBMITTED, earlier)


@pytest.mark.parametrize(
    ("report", "event"),
    (
        (ReportRejected(NOW, NOW, "o", "why"), e.OrderRejected(NOW, "o", "why")),
        (ReportCanceled(NOW, NOW, "o", "why"), e.OrderCanceled(NOW, "o", "why")),
        (ReportExpired(NOW, NOW, "o", "why"), e.OrderExpired(NOW, "o", "why")),
    ),
)
def test_an_order_that_ends_works_no_more_and_keeps_what_was_filled(report: Command, event: e.Event) -> None:
    state = given(world(), BUYING).when(report).then(event)
    assert (state.working, state.orders["o"].is_working) == ({}, False)
    partly = given(world(), BUYING, FILLED).when(report)
    state = partly.then(*(type(one) for one in partly.events))
    assert (state.positions, state.orders["o"].filled_quantity, state.working) == ({"SPY": D(4)}, D(4), {})


def test_a_fill_and_its_lot_are_recorded_together_and_move_position_and_cash() -> None:
    state = given(world(deposit="1000"), BUYING).when(FILL).then(*FILLED)
    assert (state.cash, state.equity, state.positions) == (D("599.65"), D("999.65"), {"SPY": D(4)})
    assert (state.orders["o"].state, state.orders["o"].leaves_quantity) == (OrderState.PARTIALLY_FILLED, D(6))
    books_balance(state)


@pytest.mark.parametrize(
    ("report", "text"),
    (
        (ReportFill(NOW, NOW, "nobody", "x", "SPY", BUY, D(1), D(1)), "No order 'nobody' is known here"),
        (ReportFill(NOW, NOW, "o", "y", "QQQ", BUY, D(1), D(1)), "a BUY of QQQ, but order o is a BUY of SPY"),
        (ReportFill(NOW, NOW, "o", "y", "SPY", SELL, D(1), D(1)), "a SELL of SPY, but order o is a BUY"),
        (ReportFill(NOW, NOW, "o", "y", "SPY", BUY, D(0), D(1)), "above zero.*found 0 at 1"),
        (ReportFill(NOW, NOW, "o", "y", "SPY", BUY, D(1), D(-1)), "above zero.*found 1 at -1"),
        (ReportFill(NOW, NOW, "o", "y", "SPY", BUY, D("NaN"), D(1)), "found NaN at 1"),
        (ReportFill(NOW, NOW, "o", "y", "SPY", BUY, D(1), D(1), D("NaN")), "commission NaN"),
        (
            ReportFill(NOW, NOW, "o2", "x", "SPY", BUY, D(4), D(100)),
            "x is one of order o, but it is reported of order o2",
        ),
        (ReportSubmitted(NOW, NOW, "nobody", "b"), "ReportUnknownOrder"),
        (ReportCanceled(NOW, NOW, "nobody", ""), "No order"),
        (ReportBust(NOW, NOW, "o", "x", "SPY", BUY, D(5), D(100)), "speaks of 5 at 100, but it was booked as 4 at 100"),
        (ReportBust(NOW, NOW, "o2", "x", "SPY", BUY, D(4), D(100)), "x is one of order o"),
        (ReportBust(NOW, NOW, "o", "x", "SPY", BUY, D(4), D(100), D("Infinity")), "commission Infinity"),
        (ReportCorrection(NOW, NOW, "o", "none", "z", D(1), D(1)), "none cannot be corrected: it is not known here"),
        (ReportCorrection(NOW, NOW, "o", "x", "z", D(0), D(1)), "above zero.*found 0 at 1"),
        (ReportCorrection(NOW, NOW, "o2", "x", "z", D(1), D(1)), "x is one of order o"),
        (ReportUnknownOrder(NOW, NOW, "new", "b", "SPY", BUY, D("NaN")), "notional above zero; new came with NaN"),
        (ReportUnknownOrder(NOW, NOW, "new", "b", "SPY", BUY, D(-1)), "came with -1"),
    ),
)
def test_a_report_that_contradicts_what_is_known_is_refused_and_leaves_no_trace(report: Command, text: str) -> None:
    given(world(), BUYING, working("o2", "BUY 10 SPY"), FILLED).when(report).refused(text)


@pytest.mark.parametrize(
    "report",
    (
        FILL,
        ReportSubmitted(NOW, NOW, "o", "b-o"),
        ReportCash(NOW, "opening", "DEPOSIT", D(1), "again"),
        ReportCancelRejected(NOW, NOW, "o", "nothing was asked"),
        ReportUnknownOrder(NOW, NOW, "o", "b-o", "SPY", BUY, D(10)),
    ),
)
def test_a_report_of_what_is_known_already_changes_nothing(report: Command) -> None:
    given(world(), BUYING, FILLED).when(report).then_nothing()


def test_every_report_heard_twice_counts_once() -> None:
    desk = Desk()
    order, other = desk.order("BUY 10 SPY"), desk.order("BUY 5 SPY")
    reports: list[Command] = [
        ReportSubmitted(NOW, NOW, order, "b"),
        ReportFill(NOW, NOW, order, "x1", "SPY", BUY, D(4), D(100), D(1)),
        ReportFill(NOW, NOW, order, "x2", "SPY", BUY, D(6), D(101)),
        ReportBust(NOW, NOW, order, "x1", "SPY", BUY, D(4), D(100), D(1)),
        ReportBust(NOW, NOW, order, "never", "SPY", BUY, D(4), D(100), D(1)),
        ReportCorrection(NOW, NOW, order, "x2", "x3", D(5), D(101)),
        ReportRejected(NOW, NOW, other, "no"),
        ReportCanceled(NOW, NOW, order, "late"),
        ReportExpired(NOW, NOW, order, "late"),
        ReportUnknownOrder(NOW, NOW, "foreign", "b9", "QQQ", SELL, D(1)),
        ReportCash(NOW, "m", "WITHDRAWAL", D(-5), "rent"),
        ReportFee(NOW, "f", "SEC", D("0.01"), "fee"),
    ]
    for report in reports:
        assert desk.do(report), report
        before, length = repr(desk.state), len(desk.tape.recorded)
        assert desk.do(report) == [], report
        assert (repr(desk.state), len(desk.tape.recorded)) == (before, length)
    books_balance(desk.state)


def test_fills_are_counted_in_whatever_order_they_arrive() -> None:
    ends = []
    for executions in ("abc", "cab", "bca"):
        desk = Desk()
        order = desk.order("BUY 10 SPY")
        sizes = {"a": ("3", "100"), "b": ("3", "101"), "c": ("4", "102")}
        for name in executions:
            desk.fill(order, name, *sizes[name])
        desk.do(ReportSubmitted(desk.at, desk.at, order, "b"))
        assert desk.state.orders[order].state is OrderState.FILLED
        ends.append(
            (
                desk.state.cash,
                desk.state.positions,
                desk.state.orders[order].average_fill_price,
                sorted(lots_of(desk.state)),
            )
        )
    assert ends[0] == ends[1] == ends[2]


def test_a_cancel_that_loses_against_a_fill_keeps_the_position_and_tells_the_operator() -> None:
    decided = given(
        world(), BUYING, FILLED, e.CancelRequested(NOW, "o", "asked"), e.OrderCanceled(NOW, "o", "asked")
    ).when(ReportFill(NOW, NOW, "o", "late", "SPY", BUY, D(6), D(99)))
    state = decided.then(e.OrderFilled, e.OrderAnomalyFound, e.LotOpened)
    assert (state.positions, state.orders["o"].state) == ({"SPY": D(10)}, OrderState.CANCELED)
    books_balance(state)


def test_a_bust_gives_back_shares_cash_and_commission() -> None:
    bust = ReportBust(NOW, NOW, "o", "x", "SPY", BUY, D(4), D(100), D("0.35"))
    state = (
        given(world(deposit="1000"), BUYING, FILLED)
        .when(bust)
        .then(
            e.ExecutionBusted(NOW, "o", "x", "SPY", BUY, D(4), D(100), D("0.35")),
            e.OrderAnomalyFound(
                NOW, "o", Anomaly.EXECUTION_BUSTED, "execution busted while the order was PARTIALLY_FILLED"
            ),
            e.LotClosed(NOW, "x", "SPY", "", "x", D(4), D(400), D(100), D(0), NOW, LotCause.BUST),
        )
    )
    assert (state.cash, state.equity, state.positions, state.commissions) == (D(1000), D(1000), {}, D(0))


def test_a_bust_that_comes_before_its_execution_keeps_it_from_being_booked() -> None:
    desk = Desk()
    order = desk.order("BUY 10 SPY")
    bust = ReportBust(NOW, NOW, order, "x", "SPY", BUY, D(10), D(100), D(1))
    events = desk.do(bust)
    assert events[0] == e.ExecutionBusted(NOW, order, "x", "SPY", BUY, D(10), D(100), D(1))  # as it was told
    assert "10 at 100" in repr(events[1])
    assert desk.fill(order, "x", "10", "100") == []
    assert (desk.state.positions, desk.state.cash) == ({}, D(100000))


def test_a_correction_books_the_difference_and_keeps_the_commission() -> None:
    fix = ReportCorrection(NOW, NOW, "o", "x", "y", D(3), D(101))
    state = (
        given(world(deposit="1000"), BUYING, FILLED)
        .when(fix)
        .then(
            e.ExecutionCorrected(NOW, "o", "x", "y", "SPY", BUY, D(4), D(100), D(3), D(101), D("0.35")),
            e.OrderAnomalyFound,
            e.LotClosed(NOW, "x", "SPY", "", "x", D(4), D(400), D(100), D(0), NOW, LotCause.BUST),
            e.LotOpened(NOW, "y", "SPY", "", "y", D(3), D(101), D(303), NOW),
        )
    )
    assert (state.cash, state.positions, state.commissions) == (D("696.65"), {"SPY": D(3)}, D("0.35"))
    assert (state.orders["o"].filled_quantity, state.orders["o"].average_fill_price) == (D(3), D(101))
    books_balance(state)


def test_a_rejected_cancel_lets_the_order_be_canceled_again() -> None:
    asked = e.CancelRequested(NOW, "o", "asked")
    report = ReportCancelRejected(NOW, NOW, "o", "too late")
    state = given(world(), BUYING, asked).when(report).then(e.CancelRejected(NOW, "o", "too late"))
    assert state.orders["o"].cancel_requested is False


def test_an_unknown_order_is_adopted_and_followed_like_any_other() -> None:
    desk = Desk()
    desk.do(ReportUnknownOrder(NOW, NOW, "theirs", "b", "SPY", SELL, D(5)))
    assert desk.state.working["SPY"]["theirs"].leaves_quantity == 5
    desk.fill("theirs", "x", "5", "100")
    assert (desk.state.positions, desk.state.orders["theirs"].state) == ({"SPY": D(-5)}, OrderState.FILLED)
    books_balance(desk.state)


def test_a_bar_is_recorded_when_it_closes_and_moves_the_mark() -> None:
    one = bar("SPY 14:30 100 102 99 101")
    state = given(world(), BUYING, FILLED).when(ReportBar(at("14:31"), one)).then(e.BarClosed(at("14:31"), one))
    assert (state.marks["SPY"].price, state.marks["SPY"].at) == (D(101), at("14:31"))
    assert state.unrealized_pnl == D(4)
    books_balance(state)


@pytest.mark.parametrize(
    ("start", "now", "reason"),
    (
        ("14:31", "14:40", "is a duplicate of"),
        ("14:30", "14:40", "comes after a later bar"),
        ("14:35", "14:35", "in the future of 2026-01-05T14:35:00Z"),
    ),
)
def test_a_bar_that_repeats_goes_back_or_is_not_over_is_kept_from_every_strategy(
    start: str, now: str, reason: str
) -> None:
    decided = given(world(), closed("SPY 14:31 100")).when(ReportBar(at(now), bar(f"SPY {start} 105")))
    assert kinds(decided.events) == ["BarRejected"]
    assert reason in repr(decided.events)
    assert decided.then(e.BarRejected).marks["SPY"].price == 100
    other = given(world(), closed("SPY 14:31 100")).when(ReportBar(at("14:36"), bar("SPY 14:30 105", "5m")))
    other.then(e.BarClosed)  # another interval is another series


def test_a_row_that_is_no_bar_is_recorded_with_its_place_and_reason() -> None:
    row = ReportBadBar(NOW, "SPY", 7, "SPY,x", "open is not a number: x")
    state = given(world()).when(row).then(e.BarRejected(NOW, "SPY", 7, "SPY,x", "open is not a number: x"))
    assert (state.feed_items, state.marks) == (1, {})


def test_money_in_and_out_is_neither_profit_nor_loss() -> None:
    state = (
        given(world(deposit="1000"))
        .when(ReportCash(NOW, "w", "WITHDRAWAL", D(-400), "rent"))
        .then(e.CashMoved(NOW, "w", "WITHDRAWAL", D(-400), "rent"))
    )
    assert (state.cash, state.deposits, state.day.start_equity - state.equity) == (D(600), D(600), D(0))
    assert (state.drawdown, state.max_drawdown) == (D(0), D(0))


@pytest.mark.parametrize(
    ("kind", "amount"), (("DEPOSIT", "-1"), ("DEPOSIT", "0"), ("WITHDRAWAL", "1"), ("GIFT", "1"), ("DEPOSIT", "NaN"))
)
def test_cash_that_makes_no_sense_is_refused(kind: str, amount: str) -> None:
    given(world()).when(ReportCash(NOW, "m", kind, D(amount), "")).refused(f"found {kind} of {amount}")


def test_a_fee_is_a_loss_and_counts_once_even_where_a_deposit_has_its_id() -> None:
    fee = ReportFee(NOW, "opening", "TAF", D("0.02"), "activity fee")
    state = given(world(deposit="1000")).when(fee).then(e.FeeCharged(NOW, "opening", "TAF", D("0.02"), "activity fee"))
    assert (state.cash, state.fees, state.day.start_equity - state.equity) == (D("999.98"), D("0.02"), D("0.02"))
    books_balance(state)
    given(world()).when(ReportFee(NOW, "f", "TIP", D(1), "")).refused("one of SEC, TAF, CAT, OTHER; found TIP")
