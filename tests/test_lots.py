"""Lots: which part of what is held a trade closes, at which cost, in tables anyone can check by hand."""

from decimal import Decimal

import pytest

from commands.executions import ReportBust, ReportCorrection
from mqd_ledger import events as e
from mqd_ledger.errors import BrokenPromise
from mqd_ledger.lots import apply_entry, cost, held
from mqd_ledger.values import LotCause, LotMethod
from tests.dsl import OPENING, D, Desk, books_balance, lots_of, policy

FIFO, LIFO, HIFO, AVERAGE = LotMethod.FIFO, LotMethod.LIFO, LotMethod.HIFO, LotMethod.AVERAGE


def play(method: LotMethod, trades: str) -> Desk:
    """`"+10@100 -4@110"`: bought 10 at 100, sold 4 at 110; executions are named a, b, c…"""
    desk = Desk(policy(method))
    for name, trade in zip("abcdefgh", trades.split(), strict=False):
        quantity, price = trade[1:].split("@")
        desk.trade(f"{'BUY' if trade[0] == '+' else 'SELL'} {quantity} SPY", price, name)
        books_balance(desk.state)
    return desk


@pytest.mark.parametrize(
    ("method", "trades", "realized", "left"),
    (
        (FIFO, "+10@100 +10@120 +10@110 -15@130", "350", "b 5 120, c 10 110"),
        (LIFO, "+10@100 +10@120 +10@110 -15@130", "250", "a 10 100, b 5 120"),
        (HIFO, "+10@100 +10@120 +10@110 -15@130", "200", "a 10 100, c 5 110"),
        (AVERAGE, "+10@100 +10@120 +10@110 -15@130", "300", "c 15 110"),
        (FIFO, "-10@100 -10@120 -10@110 +15@90", "250", "b -5 120, c -10 110"),
        (LIFO, "-10@100 -10@120 -10@110 +15@90", "350", "a -10 100, b -5 120"),
        # The dear short is the one sold low: buying it back earns the least.
        (HIFO, "-10@100 -10@120 -10@110 +15@90", "200", "b -10 120, c -5 110"),
        (AVERAGE, "-10@100 -10@120 -10@110 +15@90", "300", "c -15 110"),
        # Through zero: all that was held is closed, the rest opens the other way at the trade's own price.
        (FIFO, "+10@100 -15@90", "-100", "b -5 90"),
        (FIFO, "-10@100 +15@90", "100", "b 5 90"),
        (AVERAGE, "+10@100 +10@110 -30@120 -10@100", "300", "d -20 110"),
        (LIFO, "+1@10 +1@11 -3@12 +1@13 -1@14", "2", "e -1 14"),  # covers c, then sells short again
        # Nothing left, nothing forgotten.
        (HIFO, "+10@100 +10@120 -20@110", "0", ""),
        # Fractions to nine decimals, exactly.
        (FIFO, "+0.000000001@600 +0.333333333@600 -0.333333334@601.01", "0.33666666734", ""),
        (LIFO, "+0.1@3 +0.2@3 -0.299999999@3.3", "0.0899999997", "a 0.000000001 3"),
        (AVERAGE, "+1@1 +2@1.01 -3@1.01", "0.01", ""),
    ),
)
def test_each_method_closes_the_lots_it_promises(method: LotMethod, trades: str, realized: str, left: str) -> None:
    desk = play(method, trades)
    assert desk.state.realized_pnl == D(realized)
    expected = [one.split() for one in left.split(", ")] if left else []
    assert lots_of(desk.state) == [(name, D(quantity), D(price)) for name, quantity, price in expected]


def test_average_cost_that_does_not_divide_evenly_loses_nothing() -> None:
    desk = play(AVERAGE, "+1@10 +2@10.01 -1@11 -1@11 -1@11")
    assert desk.state.lots == {}
    assert desk.state.realized_pnl == D("2.98")  # 33 - 30.02, to the last digit


def test_a_strategy_closes_its_own_lots_first_under_every_method() -> None:
    for method in (FIFO, LIFO, HIFO, AVERAGE):
        desk = Desk(policy(method))
        desk.trade("BUY 10 SPY", "120", "theirs", strategy="one")
        desk.trade("BUY 10 SPY", "100", "own", strategy="two")
        desk.trade("BUY 10 SPY", "130", "later", strategy="three")
        desk.trade("SELL 12 SPY", "110", strategy="two")
        assert desk.state.strategy_positions.get(("two", "SPY")) is None, method
        own = next(event for event in desk.tape.events if isinstance(event, e.LotClosed))
        assert (own.lot_id, own.realized_pnl) == ("own", D(100)), method
        books_balance(desk.state)


