"""What differs at the broker is found, told with its evidence and booked, once; and nothing that differs is ever traded away."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from commands.broker_reports import ReportAbsent, ReportSubmitted
from commands.control import EndRun, StartRun
from commands.executions import ReportBust, ReportFill
from commands.market import ReportBar
from commands.trading import ReplaceOrder
from commands.truth import AcceptDifference, ReportAgreement, ReportDifference
from mqd_ledger import events as e
from mqd_ledger import wishes
from mqd_ledger.brokers.base import BrokerFill, BrokerMovement, BrokerOrder
from mqd_ledger.brokers.reconciliation import Reconciler
from mqd_ledger.naming import next_name
from mqd_ledger.orders import TERMINAL
from mqd_ledger.values import Anomaly, DifferenceKind, OrderState, TradingState, plain
from tests.broker_account import (
    Account,
    attached,
    is_decided_again,
    look,
    new_ledger,
    operated,
    reconciler,
    resumed,
    take_over,
)
from tests.dsl import BUY, OPENING, SELL, D, Desk, at, bar, books_balance, kinds
from tests.loopback import flat
from tests.trading import desk as real_desk

SECOND = timedelta(seconds=1)
SETTLE = 10 * SECOND
LATER = OPENING + 60 * SECOND


def sent(desk: Desk, account: Account, text: str) -> str:
    """An order that the broker has and has acknowledged."""
    name = desk.order(text)
    account.place(name, text, desk.at)
    desk.do(ReportSubmitted(desk.at, desk.at, name, f"b-{name}"))
    return name


def traded(desk: Desk, account: Account, name: str, quantity: str, price: str) -> None:
    """An execution that the stream brings at once."""
    row = account.fill(name, quantity, price, desk.at)
    desk.do(
        ReportFill(
            desk.at, desk.at, name, f"x-{row.execution_id}", row.symbol, row.side, row.quantity, row.price,
            cumulative_quantity=row.cumulative_quantity,
        )
    )  # fmt: skip


def found(events: list[e.Event]) -> list[DifferenceKind]:
    return [event.kind for event in events if isinstance(event, e.DifferenceFound)]


def is_alike(desk: Desk, account: Account) -> None:
    assert desk.state.positions == {symbol: quantity for symbol, quantity in account.held.items() if quantity}
    assert abs(desk.state.cash - account.cash) <= D("0.01")
    books_balance(desk.state)
    is_decided_again(desk)


# --- executions -------------------------------------------------------------------------------------------------------


def test_a_missed_execution_is_booked_with_its_evidence_before_the_end_of_its_order() -> None:
    """F2: a partly filled order that was canceled while nobody listened."""
    desk, account, eyes = attached(), Account(), reconciler()
    name = desk.order("BUY 10 SPY")
    account.place(name, "BUY 10 SPY")
    account.fill(name, "3", "100", OPENING + SECOND)
    account.fill(name, "1", "101", OPENING + SECOND)
    account.end(name, "canceled", OPENING + 2 * SECOND)
    events = look(desk, eyes, account.books(LATER))
    assert kinds(events) == [
        "OrderSubmitted",
        *["DifferenceFound", "AdjustmentBooked", "OrderFilled", "LotOpened"] * 2,
        "OrderCanceled",
    ]
    assert found(events) == [DifferenceKind.MISSED_FILL] * 2
    first = events[1]
    assert isinstance(first, e.DifferenceFound)
    assert (first.subject, first.ours, first.theirs) == (name, "0 filled", "BUY 3 SPY at 100")
    assert first.evidence["execution_id"] == f"a-{name}-3"
    assert desk.state.orders[name].state is OrderState.CANCELED
    assert look(desk, eyes, account.books(LATER)) == []
    is_alike(desk, account)


def test_an_execution_that_the_stream_still_brings_is_no_missed_one_and_counts_once() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY")
    row = account.fill(name, "10", "100", OPENING + SECOND)
    assert kinds(look(desk, eyes, account.books(OPENING + 2 * SECOND))) == ["OrderFilled", "LotOpened"]
    told = ReportFill(desk.at, row.occurred_at, name, "stream-1", "SPY", BUY, D(10), D(100), cumulative_quantity=D(10))
    assert desk.do(told) == []
    is_alike(desk, account)


@pytest.mark.parametrize("missing", (("3",), ("4",), ("3", "4"), ("3", "5"), ("3", "4", "5")))
def test_executions_that_no_row_tells_follow_from_what_the_order_says(missing: tuple[str, ...]) -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 12 SPY")
    rows = {size: account.fill(name, size, f"10{size}", OPENING + SECOND, told=size not in missing) for size in "345"}
    events = look(desk, eyes, account.books(LATER))
    assert sum(isinstance(event, e.OrderFilled) for event in events) == 3 - len(missing)
    assert (eyes.is_unsettled, eyes.has_untold) == (True, True)
    events = look(desk, eyes, account.books(LATER + SETTLE))
    assert set(found(events)) == {DifferenceKind.MISSED_FILL}
    assert (eyes.is_unsettled, eyes.has_untold) == (False, False)
    assert desk.state.orders[name].state is OrderState.FILLED
    average = desk.state.orders[name].average_fill_price
    assert average is not None
    assert abs(average - (account.orders[name].filled_average_price or 0)) < D("0.0001")
    account.rows += [rows[size] for size in missing]  # they come after all
    assert look(desk, eyes, account.books(LATER + 2 * SETTLE)) == []
    books_balance(desk.state)
    is_decided_again(desk)


def test_executions_of_several_orders_are_booked_as_they_were_traded() -> None:
    """So that the first lot that was bought is the first that is sold, whichever order was placed first."""
    desk, account, eyes = attached(), Account(), reconciler()
    late, early, sale = (sent(desk, account, text) for text in ("BUY 10 SPY LIMIT 99", "BUY 10 SPY", "SELL 10 SPY"))
    account.fill(early, "10", "100", OPENING + SECOND)
    account.fill(sale, "10", "105", OPENING + 2 * SECOND)
    account.fill(late, "10", "99", OPENING + 3 * SECOND)
    look(desk, eyes, account.books(LATER))
    assert desk.state.realized_pnl == 50
    is_alike(desk, account)


def test_an_order_by_dollars_is_over_when_the_broker_says_so() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY $500 SPY")
    account.fill(name, "3", "100", OPENING + SECOND)
    look(desk, eyes, account.books(LATER))
    assert desk.state.orders[name].state is OrderState.PARTIALLY_FILLED
    account.fill(name, "2", "100", LATER)
    assert look(desk, eyes, account.books(LATER + SECOND)) == [], "it is not known yet whether that was all"
    account.end(name, "filled", LATER)
    look(desk, eyes, account.books(LATER + 2 * SECOND))
    assert desk.state.orders[name].state is OrderState.FILLED
    is_alike(desk, account)


def test_an_order_of_which_an_execution_was_undone_is_not_booked_again() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY")
    account.fill(name, "4", "100", OPENING + SECOND)
    look(desk, eyes, account.books(LATER))
    desk.do(ReportBust(LATER, LATER, name, f"a-{name}-4", "SPY", BUY, D(4), D(100)))
    account.held, account.cash = {}, D(100000)
    for moments in range(1, 4):
        assert look(desk, eyes, account.books(LATER + moments * SETTLE)) == []
    is_alike(desk, account)


def test_an_order_that_is_over_at_the_broker_with_less_than_was_ordered_is_over_here_too() -> None:
    """Its last execution was lost on the way and then undone: nothing is missing, and nothing will come any more."""
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY")
    account.fill(name, "4", "100", OPENING + SECOND)
    look(desk, eyes, account.books(LATER))
    account.end(name, "filled", LATER)
    assert look(desk, eyes, account.books(LATER + SECOND)) == [], "the answer may only lag behind"
    look(desk, eyes, account.books(LATER + SECOND + SETTLE))
    assert desk.state.orders[name].state is OrderState.CANCELED
    assert desk.state.orders[name].filled_quantity == 4
    is_alike(desk, account)
    is_decided_again(desk)


def test_executions_that_were_booked_without_the_brokers_count_are_not_booked_again() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY")
    desk.fill(name, "x-1", "4", "100")
    account.fill(name, "4", "100", OPENING)
    account.fill(name, "6", "100", OPENING)
    assert kinds(look(desk, eyes, account.books(OPENING + SECOND))) == ["OrderFilled", "LotOpened"]
    is_alike(desk, account)


def test_a_row_that_makes_no_sense_is_handed_on_once_and_stops_nothing() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY")
    account.rows.append(BrokerFill("a-1", f"b-{name}", "QQQ", SELL, D(1), D(9), D(1), OPENING))
    other = sent(desk, account, "BUY 1 QQQ")
    account.fill(other, "1", "50", OPENING + SECOND)
    look(desk, eyes, account.books(LATER))
    assert list(eyes.compare(desk.state, account.books(LATER + SECOND), LATER)) == []
    is_alike(desk, account)


def of_another_symbol(account: Account, name: str) -> None:
    account.rows.append(BrokerFill("a-1", f"b-{name}", "QQQ", SELL, D(1), D(9), D(10), OPENING + 2 * SECOND))


def of_nothing(account: Account, name: str) -> None:
    account.rows.append(BrokerFill("a-1", f"b-{name}", "SPY", BUY, D(6), D(0), D(10), OPENING + 2 * SECOND))


def of_another_order(account: Account, name: str) -> None:
    account.place("by-hand", "BUY 4 SPY LIMIT 9")
    account.rows.append(BrokerFill(f"a-{name}-4", "b-by-hand", "SPY", BUY, D(4), D(100), D(4), OPENING + 2 * SECOND))


def under_another_name(account: Account, name: str) -> None:
    account.rows.append(BrokerFill("a-1", f"b-{name}", "SPY", BUY, D(4), D(100), D(4), OPENING + 2 * SECOND))


def twice(account: Account, name: str) -> None:
    account.rows.append(account.rows[0])


@pytest.mark.parametrize("spoil", (of_another_symbol, of_nothing, of_another_order, under_another_name, twice))
def test_what_is_not_booked_has_no_evidence_either_however_often_it_is_seen(
    spoil: Callable[[Account, str], None],
) -> None:
    """Neither by the same process nor by another that comes back to where the record ends."""
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY")
    account.fill(name, "4", "100", OPENING + SECOND)
    spoil(account, name)
    first = look(desk, eyes, account.books(LATER))
    assert found(first).count(DifferenceKind.MISSED_FILL) == 1
    assert kinds(first).count("OrderFilled") == 1
    for _ in range(2):
        for moments in range(1, 4):
            desk.at += SETTLE
            assert look(desk, eyes, account.books(LATER + moments * SETTLE)) == []
        desk, eyes = resumed(desk.tape.recorded), reconciler()
    books_balance(desk.state)
    is_decided_again(desk)


# --- orders -----------------------------------------------------------------------------------------------------------


def test_a_position_closed_by_hand_is_followed_and_never_traded_back() -> None:
    """F4: at the broker's web page somebody sells what a strategy holds."""
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY")
    account.fill(name, "10", "100", OPENING + SECOND)
    look(desk, eyes, account.books(OPENING + 2 * SECOND))
    account.place("by-hand", "SELL 10 SPY", LATER)
    account.fill("by-hand", "10", "103", LATER + SECOND)
    events = look(desk, eyes, account.books(LATER + 2 * SETTLE))
    assert found(events) == [DifferenceKind.MANUAL_ORDER, DifferenceKind.MANUAL_TRADE]
    assert kinds(events).count("OrderAdopted") == 1
    assert (desk.state.positions, desk.state.realized_pnl) == ({}, D(30))
    assert desk.state.trading_state is TradingState.ACTIVE
    assert look(desk, eyes, account.books(LATER + 2 * SETTLE)) == []
    is_alike(desk, account)


