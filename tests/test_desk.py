"""A day at the desk: what it does by itself between the first second and the last, with the real client at a real socket."""

from decimal import Decimal
from pathlib import Path

import pytest

from commands.cash import ReportCash
from commands.truth import AcceptDifference, ReportDifference
from mqd_ledger import events as e
from mqd_ledger import operator_requests, wishes
from mqd_ledger.loopback.account import account_specs
from mqd_ledger.recovery import STEPS
from mqd_ledger.store import backup
from mqd_ledger.values import Anomaly, Bar, DifferenceKind, OrderState, TradingState
from mqd_ledger.warehouse.query import run_query
from tests.dsl import MINUTE, at
from tests.loopback import flat, minutes, one_price
from tests.trading import Trader, desk, market, rows

D = Decimal


def steps(trader: Trader) -> list[int]:
    """Those of the last recovery that passed."""
    taken = trader.events(e.RecoveryStepTaken)
    begins = max(place for place, step in enumerate(taken) if step.step == 1)
    return [step.step for step in taken[begins:] if step.passed]


def both(first: int, count: int = 20, price: str = "100") -> list[Bar]:
    """Minutes of QQQ and SPY at one price, from so many minutes after the open on."""
    bars = [*flat(price=price, symbol="QQQ")[first : first + count], *flat(price=price)[first : first + count]]
    return sorted(bars, key=lambda bar: (bar.start_at, bar.symbol))


# --- from the start to the first order --------------------------------------------------------------------------------


def test_seven_steps_in_order_and_no_order_before_the_last(tmp_path: Path) -> None:
    """Books that disagree for two minutes keep the sixth step from passing; what a strategy wants meanwhile is denied."""
    plan = "14:30 SPY LONG 5; 14:35 SPY LONG 5"
    with market(flat()) as server:
        server.play_until(at("14:30:20"))
        trader = Trader(server, tmp_path / "desk.ledger", [plan], ["operation.settle=120"])
        try:
            trader.start().wait_for(e.RecoveryStepTaken, 5)
            trader.wait_until(lambda _: trader.hears_bars())
            trader.bars(1)
            (denied,) = trader.wait_for(e.OrderDenied)
            assert "blocked_by recovery" in denied.reasons[0]
            trader.later(65)
            trader.wait_until(lambda _: trader.comparisons > 1)
            trader.later(65)
            trader.ready()
            taken = trader.events(e.RecoveryStepTaken)
            assert [(step.step, step.name) for step in taken] == [(step.number, step.name) for step in STEPS]
            assert [step.is_last for step in taken] == [False] * 6 + [True]
            server.play_until(at("14:35"))
            trader.bars(1)
            trader.quiet()
            assert trader.orders == ["BUY 0 REJECTED", "BUY 5 FILLED"]
            assert trader.recorded.index(taken[-1]) < trader.recorded.index(trader.events(e.OrderSent)[0])
            trader.stop()
            trader.agrees()
            trader.proved()
        finally:
            trader.close()


def test_an_older_copy_of_the_ledger_takes_over_what_it_has_lost_and_waits_for_a_person(tmp_path: Path) -> None:
    """A backup was put in the place of the ledger; or two copies trade on one account, which nobody can tell from here."""
    plan = "14:30 SPY LONG 5; 14:32 SPY FLAT; 14:34 SPY LONG 3; 14:39 SPY FLAT; 14:41 SPY LONG 5; 14:43 SPY FLAT"
    with market(flat()) as server:
        server.play_until(at("14:30:20"))
        lost = Trader(server, tmp_path / "desk.ledger", [plan])
        older = Trader(server, tmp_path / "older.ledger", [plan])
        try:
            lost.start().ready().bars(1)
            lost.quiet()
            backup(lost.ledger, older.ledger)
            lost.bars(5)
            lost.quiet()
            assert lost.orders == ["BUY 5 FILLED", "SELL 5 FILLED", "BUY 3 FILLED"]
            lost.stop()
            older.start().ready()
            (halted,) = older.events(e.TradingHalted)
            assert "it is an older copy, or another copy trades" in halted.reason
            assert older.state().positions == {"SPY": D(3)}
            server.play_until(at("14:39"))
            older.bars(1)
            assert older.submissions == 3, "nothing is sent before somebody has looked"
            wish = wishes.Wish("resume", "trader", "the other one is gone")
            assert "has taken the request" in wishes.carry_out(older.ledger, wish, server.clock.now)
            server.play_until(at("14:41"))
            older.bars(4)
            older.quiet()
            sent = [event.client_order_id for event in older.events(e.OrderSent)]
            assert sent == sorted(set(sent)), "no name is given twice"
            assert not {order for order in sent if order in lost.state().orders} - {sent[0]}
            assert older.submissions == 3 + len(sent) - 1
            older.stop()
            older.agrees()
            older.proved()
        finally:
            lost.close()
            older.close()


