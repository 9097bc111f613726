"""Both websockets of the loopback server: what the real alpaca-py streams hear, and what anybody else may say."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec
import pytest
from alpaca.data.live.stock import StockDataStream

from mqd_ledger.loopback.account import account_specs
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.loopback.switches import Switches
from tests.loopback import KEY, SECRET, Listening, client, events, minutes, opened, order, until, updates

PRICES = minutes(SPY="100 101 102 103", QQQ="50 - 52 53")
AUTH = {"action": "authenticate", "data": {"key_id": KEY, "secret_key": SECRET}}
LISTEN = {"action": "listen", "data": {"streams": ["trade_updates"]}}
DATA_AUTH = {"action": "auth", "key": KEY, "secret": SECRET}
Socket = aiohttp.ClientWebSocketResponse


def talk(url: str, conversation: Callable[[Socket], Awaitable[None]], **headers: str) -> None:
    """A conversation over one websocket that is no client's of Alpaca."""

    async def run() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            await asyncio.wait_for(conversation(socket), 10)

    asyncio.run(run())


# --- trade updates ---------------------------------------------------------------------------------------------------------


def test_an_order_is_told_in_alpacas_order_with_everything_in_it() -> None:
    with opened(PRICES) as server, updates(server) as listening:
        taken = order(client(server), "buy 3 SPY", client_order_id="mine")
        pending, new, fill = listening.until(3)
        assert events([pending, new, fill]) == ["pending_new", "new", "fill"]
        assert {message["stream"] for message in (pending, new, fill)} == {"trade_updates"}
        assert pending["data"]["order"] == taken
        assert pending["data"]["execution_id"] is None
        assert new["data"]["order"]["status"] == "new"
        data = fill["data"]
        assert (data["price"], data["qty"], data["position_qty"]) == ("100", "3", "3")
        assert data["order"]["client_order_id"] == "mine"
        assert data["order"]["filled_avg_price"] == "100"
        ids = [message["data"]["event_id"] for message in (pending, new, fill)]
        assert ids == sorted(set(ids))
        times = [message["data"]["timestamp"] for message in (pending, new, fill)]
        assert times == sorted(set(times))
        assert all(len(text) == len("2026-01-05T14:30:00.123456789Z") for text in times)
        assert data["order"] == client(server).get(f"/orders/{taken['id']}")


def test_positions_in_updates_are_signed_and_those_after_each_fill() -> None:
    with opened(PRICES) as server, updates(server) as listening:
        trading = client(server)
        for text in ("buy 5 SPY", "sell 2 SPY", "sell 3 SPY", "sell 4 SPY"):
            order(trading, text)
        fills = [message["data"] for message in listening.until(12) if message["data"]["event"] == "fill"]
        assert [fill["position_qty"] for fill in fills] == ["5", "3", "0", "-4"]


def test_nobody_hears_of_another_account() -> None:
    with opened(PRICES, accounts=account_specs(2)) as server, updates(server, "PKLOOPBACK2") as listening:
        order(client(server, "PKLOOPBACK1"), "buy 5 SPY")
        order(client(server, "PKLOOPBACK2"), "buy 7 SPY")
        assert {message["data"]["order"]["qty"] for message in listening.until(3)} == {"7"}


@pytest.mark.parametrize(("binary", "kind"), ((True, aiohttp.WSMsgType.BINARY), (False, aiohttp.WSMsgType.TEXT)))
def test_updates_are_json_in_the_frames_that_the_switch_says(binary: bool, kind: aiohttp.WSMsgType) -> None:
    async def conversation(socket: Socket) -> None:
        await socket.send_json(AUTH)
        message = await socket.receive()
        assert message.type is kind
        assert json.loads(message.data) == {
            "stream": "authorization",
            "data": {"status": "authorized", "action": "authenticate"},
        }
        await socket.send_json(LISTEN)
        assert json.loads((await socket.receive()).data) == {"stream": "listening", "data": LISTEN["data"]}
        await socket.send_json({"action": "listen", "data": {"streams": []}})
        assert json.loads((await socket.receive()).data)["data"] == {"streams": []}

    with opened(PRICES, switches=Switches(binary_updates=binary)) as server:
        talk(server.stream_url, conversation)


