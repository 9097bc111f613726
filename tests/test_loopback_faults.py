"""Everything that can go wrong at the loopback server, each once, against the real client over real sockets."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.data.live import StockDataStream
from alpaca.trading.client import TradingClient
from alpaca.trading.stream import TradingStream

from mqd_ledger.errors import BadInput
from mqd_ledger.loopback.faults import FAULTS, Fault, Faults
from mqd_ledger.loopback.faults_rest import AFTER, BEFORE
from mqd_ledger.loopback.faults_sockets import CONNECTIONS, FRAMES
from mqd_ledger.loopback.faults_table import KINDS
from mqd_ledger.loopback.faults_updates import CHANGES
from mqd_ledger.loopback.faults_views import VIEWS
from mqd_ledger.loopback.faults_world import HAPPENINGS
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.loopback.switches import Switches

OPENED = 6  # minutes from the start of what is played to the end of the first bar
WHOLE = Switches(partial_percent=0)
SHORT = {"seconds": 0.05}
PATIENCE = 15.0


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextmanager
def serving(*plan: Fault, switches: Switches = WHOLE, directory: Path | None = None) -> Iterator[LoopbackServer]:
    """A server with the first bar of a session played."""
    with LoopbackServer(faults=Faults(plan), switches=switches, directory=directory) as server:
        server.step(OPENED)
        yield server


def client_of(server: LoopbackServer) -> Any:
    spec = server.specs[0]
    client = TradingClient(spec.key, spec.secret, url_override=server.rest_url, raw_data=True)
    client._retry = 0
    return client


def buy(server: LoopbackServer, quantity: str = "4", **more: str) -> Any:
    order = {"symbol": "SYNA", "qty": quantity, "side": "buy", "type": "market", "time_in_force": "day", **more}
    return client_of(server).post("/orders", order)


def resting(server: LoopbackServer) -> Any:
    """An order that no bar reaches."""
    return buy(server, type="limit", limit_price="1.00")


def truth(server: LoopbackServer) -> Any:
    return ask(server, "state")["accounts"][server.specs[0].key]


def ask(server: LoopbackServer, path: str, body: Any = None) -> Any:
    url = f"{server.rest_url}/loopback/{path}"
    answer = requests.get(url, timeout=PATIENCE) if body is None else requests.post(url, json=body, timeout=PATIENCE)
    return answer.json()


def happened(server: LoopbackServer) -> list[str]:
    assert isinstance(server.faults, Faults)
    return [one.kind for one in server.faults.happened]


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


class Listening:
    """One of alpaca-py's streams in a thread of its own; `heard` is what its handler was given."""

    def __init__(self, server: LoopbackServer, stream: Any, subscribe: str, *symbols: str) -> None:
        self.server = server
        self.stream = stream
        self.heard: list[Any] = []
        getattr(stream, subscribe)(self._handle, *symbols)
        self.where = "data_socket" if symbols else "trade_socket"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run)

    async def _handle(self, content: Any) -> None:
        self.heard.append(content["data"] if "stream" in content else content)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.task = self.loop.create_task(self.stream._run_forever())
        try:
            self.loop.run_until_complete(self.task)
        except asyncio.CancelledError:
            self.loop.run_until_complete(self.stream.close())
        finally:
            self.loop.close()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.task.cancel)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()

    @property
    def is_listening(self) -> bool:
        connection: Any = self.server.streams._places.get((self.where, self.server.specs[0].key))
        wants = getattr(connection, "wanted", {"bars": getattr(connection, "listens", False)})
        return bool(wants["bars"])

    @property
    def events(self) -> list[Any]:
        return [update and update["event"] for update in self.heard]


def updates_of(server: LoopbackServer, **params: Any) -> Listening:
    spec = server.specs[0]
    stream = TradingStream(
        spec.key, spec.secret, url_override=server.stream_url, raw_data=True, websocket_params=params or None
    )
    return Listening(server, stream, "subscribe_trade_updates")


