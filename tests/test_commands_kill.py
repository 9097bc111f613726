"""The kill switch and closing positions: first the record, then the cancels, then the closing orders, and no way round it."""

import pytest

from commands.broker_reports import ReportCanceled, ReportRejected, ReportSubmitted
from commands.control import (
    ActivateKillSwitch,
    CompleteKillSwitch,
    EndRun,
    HaltTrading,
    ReduceTrading,
    ResumeTrading,
    StartRun,
)
from commands.trading import ClosePosition, RaiseSignal
from commands.truth import ReportDifference, ReportUnreachable
from mqd_ledger import events as e
from mqd_ledger.brokers.simulated import SimulatedBroker
from mqd_ledger.orders import Order
from mqd_ledger.state import State
from mqd_ledger.values import DifferenceKind, Direction, OrderType, Side, TimeInForce, TradingState
from tests.dsl import MINUTE, OPENING, SOURCE, D, Desk, Given, at, given, kinds, limits, policy, submit, working, world

NOW = OPENING
KILL = ActivateKillSwitch(NOW, "ann", "it buys at the top", "r1")
KILLED = e.KillSwitchActivated(NOW, "ann", "it buys at the top", "r1")
DONE = CompleteKillSwitch(NOW, "0 orders, 0 positions")


def after(state: State) -> Given:
    return Given(state)


def close(request_id: str = "", symbol: str = "SPY") -> ClosePosition:
    return ClosePosition(NOW, symbol, "kill switch", "it buys at the top", request_id)


# --- the kill switch -----------------------------------------------------------------------------------------------------


def test_the_record_comes_first_then_every_working_order_is_asked_back() -> None:
    asked = e.CancelRequested(NOW, "asked", "before")
    orders = (*working("a", "BUY 1 SPY"), *working("b", "SELL 1 QQQ LIMIT 300"), *working("asked", "BUY 2 SPY"), asked)
    state = (
        given(world(), orders)
        .when(KILL)
        .then(
            KILLED,
            e.CancelRequested(NOW, "a", "kill switch: it buys at the top"),
            e.CancelRequested(NOW, "b", "kill switch: it buys at the top"),
        )
    )
    assert (state.trading_state, state.trading_state_by) == (TradingState.HALTED, "ann")
    assert state.trading_state_reason == "kill switch: it buys at the top"
    after(state).when(KILL).then_nothing()
    after(state).when(ActivateKillSwitch(NOW, "bob", "me too", "r2")).then_nothing()
    after(state).when(HaltTrading(NOW, "bob", "me too")).then_nothing()


def test_it_needs_a_reason() -> None:
    given(world()).when(ActivateKillSwitch(NOW, "ann", " \n")).refused("needs a reason")


def test_no_order_passes_while_it_works_and_nobody_lifts_it_before_it_is_done() -> None:
    desk = Desk()
    desk.trade("BUY 5 SPY", "100")
    desk.do(KILL)
    denied = desk.do(submit("BUY 1 SPY"))[1]
    assert isinstance(denied, e.OrderDenied)
    assert denied.reasons[0].startswith("trading_is_allowed does not hold: trading_state HALTED")
    assert "OrderDenied" in kinds(desk.do(RaiseSignal(NOW, "s", "SPY", Direction.SHORT, "now")))
    after(desk.state).when(ResumeTrading(NOW, "ann", "never mind")).refused("still at work.*once `mqd-ledger status`")
    after(desk.state).when(ReduceTrading(NOW, "ann", "softer")).refused("halted, which is stricter")
    after(desk.state).when(DONE).refused("not done: the ledger still has SPY.")


def test_it_is_done_when_nothing_is_left_and_an_operator_resumes() -> None:
    state = given(world(), KILLED).when(DONE).then(e.KillSwitchCompleted(NOW, "0 orders, 0 positions"))
    assert state.trading_state is TradingState.HALTED
    after(state).when(DONE).then_nothing()
    state = after(state).when(ResumeTrading(NOW, "ann", "mended")).then(e.TradingResumed)
    assert (state.kill_switch, state.kill_switch_completed) == (None, False)
    after(state).when(KILL).then_nothing()  # the request of before, heard again
    after(state).when(ActivateKillSwitch(NOW, "ann", "again", "r9")).then(e.KillSwitchActivated)


def test_an_order_that_still_works_keeps_it_from_being_done() -> None:
    given(world(), working("o", "BUY 1 QQQ"), KILLED).when(DONE).refused("still has an order of QQQ")
    given(world()).when(DONE).then_nothing()


def test_it_can_be_thrown_again_after_it_was_done() -> None:
    state = given(world(), KILLED, e.KillSwitchCompleted(NOW, "nothing")).when(
        ActivateKillSwitch(NOW, "bob", "something came back", "r2")
    )
    assert not state.then(e.KillSwitchActivated).kill_switch_completed


def test_it_survives_a_new_run() -> None:
    desk = Desk()
    desk.do(KILL, EndRun(NOW, "killed"), StartRun(NOW, "paper", "1", SOURCE, (), policy()))
    assert desk.state.trading_state is TradingState.HALTED
    after(desk.state).when(ResumeTrading(NOW, "ann", "try")).refused("still at work")


def test_differences_that_are_settled_do_not_lift_it() -> None:
    desk = Desk()
    desk.do(ReportDifference(NOW, DifferenceKind.UNKNOWN, "SPY", "0", "10", D(10), D(100)))
    desk.do(KILL, ReportDifference(NOW, DifferenceKind.UNKNOWN, "SPY", "0", "0.1", D("0.1"), D(100)))
    assert (desk.state.differences, desk.state.trading_state) == ({}, TradingState.HALTED)