def test_what_is_said_before_or_without_the_right_keys() -> None:
    async def conversation(socket: Socket) -> None:
        async def answer(message: Any) -> Any:
            await (socket.send_str(message) if isinstance(message, str) else socket.send_json(message))
            return json.loads((await socket.receive()).data)

        refused = {"status": "unauthorized", "action": "listen"}
        assert await answer(LISTEN) == {"stream": "authorization", "data": refused}
        wrong = {"action": "authenticate", "data": {"key_id": KEY, "secret_key": "wrong"}}
        assert (await answer(wrong))["data"] == {"status": "unauthorized", "action": "authenticate"}
        assert (await answer({"action": "dance"}))["action"] == "error"
        assert (await answer(AUTH))["data"]["status"] == "authorized"

    with opened(PRICES) as server:
        talk(server.stream_url, conversation)


def test_who_does_not_say_who_he_is_is_sent_away() -> None:
    async def conversation(socket: Socket) -> None:
        assert json.loads((await socket.receive()).data)["data"]["status"] == "unauthorized"
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE

    with opened(PRICES, switches=Switches(auth_seconds=0.01)) as server:
        talk(server.stream_url, conversation)


def test_a_second_connection_of_an_account_is_refused_on_the_upgrade() -> None:
    async def conversation(_socket: Socket) -> None:
        raise AssertionError("the upgrade was not refused")

    with opened(PRICES) as server:
        with updates(server), pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            talk(server.stream_url, conversation)
        assert caught.value.status == 429
        until(lambda: not server.streams.connections())
        with updates(server) as listening:
            order(client(server), "buy 1 SPY")
            listening.until(3)


def test_a_dead_socket_holds_its_place_for_as_long_as_the_switch_says() -> None:
    async def dies(socket: Socket) -> None:
        await socket.send_json(AUTH)
        await socket.receive()
        connection = socket._conn
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()

    async def comes_back(socket: Socket) -> None:
        await socket.send_json(AUTH)
        assert json.loads((await socket.receive()).data)["data"]["status"] == "authorized"

    with opened(PRICES, switches=Switches(dead_socket_seconds=0.2)) as server:

        def is_let_in() -> bool:
            try:
                talk(server.stream_url, comes_back)
            except aiohttp.WSServerHandshakeError:
                return False
            return True

        talk(server.stream_url, dies)
        assert not is_let_in()
        until(is_let_in)


def test_pings_are_answered() -> None:
    async def conversation(socket: Socket) -> None:
        await socket.ping(b"there?")
        assert (await socket.receive()).type is aiohttp.WSMsgType.PONG

    with opened(PRICES) as server:

        async def run() -> None:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(server.stream_url, autoping=False) as socket,
            ):
                await asyncio.wait_for(conversation(socket), 10)

        asyncio.run(run())


# --- market data -----------------------------------------------------------------------------------------------------------


def data_stream(server: LoopbackServer, *, raw: bool = False) -> StockDataStream:
    return StockDataStream(KEY, SECRET, raw_data=raw, url_override=server.data_url)


def wait_for_subscription(server: LoopbackServer) -> None:
    until(lambda: any(any(getattr(one, "wanted", {}).values()) for one in server.streams.connections()))


def test_bars_and_quotes_come_after_their_minute_to_who_asked() -> None:
    with opened(PRICES) as server:
        stream = data_stream(server)
        listening = Listening(stream)
        stream.subscribe_bars(listening.hear, "*")
        stream.subscribe_quotes(listening.hear, "SPY")
        with listening:
            wait_for_subscription(server)
            server.step(2)
            heard = listening.until(5)
        bars = [(one.symbol, one.close) for one in heard if hasattr(one, "close")]
        assert bars == [("QQQ", 50), ("SPY", 100), ("SPY", 101)]  # no trade in QQQ, no bar
        quotes = [one for one in heard if hasattr(one, "ask_price")]
        assert [(one.symbol, one.bid_price, one.ask_price) for one in quotes] == [
            ("SPY", 100.99, 101.01),
            ("SPY", 101.99, 102.01),
        ]
        assert heard[0].timestamp.isoformat() == "2026-01-05T14:30:00+00:00"
        assert heard[0].vwap == 50