@pytest.mark.parametrize(("seconds", "becomes"), ((0, "BUY 5 FILLED"), (400, "BUY 0 CANCELED")))
def test_an_order_that_never_arrived_is_sent_again_while_it_is_young(
    tmp_path: Path, seconds: int, becomes: str
) -> None:
    """The program ends right after the attempt; the next one finds no such order at the broker."""
    faults = rows("rest dropped method=POST")
    rules = ["operation.resend_within=300"]
    with desk(tmp_path, flat(), "14:30 SPY LONG 5", faults=faults, overrides=rules) as trader:
        trader.bars(1, answered=False)
        trader.wait_until(lambda _: trader.submissions == 1)
        trader.stop()
        assert trader.orders == ["BUY 0 PENDING"]
        trader.later(seconds)
        trader.start().begun()
        trader.quiet(seconds=2)
        trader.ready()
        assert trader.orders == [becomes]
        (order,) = trader.state().orders.values()
        sent_again = order.state is OrderState.FILLED
        assert order.attempts == trader.submissions == (2 if sent_again else 1)
        assert [one["client_order_id"] for one in trader.at_broker()["orders"]] == [order.client_order_id] * sent_again
        assert steps(trader) == [1, 2, 3, 4, 5, 6, 7]


def test_another_account_is_refused(tmp_path: Path) -> None:
    with desk(tmp_path, flat(), "14:30 SPY LONG 5; 14:50 SPY FLAT", accounts=account_specs(2)) as trader:
        trader.bars(1)
        trader.quiet()
        trader.stop()
        own, trader.key = trader.key, "PKLOOPBACK2"
        trader.start().begun()
        trader.wait_until(lambda _: not trader.events(e.RecoveryStepTaken)[-1].passed, "a step that fails", seconds=1)
        (failed,) = (step for step in trader.events(e.RecoveryStepTaken) if not step.passed)
        assert failed.step == 3
        assert "keeps the books of the loopback account PA3LOOPBACK1" in failed.detail
        assert "PA3LOOPBACK2" in failed.detail
        trader.wait_until(lambda _: trader.hears_bars())
        trader.later(60)
        trader.caught_up()
        assert trader.at_broker()["orders"] == []
        trader.stop()
        trader.key = own
        trader.start().ready()
        trader.until(at("14:50"))
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]


# --- the broker is the truth ------------------------------------------------------------------------------------------


def test_a_difference_halts_until_it_is_accepted(tmp_path: Path) -> None:
    """Two shares are gone at the broker, and nobody knows why. Nothing is sold or bought for it, then or after a restart."""
    with desk(tmp_path, flat(), "14:30 SPY LONG 5; 14:45 SPY LONG 5; 14:50 SPY FLAT") as trader:
        trader.bars(1)
        trader.quiet()
        account = trader.server.account()

        def sell_two_unheard() -> None:
            """No order and no execution tells of it: only the account shows what it came to."""
            when = account.instant()
            account.engine.handle(ReportDifference(when, DifferenceKind.UNKNOWN, "SPY", "5", "3", D(-2), D(100)))
            account.engine.handle(AcceptDifference(when, "D1", "somebody", "sold"))
            account.publish()

        trader.server.call(sell_two_unheard)
        trader.wait_until(lambda state: state.differences, "a difference", seconds=20)
        (found,) = trader.state().differences.values()
        assert (found.subject, found.ours, found.theirs, found.needs_acceptance) == ("SPY", "5", "3", True)
        assert {"asked_at", "seen_since", "their_cash"} <= found.evidence.keys()
        assert trader.state().trading_state is TradingState.HALTED
        total = trader.state().differences_total
        trader.stop()
        trader.start().begun()
        trader.wait_until(lambda state: "reconcile --accept" in state.blocks.get("recovery", ""), "step 7", seconds=3)
        trader.later(60)
        trader.caught_up()
        assert trader.state().differences_total == total, "the same difference is found once"
        assert trader.state().positions == {"SPY": D(5)}
        answer = wishes.carry_out(
            trader.ledger, wishes.Wish("accept", "trader", "a gift", found.difference_id), lambda: at("14:40")
        )
        assert "has taken the request" in answer
        trader.wait_until(lambda state: not state.differences and not state.blocks, "the acceptance", seconds=3)
        assert trader.state().positions == {"SPY": D(3)}
        assert trader.state().trading_state is TradingState.ACTIVE
        assert trader.submissions == 1
        trader.restart()
        assert trader.state().differences_total == total
        trader.until(at("14:50"))
        trader.bars(1)
        trader.quiet()
        assert trader.orders[-1] == "SELL 3 FILLED"
        assert trader.state().positions == {}
        assert trader.at_broker()["positions"] == {}