def bars_of(server: LoopbackServer, channel: str = "bars") -> Listening:
    spec = server.specs[0]
    stream = StockDataStream(spec.key, spec.secret, url_override=server.data_url, raw_data=True)
    listening = Listening(server, stream, f"subscribe_{channel}", "SYNA")
    if channel != "bars":
        stream.subscribe_bars(listening._handle, "SYNA")
    return listening


# --- requests -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error", "status"),
    (
        ("latency", None, 200),
        ("hang", requests.ConnectionError, 0),
        ("rate_limited", APIError, 429),
        ("error", APIError, 500),
        ("gateway_timeout", APIError, 504),
        ("html", APIError, 502),
        ("dropped", requests.ConnectionError, 0),
        ("late_answer", None, 200),
        ("hang_after", requests.ConnectionError, 0),
        ("gateway_timeout_after", APIError, 504),
        ("dropped_after", requests.ConnectionError, 0),
        ("truncated", requests.exceptions.ChunkedEncodingError, 0),
        ("html_after", requests.exceptions.JSONDecodeError, 0),
    ),
)
def test_a_request_fails_before_or_after_it_was_done(kind: str, error: type[Exception] | None, status: int) -> None:
    params = SHORT if "seconds" in KINDS["rest", kind].params else {}
    with serving(Fault("rest", kind, match={"method": "POST", "path": "/v2/orders"}, params=params)) as server:
        if error is None:
            assert buy(server)["status"] == "pending_new"
        else:
            with pytest.raises(error) as raised:
                buy(server)
            if isinstance(raised.value, APIError):
                assert raised.value.status_code == status
        is_done = kind in AFTER or error is None
        assert len(truth(server)["orders"]) == (1 if is_done else 0)
        assert happened(server) == [kind]
        assert buy(server)["status"] == "pending_new"  # it strikes once


def test_a_refused_rate_says_when_to_come_back() -> None:
    with serving(Fault("rest", "rate_limited", params={"retry_after": 7})) as server:
        answer = requests.get(f"{server.rest_url}/v2/account", timeout=PATIENCE)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "7"
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert int(answer.headers["X-RateLimit-Reset"]) == server.clock.now().timestamp() + 7


def test_after_a_lost_answer_the_same_client_order_id_is_refused() -> None:
    with serving(Fault("rest", "gateway_timeout_after", match={"method": "POST"})) as server:
        with pytest.raises(APIError):
            buy(server, client_order_id="mine-1")
        with pytest.raises(APIError, match="client_order_id must be unique"):
            buy(server, client_order_id="mine-1")
        assert client_of(server).get_order_by_client_id("mine-1")["status"] == "filled"


def test_the_nth_of_the_matching_occurrences_is_struck_as_often_as_asked() -> None:
    with serving(Fault("rest", "error", match={"method": "GET"}, at=2, times=2)) as server:
        client = client_of(server)
        buy(server)
        found = []
        for _ in range(4):
            try:
                client.get("/account")
                found.append(200)
            except APIError as error:
                found.append(error.status_code)
        assert found == [200, 500, 500, 200]


# --- trade updates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "event", "expected"),
    (
        ("lost", "fill", ["pending_new", "new"]),
        ("duplicated", "fill", ["pending_new", "new", "fill", "fill"]),
        ("reordered", "new", ["pending_new", "fill", "new"]),
        ("delayed", "new", ["pending_new", "fill", "new"]),
        ("null", "new", ["pending_new", None, "fill"]),
        ("unknown_event", "fill", ["pending_new", "new", "loopback_event"]),
        ("unknown_status", "fill", ["pending_new", "new", "fill"]),
        ("no_event_id", "fill", ["pending_new", "new", "fill"]),
        ("after_the_fill", "pending_new", ["new", "fill", "pending_new"]),
        ("replayed", "fill", ["pending_new", "new", "fill", "new", "fill", "new", "fill"]),
    ),
)
def test_a_trade_update_goes_astray(kind: str, event: str, expected: list[str]) -> None:
    params = SHORT if kind == "delayed" else {}
    with serving(Fault("update", kind, match={"event": event}, params=params)) as server, updates_of(server) as updates:
        until(lambda: updates.is_listening)
        buy(server)
        until(lambda: len(updates.heard) >= len(expected))
        client_of(server).cancel_order_by_id(resting(server)["id"])
        until(lambda: updates.events[-1] == "canceled")
        assert updates.events == [*expected, "pending_new", "new", "pending_cancel", "canceled"]
        assert happened(server) == [kind]
        last = updates.heard[len(expected) - 1]
        assert last["order"]["status"] == ("loopback_status" if kind == "unknown_status" else last["order"]["status"])
        assert ("event_id" in last) == (kind != "no_event_id")
        fills = {update["execution_id"] for update in updates.heard if update and update["event"] == "fill"}
        assert len(fills) <= 1
        assert truth(server)["orders"][0]["status"] == "filled"


