"""What a hostile world does to the desk: numbers and times that nobody can mean, answers that come at a bad moment, other people's
keys, a clock that is set back. It keeps its books and its word, and goes on.
"""

import subprocess
import sys
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import pytest

from mqd_ledger import events as e
from mqd_ledger import live, operator_requests, wishes
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.desk.connection import Connection
from mqd_ledger.errors import LedgerUnreadable
from mqd_ledger.loopback.account import account_specs
from mqd_ledger.loopback.connections import DataConnection
from mqd_ledger.values import OrderState, Side
from tests.dsl import at
from tests.loopback import flat, minutes
from tests.test_desk import both
from tests.trading import DEADLINE, PATIENCE, Trader, desk, market, rows

D = Decimal
# What no honest broker says in any field.
NONSENSE: tuple[object, ...] = (
    *(None, "", "x", 0, -1, 1.5, True, [], {}, [1], {"a": 1}, "NaN", "-0", "0.1234567890123456789012345678901"),
    *("1e999999999", "1e-999999999", "0e999999999", "1e400", "9" * 60, 10**30, "a" * 5000, "\x00"),
    *("9999-12-31T23:59:59Z", "3000-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
)
ORDER = {
    "id": "b-hand",
    "client_order_id": "hand",
    "symbol": "SPY",
    "side": "buy",
    "type": "market",
    "time_in_force": "day",
    "qty": "5",
    "filled_qty": "5",
    "filled_avg_price": "100",
    "status": "filled",
    "created_at": "2026-01-05T14:30:00Z",
    "updated_at": "2026-01-05T14:30:00Z",
}
UPDATE = {
    "event": "fill",
    "execution_id": "x-hand",
    "price": "100",
    "qty": "5",
    "timestamp": "2026-01-05T14:30:00Z",
    "order": ORDER,
}
SECONDS = 1767623400  # 14:30 of that day
BAR = {"T": "b", "S": "SPY", "o": 100.0, "h": 100.0, "l": 100.0, "c": 100.0, "v": 1, "t": msgpack.Timestamp(SECONDS)}
HALT = {"T": "s", "S": "QQQ", "sc": "H", "sm": "", "rc": "", "rm": "", "t": msgpack.Timestamp(SECONDS)}
TIMES = tuple(msgpack.Timestamp(seconds) for seconds in (0, -(2**40), 2**40, 2**62, 32503680000))


def tell(trader: Trader, update: object) -> None:
    """A frame of the account's stream, as it stands."""
    streams = trader.server.streams
    trader.server.call(lambda: streams._tell(trader.key, update))  # type: ignore[arg-type]


def tell_data(trader: Trader, message: dict[str, Any]) -> None:
    def send() -> None:
        for connection in trader.server.streams.connections():
            if isinstance(connection, DataConnection):
                connection.queue.put_nowait(msgpack.packb([message]))

    trader.server.call(send)


def ignored(trader: Trader) -> int:
    return len(trader.events(e.BrokerReportIgnored))


# --- what the streams say ---------------------------------------------------------------------------------------------


def test_no_update_ends_the_desk_or_moves_its_day(tmp_path: Path) -> None:
    """Every field of a fill by hand, and of its order, as nonsense. What can be read is booked, so the broker's books differ."""
    with desk(tmp_path, flat(), "14:40 SPY LONG 5") as trader:
        day = trader.state().day.ends_at
        count = 0
        events = (
            "new",
            "fill",
            "partial_fill",
            "canceled",
            "trade_bust",
            "trade_correct",
            "order_cancel_rejected",
            "x",
        )
        for value in NONSENSE:
            tell(trader, value)
            for name in UPDATE:
                count += 1
                own: dict[str, object] = {**ORDER, "client_order_id": f"hand-{count}", "id": f"b-{count}"}
                tell(trader, {**UPDATE, "order": own, "execution_id": f"x-{count}", name: value})
            for name in ORDER:
                count += 1
                order: dict[str, object] = {**ORDER, "client_order_id": f"hand-{count}", "id": f"b-{count}"}
                order[name] = value
                event = events[count % len(events)]
                tell(trader, {**UPDATE, "event": event, "order": order, "execution_id": f"x-{count}"})
        tell(trader, {"event": "the last one"})
        trader.wait_until(lambda _: "the last one" in repr(trader.recorded[-50:]), "the end of the nonsense")
        assert ignored(trader) > len(NONSENSE)
        assert trader.state().day.ends_at == day
        assert trader.state().last_execution_at <= trader.server.clock.now() + timedelta(seconds=1)
        trader.is_equal_to_broker = False


def test_text_that_utf8_does_not_know(tmp_path: Path) -> None:
    """JSON may hold half a character; what is recorded of it can be read again."""
    with desk(tmp_path, flat(), "14:30 SPY LONG 5") as trader:
        half = b'{"stream":"trade_updates","data":{"event":"\\ud83d","order":{"client_order_id":"\\ud83d"}}}'

        def send() -> None:
            for connection in trader.server.streams.connections():
                if not isinstance(connection, DataConnection):
                    connection.queue.put_nowait(half)

        trader.server.call(send)
        trader.wait_for(e.BrokerReportIgnored)
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED"]


def test_no_market_data_end_the_desk(tmp_path: Path) -> None:
    with desk(tmp_path, both(0), "14:31 SPY LONG 5") as trader:
        day = trader.state().day.ends_at
        for kind, message in (("b", BAR), ("u", BAR), ("s", HALT)):
            for value in (*(value for value in NONSENSE if value != 10**30), *TIMES):
                for name in ("o", "c", "v", "t", "sc", "sm", "rm"):
                    if name in message:
                        tell_data(trader, {**message, "T": kind, name: value if name != "v" else str(value)})
        tell_data(trader, {**BAR, "o": "the last one"})
        trader.wait_until(lambda _: "the last one" in repr(trader.recorded[-50:]), "the end of the nonsense")
        assert trader.state().day.ends_at == day
        tell_data(trader, {**HALT, "sc": "T"})
        trader.wait_until(lambda state: not state.halted_symbols)
        trader.bars(2)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED"]


def test_an_account_that_is_not_ours_tells_nothing(tmp_path: Path) -> None:
    """With the keys of another account its stream is heard, and nothing of it is booked."""
    with desk(tmp_path, flat(), accounts=account_specs(2)) as trader:
        trader.stop()
        own, trader.key = trader.key, "PKLOOPBACK2"
        trader.start().begun()
        trader.wait_until(lambda _: not trader.events(e.RecoveryStepTaken)[-1].passed, "a step that fails", seconds=1)
        trader.server.by_hand(trader.key, "SPY", Side.BUY, D(3))
        trader.compared()
        trader.compared()
        trader.stop()
        assert not trader.events(e.OrderAdopted)
        assert not trader.events(e.OrderFilled)
        trader.key = own
        trader.start().ready()


def test_a_halt_whose_end_was_not_heard(tmp_path: Path) -> None:
    """Trading goes on while nobody listens. The next minute with trades says so as well."""
    with desk(tmp_path, both(0), "14:31 SPY LONG 5; 14:34 SPY LONG 5") as trader:
        trader.bars(1)
        trader.server.call(lambda: trader.server.market.halt("SPY"))
        trader.wait_until(lambda state: "SPY" in state.halted_symbols)
        trader.restart()
        trader.rests("SPY", still=False)
        trader.bars(3)
        trader.wait_until(lambda state: not state.halted_symbols, "the end of the halt")
        trader.bars(1)
        trader.quiet()
        assert trader.orders[-1] == "BUY 5 FILLED"


def test_market_data_that_break_again_while_the_gap_is_read(tmp_path: Path) -> None:
    with desk(tmp_path, flat(), "14:40 SPY LONG 5") as trader:
        trader.bars(1)
        trader.faults.add(rows("data_socket dropped"))
        trader.server.step(2)
        trader.faults.add(rows("rest late_answer method=GET path=*bars*", seconds=1.5))
        trader.wait_until(lambda _: trader.faults.happened[-1].kind == "late_answer", "the reading", seconds=1)
        trader.faults.add(rows("data_socket dropped"))
        trader.server.step(2)  # lost with the connection, and after the read began
        trader.server.play_until(at("14:40"))
        trader.bars(1)
        trader.quiet()
        starts = [event.bar.start_at for event in trader.events(e.BarClosed)]
        assert starts == [at("14:30") + timedelta(minutes=minute) for minute in range(11)]


# --- orders and cancels that wait for their turn ----------------------------------------------------------------------


def test_an_order_that_is_taken_back_before_its_turn_is_not_sent(tmp_path: Path) -> None:
    """The request before it is not answered; meanwhile the kill switch has gone off."""
    prices = minutes(DIA="100 100 100 100", SPY="100 100 100 100")
    with desk(tmp_path, prices, "14:30 DIA LONG 5; 14:30 SPY LONG 5", answer_within=1.5) as trader:
        trader.faults.add(rows("rest hang method=POST", seconds=2))
        trader.server.step()
        trader.wait_for(e.OrderSent, 2)
        operator_requests.ask(trader.ledger, "kill", "trader", "enough")
        trader.wait_for(e.KillSwitchActivated)
        (spy,) = (order for order in trader.state().orders.values() if order.symbol == "SPY")
        trader.wait_until(lambda _: not spy.is_working, "the end of the order")
        trader.wait_for(e.KillSwitchCompleted, seconds=2)
        assert not trader.events(e.OrderFilled)
        assert trader.at_broker()["orders"] == []


def test_an_order_that_waits_for_its_turn_is_not_taken_for_lost(tmp_path: Path) -> None:
    """The broker's books do not have it, twice and long enough apart: because it was not sent yet."""
    prices = minutes(DIA="100 100 100 100", SPY="100 100 100 100")
    plan = "14:30 DIA LONG 5; 14:30 SPY LONG 5"
    with desk(tmp_path, prices, plan, overrides=["operation.reconcile_every=3"], answer_within=3) as trader:
        trader.faults.add(rows("rest hang method=POST", seconds=4))
        trader.server.step()
        trader.wait_for(e.OrderSent, 2)
        for _ in range(11):
            trader.later(2)
            time.sleep(0.1)  # a comparison
        (spy,) = (order for order in trader.state().orders.values() if order.symbol == "SPY")
        assert spy.state is OrderState.PENDING
        trader.wait_until(lambda _: not spy.is_working, "its turn")
        assert (spy.state, spy.attempts) == (OrderState.FILLED, 1)
        trader.quiet(seconds=2)


@pytest.mark.parametrize("answer", ("error method=DELETE", "dropped method=DELETE"))
def test_a_cancel_that_did_not_arrive_is_asked_for_again_soon(tmp_path: Path, answer: str) -> None:
    """Not only with the next comparison that would be due, minutes later."""
    with desk(tmp_path, both(0), "14:31 SPY@QQQ LONG 5; 14:32 SPY@QQQ FLAT") as trader:
        trader.bars(1)
        trader.rests("SPY")
        trader.bars(1)
        trader.wait_for(e.OrderSubmitted)
        trader.faults.add(rows(f"rest {answer}"))
        trader.bars(1)
        trader.wait_for(e.CancelRequested)
        asked_at = trader.server.clock.now()
        trader.wait_for(e.OrderCanceled, seconds=1)
        assert trader.server.clock.now() - asked_at < timedelta(seconds=60)


def test_an_order_is_not_sent_again_after_the_close(tmp_path: Path) -> None:
    """The broker would keep it and buy at the next open."""
    rules = ["risk.session=regular", "operation.resend_within=300", "operation.settle=10"]
    with desk(tmp_path, flat(days=2), "05T20:58 SPY LONG 5", overrides=rules) as trader:
        trader.server.play_until(at("20:58"))
        trader.faults.add(rows("rest dropped method=POST"))
        trader.bars(1, answered=False)
        trader.wait_until(lambda _: trader.submissions == 1)
        trader.stop()
        trader.server.play_until(at("21:00:05"))
        trader.start().begun()
        trader.quiet(seconds=2)
        assert trader.submissions == 1
        assert trader.orders == ["BUY 0 CANCELED"]


# --- before the close -------------------------------------------------------------------------------------------------


def test_nothing_is_closed_before_the_broker_was_asked_what_is_held(tmp_path: Path) -> None:
    """Started minutes before the close: what the record holds was sold by hand while nobody looked."""
    rules = ["operation.at_close=flatten", "risk.order_notional_min=null"]
    with desk(tmp_path, both(379), "20:50 SPY LONG 5", overrides=rules) as trader:
        trader.server.play_until(at("20:50"))
        trader.bars(1)
        trader.quiet()
        trader.stop()
        trader.close_by_hand("SPY")
        trader.server.play_until(at("20:56"))
        trader.faults.add(rows("rest latency method=GET path=*account*", seconds=1))
        trader.start().begun()
        trader.wait_until(lambda state: "recovery" not in state.blocks, "the recovery", seconds=2)
        trader.later(15)
        trader.wait_until(lambda state: not state.working)
        assert trader.submissions == 1, "the one that bought"
        assert not trader.state().positions


def test_a_cancel_that_was_refused_once_is_asked_for_again_before_the_close(tmp_path: Path) -> None:
    plan = "20:50 SPY LONG 5; 20:51 QQQ@SPY LONG 5"
    with desk(tmp_path, both(379), plan, overrides=["operation.at_close=flatten"]) as trader:
        trader.server.play_until(at("20:50"))
        trader.bars(1)
        trader.quiet()
        trader.rests("QQQ")
        trader.bars(1)
        trader.wait_for(e.OrderSubmitted, 2)
        trader.faults.add(rows("rest error method=DELETE", status=422))
        trader.server.play_until(at("20:55"))
        trader.wait_for(e.CancelRejected, seconds=1)
        trader.quiet(seconds=1)
        assert trader.server.clock.now() < at("21:00")
        assert trader.orders == ["BUY 5 FILLED", "BUY 0 CANCELED", "SELL 5 FILLED"]


# --- time -------------------------------------------------------------------------------------------------------------


class SetBack(Trader):
    """Its clock can be set back."""

    by = timedelta()

    def connection(self) -> Connection:
        server, spec = self.server, self.server.specs[0]
        urls = live.Urls(server.rest_url, server.stream_url, server.data_url, server.rest_url)
        right = live.market_clock(server.rest_url)
        wrong = live.Clock(lambda: right.now() - self.by, right.rate, right.is_over)
        keys = Keys(spec.key, spec.secret, "loopback")
        return live.connection_to("loopback", self.settings, keys, urls, self.symbols, wrong, PATIENCE)


def test_a_clock_that_is_set_back_does_not_stop_the_kill_switch(tmp_path: Path) -> None:
    """The log's time does not fall; it goes on, slower, and so does everything that is due by it."""
    with market(flat()) as server:
        server.play_until(at("14:30:20"))
        trader = SetBack(server, tmp_path / "desk.ledger", ["14:31 SPY LONG 5"])
        try:
            trader.start().ready()
            trader.server.play_until(at("14:31"))
            trader.bars(1)
            trader.quiet()
            trader.by = timedelta(hours=1)
            operator_requests.ask(trader.ledger, "kill", "trader", "enough")
            trader.wait_for(e.KillSwitchCompleted, seconds=4)
            assert trader.at_broker()["positions"] == {}
            trader.wait_until(lambda state: "clock" in state.blocks, "the wrong clock", seconds=8)
            trader.stop()
            trader.agrees()
            trader.proved()
        finally:
            trader.close()


# --- who watches ------------------------------------------------------------------------------------------------------


def test_a_terminal_that_takes_no_more_lines_does_not_stop_the_desk(tmp_path: Path) -> None:
    """As one in which somebody has pressed Ctrl-S, or a pipe to a program that hangs: it is obeyed, and ends when told to."""
    ledger = tmp_path / "desk.ledger"
    with market(flat()) as server:
        server.play_until(at("14:30:20"))
        command = [
            sys.executable,
            "-m",
            "mqd_ledger",
            "run",
            "--paper",
            "--broker",
            "loopback",
            "--ledger",
            str(ledger),
        ]
        options = ["--loopback-url", server.rest_url, "--set", "alpaca.requests_per_minute=10000"]
        trader = Trader(server, ledger, [])
        with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, cwd=tmp_path) as process:
            try:
                trader.begun()
                trader.wait_until(lambda state: not state.blocks, "nothing blocks trading", seconds=4)
                for number in range(1500):
                    tell(trader, {"event": f"{number} {'x' * 100}"})
                trader.wait_for(e.BrokerReportIgnored, 1500)
                answer = wishes.carry_out(ledger, wishes.Wish("halt", "trader", "enough"), lambda: at("14:40"))
                assert "has taken the request" in answer
                process.terminate()
                assert process.wait(DEADLINE) == 0
            finally:
                process.kill()
        trader.close()


def test_a_ledger_that_is_removed_meanwhile_is_not_traded_on(tmp_path: Path) -> None:
    """The system lets a removed file be written, and nobody ever sees what."""
    with market(flat()) as server:
        server.play_until(at("14:30:20"))
        trader = Trader(server, tmp_path / "desk.ledger", ["14:31 SPY LONG 5"])
        try:
            trader.start().ready()
            (tmp_path / "desk.ledger").rename(tmp_path / "moved.ledger")
            with pytest.raises(LedgerUnreadable, match="was removed, moved or replaced"):
                trader.ended()
            assert trader.submissions == 0
        finally:
            trader.close()
