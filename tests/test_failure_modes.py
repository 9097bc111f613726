"""The thirteen ways in which trading systems lose money or records, each made to happen to the real desk at the real socket.

After every one the ledger is proved, its strategies are run again, and positions, cash and executions are the broker's (`desk`).
"""

from datetime import timedelta
from decimal import Decimal
from itertools import accumulate
from pathlib import Path

import pytest

from commands.broker_reports import ReportRejected
from mqd_ledger import events as e
from mqd_ledger import operator_requests
from mqd_ledger.errors import LedgerLocked
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.values import DifferenceKind, OrderState, TradingState
from tests.dsl import at
from tests.loopback import flat, minutes
from tests.trading import KILL, Trader, desk, rows

D = Decimal
UNEVEN = Switches(partial_percent=100)  # every order is filled in part at once, and wholly a minute later
PATIENT = ("operation.resend_within=3600",)  # on a busy machine much market time goes by between two looks
LOST = "update lost times=9"  # what is said of orders never arrives
# What the broker answers is as old as that: for some seconds it denies orders that it has.
LAGGING = ("account orders_lag times=20", "account positions_lag times=12", "account activities_lag times=24")


def denied(trader: Trader) -> list[str]:
    """Of each order that the risk gate stopped, the checks that did not hold."""
    return [" ".join(reason.split()[0] for reason in event.reasons) for event in trader.events(e.OrderDenied)]


def differences(trader: Trader) -> list[DifferenceKind]:
    """Found after the account was taken over."""
    return [found.kind for found in trader.events(e.DifferenceFound) if found.kind is not DifferenceKind.OPENING]


@pytest.mark.parametrize(
    ("plan", "requests", "attempts"),
    (
        (("rest gateway_timeout_after method=POST",), 1, 1),
        (("rest dropped_after method=POST",), 1, 1),
        (("rest truncated method=POST", LOST), 1, 1),
        (("rest html_after method=POST", LOST), 1, 1),
        (("rest dropped method=POST",), 2, 2),  # these never arrived: the same order goes out again
        (("rest gateway_timeout method=POST",), 2, 2),
        (("rest error method=POST",), 2, 2),
    ),
)
def test_f01_duplicate_submission(tmp_path: Path, plan: tuple[str, ...], requests: int, attempts: int) -> None:
    prices = minutes(SPY="100 101 102 103")
    with desk(tmp_path, prices, "14:30 SPY LONG 5", faults=rows(*plan), overrides=PATIENT) as trader:
        trader.bars(1, answered=False)
        trader.wait_until(lambda state: state.positions, "the position", seconds=2)
        trader.quiet(seconds=2)
        trader.later(60)  # whoever would order once more has had the time
        (order,) = trader.state().orders.values()
        assert (order.state, order.attempts, order.executions) == (OrderState.FILLED, attempts, 1)
        assert trader.submissions == requests
        assert len(trader.at_broker()["orders"]) == 1
        assert trader.state().positions == {"SPY": D(5)}


def test_f01_an_order_that_the_broker_denied_to_have_is_not_made_twice(tmp_path: Path) -> None:
    """It is sent again under its name, and the broker says that the name must be unique: so it has it."""
    with desk(tmp_path, minutes(SPY="100 101 102 103"), "14:30 SPY LONG 5", overrides=PATIENT) as trader:
        trader.faults.add(rows("rest dropped_after method=POST", LOST) + rows(*LAGGING, market_seconds=60))
        trader.bars(1, answered=False)
        trader.wait_until(lambda state: state.positions and not state.working, "the position", seconds=2)
        (order,) = trader.state().orders.values()
        assert (order.state, order.executions) == (OrderState.FILLED, 1)
        assert trader.submissions == order.attempts > 1
        assert len(trader.at_broker()["orders"]) == 1