def test_a_fill_arrives_after_the_cancel() -> None:
    partly = Switches(partial_percent=100)
    plan = Fault("update", "after_the_end")
    with serving(plan, switches=partly) as server, updates_of(server) as updates:
        until(lambda: updates.is_listening)
        order = buy(server, "10")
        client_of(server).cancel_order_by_id(order["id"])
        until(lambda: len(updates.heard) == 5)
        assert updates.events == ["pending_new", "new", "pending_cancel", "canceled", "partial_fill"]
        assert updates.heard[-2]["order"]["filled_qty"] == updates.heard[-1]["qty"]


# --- connections --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", (Fault("trade_socket", "refused"), Fault("trade_socket", "slow_auth", params=SHORT)))
def test_an_update_stream_gets_through_in_the_end(fault: Fault) -> None:
    with serving(fault) as server, updates_of(server) as updates:
        until(lambda: updates.is_listening)
        buy(server)
        until(lambda: updates.events == ["pending_new", "new", "fill"])
        assert happened(server) == [fault.kind]


def test_a_stream_that_never_hears_of_its_keys_waits_for_ever() -> None:
    with serving(Fault("trade_socket", "no_auth_answer")) as server, updates_of(server) as updates:
        until(lambda: happened(server))
        buy(server)
        server.step()
        assert not updates.is_listening
        assert updates.heard == []


@pytest.mark.parametrize("code", (1006, 1011))
def test_a_dropped_stream_is_connected_again_and_has_missed_something(code: int) -> None:
    fault = Fault("trade_socket", "dropped", at=4, params={"code": code})  # after two answers and pending_new
    with serving(fault) as server, updates_of(server) as updates:
        until(lambda: updates.is_listening)
        buy(server)
        until(lambda: happened(server))
        until(lambda: not updates.is_listening)
        until(lambda: updates.is_listening)
        buy(server)
        until(lambda: "fill" in updates.events)
        assert updates.events == ["pending_new", "pending_new", "new", "fill"]


def test_a_silent_stream_answers_pings_and_a_half_open_one_does_not() -> None:
    pings = {"ping_interval": 0.05, "ping_timeout": 1.0}
    with serving(Fault("trade_socket", "silent", at=3)) as server, updates_of(server, **pings) as updates:
        until(lambda: updates.is_listening)
        buy(server)
        until(lambda: happened(server))
        updates.stream._ws.latency = 0  # set at each pong
        until(lambda: updates.stream._ws.latency)
        assert updates.heard == []
    with serving(Fault("trade_socket", "half_open", at=3)) as server, updates_of(server, **pings) as updates:
        until(lambda: updates.is_listening)
        buy(server)
        until(lambda: not updates.is_listening)  # the client has noticed
        until(lambda: updates.is_listening)
        assert updates.heard == []


def test_a_slow_stream_says_everything_late() -> None:
    with serving(Fault("trade_socket", "slow", params={"seconds": 0.01})) as server, updates_of(server) as updates:
        until(lambda: updates.is_listening)
        buy(server)
        until(lambda: updates.events == ["pending_new", "new", "fill"])