def test_a_closing_records_its_cost_its_price_and_when_the_lot_was_opened() -> None:
    desk = play(FIFO, "+10@100 -4@110")
    closing = desk.tape.events[-1]
    assert closing == e.LotClosed(OPENING, "a", "SPY", "", "b", D(4), D(400), D(110), D(40), OPENING, LotCause.TRADE)


@pytest.mark.parametrize("method", list(LotMethod))
@pytest.mark.parametrize(
    ("trades", "busted", "position"),
    (
        ("+10@100", "a", "0"),
        ("+10@100 -10@110", "b", "10"),
        ("+10@100 -10@110", "a", "-10"),  # what was sold was never bought
        ("+10@100 -4@110", "a", "-4"),
        ("+10@100 +10@120 -4@110", "b", "6"),
        ("+10@100 +10@120 -14@110", "b", "-4"),
        ("+10@100 +10@120 -14@110", "a", "-4"),
        ("+10@100 +10@120 -5@125 +10@90", "b", "15"),
        ("+10@100 -15@90", "b", "10"),
        ("+10@100 -15@90 -5@80", "b", "5"),  # a short was added to the one that never was
        ("+10@100 -15@90 +3@85", "b", "13"),
        ("+10@100 -15@90 +3@85", "a", "-12"),
        ("+10@100 +5@101 -15@99 +7@98", "c", "22"),
        ("-10@100 +15@90 +5@80", "b", "-5"),
    ),
)
def test_a_bust_leaves_position_and_cash_of_the_executions_that_remain(
    method: LotMethod, trades: str, busted: str, position: str
) -> None:
    desk = play(method, trades)
    undo(desk, busted)
    executions = {name: one for name, one in desk.state.executions.items() if not one.busted}
    assert desk.state.positions.get("SPY", D(0)) == D(position)
    assert desk.state.cash == D(100000) - sum((one.signed_quantity * one.price for one in executions.values()), D(0))
    books_balance(desk.state)


@pytest.mark.parametrize("method", list(LotMethod))
def test_when_every_execution_is_busted_nothing_is_left_in_whatever_order(method: LotMethod) -> None:
    for order in ("abcd", "dcba", "bdac", "cadb"):
        desk = play(method, "+10@100 +5@104 -20@110 +9@90")
        for name in order:
            undo(desk, name)
            books_balance(desk.state)
        assert (desk.state.lots, desk.state.positions, desk.state.cash) == ({}, {}, D(100000)), order
        assert desk.state.realized_pnl == 0


@pytest.mark.parametrize("method", list(LotMethod))
def test_a_correction_of_what_was_partly_sold_gives_the_profit_of_the_corrected_price(method: LotMethod) -> None:
    desk = play(method, "+10@100 -4@110")
    order = desk.state.executions["a"].client_order_id
    desk.do(ReportCorrection(desk.at, desk.at, order, "a", "a2", D(10), D(99)))
    books_balance(desk.state)
    assert desk.state.positions == {"SPY": D(6)}
    assert desk.state.realized_pnl == D(44)
    assert [(quantity, price) for _, quantity, price in lots_of(desk.state)] == [(D(6), D(99))]


def undo(desk: Desk, name: str) -> None:
    execution = desk.state.executions[name]
    order = desk.state.orders[execution.client_order_id]
    size: tuple[Decimal, Decimal] = abs(execution.signed_quantity), execution.price
    desk.do(ReportBust(desk.at, desk.at, order.client_order_id, name, order.symbol, order.side, *size))


def test_an_entry_of_a_lot_that_is_not_open_stops_the_program() -> None:
    entry = e.LotClosed(OPENING, "gone", "SPY", "", "x", D(1), D(1), D(1), D(0), OPENING, LotCause.TRADE)
    with pytest.raises(BrokenPromise, match="lot gone, which is not open in SPY"):
        apply_entry([], entry)


def test_what_is_held_and_its_cost_are_signed() -> None:
    lots = play(FIFO, "-3@10").state.lots["SPY"]
    assert (held(lots), cost(lots)) == (D(-3), D(-30))
