"""Another size or price for a working order: what is asked, what the gate says, what the broker makes of it."""

from decimal import Decimal

import pytest

from commands.broker_reports import ReportCanceled, ReportReplaced, ReportReplaceRejected
from commands.control import HaltTrading
from commands.executions import ReportFill
from commands.trading import CancelOrder, ReplaceOrder
from mqd_ledger import events as e
from mqd_ledger.brokers.simulated import SimulatedBroker
from mqd_ledger.state import State
from mqd_ledger.values import Anomaly, OrderState, TimeInForce
from tests.dsl import (
    BUY,
    MINUTE,
    OPENING,
    D,
    Desk,
    Given,
    books_balance,
    closed,
    given,
    kinds,
    policy,
    working,
    world,
)

NOW = OPENING
DAY = TimeInForce.DAY
MARKED = closed("SPY 14:29 100")
LIMITED = working("o", "BUY 10 SPY LIMIT 99", strategy="s")
NEW_ID = "L-1-000002"
DEARER = ReplaceOrder(NOW, "o", "the price ran away", limit_price=D("99.5"))
ASKED = e.ReplaceRequested(NOW, "o", NEW_ID, None, D("99.5"), None, None, "the price ran away")
DONE = ReportReplaced(NOW, NOW, "o", NEW_ID, "b2", D(10), D("99.5"), None, DAY)


def after(state: State) -> Given:
    return Given(state)


def asked() -> State:
    return given(world(), MARKED, LIMITED).when(DEARER).then(ASKED)


def replaced() -> State:
    return after(asked()).when(DONE).then(e.OrderReplaced(NOW, "o", NEW_ID, "b2", D(10), D("99.5"), None, DAY))


def test_a_replacement_is_asked_for_under_the_next_number() -> None:
    state = asked()
    assert (state.orders["o"].replacement_id, state.orders["o"].state) == (NEW_ID, OrderState.SUBMITTED)
    assert NEW_ID not in state.orders
    after(state).when(DEARER).then_nothing()  # one at a time
    assert state.orders_requested == 2


def test_the_replacement_lives_on_with_what_the_broker_says_of_it() -> None:
    state = replaced()
    old, new = state.orders["o"], state.orders[NEW_ID]
    assert (old.state, new.state, new.strategy, new.limit_price) == (
        OrderState.CANCELED,
        OrderState.SUBMITTED,
        "s",
        D("99.5"),
    )
    assert (new.broker_order_id, new.quantity, new.filled_quantity, new.approved) == ("b2", D(10), D(0), True)
    assert list(state.working["SPY"]) == [NEW_ID]
    after(state).when(DONE).then_nothing()
    after(state).when(ReplaceOrder(NOW, NEW_ID, "again", limit_price=D("99.7"))).then(e.ReplaceRequested)
    fill = ReportFill(NOW, NOW, NEW_ID, "x", "SPY", BUY, D(10), D("99.5"))
    state = after(state).when(fill).then(e.OrderFilled, e.LotOpened)
    assert state.strategy_positions == {("s", "SPY"): D(10)}


def test_shares_filled_before_the_replacement_stay_with_the_old_order() -> None:
    early = ReportFill(NOW, NOW, "o", "x", "SPY", BUY, D(4), D(99))
    state = after(asked()).when(early).then(e.OrderFilled, e.LotOpened)
    rest = ReportReplaced(NOW, NOW, "o", NEW_ID, "b2", D(6), D("99.5"), None, DAY)
    state = after(state).when(rest).then(e.OrderReplaced)
    assert (state.orders["o"].filled_quantity, state.orders[NEW_ID].leaves_quantity) == (D(4), D(6))
    late = ReportFill(NOW, NOW, "o", "y", "SPY", BUY, D(1), D(99))
    surprised = after(state).when(late).then(e.OrderFilled, e.OrderAnomalyFound, e.LotOpened)
    assert surprised.positions == {"SPY": D(5)}


def test_an_order_that_was_filled_meanwhile_stays_filled_and_the_surprise_is_told() -> None:
    fill = ReportFill(NOW, NOW, "o", "x", "SPY", BUY, D(10), D(99))
    state = after(asked()).when(fill).then(e.OrderFilled, e.LotOpened)
    decided = after(state).when(DONE)
    (told,) = [event for event in decided.events if isinstance(event, e.OrderAnomalyFound)]
    assert told.anomaly is Anomaly.CANCEL_AFTER_FILL
    assert decided.then(e.OrderReplaced, e.OrderAnomalyFound).orders["o"].state is OrderState.FILLED