def test_what_was_done_by_hand_before_these_books_began_is_not_theirs() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.place("long-ago", "BUY 1 SPY", OPENING - SETTLE)
    account.fill("long-ago", "1", "100", OPENING - SETTLE)
    account.held, account.cash = {}, D(100000)
    account.place("working", "BUY 1 QQQ LIMIT 1", OPENING - SETTLE)
    assert found(look(desk, eyes, account.books(LATER))) == [DifferenceKind.MANUAL_ORDER]
    assert set(desk.state.orders) == {"working"}


def test_an_order_that_never_arrived_is_sent_again_while_it_is_wanted_and_then_taken_back() -> None:
    """F9, its other half: the answer was lost because the request was."""
    desk, account, eyes = attached(operated(resend_within=15)), Account(), reconciler()
    name = desk.order("BUY 10 SPY")
    assert look(desk, eyes, account.books(OPENING - SECOND)) == [], "these books are older than the order"
    assert look(desk, eyes, account.books(OPENING + SECOND)) == []
    assert eyes.is_unsettled
    assert look(desk, eyes, account.books(OPENING + 10 * SECOND)) == []
    assert kinds(look(desk, eyes, account.books(OPENING + 11 * SECOND))) == ["OrderSent"]
    assert look(desk, eyes, account.books(OPENING + 12 * SECOND)) == [], "the second attempt is young"
    assert kinds(look(desk, eyes, account.books(OPENING + 22 * SECOND))) == ["OrderCanceled"]
    assert desk.state.orders[name].state is OrderState.CANCELED
    assert not desk.state.working
    is_alike(desk, account)