def test_f02_divergence_after_a_partial_fill(tmp_path: Path) -> None:
    """The first part is lost on the stream, the rest arrives: the order is not taken for filled, and then is."""
    faults = rows("update lost event=partial_fill")
    prices = minutes(SPY="100 101 102 103 104 105 106 107 108 109")
    with desk(tmp_path, prices, "14:30 SPY LONG 9", faults=faults, switches=UNEVEN) as trader:
        trader.bars(3)
        (order,) = trader.wait_until(lambda state: state.positions, "the rest").orders.values()
        assert trader.orders[0].endswith("PARTIALLY_FILLED")
        trader.wait_until(lambda _: order.executions == 2, "the part that was lost", seconds=30)
        assert order.state is OrderState.FILLED
        assert trader.state().positions == {"SPY": D(9)}
        assert differences(trader) == [DifferenceKind.MISSED_FILL]
        assert trader.submissions == 1, "no trade was made for it"


def test_f03_race_between_two_strategies(tmp_path: Path) -> None:
    """Each alone is within the limit of 1,000 dollars a symbol, both are not: the second is denied while the first works."""
    plans = ("14:30 SPY LONG 6", "14:30 SPY LONG 6")
    with desk(tmp_path, minutes(SPY="100 101 102"), *plans, faults=rows("rest late_answer method=POST")) as trader:
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 6 FILLED", "BUY 0 REJECTED"]
        assert denied(trader) == ["position_notional_is_within_limit"]
        assert trader.submissions == 1


def test_f03_flat_while_the_order_to_get_in_still_works(tmp_path: Path) -> None:
    """It is taken back; nothing is sold that was never bought."""
    plan = "14:31 SPY@QQQ LONG 5; 14:32 SPY@QQQ FLAT; 14:33 SPY@QQQ FLAT"
    prices = minutes(SPY="100 101 102 103 104 105", QQQ="50 51 52 53 54 55")
    with desk(tmp_path, prices, plan) as trader:
        trader.bars(1)
        trader.rests("SPY")
        trader.bars(1)
        trader.wait_for(e.OrderSubmitted)
        trader.bars(2)
        trader.quiet()
        assert trader.orders == ["BUY 0 CANCELED"]
        assert len(trader.events(e.CancelRequested)) == 1
        assert [order["status"] for order in trader.at_broker()["orders"]] == ["canceled"]


def test_f04_position_closed_by_hand_at_the_broker(tmp_path: Path) -> None:
    """The stream tells of it; the strategy's own exit finds nothing to sell."""
    with desk(tmp_path, minutes(SPY="100 101 102 103 104"), "14:30 SPY LONG 5; 14:32 SPY FLAT") as trader:
        trader.bars(1)
        trader.quiet()
        trader.close_by_hand("SPY")
        trader.wait_until(lambda state: not state.positions, "the position is gone here as well")
        trader.bars(3)
        assert [order.split()[0] for order in trader.orders] == ["BUY", "SELL"]
        assert trader.submissions == 1, "the one sale was made in the web page"
        assert trader.events(e.SignalIgnored)[-1].reason == "it holds nothing to close"
        assert len(trader.events(e.OrderAdopted)) == 1


def test_f04_position_closed_by_hand_while_nobody_looked(tmp_path: Path) -> None:
    with desk(tmp_path, minutes(SPY="100 101 102 103 104"), "14:30 SPY LONG 5; 14:32 SPY FLAT") as trader:
        trader.bars(1)
        trader.quiet()
        trader.stop()
        trader.close_by_hand("SPY")
        trader.start().ready()
        assert not trader.state().positions
        assert differences(trader) == [DifferenceKind.MANUAL_ORDER]
        trader.bars(3)
        assert trader.submissions == 1
        assert trader.state().trading_state is TradingState.ACTIVE


