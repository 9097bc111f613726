"""The way to Alpaca itself: an environment and no address, TLS, alpaca-py's own names, a proxy. Only those names lead elsewhere.

Everything else is tested at a loopback server's address; here is what that address would hide. To add a case: `at_alpaca` is the
whole desk, `sending` an order that waits for its record.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path

import pytest

from mqd_ledger import events as e
from mqd_ledger import live
from mqd_ledger.brokers import alpaca_wire
from mqd_ledger.brokers.alpaca import AlpacaBroker, Answer, Submit
from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Budget
from mqd_ledger.brokers.alpaca_wire import open_wire
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.desk.connection import Connection
from mqd_ledger.desk.recorded import Recorded
from mqd_ledger.loopback.account import AccountSpec
from mqd_ledger.values import OrderType, Side, TimeInForce
from tests.dsl import OPENING
from tests.loopback import KEY, PATIENCE, SECRET, minutes, opened
from tests.tls import Gate, Proxy, at_alpacas_names, through_a_proxy
from tests.trading import PATIENCE as TIMING
from tests.trading import SECRET as OF_THE_DESK
from tests.trading import Trader, market

NUMBERS = {"paper": "PA3LOOPBACK1", "live": "3LOOPBACK1"}  # of accounts; paper ones begin with PA
NAMES = {"paper": "paper-api.alpaca.markets", "live": "api.alpaca.markets"}
POST, LOOK_UP = b"POST /v2/orders ", "GET /v2/orders:by_client_order_id"


class AtAlpaca(Trader):
    """Connected as `run --broker alpaca` connects it."""

    environment = "paper"

    def connection(self) -> Connection:
        (spec,) = self.server.specs
        keys, clock = Keys(spec.key, spec.secret, self.environment), live.market_clock(self.server.rest_url)
        urls = live.Urls()
        return live.connection_to(self.environment, self.settings, keys, urls, self.symbols, clock, TIMING)


@contextmanager
def way_to(gate: Gate, way: str, patch: pytest.MonkeyPatch) -> Iterator[Proxy | None]:
    if way == "direct":
        yield None
        return
    with through_a_proxy(gate, patch) as proxy:
        yield proxy


@contextmanager
def at_alpaca(
    folder: Path,
    patch: pytest.MonkeyPatch,
    plan: str,
    environment: str = "paper",
    way: str = "direct",
    overrides: Sequence[str] = (),
) -> Iterator[tuple[AtAlpaca, Gate, Proxy | None]]:
    """A desk that trades, at the open; proved and compared with the broker's account afterwards."""
    account = AccountSpec(secret=OF_THE_DESK, account_number=NUMBERS[environment])
    with (
        market(minutes(SPY="100 " * 6), accounts=[account]) as server,
        at_alpacas_names(server, folder, patch) as gate,
        way_to(gate, way, patch) as proxy,
    ):
        trader = AtAlpaca(server, folder / "desk.ledger", [plan], overrides)
        trader.environment = environment
        try:
            trader.start().ready()
            server.play_until(max(server.market.due(), server.clock.now()))
            trader.later(20)
            trader.compared()
            yield trader, gate, proxy
            trader.stop()
            trader.agrees()
            trader.proved()
        finally:
            trader.close()


@contextmanager
def impatient(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Half a second from a request's first byte to its answer's last."""
    with patch.context() as here:
        here.setattr(alpaca_wire, "WHOLE_WITHIN", 0.5)
        yield


# --- the whole desk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("environment", "way"), (("paper", "direct"), ("live", "direct"), ("paper", "proxy")))
def test_a_desk_trades_at_the_addresses_of_its_environment(
    environment: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = "14:30 SPY LONG 5; 14:31 SPY FLAT"
    with at_alpaca(tmp_path, monkeypatch, plan, environment, way) as (trader, gate, proxy):
        for _ in range(2):
            trader.bars(1)
            trader.quiet()
        assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]
        assert trader.submissions == 2
        steps = [(step.step, step.passed) for step in trader.events(e.RecoveryStepTaken)]
        assert set(steps) >= {(number, True) for number in range(1, 8)}
        assert (trader.state().environment, trader.state().account_number) == (environment, NUMBERS[environment])
    hosts = {NAMES[environment], "data.alpaca.markets"}
    assert gate.names == {*hosts, "stream.data.alpaca.markets"}
    assert proxy is None or proxy.asked == {f"{host}:443" for host in hosts}  # the library's streams go by themselves
    for begin in (b"GET /stream ", b"GET /v2/iex ", b"GET /v2/stocks/bars?"):
        assert begin in gate.heard


def test_an_order_whose_answer_trickles_is_given_up_and_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte arrives before each time-out; the order after it goes the same way, and would wait for ever."""
    with at_alpaca(tmp_path, monkeypatch, "14:30 SPY LONG 5; 14:31 SPY FLAT") as (trader, gate, _):
        with impatient(monkeypatch):
            gate.trickles.append(POST)
            trader.bars(1)
            trader.wait_until(lambda _: LOOK_UP in trader.faults.requests, "the order is looked up", seconds=1)
        assert not gate.trickles
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]
        assert trader.submissions == 2