@pytest.mark.parametrize(
    "fault",
    (
        Fault("data_socket", "refused"),
        Fault("data_socket", "refused", params={"status": 503}),
        Fault("data_socket", "slow_auth", params=SHORT),
        Fault("data_socket", "dropped", at=4),  # after the greeting, the keys and the subscription
        Fault("data_socket", "silent", at=4, params={"seconds": 0.05}),
        Fault("data_socket", "half_open", at=4, params={"seconds": 0.05}),
        Fault("data_socket", "slow", params={"seconds": 0.01}),
    ),
    ids=lambda fault: f"{fault.kind}{fault.params.get('status', '')}",
)
def test_bars_come_again_after_a_bad_connection(fault: Fault) -> None:
    with serving(fault) as server, bars_of(server) as bars:

        def play() -> bool:
            if bars.is_listening:
                server.step()
                time.sleep(0.01)
            return bool(bars.heard and happened(server))

        until(play)
        assert bars.heard[-1]["S"] == "SYNA"
        assert set(happened(server)) == {fault.kind}


def test_a_frame_of_bars_is_lost_and_rest_has_it() -> None:
    with serving(Fault("data_socket", "lost", at=5)) as server, bars_of(server) as bars:
        until(lambda: bars.is_listening)
        for _ in range(3):
            server.step()
        until(lambda: len(bars.heard) == 2)
        assert [bar["t"].to_datetime().minute for bar in bars.heard] == [31, 33]
        answer = client_of(server).get("/stocks/bars", {"symbols": "SYNA", "timeframe": "1Min"})
        assert [bar["t"][14:16] for bar in answer["bars"]["SYNA"]] == ["30", "31", "32", "33"]


def test_a_data_stream_that_never_hears_of_its_keys_waits_for_ever() -> None:
    with serving(Fault("data_socket", "no_auth_answer")) as server, bars_of(server) as bars:
        until(lambda: happened(server))
        server.step()
        assert not bars.is_listening


# --- the market ---------------------------------------------------------------------------------------------------------------


def test_orders_rest_while_trading_is_halted() -> None:
    plan = Fault("market", "halt", match={"time": "*T14:32*"}, params={"symbol": "SYNA", "minutes": 3})
    with serving(plan) as server:
        server.step()
        assert buy(server)["status"] == "pending_new"
        server.step()
        assert truth(server)["orders"][0]["status"] == "new"
        server.step(4)
        assert truth(server)["orders"][0]["status"] == "filled"


def test_on_an_unforeseen_half_day_the_market_closes_and_says_so() -> None:
    with serving(Fault("market", "half_day", at=3)) as server:
        order = resting(server)
        server.step(2)
        client = client_of(server)
        assert client.get_order_by_id(order["id"])["status"] == "expired"
        assert client.get_clock()["is_open"] is False
        day = client.get("/calendar", {"start": "2026-01-05", "end": "2026-01-06"})
        assert [row["close"] for row in day] == ["09:33", "16:00"]
        server.play_until(datetime(2026, 1, 6, 14, 32, tzinfo=UTC))
        assert client.get_clock()["is_open"] is True
        buy(server)
        assert truth(server)["orders"][1]["status"] == "filled"


def test_the_server_s_clock_goes_wrong() -> None:
    with serving(Fault("market", "clock_skew", at=2, params={"market_seconds": -2})) as server:
        server.step()
        assert buy(server)["submitted_at"].startswith("2026-01-05T14:31:58")
        assert truth(server)["orders"][0]["status"] == "filled"


def test_bars_are_missing_and_corrected() -> None:
    gap = Fault("market", "gap", at=2, params={"symbol": "SYNA", "minutes": 2})
    corrected = Fault("market", "corrected_bar", at=5, params={"symbol": "SYNA", "cents": 3})
    with serving(gap, corrected) as server, bars_of(server, "updated_bars") as bars:
        until(lambda: bars.is_listening)
        server.step(6)
        until(lambda: len(bars.heard) == 5)
        kinds = [(bar["T"], bar["t"].to_datetime().minute) for bar in bars.heard]
        assert kinds == [("b", 31), ("b", 34), ("u", 34), ("b", 35), ("b", 36)]
        assert round(bars.heard[2]["c"] - bars.heard[1]["c"], 2) == 0.03
        assert happened(server) == ["gap", "corrected_bar"]


