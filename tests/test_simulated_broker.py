"""The simulated broker: what fills where, to the cent, and that nothing is ever known before it has happened."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from commands.trading import CancelOrder
from mqd_ledger import events as e
from mqd_ledger.brokers.simulated import SimulatedBroker
from mqd_ledger.policy import Commission, Simulation, Slippage
from mqd_ledger.values import OrderState
from tests.dsl import MINUTE, OPEN, OPENING, D, Desk, at, books_balance, submit


def desk(simulation: Simulation | None = None, when: str = "14:30") -> Desk:
    made = Desk(structs.replace(OPEN, simulation=simulation or Simulation()), when=at(when))
    return made.react(SimulatedBroker(made.state))


def executions(of: Desk) -> list[tuple[Decimal, Decimal]]:
    return [(event.last_quantity, event.last_price) for event in of.tape.events if isinstance(event, e.OrderFilled)]


@pytest.mark.parametrize(
    ("order", "bars", "price"),
    (
        ("BUY 1 SPY", "100 101 99 100.5", "100"),
        ("SELL 1 SPY", "100 101 99 100.5", "100"),
        ("BUY 1 SPY LIMIT 99.5", "100 101 99.5 100", "99.5"),
        ("BUY 1 SPY LIMIT 99.5", "100 101 99.51 100", None),
        ("BUY 1 SPY LIMIT 99.5", "98 99 97 98", "98"),  # the market opened better
        ("SELL 1 SPY LIMIT 101", "100 101 99 100", "101"),
        ("SELL 1 SPY LIMIT 101", "100 100.99 99 100", None),
        ("SELL 1 SPY LIMIT 101", "103 104 102 103", "103"),
        ("BUY 1 SPY STOP 101", "100 101 99 100", "101"),
        ("BUY 1 SPY STOP 101", "100 100.99 99 100", None),
        ("BUY 1 SPY STOP 101", "103 104 102 103", "103"),  # gapped through: worse than the stop
        ("SELL 1 SPY STOP 99", "100 101 99 100", "99"),
        ("SELL 1 SPY STOP 99", "100 101 99.01 100", None),
        ("SELL 1 SPY STOP 99", "97 98 96 97", "97"),
        ("BUY 1 SPY STOP_LIMIT 101 102", "100 101 99 100", "101"),
        ("BUY 1 SPY STOP_LIMIT 101 102", "100 100.5 99 100", None),
        ("BUY 1 SPY STOP_LIMIT 101 102", "103 104 102.5 103", None),  # gapped over the limit
        ("BUY 1 SPY STOP_LIMIT 101 102", "103 104 101.5 103", "102"),  # and came back to it
        ("BUY 1 SPY STOP_LIMIT 101 100", "99 101.5 98 101", None),  # what came before the stop does not count
        ("BUY 1 SPY STOP_LIMIT 101 100 / 102 103 99 102", "99 101.5 98 101", "100"),
        ("BUY 1 SPY STOP_LIMIT 101 102 / 102.5 103 99 100", "103 104 102.5 103", "102"),  # reached before: now a limit
        ("BUY 1 SPY STOP_LIMIT 101 102 / 99 100 98 99", "103 104 102.5 103", "99"),
        ("SELL 1 SPY STOP_LIMIT 99 98", "100 101 99 100", "99"),
        ("SELL 1 SPY STOP_LIMIT 99 98", "97 97.5 96 97", None),
        ("SELL 1 SPY STOP_LIMIT 99 98", "97 98.5 96 97", "98"),
        ("SELL 1 SPY STOP_LIMIT 99 98 / 97.5 101 97 100", "97 97.5 96 97", "98"),
    ),
)
def test_each_type_of_order_fills_where_the_market_would_have_filled_it(
    order: str, bars: str, price: str | None
) -> None:
    order, _, second = order.partition(" / ")
    of = desk()
    of.order(f"{order} GTC")
    for start, prices in zip(("14:30", "14:31"), (bars, second), strict=True):
        if prices:
            of.bar(f"SPY {start} {prices}")
    assert executions(of) == ([] if price is None else [(D(1), D(price))])
    books_balance(of.state)


def test_an_order_placed_at_the_close_of_a_bar_meets_the_next_one_and_not_that_one() -> None:
    of = desk(when="14:31")
    of.order("BUY 1 SPY")
    of.bar("SPY 14:30 90")  # was under way when the order came
    assert executions(of) == []
    of.bar("SPY 14:31 105")
    assert executions(of) == [(D(1), D(105))]


@pytest.mark.parametrize(
    ("order", "left", "why"),
    (
        ("BUY 60 SPY IOC", OrderState.CANCELED, "IOC"),
        ("BUY 60 SPY FOK", OrderState.CANCELED, "FOK"),
        ("BUY 50 SPY IOC", OrderState.FILLED, ""),
        ("BUY 50 SPY FOK", OrderState.FILLED, ""),
        ("BUY 5 SPY LIMIT 90 IOC", OrderState.CANCELED, "IOC"),
        ("BUY 5 SPY LIMIT 90 FOK", OrderState.CANCELED, "FOK"),
        ("BUY 60 SPY", OrderState.PARTIALLY_FILLED, ""),
    ),
)
def test_immediate_orders_take_what_is_there_or_nothing(order: str, left: OrderState, why: str) -> None:
    of = desk(Simulation(participation_percent_max=D(10)))
    name = of.order(order)
    of.bar("SPY 14:30 100 v500")
    assert of.state.orders[name].state is left
    canceled = [event.reason for event in of.tape.events if isinstance(event, e.OrderCanceled)]
    assert canceled == ([f"{why}: the rest was not to be had"] if why else [])
    bought = {"BUY 60 SPY FOK": 0, "BUY 60 SPY IOC": 50, "BUY 60 SPY": 50}.get(order, 0 if "LIMIT" in order else 50)
    assert of.state.positions.get("SPY", 0) == bought
    books_balance(of.state)


def test_participation_is_shared_by_all_orders_oldest_first_and_the_rest_waits() -> None:
    of = desk(Simulation(participation_percent_max=D(10)))
    of.order("BUY 60 SPY")
    of.order("BUY 30 SPY")
    of.bar("SPY 14:30 100 v705")
    of.bar("SPY 14:31 101 v0")
    of.bar("SPY 14:32 102 v1000")
    assert executions(of) == [(D(60), D(100)), (D(10), D(100)), (D(20), D(102))]


@pytest.mark.parametrize(
    ("model", "order", "price"),
    (
        (Slippage(model="bps", bps=D(10)), "BUY 10 SPY", "100.1"),
        (Slippage(model="bps", bps=D(10)), "SELL 10 SPY", "99.9"),
        (Slippage(model="bps", bps=D("0.001")), "BUY 10 SPY", "100.0001"),  # rounded against us
        (Slippage(model="bps", bps=D("0.001")), "SELL 10 SPY", "99.9999"),
        (Slippage(model="bps", bps=D(10)), "BUY 10 SPY STOP 100", "100.1"),
        (Slippage(model="bps", bps=D(10)), "BUY 10 SPY LIMIT 100", "100"),  # gives liquidity
        (Slippage(model="volume_share"), "BUY 100 SPY", "100.1"),  # a tenth of the volume: 0.1 x 0.01
        (Slippage(model="volume_share"), "BUY 1000 SPY", "110"),  # all of it
        (Slippage(model="none"), "BUY 10 SPY", "100"),
    ),
)
def test_slippage_costs_what_its_model_says(model: Slippage, order: str, price: str) -> None:
    of = desk(Simulation(slippage=model))
    of.order(order)
    of.bar("SPY 14:30 100 v1000")
    assert [found for _, found in executions(of)] == [D(price)]


@pytest.mark.parametrize(
    ("model", "order", "commission"),
    (
        (Commission(), "BUY 10 SPY", "0"),
        (Commission(model="per_share", per_share=D("0.005"), minimum=D(1)), "BUY 10 SPY", "1"),
        (Commission(model="per_share", per_share=D("0.005"), minimum=D(1)), "BUY 201 SPY", "1.00"),  # 1.005 to even
        (Commission(model="per_share", per_share=D("0.005"), minimum=D(1)), "BUY 300 SPY", "1.5"),
        (Commission(model="bps", bps=D(5)), "BUY 10 SPY", "0.5"),
    ),
)
def test_commissions_are_what_their_model_says_to_the_cent(model: Commission, order: str, commission: str) -> None:
    of = desk(Simulation(commission=model))
    of.order(order)
    of.bar("SPY 14:30 100")
    assert of.state.commissions == D(commission)
    assert of.state.equity == D(100000) - D(commission)


def test_an_order_by_notional_never_spends_more_than_its_dollars_and_sells_no_more_than_is_held() -> None:
    of = desk(Simulation(slippage=Slippage(model="bps", bps=D(100))))
    name = of.order("BUY $1000 SPY")
    of.bar("SPY 14:30 100")
    assert executions(of) == [(D("9.900990099"), D(101))]
    assert D("999.99") < D(100000) - of.state.cash <= D(1000)
    assert of.state.orders[name].state is OrderState.FILLED
    of.order("SELL $990 SPY")
    of.bar("SPY 14:31 50")  # the price fell before the sale
    assert of.state.positions == {}


@pytest.mark.parametrize(
    ("order", "more", "sent", "alive", "expires"),
    (
        ("BUY 1 SPY LIMIT 50", {}, "14:30", "2026-01-05T20:59", "2026-01-05T21:00"),
        ("BUY 1 SPY LIMIT 50", {}, "2026-01-05T21:30", "2026-01-06T20:59", "2026-01-06T21:00"),  # for the next session
        ("BUY 1 SPY LIMIT 50", {}, "2026-01-09T22:00", "2026-01-12T20:59", "2026-01-12T21:00"),  # over a weekend
        ("BUY 1 SPY LIMIT 50", {}, "2026-11-27T15:00", "2026-11-27T17:59", "2026-11-27T18:00"),  # a half day
        ("BUY 1 SPY LIMIT 50", {"extended_hours": True}, "14:30", "2026-01-06T00:59", "2026-01-06T01:00"),
        ("BUY 1 SPY LIMIT 50", {"extended_hours": True}, "2026-01-05T22:00", "2026-01-06T00:59", "2026-01-06T01:00"),
        ("BUY 1 SPY LIMIT 50", {"extended_hours": True}, "2026-01-06T01:30", "2026-01-07T00:59", "2026-01-07T01:00"),
        ("BUY 1 SPY LIMIT 50 GTC", {}, "14:30", "2026-02-02T15:00", ""),
    ),
)
def test_a_day_order_lives_to_the_close_of_its_session_and_gtc_for_ever(
    order: str, more: dict[str, bool], sent: str, alive: str, expires: str
) -> None:
    of = desk(when=sent)
    name = of.order(order, **more)
    of.bar(f"SPY {alive} 100")
    assert of.state.orders[name].is_working
    if expires:
        of.bar(f"SPY {expires} 40")  # it would have filled here
        assert of.state.orders[name].state is OrderState.EXPIRED
        assert e.OrderExpired(at(expires), name, "the session closed") in of.tape.events
        assert executions(of) == []


def test_orders_for_regular_hours_wait_for_them_and_stops_are_not_reached_outside() -> None:
    of = desk(when="13:00")
    regular, extended = of.order("BUY 1 SPY"), of.order("BUY 1 SPY", extended_hours=True)
    stop = of.order("BUY 1 SPY STOP_LIMIT 110 111 GTC")
    of.bar("SPY 13:00 110.5 112 110 112")
    assert (of.state.orders[extended].state, of.state.orders[regular].state) == (
        OrderState.FILLED,
        OrderState.SUBMITTED,
    )
    of.bar("SPY 14:30 105")
    assert (of.state.orders[regular].state, of.state.orders[stop].triggered_at) == (OrderState.FILLED, None)


@pytest.mark.parametrize("order", ("SELL 1 SPY TRAILING_STOP 2", "BUY 1 SPY OPG", "BUY 1 SPY CLS"))
def test_what_it_cannot_do_it_rejects_and_never_pretends(order: str) -> None:
    of = desk()
    name = of.order(order)
    assert of.state.orders[name].state is OrderState.REJECTED
    assert isinstance(of.tape.events[-1], e.OrderRejected)
    assert "the simulated broker does not take" in of.tape.events[-1].reason


def test_a_cancel_takes_what_is_left_and_keeps_what_was_filled() -> None:
    of = desk(Simulation(participation_percent_max=D(10)))
    name = of.order("BUY 60 SPY")
    of.bar("SPY 14:30 100 v500")
    of.do(CancelOrder(of.at, name, "enough"))
    of.bar("SPY 14:31 100 v500")
    assert (of.state.orders[name].state, of.state.positions) == (OrderState.CANCELED, {"SPY": D(50)})


ORDERS = (
    "BUY 3 SPY", "SELL 3 SPY", "BUY 5 SPY LIMIT 98 GTC", "SELL 5 SPY LIMIT 103", "BUY 2 SPY STOP 102", "SELL 2 SPY STOP 98 GTC",
    "BUY 4 SPY STOP_LIMIT 101 102 GTC", "SELL 4 SPY STOP_LIMIT 99 97", "BUY $250 SPY", "BUY 9 SPY IOC", "BUY 9 SPY LIMIT 99 FOK",
)  # fmt: skip
BARS = st.lists(st.integers(95, 105), min_size=4, max_size=4).map(lambda four: (four[0], max(four), min(four), four[3]))
PLAN = st.lists(st.tuples(BARS, st.lists(st.sampled_from(ORDERS), max_size=2)), min_size=2, max_size=8)
THIN = Simulation(slippage=Slippage(model="bps", bps=D(3)), participation_percent_max=D(5))


def play(plan: list[tuple[tuple[int, ...], list[str]]]) -> tuple[Desk, list[int]]:
    """Each bar, then the orders that somebody gives on seeing it; how many events there were after each step."""
    of, lengths = desk(THIN), []
    for number, (prices, orders) in enumerate(plan):
        start = OPENING + number * MINUTE
        of.bar(f"SPY {start:%H:%M} {' '.join(map(str, prices))} v100")
        for order in orders:
            of.do(submit(order, of.at))
        lengths.append(len(of.tape.recorded))
    return of, lengths


@settings(max_examples=60)
@given(plan=PLAN)
def test_no_order_ever_fills_on_a_bar_that_began_before_it_was_sent(
    plan: list[tuple[tuple[int, ...], list[str]]],
) -> None:
    of, _ = play(plan)
    sent: dict[str, e.OrderSubmitted] = {}
    last_bar: e.BarClosed | None = None
    for event in of.tape.events:
        if isinstance(event, e.BarClosed):
            last_bar = event
        elif isinstance(event, e.OrderSubmitted):
            sent[event.client_order_id] = event
        elif isinstance(event, e.OrderFilled):
            assert last_bar is not None
            assert last_bar.bar.start_at >= sent[event.client_order_id].occurred_at
            assert event.occurred_at >= sent[event.client_order_id].occurred_at
            assert last_bar.bar.low * D("0.999") <= event.last_price <= last_bar.bar.high * D("1.001")
    books_balance(of.state)


@settings(max_examples=60)
@given(plan=PLAN, other=BARS, data=st.data())
def test_what_a_later_bar_brings_changes_nothing_that_was_before(
    plan: list[tuple[tuple[int, ...], list[str]]], other: tuple[int, ...], data: st.DataObject
) -> None:
    change = data.draw(st.integers(1, len(plan) - 1))
    changed = [*plan[:change], (other, plan[change][1]), *plan[change + 1 :]]
    (first, lengths), (second, _) = play(plan), play(changed)
    before = lengths[change - 1]
    assert first.tape.events[:before] == second.tape.events[:before]
