"""What the loopback server does not take, with Alpaca's status, code and words."""

from decimal import Decimal
from typing import Any

import pytest
from alpaca.common.exceptions import APIError

from mqd_ledger.loopback.account import AccountSpec
from mqd_ledger.loopback.switches import Switches
from tests.loopback import client, minutes, opened, order

PRICES = minutes(SPY="100 101 102", LOW="0.50 0.50 0.51")
BUY = {"symbol": "SPY", "side": "buy", "type": "market", "time_in_force": "day", "qty": "1"}


def refused(trading: Any, **changes: Any) -> tuple[int, int, str]:
    """Status, code and message of an order that is a good one but for the changes; None takes a field away."""
    body = {name: value for name, value in {**BUY, **changes}.items() if value is not None}
    with pytest.raises(APIError) as caught:
        trading.post("/orders", body)
    return caught.value.status_code, caught.value.code, caught.value.message


REFUSED = (
    ({"qty": None}, 422, 40010001, "qty or notional is required"),
    ({"notional": "5"}, 422, 40010001, "only one of qty or notional is accepted"),
    ({"qty": "0"}, 422, 40010001, "qty must be > 0"),
    ({"qty": -3}, 422, 40010001, "qty must be > 0"),
    ({"qty": "many"}, 422, 40010001, "qty must be a number"),
    ({"qty": "NaN"}, 422, 40010001, "qty must be a number"),
    ({"qty": None, "notional": "0"}, 422, 40010001, "notional must be > 0"),
    ({"qty": "0.0000000001"}, 422, 40010001, "qty must be limited to 9 decimal places"),
    ({"symbol": None}, 422, 40010001, "symbol is required"),
    ({"side": "hold"}, 422, 40010001, "invalid side"),
    ({"type": "hunch"}, 422, 40010001, "invalid type"),
    ({"time_in_force": "forever"}, 422, 40010001, "invalid time_in_force"),
    ({"time_in_force": "opg"}, 422, 40010001, "invalid time_in_force"),
    ({"type": "stop", "stop_price": "101", "time_in_force": "ioc"}, 422, 40010001, "invalid time_in_force"),
    ({"client_order_id": "x" * 129}, 422, 40010001, "client_order_id must be no more than 128 characters"),
    ({"type": "limit"}, 422, 40010001, "limit orders require a limit price"),
    ({"type": "stop"}, 422, 40010001, "stop orders require a stop price"),
    ({"type": "stop_limit", "limit_price": "9"}, 422, 40010001, "stop limit orders require both stop and limit price"),
    ({"limit_price": "100"}, 422, 40010001, "market orders require no stop or limit price"),
    ({"type": "limit", "limit_price": "-1"}, 422, 40010001, "limit_price must be > 0"),
    ({"type": "trailing_stop"}, 422, 40010001, "trailing_stop orders are not supported by this server"),
    ({"order_class": "bracket"}, 422, 40010001, "order_class bracket is not supported by this server: only simple is"),
    ({"symbol": "NONE"}, 422, 42210000, 'asset "NONE" not found'),
    (
        {"type": "limit", "limit_price": 290.123},
        422,
        42210000,
        "invalid limit_price 290.123. sub-penny increment does not fulfill minimum pricing criteria",
    ),
    (
        {"type": "limit", "limit_price": 0.1 + 0.2},
        422,
        42210000,
        "invalid limit_price 0.30000000000000004. sub-penny increment does not fulfill minimum pricing criteria",
    ),
    ({"qty": None, "notional": "0.50"}, 422, 42210000, "notional must be >= 1.00"),
    ({"qty": None, "notional": "5.001"}, 422, 42210000, "notional must be limited to 2 decimal places"),
    (
        {"qty": None, "notional": "5", "type": "limit", "limit_price": "9"},
        422,
        42210000,
        "notional orders must be market orders",
    ),
    ({"qty": "0.5", "time_in_force": "gtc"}, 422, 42210000, "fractional orders must be DAY orders"),
    ({"extended_hours": True}, 422, 42210000, "extended hours order must be DAY or GTC limit orders"),
    (
        {"position_intent": "buy_to_close"},
        422,
        42210000,
        "position intent mismatch, inferred: buy_to_open, specified: buy_to_close",
    ),
    ({"side": "sell", "qty": "0.5"}, 422, 42210000, "fractional orders cannot be sold short"),
    ({"qty": "2001"}, 403, 40310000, "insufficient buying power"),
    ({"qty": None, "notional": "200000.01"}, 403, 40310000, "insufficient buying power"),
)