def test_corrections_and_halts_are_told() -> None:
    with opened(PRICES) as server:
        stream = data_stream(server, raw=True)
        listening = Listening(stream)
        stream.subscribe_updated_bars(listening.hear, "SPY")
        stream.subscribe_trading_statuses(listening.hear, "SPY")
        with listening:
            wait_for_subscription(server)
            server.step()
            server.call(lambda: server.market.correct("SPY", Decimal("99.50")))
            server.call(lambda: server.market.halt("SPY"))
            server.call(lambda: server.market.resume("SPY"))
            updated, halted, resumed = listening.until(3)
        assert (updated["T"], updated["c"], updated["l"], updated["h"]) == ("u", 99.5, 99.5, 100)
        assert (halted["T"], halted["sc"], resumed["sc"]) == ("s", "H", "T")
        assert server.market.history["SPY"][-1].close == Decimal("99.50")


def test_data_is_json_for_who_does_not_ask_for_message_pack() -> None:
    heard: list[Any] = []

    async def conversation(socket: Socket) -> None:
        heard.append(await socket.receive_json())
        for message in (
            {"action": "subscribe", "bars": ["SPY"]},
            {"action": "auth", "key": KEY, "secret": "wrong"},
            DATA_AUTH,
            DATA_AUTH,
            {"action": "subscribe", "bars": ["SPY", "QQQ"], "quotes": ["*"]},
            {"action": "unsubscribe", "bars": ["QQQ"], "quotes": ["*"]},
            {"action": "sing"},
        ):
            await socket.send_json(message)
            heard.append(await socket.receive_json())
        await socket.send_str("{")
        heard.append(await socket.receive_json())
        await asyncio.get_running_loop().run_in_executor(None, server.step)
        heard.append(await socket.receive_json())

    with opened(PRICES) as server:
        talk(server.data_url, conversation, **{"Content-Type": "application/json"})
    connected, early, wrong, right, again, subscribed, unsubscribed, unknown, garbled, bars = heard
    assert connected == [{"T": "success", "msg": "connected"}]
    assert early == [{"T": "error", "code": 401, "msg": "not authenticated"}]
    assert wrong == [{"T": "error", "code": 402, "msg": "auth failed"}]
    assert right == [{"T": "success", "msg": "authenticated"}]
    assert again == [{"T": "error", "code": 403, "msg": "already authenticated"}]
    assert (subscribed[0]["bars"], subscribed[0]["quotes"], subscribed[0]["lulds"]) == (["QQQ", "SPY"], ["*"], [])
    assert (unsubscribed[0]["bars"], unsubscribed[0]["quotes"]) == (["SPY"], [])
    assert unknown == garbled == [{"T": "error", "code": 400, "msg": "invalid syntax"}]
    assert [(bar["T"], bar["S"], bar["t"]) for bar in bars] == [("b", "SPY", "2026-01-05T14:30:00Z")]


def test_message_pack_comes_back_for_message_pack() -> None:
    pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode
    heard: list[Any] = []

    async def conversation(socket: Socket) -> None:
        heard.append(unpack((await socket.receive()).data))
        for message in (pack(DATA_AUTH)[:7], pack(DATA_AUTH)):
            await socket.send_bytes(message)
            heard.append(unpack((await socket.receive()).data))

    with opened(PRICES) as server:
        talk(server.data_url, conversation, **{"Content-Type": "application/msgpack"})
    assert heard[0] == [{"T": "success", "msg": "connected"}]
    assert heard[1] == [{"T": "error", "code": 400, "msg": "invalid syntax"}]
    assert heard[2] == [{"T": "success", "msg": "authenticated"}]


def test_a_second_data_connection_of_an_account_is_told_406_and_ended() -> None:
    async def conversation(socket: Socket) -> None:
        await socket.receive()
        await socket.send_json(DATA_AUTH)
        answer = await socket.receive_json()
        assert answer == [{"T": "error", "code": 406, "msg": "connection limit exceeded"}]
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE

    with opened(PRICES) as server:
        stream = data_stream(server)
        listening = Listening(stream)
        stream.subscribe_bars(listening.hear, "SPY")
        with listening:
            wait_for_subscription(server)
            talk(server.data_url, conversation)
            server.step()
            assert listening.until(1)
