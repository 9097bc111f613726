"""The quick way from a decision to the broker: the request is the client's own, over a connection that is open already; the inbox
of the desk is bounded for streams alone. To add a case: what leaves the program is in `Requests.seen`.
"""

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from queue import Full
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Budget
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.desk.inbox import Inbox
from mqd_ledger.loopback.hooks import NoFaults
from mqd_ledger.loopback.server import LoopbackServer
from tests.dsl import OPENING
from tests.loopback import KEY, SECRET, flat, opened

ORDER = {
    "client_order_id": "mqd-1-000001",
    "symbol": "SPY",
    "side": "buy",
    "type": "market",
    "time_in_force": "day",
    "qty": "1",
}
NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)


class Seen(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: Any  # the client's address, which is another one for each connection


class Requests(NoFaults):
    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def request(self, request: web.Request) -> web.StreamResponse | None:
        text = await request.text()
        assert request.transport is not None
        client = request.transport.get_extra_info("peername")
        self.seen.append(
            Seen(request.method, request.path, dict(request.headers), json.loads(text) if text else None, client)
        )
        return None


@pytest.fixture
def requests() -> Requests:
    return Requests()


@pytest.fixture
def server(requests: Requests) -> Iterator[LoopbackServer]:
    with opened(flat(), faults=requests) as server:
        yield server


def rest_of(server: LoopbackServer, per_minute: int = 200) -> AlpacaRest:
    return AlpacaRest(Keys(KEY, SECRET, "loopback"), server.rest_url, "loopback", budget=Budget(per_minute))


def test_an_order_is_sent_as_the_client_itself_would_send_it(server: LoopbackServer, requests: Requests) -> None:
    rest = rest_of(server)
    rest.post("/orders", ORDER)
    rest.post("/orders", {**ORDER, "client_order_id": "mqd-1-000002", "qty": "12"})
    rest._wire().client.post("/orders", {**ORDER, "client_order_id": "mqd-1-000003"})
    rest.close()
    first, second, by_the_client = requests.seen
    assert [one.body["client_order_id"][-1] + one.body["qty"] for one in requests.seen] == ["11", "212", "31"]
    for ours in (first, second):
        assert ours[:2] == by_the_client[:2] == ("POST", "/v2/orders")
        assert ours.body.keys() == by_the_client.body.keys()
        names = ours.headers.keys() - {"Content-Length"}
        assert ours.headers.keys() == by_the_client.headers.keys()
        assert all(ours.headers[name] == by_the_client.headers[name] for name in names)
    assert len({one.connection for one in requests.seen}) == 1


def test_an_order_finds_its_connection_open(server: LoopbackServer, requests: Requests) -> None:
    rest = rest_of(server)
    rest.keep_open()
    rest.post("/orders", ORDER)
    rest.close()
    clock, order = requests.seen
    assert (clock.method, clock.path) == ("GET", "/v2/clock")
    assert order.connection == clock.connection


def test_after_a_close_an_order_opens_the_next_connection(server: LoopbackServer, requests: Requests) -> None:
    rest = rest_of(server)
    rest.post("/orders", ORDER)
    rest.close()
    rest.post("/orders", {**ORDER, "client_order_id": "mqd-1-000002"})
    rest.close()
    first, second = requests.seen
    assert first.connection != second.connection


def test_no_request_is_spent_on_an_open_connection_that_others_need(server: LoopbackServer, requests: Requests) -> None:
    rest = rest_of(server, per_minute=41)  # 40 of them are kept for orders
    rest.keep_open()
    rest.keep_open()
    rest.close()
    assert len(requests.seen) == 1


def test_a_server_that_is_not_there_is_no_error_of_an_open_connection(server: LoopbackServer) -> None:
    rest = rest_of(server)
    server.stop()
    rest.keep_open()
    rest.close()


def test_an_order_does_not_wait_long_for_a_server_that_has_gone_mute() -> None:
    """An hour for an answer, as far as orders go; the connection that is only kept open gives up before."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        rest = AlpacaRest(Keys(KEY, SECRET, "loopback"), url, "loopback", budget=Budget(200), timeout=(3, 3600))
        rest.keep_open()
        rest.close()


def test_an_order_leaves_in_one_piece(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bytes] = []
    send = http.client.HTTPConnection.send

    def noted(self: http.client.HTTPConnection, data: Any) -> None:
        pieces.append(data)
        send(self, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", noted)
    rest = rest_of(server)
    rest.post("/orders", ORDER)
    rest.close()
    (piece,) = pieces
    assert piece.startswith(b"POST /v2/orders ")
    assert json.loads(piece.partition(b"\r\n\r\n")[2]) == ORDER


def test_an_arrival_wakes_who_waits_also_after_some_that_were_taken_without_waiting() -> None:
    inbox = Inbox(lambda: NOW)
    for _ in range(3):
        inbox.put(lambda _state, _at: ())
        inbox.put(lambda _state, _at: ())
        assert inbox.take(0) is not None
        assert inbox.take(0) is not None
        late = threading.Timer(0.02, inbox.put, [lambda _state, _at: ()])
        late.start()
        assert inbox.take(60) is not None
        late.join()
    assert inbox.take(0) is None


def test_a_full_inbox_refuses_streams_and_takes_what_was_asked_for() -> None:
    inbox = Inbox(lambda: NOW, size=1)
    inbox.offer(lambda _state, _at: ())
    with pytest.raises(Full):
        inbox.offer(lambda _state, _at: ())
    inbox.put(lambda _state, _at: ())
    assert len(inbox) == 2


def test_what_a_stream_has_stamped_is_not_stamped_again() -> None:
    inbox, earlier = Inbox(lambda: NOW), NOW.replace(hour=14)
    inbox.offer(lambda _state, _at: (), earlier)
    inbox.offer(lambda _state, _at: ())
    arrivals = [inbox.take(0), inbox.take(0)]
    assert [arrival.received_at for arrival in arrivals if arrival is not None] == [earlier, NOW]
    assert inbox.take(0) is None


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timer that sends a signal")
def test_a_signal_whose_handler_runs_past_the_wait_does_not_make_it_endless() -> None:
    """As SIGTERM at a quiet hour: the desk has to look up again, and see that it is to stop."""
    inbox = Inbox(lambda: OPENING)
    late = threading.Timer(5, inbox.put, [lambda _state, _at: ()])  # so that a wait for ever ends all the same
    before = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.1))
    late.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert inbox.take(0.05) is None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        late.cancel()