def test_an_order_whose_answer_was_lost_is_acknowledged_and_not_sent_again() -> None:
    """F9 and F1: the request arrived."""
    desk, account, eyes = attached(), Account(), reconciler()
    name = desk.order("BUY 10 SPY")
    account.place(name, "BUY 10 SPY")
    assert kinds(look(desk, eyes, account.books(LATER))) == ["OrderSubmitted"]
    assert desk.state.orders[name].attempts == 1


def test_an_acknowledged_order_that_the_broker_forgets_ends() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY LIMIT 90")
    del account.orders[name]
    assert look(desk, eyes, account.books(LATER)) == []
    events = look(desk, eyes, account.books(LATER + SETTLE))
    assert kinds(events) == ["DifferenceFound", "AdjustmentBooked", "OrderCanceled"]
    assert not desk.state.working


def strays_of(eyes: Reconciler) -> list[str]:
    return [order.broker_order_id for order in eyes.strays]


def test_an_order_that_ended_here_and_works_at_the_broker_is_a_stray_once_that_lasts() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = desk.order("BUY 10 SPY LIMIT 90")
    desk.at += 60 * SECOND
    desk.do(ReportAbsent(desk.at, desk.at, name))
    account.place(name, "BUY 10 SPY LIMIT 90")  # the request was only slow
    look(desk, eyes, account.books(desk.at))
    assert not strays_of(eyes)
    assert found(look(desk, eyes, account.books(desk.at + SETTLE))) == [DifferenceKind.UNKNOWN]
    assert strays_of(eyes) == [f"b-{name}"]
    assert look(desk, eyes, account.books(desk.at + SETTLE)) == []
    assert strays_of(eyes), "until it is gone"
    account.end(name, "canceled", desk.at)
    look(desk, eyes, account.books(desk.at + SETTLE))
    assert not strays_of(eyes)


def test_an_order_that_took_anothers_place_is_followed_from_there() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY LIMIT 90")
    desk.do(ReplaceOrder(desk.at, name, "closer", limit_price=D(95)))
    new = desk.state.orders[name].replacement_id
    account.fill(name, "2", "90", OPENING + SECOND)
    account.place(new, "BUY 10 SPY LIMIT 95", OPENING + 2 * SECOND, replaces=f"b-{name}")
    account.orders[name] = structs.replace(account.orders[name], replaced_by=f"b-{new}")
    account.end(name, "replaced", OPENING + 2 * SECOND)
    account.fill(new, "10", "95", OPENING + 3 * SECOND)
    events = look(desk, eyes, account.books(LATER))
    assert not [event for event in events if isinstance(event, e.OrderAnomalyFound)]
    states = {order.client_order_id: order.state for order in desk.state.orders.values()}
    assert states == {name: OrderState.CANCELED, new: OrderState.FILLED}
    assert look(desk, eyes, account.books(LATER)) == []
    is_alike(desk, account)


def test_an_order_that_is_filled_is_no_stray_whatever_the_broker_calls_it() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY")
    traded(desk, account, name, "10", "100")
    account.orders[name] = structs.replace(account.orders[name], status="calculated", state=OrderState.SUBMITTED)
    for moments in range(3):
        assert look(desk, eyes, account.books(LATER + moments * SETTLE)) == []
        assert not strays_of(eyes)


def test_an_order_that_this_ledger_does_not_know_any_more_is_told_once() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 1 SPY LIMIT 9")
    del desk.state.orders[name], desk.state.working["SPY"]
    assert kinds(look(desk, eyes, account.books(LATER))) == ["BrokerReportIgnored"]
    assert look(desk, eyes, account.books(LATER + SETTLE)) == []


def test_an_order_with_this_ledgers_name_that_it_never_sent_is_taken_over_and_halts_trading() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.place("L-1-000999", "BUY 1 SPY LIMIT 9", LATER)
    found = kinds(look(desk, eyes, account.books(LATER)))
    assert {"TradingHalted", "OrderAdopted"} <= set(found)
    assert look(desk, eyes, account.books(LATER + SETTLE)) == []
    assert next_name(desk.state) == "L-1-001000", "names go on after it"
    desk.do(ReportDifference(LATER, DifferenceKind.UNKNOWN, "cash", "0", "5000", amount=D(5000)))
    desk.do(ReportAgreement(LATER, "cash", "both have the same"))
    assert not desk.state.differences
    assert desk.state.trading_state is TradingState.HALTED, (
        "a difference that has ended does not lift it: a person does"
    )


def test_names_go_on_after_those_that_other_runs_of_a_lost_end_gave() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.place("L-2-000007", "BUY 1 SPY LIMIT 9", LATER)
    look(desk, eyes, account.books(LATER))
    assert next_name(desk.state) == "L-1-000001"
    desk.do(EndRun(LATER, "another one is started"))
    desk.do(StartRun(LATER, "loopback", "1", e.Source("synthetic", "test", ""), (), desk.state.policy))
    assert next_name(desk.state) == "L-2-000008"


def test_an_unknown_status_is_told_once() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY LIMIT 90")
    account.orders[name] = structs.replace(account.orders[name], status="frozen", state=None)
    events = look(desk, eyes, account.books(LATER))
    assert [event.anomaly for event in events if isinstance(event, e.OrderAnomalyFound)] == [Anomaly.UNKNOWN_STATUS]
    assert look(desk, eyes, account.books(LATER + SETTLE)) == []


# --- shares -----------------------------------------------------------------------------------------------------------


def test_what_lags_for_a_moment_is_no_difference() -> None:
    """The broker's positions come seconds after its own stream."""
    desk, account, eyes = attached(), Account(), reconciler()
    before = account.books(OPENING)
    name = sent(desk, account, "BUY 10 SPY")
    traded(desk, account, name, "10", "100")
    lagging = structs.replace(account.books(LATER), positions=before.positions, account=before.account)
    assert look(desk, eyes, lagging) == []
    assert [eyes.is_unsettled] == [True]
    assert look(desk, eyes, account.books(LATER + SETTLE)) == []
    assert [eyes.is_unsettled] == [False]