@pytest.mark.parametrize(("changes", "status", "code", "message"), REFUSED)
def test_an_order_that_breaks_a_rule(changes: dict[str, Any], status: int, code: int, message: str) -> None:
    with opened(PRICES) as server:
        trading = client(server)
        assert refused(trading, **changes) == (status, code, message)
        assert trading.get("/orders", {"status": "all"}) == []


TAKEN = (
    {"type": "limit", "limit_price": "0.4999", "symbol": "LOW"},
    {"type": "limit", "limit_price": "100.25", "extended_hours": True},
    {"qty": "0.000000001"},
    {"client_order_id": "x" * 128},
    {"position_intent": "buy_to_open"},
    {"symbol": "spy"},
    {"order_class": "simple"},
)


@pytest.mark.parametrize("changes", TAKEN)
def test_an_order_at_the_edge_of_a_rule(changes: dict[str, Any]) -> None:
    with opened(PRICES) as server:
        assert client(server).post("/orders", {**BUY, **changes})["status"] == "pending_new"


def test_a_body_that_is_no_json_object() -> None:
    with opened(PRICES) as server, pytest.raises(APIError) as caught:
        client(server).post("/orders", ["buy"])
    assert (caught.value.status_code, caught.value.code) == (400, 40010000)


def test_a_client_order_id_is_used_once_whatever_became_of_its_order() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        order(trading, "buy 1 SPY", client_order_id="filled")
        trading.cancel_order_by_id(order(trading, "buy 1 SPY limit 90", client_order_id="canceled")["id"])
        for used in ("filled", "canceled"):
            assert refused(trading, client_order_id=used) == (422, 40010001, "client_order_id must be unique")


def test_no_more_is_sold_than_is_held_and_free() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        order(trading, "buy 10 SPY")
        resting = order(trading, "sell 4 SPY limit 120")
        with pytest.raises(APIError) as caught:
            order(trading, "sell 7 SPY")
        assert (caught.value.status_code, caught.value.code) == (403, 40310000)
        assert caught.value.message == "insufficient qty available for order (requested: 7, available: 6)"
        order(trading, "sell 6 SPY")
        assert refused(trading, side="sell")[2].endswith("(requested: 1, available: 0)")
        trading.cancel_order_by_id(resting["id"])
        assert refused(trading, side="sell", qty="5")[2].endswith("(requested: 5, available: 4)")


def test_a_short_is_covered_before_it_becomes_a_long() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        order(trading, "sell 5 SPY")
        assert refused(trading, qty="6")[2] == "insufficient qty available for order (requested: 6, available: 5)"
        order(trading, "buy 5 SPY")
        assert trading.get("/positions") == []


@pytest.mark.parametrize(
    "spec",
    (
        AccountSpec(shorting=False),
        AccountSpec(multiplier=1),
        AccountSpec(cash=Decimal(1999)),
    ),
)
def test_who_may_not_sell_short(spec: AccountSpec) -> None:
    with opened(PRICES, accounts=[spec]) as server:
        assert refused(client(server), side="sell") == (403, 40310000, "account is not allowed to short")


@pytest.mark.parametrize(("multiplier", "most"), ((1, 50), (2, 100), (4, 200)))
def test_buying_power_is_a_multiple_of_what_is_free(multiplier: int, most: int) -> None:
    spec = AccountSpec(cash=Decimal(5000), multiplier=multiplier)
    with opened(minutes(SPY="100 100"), accounts=[spec]) as server:
        trading = client(server)
        power = trading.get("/account")["buying_power"]
        assert power == str(most * 100)
        order(trading, f"buy {most - 2} SPY limit 100")
        assert refused(trading, type="limit", limit_price="100", qty="3")[2] == "insufficient buying power"
        assert order(trading, "buy 2 SPY limit 100")["status"] == "pending_new"