def test_what_cannot_be_done_is_listed_with_the_reason() -> None:
    halt = Fault("market", "halt", params={"symbol": "SPY"})
    with serving(halt, Fault("account", "order_by_hand", params={"key": "nobody"})) as server:
        said = [one["what"] for one in ask(server, "faults")["happened"]]
        assert said == [
            "not done: SPY is not traded here; SYNA, SYNB is.",
            "not done: There is no account nobody; there is PKLOOPBACK1.",
        ]


# --- the account --------------------------------------------------------------------------------------------------------------


def test_hands_in_the_web_page_trade_too() -> None:
    order = Fault("account", "order_by_hand", at=2, params={"symbol": "SYNB", "qty": "3"})
    with serving(order, Fault("account", "closed_by_hand", at=4)) as server:
        server.step()
        assert truth(server)["positions"]["SYNB"]["qty"] == "3"
        server.step(2)
        found = truth(server)
        assert found["positions"] == {}
        assert [one["side"] for one in found["orders"]] == ["buy", "sell"]
        assert happened(server) == ["order_by_hand", "closed_by_hand"]


def test_a_position_is_waited_for_before_it_is_closed_by_hand() -> None:
    with serving(Fault("account", "closed_by_hand")) as server:
        server.step(2)
        assert happened(server) == []
        buy(server)
        server.step()
        assert truth(server)["positions"] == {}
        assert happened(server) == ["closed_by_hand"]


def test_shares_are_split_without_an_order_also_over_a_restart(tmp_path: Path) -> None:
    plan = Fault("account", "split", params={"symbol": "SYNA", "ratio": "3"})
    with serving(plan, directory=tmp_path) as server:
        buy(server)
        cash = truth(server)["cash"]
        server.step()
        server.restart()
        found = truth(server)
        assert found["positions"]["SYNA"]["qty"] == "12"
        assert found["cash"] == cash
        assert len(found["orders"]) == 1


@pytest.mark.parametrize("kind", ("bust", "correction"))
def test_a_fill_does_not_stand(kind: str, tmp_path: Path) -> None:
    with serving(Fault("account", kind), directory=tmp_path) as server, updates_of(server) as updates:
        until(lambda: updates.is_listening)
        buy(server)
        server.step()
        until(lambda: len(updates.heard) == 4)
        fill, after = updates.heard[2:]
        assert after["previous_execution_id"] == fill["execution_id"]
        found = truth(server)
        if kind == "bust":
            assert after["event"] == "trade_bust"
            assert found["positions"] == {}
            assert Decimal(found["cash"]) == server.specs[0].cash
            assert found["orders"][0]["fills"] == []
        else:
            assert after["event"] == "trade_correct"
            assert Decimal(after["price"]) - Decimal(fill["price"]) == Decimal("0.01")
            assert found["positions"]["SYNA"]["avg_entry_price"] == after["price"]
        server.restart()
        assert truth(server) == found


def test_a_cancel_that_is_taken_stays_pending() -> None:
    with serving(Fault("account", "stuck_cancel", params={"minutes": 2})) as server:
        client, order = client_of(server), resting(server)
        client.cancel_order_by_id(order["id"])
        server.step()
        assert client.get_order_by_id(order["id"])["status"] == "pending_cancel"
        with pytest.raises(APIError, match="order pending cancel"):
            client.cancel_order_by_id(order["id"])
        server.step(2)
        assert client.get_order_by_id(order["id"])["status"] == "canceled"


def test_a_cancel_that_is_taken_loses_to_a_fill() -> None:
    with serving(Fault("account", "cancel_fills")) as server, updates_of(server) as updates:
        until(lambda: updates.is_listening)
        order = resting(server)
        client_of(server).cancel_order_by_id(order["id"])
        until(lambda: len(updates.heard) == 4)
        assert updates.events == ["pending_new", "new", "pending_cancel", "fill"]
        assert truth(server)["positions"]["SYNA"]["qty"] == "4"