def test_from_the_first_record_to_an_empty_account() -> None:
    """With the simulated broker: cancels are answered, positions are closed at the next bar, then it can be told as done."""
    desk = Desk(policy(session="regular", stale_after=90))
    desk.trade("BUY 5 SPY", "100")
    desk.trade("SELL 3 QQQ", "100")
    desk.react(SimulatedBroker(desk.state))
    desk.order("BUY 2 SPY LIMIT 50")
    assert kinds(desk.do(KILL)) == ["KillSwitchActivated", "CancelRequested"]
    assert desk.state.working == {}
    for symbol in tuple(desk.state.positions):
        assert kinds(desk.do(close(symbol=symbol))) == [
            "PositionCloseRequested",
            "OrderRequested",
            "OrderApproved",
            "OrderSent",
        ]
    after(desk.state).when(DONE).refused("still has SPY, QQQ, an order of SPY, an order of QQQ")
    desk.bar("SPY 14:30 99")
    desk.bar("QQQ 14:30 101")
    desk.do(DONE)
    assert (desk.state.positions, desk.state.kill_switch_completed) == ({}, True)
    assert desk.state.realized_pnl == D(-8)


# --- closing a position ----------------------------------------------------------------------------------------------------


def closing(state: State) -> Order:
    (order,) = [order for order in state.orders.values() if order.strategy == "" and order.is_working]
    return order


@pytest.mark.parametrize(("held", "side"), (("BUY 5 SPY", Side.SELL), ("SELL 5 SPY", Side.BUY)))
def test_a_position_is_closed_at_the_market_and_the_record_says_why(held: str, side: Side) -> None:
    desk = Desk(policy(session="regular", orders_per_day_max=1))
    desk.trade(held, "100")
    wish, request, approved, sent = desk.do(ClosePosition(NOW, "SPY", "ann", "going home", "r1"))
    assert wish == e.PositionCloseRequested(NOW, "ann", "going home", "r1", "SPY")
    assert isinstance(request, e.OrderRequested)
    assert (request.side, request.quantity, request.order_type) == (side, D(5), OrderType.MARKET)
    assert request.time_in_force is TimeInForce.DAY
    assert isinstance(approved, e.OrderApproved)
    (check,) = approved.checks
    assert (check.name, check.passed, check.allowed) == ("only_closes_the_position", True, "5")
    assert check.inputs == {"quantity": "5", "position": "5" if side is Side.SELL else "-5", "closing_already": "0"}
    assert isinstance(sent, e.OrderSent)


def test_the_same_request_and_what_is_being_closed_already_are_not_closed_twice() -> None:
    desk = Desk()
    desk.trade("BUY 5 SPY", "100")
    desk.do(ClosePosition(NOW, "SPY", "ann", "home", "r1"))
    assert desk.do(ClosePosition(NOW, "SPY", "ann", "home", "r1")) == []
    assert desk.do(ClosePosition(NOW, "SPY", "ann", "home", "r2")) == []
    order = closing(desk.state)
    desk.do(ReportSubmitted(NOW, NOW, order.client_order_id, "b"))
    desk.fill(order.client_order_id, "x1", "2", "100")
    assert desk.do(close()) == []
    desk.do(ReportCanceled(NOW, NOW, order.client_order_id, "by the exchange"))
    request = desk.do(close())[1]
    assert isinstance(request, e.OrderRequested)
    assert request.quantity == D(3)
    assert desk.do(ClosePosition(NOW, "SPY", "ann", "home", "r1")) == []


def test_only_what_no_order_is_selling_already_is_sold() -> None:
    desk = Desk()
    desk.trade("BUY 5 SPY", "100")
    desk.order("SELL 2 SPY LIMIT 120")
    desk.order("BUY 9 SPY LIMIT 90")
    request = desk.do(close())[1]
    assert isinstance(request, e.OrderRequested)
    assert request.quantity == D(3)


def test_where_nothing_is_held_there_is_nothing_to_close() -> None:
    given(world()).when(close()).then_nothing()


def test_a_halt_forbids_it_but_the_kill_switch_does_not_and_blocks_do_not_either() -> None:
    desk = Desk()
    desk.trade("BUY 5 SPY", "100")
    desk.do(HaltTrading(NOW, "ann", "odd prices"))
    after(desk.state).when(close()).refused(
        r"halted \(odd prices\)\. Resume or reduce it first, or use `mqd-ledger kill`"
    )
    desk.do(KILL, ReportUnreachable(NOW, "trade_updates", "closed"))
    assert kinds(desk.do(close()))[-1] == "OrderSent"
    desk.do(ReportRejected(NOW, NOW, closing(desk.state).client_order_id, "try again"))
    assert kinds(desk.do(close("r2")))[-1] == "OrderSent"


def test_what_is_reduced_can_be_closed() -> None:
    desk = Desk(policy().__class__(limits=limits(session="regular")))
    desk.trade("BUY 5 SPY", "100")
    desk.do(ReduceTrading(NOW, "ann", "less"))
    assert kinds(desk.do(close()))[-1] == "OrderSent"


def test_a_closing_order_takes_the_lots_of_the_strategies_that_hold_it() -> None:
    desk = Desk(when=at("14:40"))
    desk.trade("BUY 5 SPY", "100", "x", strategy="s")
    desk.do(ClosePosition(desk.at, "SPY", "ann", "home"))
    desk.at += MINUTE
    events = desk.fill(closing(desk.state).client_order_id, "y", "5", "102")
    assert kinds(events) == ["OrderFilled", "OrderAnomalyFound", "LotClosed"]
    assert isinstance(events[-1], e.LotClosed)
    assert (events[-1].strategy, events[-1].realized_pnl) == ("s", D(10))
    assert desk.state.strategy_positions == {}
