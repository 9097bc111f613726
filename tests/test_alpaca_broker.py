"""Alpaca as a broker over real sockets: what is not known is looked up, nothing is sent twice, and the books come whole."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from msgspec import structs

from commands.broker_reports import (
    ReportAbsent,
    ReportCancelRejected,
    ReportRejected,
    ReportReplaceRejected,
    ReportSubmitted,
)
from commands.trading import CancelOrder, ReplaceOrder
from mqd_ledger.brokers.alpaca import (
    AlpacaBroker,
    Answer,
    Cancel,
    LookUp,
    Replace,
    Submit,
    answer_commands,
)
from mqd_ledger.brokers.alpaca_effects import body_of
from mqd_ledger.brokers.alpaca_reading import Unreadable
from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Budget
from mqd_ledger.brokers.base import Broker
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.loopback.faults import Fault, Faults
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.loopback.tickets import Ticket
from mqd_ledger.values import OrderState, OrderType, Side, TimeInForce
from tests.dsl import OPENING, D, Desk, kinds
from tests.loopback import KEY, SECRET, minutes, opened

SECONDS = timedelta(seconds=1)


class Clock:
    """Moved by hand, so that a grace period passes when it is told to."""

    def __init__(self) -> None:
        self.at = OPENING

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with opened(minutes(SPY="100 100 100 100", QQQ="200 200 200 200"), faults=Faults()) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(server: LoopbackServer, clock: Clock) -> Iterator[AlpacaBroker]:
    with connected(server, clock) as made:
        yield made


@contextmanager
def connected(server: LoopbackServer, clock: Clock, kind: str = "") -> Iterator[AlpacaBroker]:
    """Who is to meet a hanging request soon gives it up."""
    timeout = (5, 0.2) if "hang" in kind else (5, 10)
    keys = Keys(KEY, SECRET, "loopback")
    rest = AlpacaRest(keys, server.rest_url, "loopback", budget=Budget(10_000), timeout=timeout)
    yield AlpacaBroker(rest, clock)
    rest.close()


def break_next(server: LoopbackServer, kind: str, method: str, **params: Any) -> None:
    assert isinstance(server.faults, Faults)
    server.faults.add([Fault("rest", kind, {"method": method}, params=params)])


def submit(name: str, text: str = "BUY 10 SPY LIMIT 90", **changes: Any) -> Submit:
    side, quantity, symbol, *rest = text.split()
    order_type = OrderType(rest[0]) if rest else OrderType.MARKET
    limit = D(rest[1]) if rest else None
    made = Submit(
        name,
        symbol,
        Side(side),
        order_type,
        D(quantity),
        None,
        limit,
        None,
        None,
        None,
        TimeInForce.DAY,
        extended_hours=False,
    )
    return structs.replace(made, **changes)


def names(server: LoopbackServer) -> list[str]:
    return server.call(lambda: [order.client_order_id for order in server.account().book.orders])


def kind_of(answer: Answer) -> tuple[str, str]:
    return answer.kind, "" if answer.order is None else answer.order.status


# --- submit ------------------------------------------------------------------------------------------------------------------


def test_an_order_leaves_as_text_to_the_last_digit() -> None:
    made = submit("a", quantity=D("1E-9"), limit_price=D("90.10"), time_in_force=TimeInForce.GTC, extended_hours=True)
    assert body_of(made) == {
        "client_order_id": "a",
        "symbol": "SPY",
        "side": "buy",
        "type": "limit",
        "time_in_force": "gtc",
        "qty": "0.000000001",
        "limit_price": "90.1",
        "extended_hours": True,
    }
    dollars = submit("a", "SELL 1 SPY", quantity=None, notional=D("1000.009"), order_type=OrderType.TRAILING_STOP)
    trailing = structs.replace(dollars, trail_percent=D("1.50"))
    assert {name: body_of(trailing).get(name) for name in ("notional", "qty", "trail_percent", "side")} == {
        "notional": "1000",
        "qty": None,
        "trail_percent": "1.5",
        "side": "sell",
    }


def test_an_order_is_taken_or_refused_with_the_brokers_words(server: LoopbackServer, broker: AlpacaBroker) -> None:
    assert kind_of(broker.perform(submit("a"))) == ("accepted", "pending_new")
    poor = broker.perform(submit("b", "BUY 100000 SPY LIMIT 90"))
    assert (poor.kind, poor.reason) == ("refused", "insufficient buying power")
    assert names(server) == ["a"]


@pytest.mark.parametrize("kind", ("hang_after", "gateway_timeout_after", "dropped_after", "truncated", "html_after"))
def test_an_order_that_arrived_without_an_answer_is_found(server: LoopbackServer, clock: Clock, kind: str) -> None:
    break_next(server, kind, "POST", **({"seconds": 0.4} if kind == "hang_after" else {}))
    with connected(server, clock, kind) as broker:
        assert broker.perform(submit("a")).kind == "unknown"
        assert kind_of(broker.perform(LookUp("a", clock.at))) == ("accepted", "new")
        assert kind_of(broker.perform(submit("a"))) == ("accepted", "new")  # sent again, it is the one that is there
    assert names(server) == ["a"]


@pytest.mark.parametrize("kind", ("hang", "error", "gateway_timeout", "dropped", "rate_limited", "html"))
def test_an_order_that_never_arrived_is_absent_only_after_a_while(
    server: LoopbackServer, clock: Clock, kind: str
) -> None:
    params: dict[str, dict[str, Any]] = {"hang": {"seconds": 0.4}, "rate_limited": {"retry_after": 0}}
    break_next(server, kind, "POST", **params.get(kind, {}))
    queued_at = clock.at
    clock.at += 30 * SECONDS  # it had to wait before it was sent, so that is when the grace begins
    with connected(server, clock, kind) as broker:
        assert broker.perform(submit("a")).kind == "unknown"
        assert broker.perform(LookUp("a", queued_at)).kind == "unknown"
        clock.at += 9 * SECONDS
        assert broker.perform(LookUp("a", queued_at)).kind == "unknown"
        clock.at += SECONDS
        assert broker.perform(LookUp("a", queued_at)).kind == "absent"
    assert names(server) == []


def test_a_gateways_404_proves_nothing(server: LoopbackServer, broker: AlpacaBroker, clock: Clock) -> None:
    for _ in range(4):
        break_next(server, "html", "GET", status=404)
    clock.at += 60 * SECONDS
    assert broker.perform(LookUp("a", OPENING)).kind == "unknown"
    assert broker.perform(LookUp("a", OPENING)).kind == "absent"


def test_a_refusal_is_not_believed_where_an_earlier_attempt_has_arrived(broker: AlpacaBroker) -> None:
    assert broker.perform(submit("a")).kind == "accepted"
    for again in (submit("a"), submit("a", limit_price=D("90.001"))):  # not unique; finer than a cent
        assert kind_of(broker.perform(again)) == ("accepted", "new")


def test_another_order_of_the_same_name_is_not_taken_for_ours(broker: AlpacaBroker) -> None:
    broker.perform(submit("a", "BUY 10 QQQ LIMIT 90"))
    answer = broker.perform(submit("a", "BUY 10 SPY LIMIT 90"))
    assert (answer.kind, answer.reason) == (
        "refused",
        "the broker has another order of this name already: BUY 10 QQQ",
    )


def test_keys_that_were_withdrawn_refuse_orders_and_answer_nothing_else(
    server: LoopbackServer, broker: AlpacaBroker
) -> None:
    break_next(server, "error", "POST", status=401)
    answer = broker.perform(submit("a"))
    assert answer.kind == "refused"
    assert SECRET not in answer.reason
    break_next(server, "error", "DELETE", status=401)
    assert broker.perform(Cancel("a", "b")).kind == "unknown"


# --- cancel, replace ---------------------------------------------------------------------------------------------------------


def test_a_cancel_that_is_taken_is_only_a_request(broker: AlpacaBroker) -> None:
    order = broker.perform(submit("a")).order
    assert order is not None
    assert broker.perform(Cancel("a", order.broker_order_id)) == Answer("accepted")
    assert kind_of(broker.perform(Cancel("a", order.broker_order_id))) == ("accepted", "canceled")
    assert kind_of(broker.perform(Cancel("a", None))) == ("accepted", "canceled")


def test_a_cancel_that_comes_too_late_says_what_became_of_the_order(broker: AlpacaBroker) -> None:
    order = broker.perform(submit("a", "BUY 10 SPY")).order
    assert order is not None
    answer = broker.perform(Cancel("a", order.broker_order_id))
    assert (*kind_of(answer), answer.reason) == ("refused", "filled", 'order is already in "filled" state')


def test_a_cancel_of_what_is_not_there_decides_nothing(server: LoopbackServer, broker: AlpacaBroker) -> None:
    assert broker.perform(Cancel("a", None)).kind == "unknown"
    assert broker.perform(Cancel("a", "nobody")).kind == "unknown"
    order = broker.perform(submit("b")).order
    assert order is not None
    break_next(server, "dropped_after", "DELETE")
    assert broker.perform(Cancel("b", order.broker_order_id)).kind == "unknown"


def test_a_stuck_cancel_stays_asked_for(server: LoopbackServer, broker: AlpacaBroker) -> None:
    assert isinstance(server.faults, Faults)
    server.faults.add([Fault("account", "stuck_cancel")])
    order = broker.perform(submit("a")).order
    assert order is not None
    assert broker.perform(Cancel("a", order.broker_order_id)).kind == "accepted"
    assert kind_of(broker.perform(Cancel("a", order.broker_order_id))) == ("accepted", "pending_cancel")


def test_a_replacement_is_asked_for_and_found_if_the_answer_is_lost(
    server: LoopbackServer, broker: AlpacaBroker, clock: Clock
) -> None:
    broker.perform(submit("a"))
    change = Replace("a", None, "b", D(7), D(91), None, TimeInForce.GTC)
    break_next(server, "dropped_after", "PATCH")
    assert broker.perform(change).kind == "unknown"
    found = broker.perform(LookUp("b", clock.at))
    assert found.order is not None
    old = broker.order("a")
    assert old is not None
    assert (found.order.quantity, found.order.limit_price, found.order.time_in_force) == (D(7), D(91), TimeInForce.GTC)
    assert (found.order.replaces, old.status, old.replaced_by) == (
        old.broker_order_id,
        "replaced",
        found.order.broker_order_id,
    )


def test_a_replacement_of_what_is_over_is_refused_with_what_became_of_it(broker: AlpacaBroker) -> None:
    order = broker.perform(submit("a", "BUY 10 SPY")).order
    assert order is not None
    answer = broker.perform(Replace("a", order.broker_order_id, "b", None, D(91), None, None))
    assert (*kind_of(answer), answer.reason) == ("refused", "filled", "unable to replace order, order is not open")
    assert broker.perform(Replace("nobody", None, "b", None, D(91), None, None)).kind == "unknown"


# --- what answers mean to the ledger -----------------------------------------------------------------------------------------


def test_what_an_answer_means_to_the_ledger(broker: AlpacaBroker) -> None:
    desk = Desk()
    order = desk.order("BUY 10 SPY LIMIT 90")
    other = desk.order("BUY 10 QQQ LIMIT 90")
    effect = submit(order)

    def told(effect: Any, answer: Answer) -> list[type]:
        return [type(command) for command in answer_commands(effect, answer, desk.state, desk.at)]

    assert told(effect, Answer("unknown", reason="nobody knows")) == []
    assert told(effect, Answer("refused", reason="no")) == [ReportRejected]
    assert told(LookUp(order, desk.at), Answer("absent")) == [ReportAbsent]
    assert told(LookUp(order, desk.at), Answer("unknown")) == []
    accepted = broker.perform(effect)
    assert told(effect, accepted) == [ReportSubmitted]
    desk.do(*answer_commands(effect, accepted, desk.state, desk.at))
    desk.do(CancelOrder(desk.at, order, "enough"), ReplaceOrder(desk.at, other, "better", limit_price=D(91)))
    assert told(Cancel(order, None), Answer("accepted")) == []
    assert told(Cancel(order, None), Answer("refused", reason="too late")) == [ReportCancelRejected]
    replacement = desk.state.orders[other].replacement_id
    change = Replace(other, None, replacement, None, D(91), None, None)
    assert told(change, Answer("refused", reason="too late")) == [ReportReplaceRejected]
    assert told(LookUp(replacement, desk.at), Answer("absent")) == [ReportReplaceRejected]
    for effect_of_nobody in (
        submit("x"),
        Cancel("x", None),
        LookUp("x", desk.at),
        structs.replace(change, client_order_id="x"),
    ):
        assert told(effect_of_nobody, Answer("refused", reason="no")) == []
        assert told(LookUp("x", desk.at), Answer("absent")) == []


def test_the_race_of_a_cancel_and_a_fill_ends_with_both_told(broker: AlpacaBroker) -> None:
    desk = Desk()
    order = desk.order("BUY 10 SPY")
    sent = submit(order, "BUY 10 SPY")
    desk.do(*answer_commands(sent, broker.perform(sent), desk.state, desk.at))
    desk.do(CancelOrder(desk.at, order, "enough"))  # the ledger has not heard of the fill
    cancel = Cancel(order, desk.state.orders[order].broker_order_id)
    events = desk.do(*answer_commands(cancel, broker.perform(cancel), desk.state, desk.at))
    assert kinds(events) == ["CancelRejected"]
    assert desk.state.orders[order].state is OrderState.SUBMITTED


# --- questions ---------------------------------------------------------------------------------------------------------------


def test_it_is_a_broker(broker: AlpacaBroker) -> None:
    asked: Broker = broker
    account = asked.account()
    assert (account.account_number, account.environment, account.cash) == ("PA3LOOPBACK1", "loopback", D(100_000))
    assert asked.order("nobody") is None
    assert asked.order_by_broker_id("nobody") is None
    assert asked.clock().is_open
    assert (asked.positions(), asked.open_orders(), asked.fills(OPENING), asked.movements(OPENING)) == ((), (), (), ())


def test_the_books_have_what_is_open_what_was_asked_for_and_what_was_filled(
    server: LoopbackServer, broker: AlpacaBroker
) -> None:
    for name, text in (("open", "BUY 1 SPY LIMIT 90"), ("bought", "BUY 5 SPY"), ("gone", "BUY 2 QQQ LIMIT 90")):
        broker.perform(submit(name, text))
    broker.perform(Cancel("gone", None))
    server.by_hand(KEY, "QQQ", Side.BUY, D(3))
    books = broker.books([("open", None), ("gone", None), ("never-arrived", None)], OPENING, OPENING)
    assert [order.client_order_id for order in books.open_orders] == ["open"]
    assert {position.symbol: position.quantity for position in books.positions} == {"SPY": D(5), "QQQ": D(3)}
    assert [(fill.symbol, fill.quantity) for fill in books.fills] == [("SPY", D(5)), ("QQQ", D(3))]
    statuses = {order.client_order_id: order.status for order in books.orders}
    by_hand = next(name for name in names(server) if name not in statuses or len(name) > 20)
    assert statuses == {"open": "new", "gone": "canceled", "bought": "filled", by_hand: "filled"}
    assert (books.problems, books.movements, books.asked_at) == ((), (), OPENING)


def test_the_books_follow_a_replaced_order_to_its_last_successor(broker: AlpacaBroker) -> None:
    broker.perform(submit("a"))
    for old, new in (("a", "b"), ("b", "c")):
        assert (
            broker.perform(Replace(old, None, new, None, D(91) if new == "b" else D(92), None, None)).kind == "accepted"
        )
    broker.perform(Cancel("c", None))
    books = broker.books([("a", None)], OPENING, OPENING)
    assert {order.client_order_id: order.status for order in books.orders} == {
        "a": "replaced",
        "b": "replaced",
        "c": "canceled",
    }


def many(server: LoopbackServer, count: int, limit: str | None) -> list[str]:
    made = [
        Ticket(
            symbol="SPY",
            side=Side.BUY,
            order_type=OrderType.LIMIT if limit else OrderType.MARKET,
            time_in_force=TimeInForce.DAY,
            quantity=D(1),
            limit_price=D(limit) if limit else None,
            client_order_id=f"n{number}",
        )
        for number in range(count)
    ]
    server.call(lambda: [server.account().submit(ticket) for ticket in made])
    return [ticket.client_order_id for ticket in made]


@pytest.mark.parametrize("count", (99, 100, 101, 250))
def test_every_page_of_executions_is_read_and_each_once(
    server: LoopbackServer, broker: AlpacaBroker, count: int
) -> None:
    sent = many(server, count, None)
    assert isinstance(server.faults, Faults)
    server.faults.add([Fault("account", "activities_reordered", times=2)])
    books = broker.books([], OPENING, OPENING)
    assert len({fill.execution_id for fill in books.fills}) == len(books.fills) == count
    assert [fill.occurred_at for fill in books.fills] == sorted(fill.occurred_at for fill in books.fills)
    assert {order.client_order_id for order in books.orders} == set(sent)  # in a few requests, not one for each


def test_every_page_of_orders_is_read(server: LoopbackServer, broker: AlpacaBroker) -> None:
    sent = many(server, 501, "1")
    assert [order.client_order_id for order in broker.open_orders()] == sent


def test_partial_executions_come_in_their_orders_count() -> None:
    partial = Switches(partial_percent=100)
    with opened(minutes(SPY="100 100 100"), switches=partial) as server:
        rest = AlpacaRest(Keys(KEY, SECRET, "loopback"), server.rest_url, "loopback", budget=Budget())
        broker = AlpacaBroker(rest, Clock())
        broker.perform(submit("a", "BUY 100 SPY"))
        server.step(2)
        fills = broker.fills(OPENING)
        assert [fill.cumulative_quantity for fill in fills] == [fills[0].quantity, D(100)]
        rest.close()


def test_a_short_position_is_negative(server: LoopbackServer, broker: AlpacaBroker) -> None:
    broker.perform(submit("a", "SELL 5 SPY"))
    assert [(position.symbol, position.quantity) for position in broker.positions()] == [("SPY", D(-5))]


class Canned(BaseHTTPRequestHandler):
    """Answers with what stands in `ANSWERS`: rows that no sane server sends."""

    answers: ClassVar[dict[str, object]] = {}

    def do_GET(self) -> None:
        body = json.dumps(self.answers[urlsplit(self.path).path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def odd_broker() -> Iterator[AlpacaBroker]:
    account = {"account_number": "PA1", "status": "ACTIVE", "cash": "1", "equity": "1", "buying_power": "1"}
    rows: dict[str, object] = {"orders": [], "positions": [], "account/activities": [], "account/activities/FILL": []}
    Canned.answers = {f"/v2/{path}": answer for path, answer in ({"account": account} | rows).items()}
    with ThreadingHTTPServer(("127.0.0.1", 0), Canned) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        rest = AlpacaRest(Keys(KEY, SECRET, "loopback"), url, "loopback", budget=Budget())
        yield AlpacaBroker(rest, Clock())
        rest.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    (
        ("positions", [{"symbol": "SPY"}], "Unreadable position: Found no qty"),
        ("positions", {}, "Instead of a list of positions Alpaca sent {}"),
        ("positions", None, "Instead of a list of positions Alpaca sent null"),
        ("orders", "none", "Instead of a list from /orders"),
        ("account", [], "Instead of an object"),
        ("account", {"status": "ACTIVE"}, "Found account_number None"),
        ("account/activities", {"message": "later"}, "Instead of a list from /account/activities"),
    ),
)
def test_books_that_cannot_be_read_whole_are_no_books(
    odd_broker: AlpacaBroker, path: str, answer: object, problem: str
) -> None:
    Canned.answers[f"/v2/{path}"] = answer
    with pytest.raises(Unreadable, match=problem):
        odd_broker.books([], OPENING, OPENING)


def test_an_open_order_that_cannot_be_read_is_told_beside_the_books(odd_broker: AlpacaBroker) -> None:
    """What it is nobody knows, but what is known of the rest may have to be closed."""
    Canned.answers["/v2/orders"] = [{"id": "1", "symbol": None}]
    books = odd_broker.books([], OPENING, OPENING)
    assert books.open_orders == ()
    (unread,) = books.unread
    assert unread.startswith("Unreadable order: ")
    assert unread in books.problems


def test_an_activity_that_cannot_be_read_is_told_beside_the_books(odd_broker: AlpacaBroker) -> None:
    row = {"activity_type": "DIV", "id": "1", "date": "2026-01-05", "net_amount": "1.50"}
    Canned.answers["/v2/account/activities"] = [{**row, "id": "2", "date": "soon"}, row, {"activity_type": "FILL"}]
    Canned.answers["/v2/account/activities/FILL"] = ["no row"]
    books = odd_broker.books([], OPENING, OPENING)
    assert [movement.amount for movement in books.movements] == [D("1.50")]
    assert [problem.split(":")[0] for problem in books.problems] == ["Unreadable fill", "Unreadable movement"]


# --- whose account is it -----------------------------------------------------------------------------------------------------