def test_the_broker_may_refuse_and_the_order_stays_as_it_was() -> None:
    refused = ReportReplaceRejected(NOW, NOW, "o", "order is not open")
    state = after(asked()).when(refused).then(e.ReplaceRejected(NOW, "o", "order is not open"))
    assert (state.orders["o"].replacement_id, state.orders["o"].limit_price) == ("", D(99))
    after(state).when(refused).then_nothing()
    after(state).when(DEARER).then(e.ReplaceRequested)


@pytest.mark.parametrize(
    ("before", "text"),
    (
        (e.OrderCanceled(NOW, "o", "over"), "cannot be replaced: it is CANCELED"),
        (e.CancelRequested(NOW, "o", "over"), "it is SUBMITTED, a cancel was asked for"),
    ),
)
def test_an_order_that_ends_is_not_replaced(before: e.Event, text: str) -> None:
    given(world(), LIMITED, before).when(DEARER).refused(text)


def test_neither_is_one_by_notional_or_an_unknown_one_and_the_result_must_make_sense() -> None:
    given(world(), working("o", "BUY $500 SPY")).when(DEARER).refused("by notional")
    given(world()).when(DEARER).refused("No order 'o' is known here")
    desk = given(world(), LIMITED)
    desk.when(ReplaceOrder(NOW, "o", "x", quantity=D("-1"))).refused("above zero")
    desk.when(ReplaceOrder(NOW, "o", "x", stop_price=D(1))).refused("takes limit_price, above zero; found stop_price 1")
    desk.when(ReplaceOrder(NOW, "o", "x", quantity=D("1e-10"))).refused("up to 9 decimals")


def test_what_the_gate_does_not_like_is_recorded_and_goes_nowhere() -> None:
    desk = Desk(policy(position_notional_max=D(1000)))
    desk.react(SimulatedBroker(desk.state))
    order = desk.order("BUY 5 SPY LIMIT 90")
    wish, refused = desk.do(ReplaceOrder(NOW, order, "more", quantity=D(20)))
    assert isinstance(wish, e.ReplaceRequested)
    assert isinstance(refused, e.ReplaceRejected)
    assert refused.reason.startswith("denied: position_notional_is_within_limit does not hold")
    assert (desk.state.orders[order].replacement_id, desk.state.orders[order].quantity) == ("", D(5))
    desk.do(HaltTrading(NOW, "ann", "stop"))
    assert "ReplaceRejected" in kinds(desk.do(ReplaceOrder(NOW, order, "dearer", limit_price=D(91))))


def test_the_order_that_makes_place_does_not_count_against_its_replacement() -> None:
    """Neither as a duplicate, nor as so much more to hold, nor as shares that would be sold twice."""
    desk = Desk(policy(position_notional_max=D(1000), duplicate_window=30, short_selling=False))
    desk.trade("BUY 10 SPY", "100")
    desk.at += MINUTE
    desk.react(SimulatedBroker(desk.state))
    exit_order = desk.order("SELL 10 SPY LIMIT 110")
    assert kinds(desk.do(ReplaceOrder(desk.at, exit_order, "lower", limit_price=D(105)))) == ["ReplaceRequested"]
    (second,) = desk.state.working["SPY"]
    assert kinds(desk.do(ReplaceOrder(desk.at, second, "lower", limit_price=D(104)))) == ["ReplaceRequested"]
    (third,) = desk.state.working["SPY"]
    more = desk.do(ReplaceOrder(desk.at, third, "too much", quantity=D(11)))
    assert isinstance(more[1], e.ReplaceRejected)
    assert "short_selling_is_allowed" in more[1].reason


@pytest.mark.parametrize(("quantity", "bought"), ((None, "10"), (D(2), "6")))
def test_the_simulated_broker_fills_what_was_left_of_a_replaced_order(quantity: Decimal | None, bought: str) -> None:
    desk = Desk()
    desk.react(SimulatedBroker(desk.state))
    order = desk.order("BUY 10 SPY LIMIT 99")
    desk.fill(order, "x", "4", "99")
    desk.do(ReplaceOrder(NOW, order, "dearer", quantity=quantity, limit_price=D(101)))
    desk.bar("SPY 14:30 100")
    assert desk.state.positions == {"SPY": D(bought)}
    assert desk.state.working == {}
    books_balance(desk.state)


def test_a_cancel_of_the_replacement_ends_it() -> None:
    state = after(replaced()).when(CancelOrder(NOW, NEW_ID, "enough")).then(e.CancelRequested)
    state = after(state).when(ReportCanceled(NOW, NOW, NEW_ID, "as asked")).then(e.OrderCanceled)
    assert state.working == {}
    after(state).when(CancelOrder(NOW, "o", "enough")).refused("CANCELED already")