def test_what_was_not_seen_in_between_begins_anew() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    lagging = account.books(OPENING)
    traded(desk, account, sent(desk, account, "BUY 10 SPY"), "10", "100")
    for moments in range(3):
        at = LATER + moments * SETTLE
        assert look(desk, eyes, structs.replace(lagging, asked_at=at)) == []
        assert look(desk, eyes, account.books(at + SECOND)) == []


@pytest.mark.parametrize("cash_alone", (True, False))
def test_an_execution_in_between_makes_two_looks_two_different_ones(cash_alone: bool) -> None:
    """Held 10, then none, then 10 again: an answer from before the first and one from before the third look alike."""
    desk, account, eyes = attached(), Account(), reconciler()
    empty = account.books(OPENING)
    for text in ("BUY 10 SPY", "SELL 10 SPY", "BUY 10 SPY"):
        traded(desk, account, sent(desk, account, text), "10", "100")
        if text != "SELL 10 SPY":
            desk.at += SETTLE
            lagging = structs.replace(account.books(desk.at), account=empty.account)
            if not cash_alone:
                lagging = structs.replace(lagging, positions=empty.positions)
            assert look(desk, eyes, lagging) == []


def test_shares_that_nobody_explains_halt_trading_until_somebody_accepts_them() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.move("SPY", D(5), "100")
    assert look(desk, eyes, account.books(LATER)) == []
    events = look(desk, eyes, account.books(LATER + SETTLE))
    assert kinds(events) == ["DifferenceFound", "TradingHalted"]
    first = events[0]
    assert isinstance(first, e.DifferenceFound)
    assert (first.kind, first.quantity, first.price) == (DifferenceKind.UNKNOWN, D(5), D(100))
    assert (first.ours, first.theirs) == ("0", "5")
    for moments in range(2, 5):
        assert look(desk, eyes, account.books(LATER + moments * SETTLE)) == [], "said once, and cash waits for it"
    assert not eyes.is_unsettled
    desk.do(AcceptDifference(desk.at, "D1", "trader", "bought elsewhere"))
    assert desk.state.trading_state is TradingState.ACTIVE
    assert look(desk, eyes, account.books(LATER + 9 * SETTLE)) == []
    is_alike(desk, account)


def test_a_difference_that_goes_away_by_itself_lets_trading_go_on() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.place("by-hand", "BUY 5 SPY", OPENING + SECOND)
    row = account.fill("by-hand", "5", "100", OPENING + SECOND, told=False)
    by_hand = account.orders.pop("by-hand")  # nothing names it before its execution is told
    look(desk, eyes, account.books(LATER))
    look(desk, eyes, account.books(LATER + SETTLE))
    assert desk.state.trading_state is TradingState.HALTED
    account.orders["by-hand"] = by_hand
    account.rows.append(row)
    events = look(desk, eyes, account.books(LATER + 2 * SETTLE))
    assert kinds(events)[-2:] == ["DifferenceCleared", "TradingResumed"]
    is_alike(desk, account)


def test_shares_that_nobody_explained_and_that_are_gone_again_are_no_difference_any_more() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.move("SPY", D(5), "100")
    for moments in range(2):
        look(desk, eyes, account.books(LATER + moments * SETTLE))
    account.move("SPY", D(-5), "100")
    assert kinds(look(desk, eyes, account.books(LATER + 2 * SETTLE))) == ["DifferenceCleared", "TradingResumed"]


def test_a_small_difference_is_booked_unasked() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.move("SPY", D("0.2"), "100")
    look(desk, eyes, account.books(LATER))
    assert kinds(look(desk, eyes, account.books(LATER + SETTLE))) == [
        "DifferenceFound",
        "AdjustmentBooked",
        "LotOpened",
    ]
    assert desk.state.trading_state is TradingState.ACTIVE
    is_alike(desk, account)


def test_a_symbol_with_an_order_that_has_no_answer_is_not_judged() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = desk.order("BUY 10 SPY")
    account.move("SPY", D(10), "100")
    assert look(desk, eyes, account.books(OPENING + SECOND)) == []
    account.place(name, "BUY 10 SPY")
    account.held, account.cash = {}, D(100000)
    account.fill(name, "10", "100", OPENING)
    assert "DifferenceFound" not in kinds(look(desk, eyes, account.books(OPENING + 5 * SECOND)))
    is_alike(desk, account)


@pytest.mark.parametrize("first", ("shares", "cash"))
def test_what_an_order_without_an_answer_may_explain_is_not_judged(first: str) -> None:
    """It was filled, and of all that this changes the broker's answers show only one thing yet."""
    desk, account, eyes = attached(operated(resend_within=60)), Account(), reconciler()
    name = desk.order("BUY 10 SPY")
    account.move("SPY", D(10), "100", paid=first == "cash")
    if first == "cash":
        account.held = {}
    assert look(desk, eyes, account.books(OPENING + SECOND)) == []
    assert kinds(look(desk, eyes, account.books(OPENING + 11 * SECOND))) == ["OrderSent"]
    assert desk.state.orders[name].attempts == 2


def test_an_unusual_number_of_shares_at_the_same_cost_is_no_split() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    traded(desk, account, sent(desk, account, "BUY 10 SPY"), "10", "100")
    account.held["SPY"] = D("10.7")
    look(desk, eyes, account.books(LATER))
    assert found(look(desk, eyes, account.books(LATER + SETTLE))) == [DifferenceKind.UNKNOWN]


@pytest.mark.parametrize(
    ("held", "after", "row"), (("10", "20", ""), ("10", "15", ""), ("40", "10", ""), ("7", "9.1", "SSP"))
)
def test_a_split_changes_the_shares_and_neither_their_worth_nor_their_cost(held: str, after: str, row: str) -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, f"BUY {held} SPY")
    traded(desk, account, name, held, "100")
    account.held["SPY"] = D(after)
    account.prices["SPY"] = D(100) * D(held) / D(after)
    if row:
        account.movements.append(BrokerMovement("m-1", row, "SPY", D(0), D(after) - D(held), LATER, "13 for 10"))
    look(desk, eyes, account.books(LATER))
    equity = desk.state.equity
    events = look(desk, eyes, account.books(LATER + SETTLE))
    assert found(events) == [DifferenceKind.CORPORATE_ACTION]
    assert abs(desk.state.equity - equity) < D("0.01")
    assert desk.state.realized_pnl == 0
    assert sum(lot.cost_basis for lot in desk.state.lots["SPY"]) == D(held) * 100
    assert desk.state.trading_state is TradingState.ACTIVE
    assert look(desk, eyes, account.books(LATER + 2 * SETTLE)) == []
    is_alike(desk, account)