def test_a_market_order_counts_at_the_ask_and_what_the_switch_adds() -> None:
    spec = AccountSpec(cash=Decimal(1000), multiplier=1)
    with opened(PRICES, accounts=[spec], switches=Switches(market_collar_percent=Decimal(4))) as server:
        with pytest.raises(APIError) as caught:
            order(client(server), "buy 10 SPY")
        assert '"cost_basis":"1040.1"' in str(caught.value)
        assert order(client(server), "buy 9 SPY")


WASH = (
    ("buy 1 SPY limit 90", {"side": "sell"}, "opposite side market/stop order exists"),
    ("buy 1 SPY stop 120", {"side": "sell", "type": "limit", "limit_price": "130"}, "opposite side market/stop order"),
    ("buy 1 SPY limit 90", {"side": "sell", "type": "limit", "limit_price": "89"}, "opposite side limit order exists"),
)


@pytest.mark.parametrize(("resting", "changes", "reason"), WASH)
def test_two_orders_that_could_meet_each_other(resting: str, changes: dict[str, Any], reason: str) -> None:
    with opened(PRICES) as server:
        trading = client(server)
        first = order(trading, resting)
        with pytest.raises(APIError) as caught:
            trading.post("/orders", {**BUY, **changes})
        assert (caught.value.status_code, caught.value.code) == (403, 40310000)
        assert caught.value.message == "potential wash trade detected. use complex orders"
        assert first["id"] in str(caught.value)
        assert reason in str(caught.value)


def test_two_limits_that_cannot_meet_are_both_taken() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        order(trading, "buy 1 SPY limit 90")
        assert order(trading, "sell 1 SPY limit 130")["status"] == "pending_new"


def test_a_protective_stop_blocks_every_further_buy_of_its_symbol() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        order(trading, "buy 10 SPY")
        order(trading, "sell 10 SPY stop 90 gtc")
        assert refused(trading, type="limit", limit_price="80")[0] == 403
        assert order(trading, "buy 10 LOW")["status"] == "pending_new"


def test_what_cannot_be_replaced() -> None:
    with opened(PRICES) as server:
        trading = client(server)

        def replaced(one: Any, **changes: Any) -> tuple[int, int, str]:
            with pytest.raises(APIError) as caught:
                trading.patch(f"/orders/{one['id']}", changes)
            return caught.value.status_code, caught.value.code, caught.value.message

        filled = order(trading, "buy 1 SPY")
        assert replaced(filled, qty="2") == (422, 42210000, "unable to replace order, order is not open")
        resting = order(trading, "buy 2 SPY limit 90")
        assert replaced(resting, limit_price="90.001")[2].startswith("invalid limit_price 90.001")
        assert replaced(resting, time_in_force="never") == (422, 40010001, "invalid time_in_force")
        assert replaced(resting, client_order_id=resting["client_order_id"])[2] == "client_order_id must be unique"
        assert replaced(resting, qty="99999")[2] == "insufficient buying power"
        fraction = order(trading, "buy 1.5 SPY limit 90")
        assert "fractional" in replaced(fraction, qty="2")[2]
        assert [one["status"] for one in trading.get("/orders")] == ["new", "new"]


def test_an_order_that_is_being_canceled_is_not_canceled_again() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        server.account().holds_cancel = lambda _order: True
        resting = order(trading, "buy 1 SPY limit 90")
        trading.cancel_order_by_id(resting["id"])
        assert trading.get(f"/orders/{resting['id']}")["status"] == "pending_cancel"
        with pytest.raises(APIError, match="order pending cancel"):
            trading.cancel_order_by_id(resting["id"])
        assert trading.delete("/orders")[0]["status"] == 500