def test_f05_overnight_position_after_restart(tmp_path: Path) -> None:
    """Stopped with a position, started the next morning: the same lot at its cost, and only the plan's exit sells it."""
    plan = "05T14:30 SPY LONG 5; 06T14:30 SPY FLAT"
    with desk(tmp_path, flat(days=2), plan) as trader:
        trader.bars(1)
        trader.quiet()
        (lot,) = trader.state().lots["SPY"]
        trader.stop()
        trader.server.play_until(trader.server.clock.now() + timedelta(days=1) - timedelta(minutes=6))
        trader.start().ready()
        assert trader.state().lots["SPY"] == [lot]
        assert trader.state().run is not None
        assert len(trader.events(e.RunStarted)) == 1, "it is the same run"
        trader.caught_up()
        assert trader.state().bars_total == 390, "the bars of the first day were read from the history"
        trader.server.step(5)
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]


def test_f06_loss_limit_reset_by_restart(tmp_path: Path) -> None:
    prices = minutes(SPY="100 101 95 94 93 92", QQQ="50 51 52 53 54 55")
    plan = "14:30 SPY LONG 5; 14:33 QQQ LONG 5; 14:34 SPY FLAT"
    with desk(tmp_path, prices, plan, overrides=["risk.daily_loss_max=20"]) as trader:
        trader.bars(3)
        loss = trader.state().day.start_equity - trader.state().equity
        assert loss == 30
        trader.restart()
        assert trader.state().day.start_equity - trader.state().equity == loss
        trader.bars(2)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED", "BUY 0 REJECTED", "SELL 5 FILLED"], "getting out is allowed"
        assert denied(trader) == ["daily_loss_is_within_limit"]


def test_f07_notional_over_exposure(tmp_path: Path) -> None:
    """Three orders at once, none of them answered yet: what works counts as if it were filled."""
    prices = minutes(DIA="100 101 102", QQQ="100 101 102", SPY="100 101 102")
    plan = "14:30 DIA LONG 5; 14:30 QQQ LONG 5; 14:30 SPY LONG 5"
    faults = rows("rest latency method=POST times=3")
    with desk(tmp_path, prices, plan, overrides=["risk.exposure_max=1200"], faults=faults) as trader:
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED", "BUY 5 FILLED", "BUY 0 REJECTED"]
        assert denied(trader) == ["exposure_is_within_limit"]
        assert len(trader.at_broker()["positions"]) == 2


def test_f08_stale_data(tmp_path: Path) -> None:
    """The feed is connected and says nothing: no order goes out on what is known, until bars come again."""
    prices = minutes(SPY="100 101 102 103 104 105 106")
    with desk(tmp_path, prices, "14:32 SPY LONG 5; 14:34 SPY LONG 5") as trader:
        trader.bars(1)
        trader.server.call(lambda: trader.server.market.dropped.add("SPY"))
        trader.later(100)
        (stale,) = trader.wait_for(e.FeedStale)
        assert stale.reason.startswith("no bar came for 100 s")
        assert "feed bars" in trader.state().blocks
        trader.server.call(lambda: trader.server.market.dropped.discard("SPY"))
        trader.server.step(2)
        trader.wait_for(e.FeedRecovered)
        trader.wait_until(lambda state: state.orders)
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 0 REJECTED", "BUY 5 FILLED"], (
            "the bar that broke the silence was too late to act on"
        )
        assert denied(trader) == ["trading_is_allowed"]


def test_f08_price_that_is_too_old(tmp_path: Path) -> None:
    """Bars come, but none of the symbol that is to be bought."""
    prices = minutes(SPY="100 - - - 104 105", QQQ="50 51 52 53 54 55")
    with desk(tmp_path, prices, "14:32 SPY@QQQ LONG 5", overrides=["quotes=false"]) as trader:
        trader.bars(3)
        trader.wait_until(lambda state: state.orders)
        assert denied(trader) == ["price_is_fresh"]
        assert trader.submissions == 0