def test_as_many_again_at_the_same_price_is_no_split() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    name = sent(desk, account, "BUY 10 SPY")
    traded(desk, account, name, "10", "100")
    account.move("SPY", D(10), "100")
    look(desk, eyes, account.books(LATER))
    assert found(look(desk, eyes, account.books(LATER + SETTLE))) == [DifferenceKind.UNKNOWN]


# --- shares and what was paid for them ----------------------------------------------------------------------------------


def waiting(desk: Desk) -> list[e.DifferenceFound]:
    return list(desk.state.differences.values())


def seen(desk: Desk, account: Account, eyes: Reconciler, looks: int = 2) -> list[e.Event]:
    events = []
    for _ in range(looks):
        desk.at += SETTLE
        events += look(desk, eyes, account.books(desk.at))
    return events


def accept_all(desk: Desk) -> None:
    for one in waiting(desk):
        desk.do(AcceptDifference(desk.at, one.difference_id, "trader", "it is so"))


def is_settled(desk: Desk, account: Account, eyes: Reconciler) -> None:
    """Nothing differs any more, now or after a restart."""
    assert desk.state.trading_state is TradingState.ACTIVE
    assert seen(desk, account, eyes, 3) == []
    assert not eyes.is_unsettled
    is_alike(desk, account)
    assert seen(resumed(desk.tape.recorded), account, reconciler(), 3) == []


def profit(desk: Desk) -> Decimal:
    return desk.state.equity - desk.state.day.start_equity


HELD = (
    ("", "5"),
    ("BUY 10", "5"),
    ("BUY 10", "-4"),
    ("BUY 10", "-10"),
    ("BUY 10", "-12"),
    ("SELL 10", "3"),
    ("", "-2"),
)


def holding(before: str) -> tuple[Desk, Account, Reconciler]:
    """Ten were traded at 100, or none were; they are worth 110 now."""
    desk, account, eyes = attached(), Account(), reconciler()
    if before:
        traded(desk, account, sent(desk, account, f"{before} SPY"), "10", "100")
    account.prices["SPY"], desk.at = D(110), LATER
    desk.do(ReportBar(desk.at, bar("SPY 14:30 110")))
    return desk, account, eyes


@pytest.mark.parametrize(("before", "change"), HELD)
@pytest.mark.parametrize("row", ("", "JNLS"))
def test_shares_that_came_or_went_without_money_are_settled_by_one_acceptance(
    before: str, change: str, row: str
) -> None:
    """Journaled from or to another account, say. What they cost somebody long ago is neither profit nor loss here."""
    desk, account, eyes = holding(before)
    account.move("SPY", D(change), "20", paid=False)
    account.movements = [BrokerMovement("m-1", row, "SPY", D(0), D(change), LATER)] if row else []
    earned, cash = profit(desk), desk.state.cash
    assert found(seen(desk, account, eyes)) == [DifferenceKind.UNKNOWN]
    (one,) = waiting(desk)
    assert (one.quantity, one.price, one.amount) == (D(change), D(110), D(change) * 110)
    assert (one.needs_acceptance, one.evidence["cash_moved"]) == (True, "0")
    accept_all(desk)
    assert (desk.state.cash, profit(desk)) == (cash, earned), "as if they had been bought with money put in for it"
    assert desk.state.deposits == 100000 + D(change) * 110
    if D(change) > 0 and before != "SELL 10":
        assert (desk.state.lots["SPY"][-1].quantity, desk.state.lots["SPY"][-1].cost_price) == (D(change), D(110))
    is_settled(desk, account, eyes)


@pytest.mark.parametrize(("before", "change"), HELD)
@pytest.mark.parametrize("price", ("93.37", "110", "131"))
def test_shares_that_were_traded_by_somebody_unheard_are_booked_at_what_the_cash_says(
    before: str, change: str, price: str
) -> None:
    desk, account, eyes = holding(before)
    account.move("SPY", D(change), price)
    assert found(seen(desk, account, eyes)) == [DifferenceKind.UNKNOWN]
    (one,) = waiting(desk)
    assert (one.quantity, one.price, one.amount) == (D(change), D(price), D(0))
    accept_all(desk)
    assert desk.state.deposits == 100000
    if before == "BUY 10" and change.startswith("-"):
        assert desk.state.realized_pnl == min(-D(change), D(10)) * (D(price) - 100)
    is_settled(desk, account, eyes)


def test_a_trade_by_hand_that_is_told_is_booked_as_one_and_leaves_nothing_to_accept() -> None:
    desk, account, eyes = holding("BUY 10")
    account.place("by-hand", "BUY 5 SPY", OPENING + SECOND)
    account.fill("by-hand", "5", "131", OPENING + SECOND)
    assert found(seen(desk, account, eyes)) == [DifferenceKind.MANUAL_ORDER, DifferenceKind.MANUAL_TRADE]
    assert not waiting(desk)
    is_settled(desk, account, eyes)


@pytest.mark.parametrize(
    ("change", "cash"), (("5", "-30"), ("-4", "-30"), ("5", "700"), ("-4", "-700"), ("5", "-1000"))
)
def test_money_that_can_be_no_price_is_put_right_beside_the_shares(change: str, cash: str) -> None:
    """A fee for the transfer, or a payment with it: what is left of it is neither profit nor loss."""
    desk, account, eyes = holding("BUY 10")
    account.move("SPY", D(change), "20", paid=False)
    account.cash += D(cash)
    earned = profit(desk)
    seen(desk, account, eyes)
    (one,) = waiting(desk)
    assert (one.price, one.amount) == (D(110), D(cash) + D(change) * 110)
    accept_all(desk)
    assert profit(desk) == earned
    is_settled(desk, account, eyes)


def test_money_that_the_broker_explains_is_no_part_of_what_was_paid() -> None:
    desk, account, eyes = holding("BUY 10")
    account.move("SPY", D(5), "20", paid=False)
    account.cash -= 550  # just what they would have cost
    account.movements = [BrokerMovement("m-1", "CSW", "", D(-550), D(0), LATER)]
    assert kinds(seen(desk, account, eyes))[0] == "CashMoved"
    (one,) = waiting(desk)
    assert one.amount == 550
    accept_all(desk)
    is_settled(desk, account, eyes)