def test_a_small_difference_in_cash_is_booked_unasked(tmp_path: Path) -> None:
    """As an adjustment with its evidence; trading goes on."""
    with desk(tmp_path, flat(), "14:30 SPY LONG 5") as trader:
        account = trader.server.account()

        def pay() -> None:
            account.engine.handle(ReportCash(account.instant(), "gift", "DEPOSIT", D("12.34"), "interest or so"))
            account.publish()

        trader.server.call(pay)
        trader.wait_until(lambda state: state.cash == D("99512.34"), "the money", seconds=20)
        found, booked = trader.events(e.DifferenceFound)[-1], trader.events(e.AdjustmentBooked)[-1]
        assert (found.kind, found.difference_id) == (DifferenceKind.CASH, booked.difference_id)
        assert (booked.amount, booked.operator) == (D("12.34"), "reconciliation")
        assert not trader.state().differences
        assert trader.state().trading_state is TradingState.ACTIVE


def test_trade_updates_break_and_come_back(tmp_path: Path) -> None:
    """While they are away nothing new is sent; what was missed is booked from the books before anything is again."""
    plan = "14:30 SPY LONG 5; 14:31 QQQ LONG 5; 14:40 QQQ LONG 5"
    with desk(tmp_path, both(0), plan) as trader:
        trader.faults.add(rows("trade_socket dropped", code=1006) + rows("trade_socket refused times=4", status=503))
        trader.bars(1)
        trader.wait_until(lambda state: "trade_updates" in state.blocks, "the break")
        trader.bars(1)
        trader.wait_until(lambda state: not state.blocks, "the way back", seconds=1)
        trader.wait_until(lambda state: state.positions == {"SPY": D(5)}, "what was missed", seconds=5)
        trader.until(at("14:40"))
        trader.bars(1)
        trader.quiet(seconds=5)
        assert trader.orders == ["BUY 5 FILLED", "BUY 0 REJECTED", "BUY 5 FILLED"]
        (denied,) = trader.events(e.OrderDenied)
        assert "blocked_by trade_updates" in denied.reasons[0]


def test_a_status_that_nobody_knows_is_recorded_and_told(tmp_path: Path) -> None:
    faults = rows("update unknown_status event=new", status="pondering")
    with desk(tmp_path, flat(), "14:30 SPY LONG 5", faults=faults) as trader:
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED"]
        (anomaly,) = (one for one in trader.events(e.OrderAnomalyFound) if one.anomaly is Anomaly.UNKNOWN_STATUS)
        assert anomaly.status == "pondering"
        told = run_query(trader.ledger, "select message from alerts where message like 'UNKNOWN_STATUS%'").rows
        assert len(told) == 1
        assert "pondering" in told[0][0]


@pytest.mark.parametrize("seconds", (2, -2))
def test_a_broker_whose_clock_is_wrong_by_seconds(tmp_path: Path, seconds: int) -> None:
    with desk(tmp_path, flat(), "14:31 SPY LONG 5; 14:33 SPY FLAT") as trader:
        trader.faults.add(rows("market clock_skew", market_seconds=seconds))
        for _ in range(5):
            trader.bars(1)
            trader.later(5)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]
        assert not trader.events(e.BarRejected)
        assert not trader.events(e.BrokerReportIgnored)
        assert trader.state().differences_total == 1, "the opening one alone"


# --- the exchange's day -----------------------------------------------------------------------------------------------