def test_f08_gap_that_is_filled_afterwards(tmp_path: Path) -> None:
    """Signals of bars that were missed are raised for the record, and are too old to be traded on."""
    prices = minutes(SPY="100 101 102 103 104 105 106 107")
    with desk(tmp_path, prices, "14:31 SPY LONG 5; 14:36 SPY LONG 5") as trader:
        trader.bars(1)
        trader.faults.add(rows("data_socket dropped") + rows("data_socket refused times=3", status=503))
        trader.server.step(5)
        (filled,) = trader.wait_for(e.FeedGapFilled, seconds=2)
        assert (filled.bars, filled.symbol) == (5, "SPY")
        assert denied(trader) == ["price_is_fresh"] or "price_is_fresh" in denied(trader)[0]
        assert trader.submissions == 0
        trader.bars(1)
        trader.quiet()
        assert trader.state().positions == {"SPY": D(5)}


def test_f09_timeout_whose_order_was_accepted(tmp_path: Path) -> None:
    """No answer, no word on the stream: the order is looked up by its name and found."""
    faults = rows("rest hang_after method=POST", seconds=0.8) + rows(LOST)
    prices = minutes(SPY="100 101 102 103")
    with desk(tmp_path, prices, "14:30 SPY LONG 5", faults=faults, answer_within=0.3) as trader:
        trader.bars(1, answered=False)
        trader.wait_until(lambda state: state.positions, "the position", seconds=2)
        trader.quiet(seconds=2)
        (order,) = trader.state().orders.values()
        assert (order.state, order.attempts) == (OrderState.FILLED, 1)
        assert trader.submissions == 1


def test_f10_concurrent_writes(tmp_path: Path) -> None:
    """A second desk on the ledger is refused; the first does not notice."""
    with desk(tmp_path, minutes(SPY="100 101 102"), "14:30 SPY LONG 5") as trader:
        second = Trader(trader.server, trader.ledger, ["14:30 SPY LONG 5"])
        second.start()
        with pytest.raises(LedgerLocked, match=r"desk\.ledger"):
            second.ended()
        trader.bars(1)
        trader.quiet()
        assert trader.submissions == 1


def test_f10_torn_writes(tmp_path: Path) -> None:
    """Killed between an order's request and its answer: the next process finds the order and does not make another."""
    faults = rows("rest late_answer method=POST", seconds=1)
    with desk(tmp_path, flat(), "14:40 SPY LONG 5; 14:50 SPY FLAT", faults=faults) as trader:
        trader.stop()
        trader.spawn().ready()
        trader.until(at("14:40"))
        trader.bars(1, answered=False)
        trader.wait_until(lambda _: trader.submissions == 1)
        trader.send(KILL)
        assert len(trader.at_broker()["orders"]) == 1
        trader.start().ready()
        trader.until(at("14:50"))
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]
        assert trader.submissions == 2
        assert len(trader.events(e.RunStarted)) == 1, "it went on where the record ended"


def test_f11_kill_switch_without_broker_verification(tmp_path: Path) -> None:
    """A cancel is taken and the order fills all the same, the first close is refused, and the program is started again half way."""
    prices = [*flat(price="100", symbol="QQQ")[:20], *flat(price="100", symbol="SPY")[:20]]
    prices.sort(key=lambda bar: (bar.start_at, bar.symbol))
    plan = "14:30 SPY LONG 5; 14:31 QQQ@SPY LONG 5; 14:40 SPY LONG 5"
    faults = (*rows("account cancel_fills"), *rows("rest error method=POST at=3", status=403))
    with desk(tmp_path, prices, plan, faults=faults) as trader:
        trader.bars(1)
        trader.quiet()
        trader.rests("QQQ")
        trader.bars(1)
        trader.wait_for(e.OrderSubmitted, 2)
        operator_requests.ask(trader.ledger, "kill", "trader", "enough")
        trader.wait_for(e.KillSwitchActivated)
        trader.wait_until(lambda state: state.positions.get("QQQ"), "the cancel that became a fill", seconds=1)
        trader.wait_for(e.OrderRejected, seconds=1)
        trader.rests("QQQ", still=False)
        trader.stop()
        assert not trader.events(e.KillSwitchCompleted)
        trader.start().begun()
        (done,) = trader.wait_for(e.KillSwitchCompleted, seconds=3)
        assert "showed no open order and no position" in done.detail
        account = trader.at_broker()
        assert account["positions"] == {}
        assert {order["status"] for order in account["orders"]} == {"filled"}
        assert not trader.state().positions
        trader.until(at("14:40"))
        trader.bars(1)
        trader.wait_until(lambda state: state.denied_total)
        assert trader.orders[-1] == "BUY 0 REJECTED", "nothing is bought after a kill"
        assert trader.state().trading_state is TradingState.HALTED