def test_orders_are_answered_as_of_earlier() -> None:
    lag = {"market_seconds": 30}
    with serving(Fault("account", "orders_lag", times=100, params=lag)) as server:
        client = client_of(server)
        order = resting(server)
        with pytest.raises(APIError, match="order not found"):
            client.get_order_by_client_id(order["client_order_id"])
        assert client.get("/orders") == []
        server.step()
        assert [row["id"] for row in client.get("/orders")] == [order["id"]]
        client.cancel_order_by_id(order["id"])
        assert client.get_order_by_id(order["id"])["status"] == "new"
        assert [row["id"] for row in client.get("/orders")] == [order["id"]]
        assert client.get("/orders", {"status": "closed"}) == []
        server.step()
        assert client.get("/orders") == []
        assert [row["status"] for row in client.get("/orders", {"status": "closed"})] == ["canceled"]


def test_positions_are_answered_as_of_earlier_and_orders_are_not() -> None:
    with serving(Fault("account", "positions_lag", times=100, params={"market_seconds": 30})) as server:
        client = client_of(server)
        buy(server)
        assert client.get("/positions") == []
        assert client.get("/orders", {"status": "all"})[0]["status"] == "filled"
        server.step()
        assert client.get("/positions")[0]["qty"] == "4"
        client.close_position("SYNA")
        assert client.get("/positions")[0]["qty"] == "4"
        server.step()
        assert client.get("/positions") == []


def test_fills_are_late_in_another_order_or_missing() -> None:
    lag = Fault("account", "activities_lag", times=1, params={"market_seconds": 30})
    swapped = Fault("account", "activities_reordered", at=2)
    missing = Fault("account", "activities_missing", at=3)
    with serving(lag, swapped, missing) as server:
        client = client_of(server)
        for _ in range(4):
            buy(server)
        answers = [[row["id"] for row in client.get("/account/activities/FILL")] for _ in range(4)]
        fills = [order["fills"][0]["id"] for order in reversed(truth(server)["orders"])]
        assert answers[0] == []
        assert answers[1] == [fills[1], fills[0], *fills[2:]]
        assert answers[2] == answers[3] == fills[1:]


def test_the_server_comes_back_with_what_it_knew(tmp_path: Path) -> None:
    with serving(Fault("server", "restart", at=2), directory=tmp_path) as server, updates_of(server) as updates:
        until(lambda: updates.is_listening)
        buy(server)
        before = truth(server)
        port, accounts = server.port, dict(server.accounts)
        server.step()
        until(lambda: server.accounts != accounts and server.is_running and updates.is_listening)
        assert server.port == port
        assert truth(server) == before
        buy(server)
        until(lambda: updates.events.count("fill") == 2)


# --- plans --------------------------------------------------------------------------------------------------------------------


def test_every_row_of_the_table_is_done_somewhere_and_nothing_else_is() -> None:
    done = {("rest", kind) for kind in (*BEFORE, *AFTER)} | {("update", kind) for kind in CHANGES}
    done |= {(where, kind) for where in ("trade_socket", "data_socket") for kind in (*CONNECTIONS, *FRAMES)}
    done |= {("account", kind) for kind in (*VIEWS, "bust", "correction", "stuck_cancel", "cancel_fills")}
    assert done | set(HAPPENINGS) == set(KINDS)
    assert len(KINDS) == len(FAULTS)


def test_a_plan_from_a_seed_is_the_same_every_time_and_the_heavy_one_has_more() -> None:
    light, heavy = Faults.seeded(3, "light"), Faults.seeded(3, "heavy")
    assert light.plan == Faults.seeded(3).plan
    assert light.plan != Faults.seeded(4).plan
    assert {(one.where, one.kind) for one in light.plan} < {(one.where, one.kind) for one in heavy.plan}
    assert ("account", "split") not in {(one.where, one.kind) for one in heavy.plan}
    with pytest.raises(BadInput, match="light or heavy"):
        Faults.seeded(3, "medium")


def test_the_same_seed_and_the_same_requests_give_the_same_faults() -> None:
    def play() -> list[Any]:
        faults = Faults([Fault("rest", "error", probability=0.3), Fault("update", "lost", probability=0.3)], seed=5)
        with LoopbackServer(faults=faults, switches=WHOLE) as server:
            server.step(OPENED)
            for _ in range(20):
                try:
                    buy(server)
                except APIError:
                    server.step()
        return faults.happened

    first = play()
    assert {one.kind for one in first} == {"error", "lost"}
    assert play() == first


