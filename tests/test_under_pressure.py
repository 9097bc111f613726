"""The desk where one thing hangs, or cannot be read: everything else goes on, and above all what closes."""

from pathlib import Path
from typing import Any

from aiohttp import web

from mqd_ledger import events as e
from mqd_ledger import operator_requests, wishes
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.values import TradingState
from tests.dsl import at
from tests.loopback import flat, minutes
from tests.trading import Trader, desk, rows

NAMES = ("DIA", "IWM", "QQQ", "XLF")
BY_HAND: dict[str, Any] = {
    **dict.fromkeys(("created_at", "updated_at", "submitted_at"), "2026-01-05T14:32:00Z"),
    **dict.fromkeys(("symbol", "side", "asset_id", "asset_class"), ""),  # as an order of several options has it
    **dict.fromkeys(("notional", "filled_avg_price", "stop_price"), None),
    "id": "5f1c2a60-0000-4000-8000-0000000000aa",
    "client_order_id": "by-hand",
    "order_class": "mleg",
    "type": "limit",
    "limit_price": "0.6",
    "time_in_force": "day",
    "qty": "1",
    "filled_qty": "0",
    "status": "new",
    "extended_hours": False,
    "legs": [],
}


def kill(trader: Trader) -> None:
    operator_requests.ask(trader.ledger, "kill", "trader", "enough")
    trader.wait_for(e.KillSwitchActivated)


def is_flat(trader: Trader) -> bool:
    return not trader.at_broker()["positions"]


def test_cancels_without_an_answer_do_not_keep_a_position_open(tmp_path: Path) -> None:
    prices = minutes(**dict.fromkeys(["SPY", *NAMES], "100 " * 10))
    plan = "14:30 SPY LONG 5; " + "; ".join(f"14:31 {symbol}@SPY LONG 5" for symbol in NAMES)
    with desk(tmp_path, prices, plan) as trader:
        trader.bars(1)
        trader.quiet()
        for symbol in NAMES:
            trader.rests(symbol)
        trader.bars(1)
        trader.wait_for(e.OrderSubmitted, 1 + len(NAMES))
        trader.faults.add(rows("rest hang method=DELETE times=5000", seconds=8))
        kill(trader)
        trader.wait_until(lambda state: is_flat(trader) and not state.positions, "the position is closed", seconds=1)
        trader.stop()


def test_a_history_that_hangs_does_not_hold_up_the_kill_switch(tmp_path: Path) -> None:
    with desk(tmp_path, minutes(SPY="100 " * 10), "14:30 SPY LONG 5") as trader:
        trader.bars(1)
        trader.quiet()
        trader.faults.add(rows("rest hang path=*/bars* times=500", seconds=8))
        trader.faults.add(rows("data_socket dropped"))
        trader.server.step()
        trader.wait_until(lambda _: "/v2/stocks/bars" in str(trader.faults.requests), "the gap is read", seconds=1)
        kill(trader)
        trader.wait_until(lambda state: is_flat(trader) and not state.positions, "the position is closed", seconds=1)
        trader.wait_for(e.KillSwitchCompleted, seconds=1)


def test_an_order_that_waits_is_not_sent_after_a_halt(tmp_path: Path) -> None:
    """Its turn is long over when the one before it has been given up."""
    prices = minutes(DIA="100 " * 6, SPY="100 " * 6)
    plan = "14:30 DIA LONG 5; 14:30 SPY LONG 5"
    with desk(tmp_path, prices, plan, answer_within=2, overrides=["risk.duplicate_window=null"]) as trader:
        trader.faults.add(rows("rest hang method=POST", seconds=5))
        trader.server.step()
        trader.wait_for(e.OrderSent, 2)
        wish = wishes.Wish("halt", "trader", "stop everything")
        assert "has taken the request" in wishes.carry_out(trader.ledger, wish, trader.server.clock.now)
        assert trader.state().trading_state is TradingState.HALTED
        trader.quiet(seconds=1)
        assert trader.submissions == 1
        assert trader.at_broker()["orders"] == []


def show(server: LoopbackServer, rows_of_open_orders: list[dict[str, Any]]) -> None:
    """Among the open orders from here on; an empty list takes it back."""
    known = server.faults.request

    async def request(asked: web.Request) -> web.StreamResponse | None:
        if (asked.method, asked.path, asked.query.get("status")) == (
            "GET",
            "/v2/orders",
            "open",
        ) and rows_of_open_orders:
            return web.json_response(rows_of_open_orders)
        return await known(asked)

    server.faults.request = request  # type: ignore[method-assign]


def test_an_order_that_nobody_can_read_stops_new_orders_and_not_the_kill_switch(tmp_path: Path) -> None:
    shown = [dict(BY_HAND)]
    with desk(tmp_path, minutes(SPY="100 " * 12), "14:30 SPY LONG 5; 14:34 SPY LONG 5") as trader:
        trader.bars(1)
        trader.quiet()
        show(trader.server, shown)
        trader.wait_until(lambda state: "orders" in state.blocks, "new orders wait", seconds=20)
        assert "Unreadable order" in trader.state().blocks["orders"]
        kill(trader)
        trader.wait_until(lambda state: is_flat(trader) and not state.positions, "the position is closed", seconds=1)
        before = trader.comparisons
        trader.wait_until(lambda _: trader.comparisons > before + 2, "more comparisons", seconds=5)
        assert not trader.state().kill_switch_completed, "there is an order left"
        shown.clear()
        trader.wait_for(e.KillSwitchCompleted, seconds=2)
        trader.wait_until(lambda state: "orders" not in state.blocks)


def test_a_position_that_a_halt_keeps_over_the_close_is_recorded(tmp_path: Path) -> None:
    plan = "05T20:50 SPY LONG 5"
    with desk(tmp_path, flat(days=2), plan, overrides=["operation.at_close=flatten"]) as trader:
        trader.server.play_until(at("20:50"))
        trader.bars(1)
        trader.quiet()
        wish = wishes.Wish("halt", "trader", "the feed looks wrong")
        wishes.carry_out(trader.ledger, wish, trader.server.clock.now)
        trader.server.play_until(at("20:55"))
        trader.wait_for(e.SessionClosed, seconds=5)
        assert not trader.events(e.PositionCloseRequested)
        (told,) = [event for event in trader.events(e.BrokerUnreachable) if event.what == "flatten"]
        assert "SPY will be held over the close of 2026-01-05: trading is halted (the feed looks wrong)" in told.detail
        assert not [line for line in trader.lines if line.startswith("refused")]