def test_a_price_that_nobody_knows_is_what_was_paid() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.move("NEW", D(5), "40")
    books = account.books(desk.at)
    unpriced = structs.replace(books.positions[0], current_price=None, average_price=D(0))
    for moments in range(2):
        look(desk, eyes, structs.replace(books, asked_at=LATER + moments * SETTLE, positions=(unpriced,)))
    (one,) = waiting(desk)
    assert (one.price, one.amount, one.needs_acceptance) == (D(40), D(0), True)


@pytest.mark.parametrize("first", (0, 1))
@pytest.mark.parametrize("how", ("moved", "traded", "one of each"))
def test_what_differs_in_several_symbols_is_settled_by_as_many_acceptances(how: str, first: int) -> None:
    """In whatever order, and whether or not the books are looked at in between."""
    for looks_between in (0, 3):
        desk, account, eyes = attached(), Account(), reconciler()
        account.move("AAA", D(5), "100", paid=how != "moved")
        account.move("BBB", D(-3), "250", paid=how == "traded")
        seen(desk, account, eyes)
        both = waiting(desk)
        assert [one.subject for one in both] == ["AAA", "BBB"]
        for one in (both[first], both[1 - first]):
            desk.do(AcceptDifference(desk.at, one.difference_id, "trader", "it is so"))
            assert seen(desk, account, eyes, looks_between) == []
        is_settled(desk, account, eyes)
        if how != "one of each":
            assert desk.state.deposits == 100000 + (0 if how == "traded" else 500 - 750)
        assert profit(desk) == 0


def test_a_second_symbol_leaves_what_was_found_of_the_first_as_it_is() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.move("AAA", D(5), "100", paid=False)
    seen(desk, account, eyes)
    account.move("BBB", D(2), "90")
    account.prices["AAA"] = D(105)
    seen(desk, account, eyes, 3)
    assert [(one.difference_id, one.amount) for one in waiting(desk)] == [("D1", D(500)), ("D2", D(0))]
    accept_all(desk)
    is_settled(desk, account, eyes)


def test_money_that_follows_the_shares_late_is_seen_before_they_are_accepted() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.move("SPY", D(5), "100", paid=False)
    seen(desk, account, eyes)
    assert waiting(desk)[0].amount == 500
    account.prices["SPY"] = D(103)
    assert seen(desk, account, eyes, 3) == [], "another price is nothing new"
    account.cash -= 500
    events = seen(desk, account, eyes, 3)
    assert kinds(events) == ["DifferenceFound", "DifferenceCleared"]
    (one,) = waiting(desk)
    assert (one.difference_id, one.price, one.amount) == ("D2", D(100), D(0))
    accept_all(desk)
    is_settled(desk, account, eyes)


def test_an_open_difference_in_cash_is_not_accepted_twice() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.cash -= 500
    seen(desk, account, eyes)
    account.move("SPY", D(5), "100", paid=False)
    seen(desk, account, eyes, 3)
    assert [(one.subject, one.amount) for one in waiting(desk)] == [("cash", D(-500)), ("SPY", D(500))]
    accept_all(desk)
    is_settled(desk, account, eyes)


def test_shares_are_found_although_cash_never_stands_still() -> None:
    """A desk that trades all the time: trading has to stop for them, whatever was paid. Then it becomes clear."""
    desk, account, eyes = attached(), Account(), reconciler()
    account.move("SPY", D(5), "100", paid=False)
    for number in range(3):
        assert desk.state.trading_state is TradingState.ACTIVE or number
        desk.at += SETTLE
        traded(desk, account, sent(desk, account, "BUY 1 QQQ") if not number else "L-1-000001", "0.1", "50")
        look(desk, eyes, account.books(desk.at))
    assert desk.state.trading_state is TradingState.HALTED
    assert "cash_moved" not in waiting(desk)[0].evidence
    seen(desk, account, eyes, 3)
    (one,) = waiting(desk)
    assert (one.difference_id, one.amount) == ("D2", D(500))
    accept_all(desk)
    is_settled(desk, account, eyes)


@pytest.mark.parametrize("kind", ("NC", "MA", "SC"))
def test_shares_that_take_the_place_of_others_are_no_profit(kind: str) -> None:
    desk, account, eyes = holding("BUY 10")
    account.held["SPY"] = D(0)
    account.move("NEW", D(10), "100", paid=False)
    account.prices["NEW"] = D(110)
    account.movements = [BrokerMovement("m-1", kind, "NEW", D(0), D(10), LATER)]
    earned = profit(desk)
    seen(desk, account, eyes)
    accept_all(desk)
    desk.do(ReportBar(desk.at, bar("NEW 14:31 110")))
    assert profit(desk) == earned
    is_settled(desk, account, eyes)


def test_shares_that_another_company_was_made_of_cost_nothing_and_wait_for_nobody() -> None:
    desk, account, eyes = holding("BUY 10")
    account.move("NEW", D(10), "15", paid=False)
    account.movements = [BrokerMovement("m-1", "SPIN", "NEW", D(0), D(10), LATER)]
    assert found(seen(desk, account, eyes)) == [DifferenceKind.CORPORATE_ACTION]
    assert desk.state.deposits == 100000
    is_settled(desk, account, eyes)


def test_shares_journaled_in_are_settled_at_a_real_desk_by_one_acceptance(tmp_path: Path) -> None:
    """With the real client at a real socket, accepted as `reconcile --accept` does it; the run goes on and comes back."""
    often = ["operation.reconcile_every=20"]
    with real_desk(tmp_path, flat(), "14:30 SPY LONG 5; 14:50 SPY FLAT", overrides=often) as trader:
        trader.bars(1)
        trader.quiet()
        account = trader.server.account()

        def journal_in() -> None:
            when = account.instant()
            kind, worth = DifferenceKind.UNKNOWN, D(400)
            account.engine.handle(ReportDifference(when, kind, "SPY", "5", "9", D(4), D(100), amount=worth))
            account.engine.handle(AcceptDifference(when, "D1", "somebody", "from another account"))
            account.publish()

        before = D(trader.at_broker()["cash"])
        trader.server.call(journal_in)
        assert D(trader.at_broker()["cash"]) == before
        trader.wait_until(lambda state: state.differences, "a difference", seconds=20)
        (one,) = trader.state().differences.values()
        assert (one.quantity, one.price, one.amount, one.needs_acceptance) == (D(4), D(100), D(400), True)
        total = trader.state().differences_total
        wish = wishes.Wish("accept", "trader", "from my other account", one.difference_id)
        assert "has taken the request" in wishes.carry_out(trader.ledger, wish, lambda: at("14:40"))
        trader.wait_until(lambda state: not state.differences, "the acceptance", seconds=3)
        for _ in range(2):
            trader.later(20)
            trader.compared()
        trader.restart()
        assert trader.state().differences_total == total
        assert trader.state().trading_state is TradingState.ACTIVE
        trader.until(at("14:50"))
        trader.bars(1)
        trader.quiet()
        assert trader.state().positions == {"SPY": D(4)}, "the strategy sold what was its own"