def test_a_halted_symbol(tmp_path: Path) -> None:
    with desk(tmp_path, both(0), "14:31 SPY@QQQ LONG 5; 14:34 SPY LONG 5") as trader:
        trader.bars(1)
        trader.server.call(lambda: trader.server.market.halt("SPY"))
        trader.wait_until(lambda state: "SPY" in state.halted_symbols)
        trader.bars(1)
        (denied,) = trader.wait_for(e.OrderDenied)
        assert "halt of SPY" in denied.reasons[0]
        trader.server.call(lambda: trader.server.market.resume("SPY"))
        trader.wait_until(lambda state: not state.halted_symbols)
        trader.bars(3)
        trader.quiet()
        assert trader.orders == ["BUY 0 REJECTED", "BUY 5 FILLED"]


def test_it_waits_for_the_open_and_trades_two_sessions(tmp_path: Path) -> None:
    plan = "05T14:31 SPY LONG 5; 06T14:31 SPY FLAT"
    with desk(tmp_path, flat(days=2), plan) as trader:
        trader.bars(2)
        trader.quiet()
        trader.until(at("21:05"))
        (closed,) = trader.wait_for(e.SessionClosed)
        assert closed.session == "2026-01-05"
        trader.caught_up()
        trader.until(at("2026-01-06T14:30:20"))
        _, second = trader.wait_for(e.SessionOpened, 2)
        assert (second.session, second.closes_at) == ("2026-01-06", at("2026-01-06T21:00"))
        trader.bars(2)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]
        assert trader.state().bars_total == 390 + 2
        assert len(trader.events(e.RunStarted)) == 1


@pytest.mark.parametrize(
    ("at_close", "orders", "held"),
    (
        ("hold", ["BUY 5 FILLED", "BUY 0 EXPIRED", "BUY 1 FILLED"], {"SPY": D(6)}),
        ("cancel", ["BUY 5 FILLED", "BUY 0 CANCELED", "BUY 0 REJECTED"], {"SPY": D(5)}),
        ("flatten", ["BUY 5 FILLED", "BUY 0 CANCELED", "SELL 5 FILLED", "BUY 0 REJECTED"], {}),
    ),
)
def test_what_is_done_before_the_close(
    tmp_path: Path, at_close: str, orders: list[str], held: dict[str, Decimal]
) -> None:
    plans = ("20:50 SPY LONG 5; 20:51 QQQ@SPY LONG 5", "20:56 SPY LONG 1")
    rules = (f"operation.at_close={at_close}", "risk.order_notional_min=null")
    with desk(tmp_path, both(379), *plans, overrides=rules) as trader:
        trader.until(at("20:49"))
        trader.bars(2)
        trader.quiet()
        trader.rests("QQQ")
        trader.bars(1)
        trader.wait_for(e.OrderSubmitted, 2)
        trader.bars(3)
        if at_close != "hold":
            trader.wait_for(e.SessionEnding)
            trader.quiet(seconds=1)
        trader.until(at("20:56"))
        trader.bars(1)
        trader.wait_until(lambda state: len(state.orders) == len(orders))
        trader.until(at("21:05"))
        trader.wait_for(e.SessionClosed)
        trader.quiet()
        assert trader.orders == orders
        assert trader.state().positions == held


def test_a_half_day_of_the_calendar_ends_at_one(tmp_path: Path) -> None:
    """The day after Thanksgiving closes at 18:00 UTC; positions are closed five minutes before that."""
    start = at("2026-11-27T17:50")
    bars = [one_price("SPY", start + minute * MINUTE, "100") for minute in range(10)]
    with desk(tmp_path, bars, "17:51 SPY LONG 5", overrides=["operation.at_close=flatten"]) as trader:
        trader.until(start)
        trader.bars(2)
        trader.quiet()
        assert trader.state().positions == {"SPY": D(5)}
        trader.bars(3)
        (ending,) = trader.wait_for(e.SessionEnding)
        assert ending.occurred_at >= at("2026-11-27T17:55")
        trader.quiet(seconds=1)
        assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]
        trader.until(at("2026-11-27T18:05"))
        trader.wait_for(e.SessionClosed)


