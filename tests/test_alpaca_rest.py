"""Requests over real sockets: each ends in an answer, a verdict, or in nobody knowing; what changes something is sent once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Ambiguous, Budget, Refused, Unauthorized, Urgency
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.errors import BadInput
from mqd_ledger.loopback.faults import Fault, Faults
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.loopback.switches import Switches
from tests.loopback import KEY, SECRET, WHOLE, minutes, opened

ORDER = {
    "symbol": "SPY",
    "qty": "1",
    "side": "buy",
    "type": "market",
    "time_in_force": "day",
    "client_order_id": "once",
}


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with opened(minutes(SPY="100 100"), faults=Faults()) as made:
        yield made


@pytest.fixture
def rest(server: LoopbackServer) -> Iterator[AlpacaRest]:
    made = connect(server)
    yield made
    made.close()


def connect(server: LoopbackServer, secret: str = SECRET, **options: Any) -> AlpacaRest:
    keys = Keys(KEY, secret, "loopback")
    return AlpacaRest(keys, server.rest_url, "loopback", **{"budget": Budget(), "timeout": (5, 10), **options})


@contextmanager
def meeting(server: LoopbackServer, kind: str, method: str, **params: Any) -> Iterator[AlpacaRest]:
    """Requests of which the next one of that method goes wrong; where it hangs, they are soon given up."""
    break_next(server, kind, method, **params)
    made = connect(server, timeout=(5, 0.2) if "hang" in kind else (5, 10))
    yield made
    made.close()


def break_next(server: LoopbackServer, kind: str, method: str, **params: Any) -> None:
    assert isinstance(server.faults, Faults)
    server.faults.add([Fault("rest", kind, {"method": method}, params=params)])


def struck(server: LoopbackServer) -> int:
    assert isinstance(server.faults, Faults)
    return len(server.faults.happened)


BREAKS: tuple[
    tuple[str, dict[str, Any], bool, str], ...
] = (  # kind, parameters, whether it is done all the same, words
    ("hang", {"seconds": 0.4}, False, "no answer within the time allowed"),
    ("error", {"status": 500}, False, "HTTP 500"),
    ("error", {"status": 503}, False, "HTTP 503"),
    ("gateway_timeout", {}, False, "HTTP 504"),
    ("html", {"status": 502}, False, "HTTP 502 with a body that is no JSON"),
    ("html", {"status": 404}, False, "HTTP 404 with a body that is no JSON"),
    ("html", {"status": 403}, False, "HTTP 403 with a body that is no JSON"),
    ("html", {"status": 200}, False, "HTTP 200 with a body that is no JSON"),
    ("rate_limited", {"retry_after": 0}, False, "HTTP 429"),
    ("dropped", {}, False, "dropped"),
    ("hang_after", {"seconds": 0.4}, True, "no answer within the time allowed"),
    ("gateway_timeout_after", {}, True, "HTTP 504"),
    ("dropped_after", {}, True, "dropped"),
    ("truncated", {}, True, "the answer broke off"),
    ("html_after", {"status": 200}, True, "HTTP 200 with a body that is no JSON"),
)


@pytest.mark.parametrize(("kind", "params", "is_done", "words"), BREAKS)
def test_an_order_is_sent_once_and_nobody_pretends_to_know(
    server: LoopbackServer, kind: str, params: dict[str, Any], is_done: bool, words: str
) -> None:
    with meeting(server, kind, "POST", **params) as rest, pytest.raises(Ambiguous, match=words):
        rest.post("/orders", ORDER)
    orders = server.call(lambda: [order.client_order_id for order in server.account().book.orders])
    assert orders == (["once"] if is_done else [])
    assert struck(server) == 1


@pytest.mark.parametrize(("kind", "params", "_is_done", "_words"), BREAKS)
def test_a_read_is_repeated_until_it_is_answered(
    server: LoopbackServer, kind: str, params: dict[str, Any], _is_done: bool, _words: str
) -> None:
    with meeting(server, kind, "GET", **params) as rest:
        assert rest.get("/account")["cash"] == "100000"
    assert struck(server) == 1


def test_a_read_is_not_repeated_for_ever(server: LoopbackServer, rest: AlpacaRest) -> None:
    for _ in range(9):
        break_next(server, "error", "GET")
    with pytest.raises(Ambiguous, match="GET /account: HTTP 500 internal server error"):
        rest.get("/account")
    assert struck(server) == 4


def test_a_verdict_is_not_asked_for_again(server: LoopbackServer, rest: AlpacaRest) -> None:
    with pytest.raises(Refused, match="order not found") as refused:
        rest.get("/orders/nobody")
    assert (refused.value.status, refused.value.code) == (404, 40410000)
    with pytest.raises(Refused, match="insufficient buying power") as poor:
        rest.post("/orders", {**ORDER, "qty": "100000"})
    assert (poor.value.status, poor.value.body["buying_power"]) == (403, "200000")


def test_nobody_listens(server: LoopbackServer) -> None:
    rest = connect(server)
    server.stop()
    with pytest.raises(Ambiguous, match="there was no connection, or it was dropped"):
        rest.post("/orders", ORDER)
    server.start()
    assert rest.get("/clock")["is_open"] is True
    rest.close()


def test_keys_that_are_not_taken_are_told_apart_and_never_shown(server: LoopbackServer) -> None:
    wrong = connect(server, "not-the-secret-at-all")
    with pytest.raises(Unauthorized, match="Check that both halves") as failure:
        wrong.get("/account")
    break_next(server, "error", "POST", status=401)
    right = connect(server)
    with pytest.raises(Unauthorized) as other:
        right.post("/orders", ORDER)
    for shown in (str(failure.value), repr(wrong), repr(failure), str(other.value), repr(right)):
        assert "not-the-secret" not in shown
        assert SECRET not in shown
        assert KEY not in shown
    wrong.close()
    right.close()


def test_numbers_come_as_they_were_written_and_leave_as_they_were_given(
    server: LoopbackServer, rest: AlpacaRest
) -> None:
    history = rest.get("/stocks/bars", {"symbols": "SPY", "timeframe": "1Min", "start": "2026-01-05T14:30:00Z"})
    assert history["bars"] == {}
    server.step()
    bar = rest.get("/stocks/bars/latest", {"symbols": "SPY"})["bars"]["SPY"]
    assert isinstance(bar["c"], Decimal)
    made = rest.post("/orders", {**ORDER, "qty": "1.123456789"})
    assert made["qty"] == "1.123456789"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    rest = connect(server)
    assert rest.get("/clock")["is_open"] is True
    rest.close()


def test_each_thread_has_a_client_of_its_own_that_repeats_nothing(server: LoopbackServer, rest: AlpacaRest) -> None:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(rest.get("/clock"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    rest.get("/clock")
    rest.get("/clock")
    assert len(answers) == 3
    assert [wire.client._retry for wire in rest._wires] == [0] * 4
    assert len({id(wire.client) for wire in rest._wires}) == 4


@pytest.mark.parametrize(
    ("environment", "url"),
    (
        ("loopback", None),
        ("loopback", "https://api.alpaca.markets"),
        ("loopback", "http://10.0.0.1:8000"),
        ("paper", "http://127.0.0.1:8000"),
        ("live", "http://localhost:8000"),
        ("live", "https://somewhere.else"),
    ),
)
def test_an_address_and_its_environment_belong_together(environment: str, url: str | None) -> None:
    with pytest.raises(BadInput, match="does not fit the address"):
        AlpacaRest(Keys("PK1", "s", environment), url, environment, budget=Budget())


@pytest.mark.parametrize(
    ("environment", "host"), (("paper", "paper-api.alpaca.markets"), ("live", "://api.alpaca.markets"))
)
def test_without_an_address_the_environment_is_the_address(environment: str, host: str) -> None:
    rest = AlpacaRest(Keys("PK1", "s", environment), None, environment, budget=Budget())
    assert host in rest._wire().client._base_url


# --- the budget --------------------------------------------------------------------------------------------------------------


class Wall:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def spent(budget: Budget, count: int, urgency: Urgency = Urgency.EXIT) -> Budget:
    for _ in range(count):
        assert budget.take(urgency)
    return budget


def test_the_less_urgent_leaves_room_for_the_more_urgent() -> None:
    budget = spent(Budget(10, 2, Wall()), 6, Urgency.READ)
    assert [budget.wait(urgency) for urgency in Urgency] == [0, 0, 60]
    spent(budget, 2, Urgency.ENTRY)
    assert [budget.wait(urgency) for urgency in Urgency] == [0, 60, 60]
    spent(budget, 2, Urgency.EXIT)
    assert [budget.wait(urgency) for urgency in Urgency] == [60, 60, 60]


def test_never_more_than_the_limit_within_any_minute() -> None:
    wall = Wall()
    budget = Budget(10, 2, wall)
    sent: list[float] = []
    for _ in range(200):
        wall.seconds += budget.wait(Urgency.EXIT)
        assert budget.take(Urgency.EXIT)
        sent.append(wall.seconds)
        wall.seconds += 1.7
    assert max(sum(1 for at in sent if start <= at < start + 60) for start in sent) == 10
    assert len(sent) / (sent[-1] - sent[0]) > 9 / 60


def test_what_would_have_to_wait_too_long_is_not_sent_at_all() -> None:
    budget = spent(Budget(10, 2, Wall()), 8)
    assert not budget.take(Urgency.ENTRY)
    assert budget.take(Urgency.EXIT)


def test_a_request_that_has_no_place_is_told_as_not_sent(server: LoopbackServer) -> None:
    rest = connect(server, budget=spent(Budget(10, 2, Wall()), 8))
    with pytest.raises(Ambiguous, match="it was not sent"):
        rest.post("/orders", ORDER)
    rest.delete("/orders")
    rest.close()


def test_alpacas_own_count_is_believed_where_it_is_lower() -> None:
    wall = Wall()
    budget = spent(Budget(10, 2, wall), 1)
    budget.heard(200, {"X-RateLimit-Remaining": "9"})
    assert budget.wait(Urgency.READ) == 0
    budget.heard(200, {"X-RateLimit-Remaining": "3"})  # somebody else has made six
    assert [budget.wait(urgency) for urgency in Urgency] == [0, 0, 60]
    budget.heard(200, {"X-RateLimit-Remaining": "100"})
    assert budget.wait(Urgency.READ) == 60


@pytest.mark.parametrize(("headers", "seconds"), (({"Retry-After": "7"}, 7), ({}, 5), ({"Retry-After": "tomorrow"}, 5)))
def test_after_too_many_requests_nothing_goes_out_for_a_while(headers: dict[str, str], seconds: int) -> None:
    wall = Wall()
    budget = Budget(10, 2, wall)
    budget.heard(429, headers)
    assert [budget.wait(urgency) for urgency in Urgency] == [seconds] * 3
    wall.seconds += seconds
    assert budget.wait(Urgency.READ) == 0


def test_the_servers_limit_is_never_met() -> None:
    switches = Switches(partial_percent=0, requests_per_minute=12)
    assert WHOLE.requests_per_minute is None
    with opened(minutes(SPY="100 100"), switches=switches) as server:
        rest = connect(server, budget=Budget(12, 1))
        answered = [rest.delete("/orders") for _ in range(12)]
        assert answered == [[]] * 12
        assert rest.budget.wait(Urgency.EXIT) > 0
        rest.close()


@pytest.mark.parametrize(("per_minute", "reserve"), ((10, 5), (10, -1), (0, 0)))
def test_a_reserve_has_to_leave_something(per_minute: int, reserve: int) -> None:
    with pytest.raises(BadInput, match="less than half"):
        Budget(per_minute, reserve)