def test_a_script_is_read_and_everything_wrong_with_it_is_said_at_once(tmp_path: Path) -> None:
    script = tmp_path / "faults.yaml"
    script.write_text(
        "- {where: rest, kind: hang, match: {method: POST}, at: 2, params: {seconds: '0.5'}}\n"
        "- {where: account, kind: split, params: {ratio: 2}}\n"
    )
    hang, split = Faults.load(script).plan
    assert (hang.at, hang.seconds()) == (2, 0.5)
    assert split.param("ratio") == Decimal(2)
    script.write_text(
        "- {where: rest, kind: hangs}\n- {where: moon, kind: lost}\n- {where: update}\n"
        "- {where: update, kind: lost, at: 0, probability: 2, match: {path: x}, params: {seconds: 1}}\n"
        "- {where: rest, kind: error, wehn: 3}\n- {where: rest, kind: error, params: {status: often}}\n"
        "- {where: account, kind: order_by_hand, params: {qty: -1, side: hold}}\n"
    )
    with pytest.raises(BadInput) as raised:
        Faults.load(script)
    said = str(raised.value)
    for words in (
        *("found qty -1; allowed is a number above zero", "found side 'hold'"),
        *("Did you mean hang?", "found where 'moon'", "fault 3: ", "found at 0", "found probability 2"),
        *("cannot match path", "lost has no parameter seconds", "wehn", "found status 'often'", "a whole number"),
    ):
        assert words in said
    for text, words in (("{}", "allowed is a list"), ("", "found nothing"), ("- [", "not YAML")):
        script.write_text(text)
        with pytest.raises(BadInput, match=words):
            Faults.load(script)
    with pytest.raises(BadInput, match="cannot be read"):
        Faults.load(tmp_path / "none.yaml")


# --- remote control -----------------------------------------------------------------------------------------------------------


def test_everything_can_be_done_from_outside() -> None:
    with serving() as server:
        assert ask(server, "step", {"minutes": 2})["now"] == "2026-01-05T14:33:00Z"
        assert ask(server, "clock")["now"] == "2026-01-05T14:33:00Z"
        by_hand = ask(server, "by-hand", {"symbol": "syna", "side": "buy", "qty": "2"})
        assert by_hand["side"] == "buy"
        assert truth(server)["positions"]["SYNA"]["qty"] == "2"
        assert ask(server, "close", {"key": server.specs[0].key, "symbol": "SYNA"})["side"] == "sell"
        assert truth(server)["positions"] == {}
        assert ask(server, "halt", {"symbol": "SYNA"}) == {"halted": ["SYNA"]}
        assert ask(server, "halt", {"symbol": "SYNA", "resume": True}) == {"halted": []}
        assert ask(server, "faults", [{"where": "rest", "kind": "error"}]) == {"added": 1}
        with pytest.raises(APIError):
            client_of(server).get("/account")
        found = ask(server, "faults")
        assert found["plan"] == [{"where": "rest", "kind": "error"}]
        assert found["happened"][0]["what"] == "GET /v2/account"
        assert found["happened"][0]["at"] == "2026-01-05T14:33:00Z"
        assert ask(server, "stop", {}) == {"stopping": True}
        until(lambda: not server.is_running)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    (
        ("step", {"minutes": 0}, "whole number from 1"),
        ("step", [], "JSON object"),
        ("by-hand", {"symbol": "SYNA", "qty": "-1"}, "above zero"),
        ("by-hand", {"symbol": "SYNA", "qty": "1", "side": "hold"}, "buy or sell"),
        ("by-hand", {"symbol": "NONE", "qty": "1"}, "SYNA, SYNB"),
        ("by-hand", {"key": "x", "symbol": "SYNA", "qty": "1"}, "There is no account"),
        ("close", {"symbol": "SYNA"}, "nothing to close"),
        ("faults", [{"where": "rest"}], "kind"),
    ),
)
def test_what_cannot_be_done_is_said(path: str, body: Any, words: str) -> None:
    with serving() as server:
        answer = requests.post(f"{server.rest_url}/loopback/{path}", json=body, timeout=PATIENCE)
        assert answer.status_code == 400
        assert words in answer.json()["message"]