def test_books_that_trickle_are_given_up_and_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All reads go one way, one after another: comparisons, look-ups and the kill switch would wait for ever."""
    often = ["operation.reconcile_every=5"]
    with at_alpaca(tmp_path, monkeypatch, "14:30 SPY LONG 5", overrides=often) as (trader, gate, _):
        with impatient(monkeypatch):
            gate.trickles.append(b"GET /v2/positions ")
            trader.wait_until(lambda _: not gate.trickles, "positions are asked for", seconds=1)
            for _ in range(2):
                trader.compared()
        trader.bars(1)
        trader.quiet()
        assert trader.orders == ["BUY 5 FILLED"]


# --- one order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", NAMES)
def test_what_an_order_is_made_of_leads_to_its_environment(environment: str) -> None:
    """It is prepared once, without the client, from the address that the client knows."""
    keys = Keys(KEY, SECRET, environment)
    wire = open_wire(keys, None, environment, timeout=(1, 1), may_leave=lambda: None, uses_proxies=True)
    request, _ = wire._prepared("/orders")
    wire.close()
    assert request.url == f"https://{NAMES[environment]}/v2/orders"


class Sending:
    """Orders on one other thread, as the desk sends them: prepared at once, and held back at the socket until they are recorded."""

    def __init__(self, gate: Gate, worker: ThreadPoolExecutor) -> None:
        self.gate = gate
        self.rest = AlpacaRest(Keys(KEY, SECRET, "paper"), None, "paper", budget=Budget(200))
        self._broker = AlpacaBroker(self.rest, lambda: OPENING)
        self._worker = worker

    def begin(self, number: int, recorded: Recorded) -> Future[Answer]:
        """Comes back when the order asks whether it may leave, and all that was sent until then has been heard."""
        asked = threading.Event()

        def is_recorded() -> bool:
            asked.set()
            return recorded()

        def send() -> Answer:
            with self.rest.held_back(is_recorded):
                return self._broker.perform(market_order(number))

        answer = self._worker.submit(send)
        assert asked.wait(PATIENCE), "the order did not wait"
        self.rest.get("/clock")  # on this thread's own connection, which nothing holds back
        return answer


def market_order(number: int) -> Submit:
    return Submit(
        f"mqd-1-{number:06}",
        "SPY",
        Side.BUY,
        OrderType.MARKET,
        quantity=Decimal(5),
        notional=None,
        limit_price=None,
        stop_price=None,
        trail_price=None,
        trail_percent=None,
        time_in_force=TimeInForce.DAY,
        extended_hours=False,
    )


@pytest.fixture(params=("direct", "proxy"))
def sending(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sending]:
    with (
        opened(minutes(SPY="100 100")) as server,
        at_alpacas_names(server, tmp_path, monkeypatch) as gate,
        way_to(gate, request.param, monkeypatch),
        ThreadPoolExecutor(max_workers=1) as worker,
    ):
        made = Sending(gate, worker)
        yield made
        made.rest.close()


def test_nothing_of_an_order_leaves_before_it_is_recorded(sending: Sending) -> None:
    """Neither on the connection that the first one opens, nor on the same one, which the second one finds open."""
    for number in (1, 2):
        with Recorded() as recorded:
            answer = sending.begin(number, recorded)
            assert sending.gate.heard.count(b"POST") == number - 1
        assert answer.result(PATIENCE).kind == "accepted"
        assert sending.gate.heard.count(POST) == number
    assert sending.gate.count == 2  # one of them the clock's


def test_nothing_of_an_order_leaves_where_it_could_not_be_recorded(sending: Sending) -> None:
    with suppress(OSError), Recorded() as recorded:
        lost = sending.begin(1, recorded)
        raise OSError("the disk is full")
    assert lost.result(PATIENCE).kind == "unknown"
    assert "it was not recorded" in lost.result().reason
    sending.rest.get("/clock")
    assert b"POST" not in sending.gate.heard
    with Recorded() as recorded:
        answer = sending.begin(2, recorded)
    assert answer.result(PATIENCE).kind == "accepted"
    assert sending.gate.heard.count(POST) == 1