def test_f12_optimistic_fills(tmp_path: Path) -> None:
    """Accepted, and rejected later: there was never a position, for nothing was executed."""
    prices = minutes(SPY="100 101 102 103 104 105", QQQ="50 51 52 53 54 55")
    with desk(tmp_path, prices, "14:31 SPY@QQQ LONG 5; 14:33 SPY@QQQ LONG 4") as trader:
        trader.bars(1)
        trader.rests("SPY")
        trader.bars(1)
        trader.wait_for(e.OrderSubmitted)
        account = trader.server.account()

        def reject() -> None:
            (order,) = account.book.open.values()
            at = account.instant()
            account.engine.handle(ReportRejected(at, at, order.engine_id, "the symbol is not tradable after all"))
            account.publish()

        trader.server.call(reject)
        trader.quiet()
        assert trader.orders == ["BUY 0 REJECTED"]
        trader.rests("SPY", still=False)
        trader.bars(2)
        trader.quiet()
        assert trader.orders == ["BUY 0 REJECTED", "BUY 4 FILLED"]
        filled = next(place for place, event in enumerate(trader.recorded) if isinstance(event, e.OrderFilled))
        opened = next(place for place, event in enumerate(trader.recorded) if isinstance(event, e.LotOpened))
        assert filled < opened, "shares come with an execution, never before it"


def test_f12_a_fill_that_is_not_told_is_no_position_until_it_is(tmp_path: Path) -> None:
    with desk(tmp_path, minutes(SPY="100 101 102 103"), "14:30 SPY LONG 5", faults=rows(LOST)) as trader:
        trader.bars(1)
        trader.wait_for(e.OrderSubmitted)
        assert not trader.state().positions
        assert trader.at_broker()["positions"]["SPY"]["qty"] == "5"
        trader.wait_until(lambda state: state.positions, "the comparison of the books", seconds=20)
        assert DifferenceKind.MISSED_FILL in differences(trader)


def test_f13_look_ahead(tmp_path: Path) -> None:
    """Every price is of one minute only: each fill's is of a minute that began after the bar that asked for it had ended."""
    prices = minutes(SPY=" ".join(str(100 + place) for place in range(12)))
    plan = "; ".join(f"14:{30 + place} SPY {'LONG 5' if place % 2 == 0 else 'FLAT'}" for place in range(8))
    with desk(tmp_path, prices, plan, switches=UNEVEN) as trader:
        for _ in range(10):
            trader.bars(1)
            trader.later(1)
        trader.quiet()
        minute_of = {bar.open: bar.start_at for bar in prices}
        assert trader.events(e.OrderFilled)
        for fill in trader.events(e.OrderFilled):
            requested_at = trader.state().orders[fill.client_order_id].requested_at
            assert minute_of[fill.last_price] >= requested_at - timedelta(seconds=requested_at.second)
            assert fill.occurred_at >= requested_at
        ends = [event.bar.end_at for event in trader.events(e.BarClosed)]
        assert ends == list(accumulate(ends, max))