# --- the first comparison ---------------------------------------------------------------------------------------------


def opened(desk: Desk, account: Account) -> list[e.Event]:
    eyes, events = reconciler(), []
    for moments in range(1, 6):
        events += look(desk, eyes, account.books(desk.at + moments * SETTLE))
    assert not eyes.is_unsettled
    return events


def held_before() -> Account:
    account = Account(cash=D(5000))
    account.move("SPY", D(10), "150", paid=False)
    account.move("IWM", D(-4), "80", paid=False)
    account.prices |= {"SPY": D(100), "IWM": D(90)}
    return account


def test_what_the_account_held_before_is_taken_over_at_todays_price() -> None:
    """F5. What was lost on it before is no loss of today: limits must not act on it."""
    desk, account = new_ledger(), held_before()
    events = opened(desk, account)
    assert found(events) == [DifferenceKind.OPENING] * 3
    assert desk.state.equity == account.books(LATER).account.equity == D(5640)
    assert desk.state.day.start_equity == desk.state.equity
    assert (desk.state.realized_pnl, desk.state.trading_state) == (D(0), TradingState.ACTIVE)
    is_alike(desk, account)
    take_over(desk)
    account.move("SPY", D(10), "100")
    assert found(opened(desk, account))[0] is DifferenceKind.UNKNOWN, "from now on it is a difference"


def test_taking_over_goes_on_where_it_was_interrupted() -> None:
    whole, account = new_ledger(), held_before()
    start = len(whole.tape.recorded)
    opened(whole, account)
    for upto in range(start, len(whole.tape.recorded) + 1):
        if upto < len(whole.tape.recorded) and whole.tape.recorded[upto].causation:
            continue  # a command's events are written together
        desk = resumed(whole.tape.recorded[:upto])
        events = opened(desk, account)
        assert set(found(events)) <= {DifferenceKind.OPENING}
        assert (desk.state.positions, desk.state.cash) == (whole.state.positions, whole.state.cash)
        assert desk.state.trading_state is TradingState.ACTIVE


# --- cash -------------------------------------------------------------------------------------------------------------


def moved(name: str, kind: str, amount: str, seconds: int = 30, detail: str = "", symbol: str = "") -> BrokerMovement:
    return BrokerMovement(name, kind, symbol, D(amount), D(0), OPENING + seconds * SECOND, detail)


def test_money_that_the_broker_explains_is_booked_as_what_it_is() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.movements = [
        moved("m-1", "CSD", "1000"),
        moved("m-2", "CSW", "-300"),
        moved("m-3", "DIV", "12.50", symbol="SPY"),
        moved("m-4", "INT", "-2"),
        moved("m-5", "FEE", "-0.03", detail="TAF fee for proceed of 10 shares"),
        moved("m-6", "FEE", "-0.05", detail="REG fee for proceed of $1,000"),
    ]
    account.cash += sum(row.amount for row in account.movements)
    events = look(desk, eyes, account.books(LATER))
    assert [event.kind for event in events if isinstance(event, e.CashMoved)] == [
        "DEPOSIT",
        "WITHDRAWAL",
        "DIVIDEND",
        "INTEREST",
    ]
    assert [event.kind for event in events if isinstance(event, e.FeeCharged)] == ["TAF", "SEC"]
    assert look(desk, eyes, account.books(LATER)) == []
    is_alike(desk, account)


@pytest.mark.parametrize("is_in_it", (True, False))
def test_a_movement_that_has_only_a_date_counts_on_the_first_day_if_the_cash_lacks_it(is_in_it: bool) -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.movements = [moved("m-1", "CSD", "1000", seconds=-14 * 3600)]
    if not is_in_it:
        account.cash += 1000
    assert look(desk, eyes, account.books(LATER)) == []
    events = look(desk, eyes, account.books(LATER + SETTLE))
    assert kinds(events) == ([] if is_in_it else ["CashMoved"])
    assert look(desk, eyes, account.books(LATER + 2 * SETTLE)) == []
    is_alike(desk, account)
    if not is_in_it:
        account.cash += 5000
        look(desk, eyes, account.books(LATER + 3 * SETTLE))
        assert found(look(desk, eyes, account.books(LATER + 4 * SETTLE))) == [DifferenceKind.CASH]


def test_money_that_nobody_explains_is_a_difference_with_the_rows_that_were_not_understood() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.cash -= 500
    account.movements = [moved("m-1", "XYZ", "-500", detail="what is this")]
    look(desk, eyes, account.books(LATER))
    first = look(desk, eyes, account.books(LATER + SETTLE))[0]
    assert isinstance(first, e.DifferenceFound)
    assert (first.kind, first.amount, first.needs_acceptance) == (DifferenceKind.CASH, D(-500), True)
    assert first.evidence["movement_1"] == "XYZ m-1: -500 what is this"
    account.cash += 500
    account.movements = []
    assert kinds(look(desk, eyes, account.books(LATER + 2 * SETTLE))) == ["DifferenceCleared", "TradingResumed"]


def test_a_cent_is_what_a_broker_rounds() -> None:
    desk, account, eyes = attached(), Account(), reconciler()
    account.cash += D("0.01")
    for moments in range(4):
        assert look(desk, eyes, account.books(LATER + moments * SETTLE)) == []
    assert not eyes.is_unsettled


# --- whatever happens -------------------------------------------------------------------------------------------------