def test_hours_that_are_not_ours_block(tmp_path: Path) -> None:
    """The exchange closes early and unforeseen: the broker says closed, our calendar says open, so nothing is sent."""
    with desk(tmp_path, flat(days=2), "14:31 SPY LONG 5") as trader:
        trader.faults.add(rows("market half_day"))
        trader.bars(1)
        trader.later(90)
        trader.wait_until(lambda state: "calendar" in state.blocks, "the block", seconds=10)
        assert "closed at the broker and open by our calendar" in trader.state().blocks["calendar"]
        trader.until(at("21:05"))
        trader.wait_until(lambda state: "calendar" not in state.blocks, "the same hours again", seconds=10)
        assert trader.submissions == 0


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ("request", "signal file", "loss"))
def test_the_kill_switch_is_reached_by_every_way(tmp_path: Path, way: str) -> None:
    falling = minutes(SPY="100 100 90 90 90 90 90 90")
    rules = ["operation.kill_at_daily_loss=40"] if way == "loss" else []
    with desk(tmp_path, falling, "14:30 SPY LONG 5", overrides=rules) as trader:
        trader.bars(1)
        trader.quiet()
        if way == "request":
            operator_requests.ask(trader.ledger, "kill", "trader", "enough")
        elif way == "signal file":
            operator_requests.kill_file(trader.ledger).write_text("by hand", encoding="utf-8")
        else:
            trader.bars(2)
        trader.wait_for(e.KillSwitchCompleted, seconds=2)
        (killed,) = trader.events(e.KillSwitchActivated)
        by = {"request": "trader", "signal file": "signal file", "loss": "kill switch"}
        assert killed.operator == by[way]
        assert trader.at_broker()["positions"] == {}
        assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]
        assert not operator_requests.kill_file(trader.ledger).exists()
        wishes.carry_out(trader.ledger, wishes.Wish("resume", "trader", "looked at"), lambda: at("14:50"))
        trader.wait_until(lambda state: state.trading_state is TradingState.ACTIVE)


# --- market data ------------------------------------------------------------------------------------------------------


def test_the_only_place_for_market_data_is_taken(tmp_path: Path) -> None:
    """406 is answered until the other connection is gone; then bars come, and those of the meantime are read."""
    faults = rows("data_socket refused times=2", status=406)
    with desk(tmp_path, flat(), "14:30 SPY LONG 5", faults=faults) as trader:
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED"]
        assert len(trader.faults.happened) == 2


def test_a_gap_is_filled_from_the_history_and_marked(tmp_path: Path) -> None:
    with desk(tmp_path, flat(), "14:40 SPY LONG 5") as trader:
        trader.bars(2)
        trader.faults.add(rows("data_socket dropped"))
        trader.server.step(4)
        (gap,) = trader.wait_for(e.FeedGapFilled, seconds=1)
        trader.until(at("14:40"))
        trader.bars(1)
        trader.quiet()
        starts = [event.bar.start_at for event in trader.events(e.BarClosed)]
        assert starts == [at("14:30") + minute * MINUTE for minute in range(11)], "each bar once, in order"
        place = trader.recorded.index(gap)
        filled = [event.bar for event in trader.recorded[place - gap.bars : place] if isinstance(event, e.BarClosed)]
        assert (filled[0].start_at, filled[-1].start_at) == (gap.first_start_at, gap.last_start_at)
        assert gap.first_start_at == at("14:32")
        assert trader.orders == ["BUY 5 FILLED"]


def test_a_corrected_bar_moves_the_mark_and_no_strategy(tmp_path: Path) -> None:
    with desk(tmp_path, flat(), "14:31 SPY LONG 5") as trader:
        trader.faults.add(rows("market corrected_bar at=3", cents=7))
        trader.bars(3)
        (corrected,) = trader.wait_for(e.BarCorrected)
        assert corrected.bar.close == D("100.07")
        assert trader.state().marks["SPY"].price == D("100.07")
        trader.quiet()
        assert len(trader.events(e.SignalRaised)) == 1
        assert trader.orders == ["BUY 5 FILLED"]


def test_a_strategy_on_longer_bars(tmp_path: Path) -> None:
    prices = minutes(SPY="100 101 102 103 104 105 106 107")
    with desk(tmp_path, prices, "14:30 SPY LONG 5", parameters={"interval": "5m"}) as trader:
        trader.bars(5)
        trader.quiet()
        (longer,) = trader.events(e.BarAggregated)
        assert (longer.bar.open, longer.bar.close, longer.bar.volume) == (D(100), D(104), 5000)
        (order,) = trader.state().orders.values()
        assert order.requested_at >= at("14:35")
        assert order.average_fill_price == D(105)