SYMBOLS = st.sampled_from(("SPY", "QQQ"))
SIZES = st.one_of(st.integers(1, 20).map(D), st.integers(1, 2_000_000_000).map(lambda parts: D(parts).scaleb(-9)))
PRICES = st.integers(100, 30_000).map(lambda cents: D(cents) / 100)
NEAR_A_HUNDRED = st.integers(8_000, 12_000).map(lambda cents: D(cents) / 100)
HAPPENINGS = st.one_of(
    st.tuples(st.just("order"), SYMBOLS, SIZES, st.sampled_from(("acknowledged", "unanswered", "lost"))),
    st.tuples(st.just("by hand"), SYMBOLS, SIZES, st.booleans()),
    st.tuples(st.just("fill"), st.integers(0, 9), st.integers(1, 4), PRICES, st.booleans(), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("shares"), SYMBOLS, SIZES, st.booleans(), PRICES, st.booleans()),
    st.tuples(st.just("cash"), st.integers(-90_000, 90_000).filter(bool), st.sampled_from(("", "CSD", "DIV", "FEE"))),
    st.tuples(st.just("split"), SYMBOLS, st.sampled_from((2, 3, 10))),
    st.tuples(
        st.just("look"),
    ),
)


class Life:
    """A ledger and an account to which things happen; the stream and the rows tell some of it."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.account, self.eyes, self.number = desk, Account(), reconciler(), 0

    def happen(self, what: str, *how: object) -> None:
        self.number += 1
        self.desk.at += (self.number % 7) * SECOND
        getattr(self, what.replace(" ", "_"))(*how)

    def order(self, symbol: str, size: Decimal, fate: str) -> None:
        text = f"{'BUY' if self.number % 3 else 'SELL'} {plain(size)} {symbol}"
        name = self.desk.order(text)
        if self.desk.state.orders[name].state is not OrderState.PENDING:
            return  # our own risk gate said no
        if fate != "lost":
            self.account.place(name, text, self.desk.at)
        if fate == "acknowledged":
            self.desk.do(ReportSubmitted(self.desk.at, self.desk.at, name, f"b-{name}"))

    def by_hand(self, symbol: str, size: Decimal, buys: bool) -> None:
        text = f"{'BUY' if buys else 'SELL'} {plain(size)} {symbol}"
        self.account.place(f"hand-{self.number}", text, self.desk.at)

    def fill(self, number: int, parts: int, price: Decimal, streamed: bool, told: bool) -> None:
        order = self._working(number)
        if order is None or order.quantity is None:
            return
        left = order.quantity - order.filled_quantity
        size = left if parts == 1 else max(D("1e-9"), (left / parts).quantize(D("1e-9")))
        row = self.account.fill(order.client_order_id, plain(size), plain(price), self.desk.at, told=told)
        if streamed and order.client_order_id in self.desk.state.orders:
            name = f"x-{row.execution_id}"
            self.desk.do(
                ReportFill(
                    self.desk.at, self.desk.at, order.client_order_id, name, row.symbol, row.side, size, price,
                    cumulative_quantity=row.cumulative_quantity,
                )
            )  # fmt: skip

    def _working(self, number: int) -> BrokerOrder | None:
        working = [one for one in self.account.orders.values() if one.state not in TERMINAL]
        return working[number % len(working)] if working else None

    def cancel(self, number: int) -> None:
        order = self._working(number)
        if order is not None:
            self.account.end(order.client_order_id, "canceled", self.desk.at)

    def shares(self, symbol: str, size: Decimal, come: bool, price: Decimal, paid: bool) -> None:
        self.account.move(symbol, size if come else -size, price, paid=paid)

    def cash(self, cents: int, kind: str) -> None:
        self.account.cash += D(cents) / 100
        if kind:
            row = BrokerMovement(f"m-{self.number}", kind, "", D(cents) / 100, D(0), self.desk.at + SECOND)
            self.account.movements.append(row)

    def split(self, symbol: str, ratio: int) -> None:
        if symbol in self.account.held:
            self.account.held[symbol] *= ratio
            self.account.prices[symbol] /= ratio

    def look(self) -> list[e.Event]:
        self.desk.at += SECOND
        books = self.account.books(self.desk.at)
        events = look(self.desk, self.eyes, books)
        assert list(self.eyes.compare(self.desk.state, books, self.desk.at)) == [], "the same books say nothing new"
        books_balance(self.desk.state)
        return events


@settings(max_examples=150, deadline=None)
@given(st.lists(HAPPENINGS, max_size=25))
def test_whatever_happened_the_books_become_the_brokers_and_then_nothing_differs_any_more(
    happenings: list[tuple[Any, ...]],
) -> None:
    life = Life(attached(operated(resend_within=0)))
    for happening in happenings:
        life.happen(*happening)
    for _ in range(12):
        life.desk.at += SETTLE
        for difference in list(life.desk.state.differences):
            life.desk.do(AcceptDifference(life.desk.at, difference, "trader", "it is so"))
        if not life.look() and not life.eyes.is_unsettled and not life.desk.state.differences:
            break
    else:
        pytest.fail("they never agree")
    is_alike(life.desk, life.account)
    working = {name for orders in life.desk.state.working.values() for name in orders}
    assert working == {name for name, order in life.account.orders.items() if order.state not in TERMINAL}
    assert seen(resumed(life.desk.tape.recorded), life.account, reconciler(), 3) == [], "nor after a restart"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(SYMBOLS, SIZES, st.booleans(), NEAR_A_HUNDRED), max_size=4),
    st.tuples(SYMBOLS, SIZES, st.booleans(), NEAR_A_HUNDRED, st.booleans()),
    st.integers(-90_000, 90_000),
    st.booleans(),
)
def test_one_thing_that_happened_is_settled_by_one_acceptance(
    held: list[tuple[str, Decimal, bool, Decimal]],
    happening: tuple[str, Decimal, bool, Decimal, bool],
    cents: int,
    with_money: bool,
) -> None:
    life = Life(attached(operated(difference_accepted_max=0)))
    for symbol, size, come, price in held:
        life.shares(symbol, size, come, price, True)
    for _ in range(4):
        seen(life.desk, life.account, life.eyes)
        accept_all(life.desk)
    is_alike(life.desk, life.account)
    before = life.desk.state.differences_total
    life.shares(*happening)
    life.account.cash += D(cents) / 100 * with_money
    events = seen(life.desk, life.account, life.eyes)
    accept_all(life.desk)
    assert life.desk.state.differences_total <= before + 1
    assert all(isinstance(one, e.DifferenceFound | e.AdjustmentBooked | e.TradingHalted | e.LotEvent) for one in events)
    assert seen(life.desk, life.account, life.eyes, 3) == []
    is_alike(life.desk, life.account)
