"""The loopback server's REST side, asked by the real alpaca-py clients: every route, its shapes, and what becomes of orders."""

import http.client
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment
from alpaca.data.requests import (
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetCalendarRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
)

from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.loopback.account import AccountSpec, account_specs
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.values import Side
from tests.dsl import OPENING, at, bar
from tests.loopback import KEY, SECRET, WHOLE, client, events, flat, history, minutes, opened, order, until, updates

PRICES = minutes(SPY="100 101 102 103 104 105", QQQ="50 51 52 53 54 55")


def status_of(trading: Any, one: Any) -> str:
    return str(trading.get(f"/orders/{one['id']}")["status"])


# --- what every order goes through -----------------------------------------------------------------------------------------


def test_a_market_order_is_taken_first_and_filled_at_once_at_the_price_of_the_moment() -> None:
    with opened(PRICES) as server:
        trading = client(server, raw=False)
        server.step(2)
        taken = trading.submit_order(
            MarketOrderRequest(
                symbol="SPY", qty=10, side=OrderSide.BUY, time_in_force=TimeInForce.DAY, client_order_id="mine"
            )
        )
        assert (taken.status, taken.filled_qty, taken.filled_avg_price) == ("pending_new", "0", None)
        filled = trading.get_order_by_client_id("mine")
        assert filled.id == taken.id
        assert (filled.status, filled.filled_qty, filled.filled_avg_price) == ("filled", "10", "102")
        assert filled.created_at < filled.filled_at
        position = trading.get_open_position("SPY")
        assert (position.qty, position.avg_entry_price, position.side, position.market_value) == (
            "10",
            "102",
            "long",
            "1020",
        )
        account = trading.get_account()
        assert (account.cash, account.equity, account.buying_power) == ("98980", "100000", "198980")


def test_what_is_sent_as_numbers_is_what_is_sent_as_text() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        as_number = trading.submit_order(
            LimitOrderRequest(symbol="SPY", qty=3, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=90.25)
        )
        as_text = order(trading, "buy 3.0 SPY limit 90.25 gtc")
        tiny = order(trading, "buy 1e-09 SPY limit 90.25")
        names = ("qty", "limit_price", "type", "time_in_force")
        assert (
            [as_number[name] for name in names] == [as_text[name] for name in names] == ["3", "90.25", "limit", "gtc"]
        )
        assert tiny["qty"] == "0.000000001"


def test_a_limit_rests_until_a_bar_reaches_it_and_never_meets_the_bar_in_which_it_came() -> None:
    spy = [bar("SPY 14:30 100 100 90 99"), bar("SPY 14:31 99 99.5 95 96"), bar("SPY 14:32 96")]
    with opened(spy) as server:
        trading = client(server)
        resting = order(trading, "buy 10 SPY limit 95.50")
        server.step()
        assert status_of(trading, resting) == "new"  # the minute that went down to 90 had begun already
        server.step()
        filled = trading.get(f"/orders/{resting['id']}")
        assert (filled["status"], filled["filled_avg_price"]) == ("filled", "95.5")
        assert filled["filled_at"] >= "2026-01-05T14:32:00"


def test_a_stop_waits_and_a_marketable_limit_does_not() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        stop, limit = order(trading, "buy 1 SPY stop 103"), order(trading, "buy 1 QQQ limit 51")
        assert (status_of(trading, stop), status_of(trading, limit)) == ("new", "filled")
        assert trading.get(f"/orders/{limit['id']}")["filled_avg_price"] == "50"
        server.step(4)
        assert status_of(trading, stop) == "filled"


def test_an_ioc_that_cannot_be_filled_ends_as_the_switch_says() -> None:
    for ends in ("canceled", "expired"):
        with opened(PRICES, switches=Switches(ioc_ends=ends)) as server:
            trading = client(server)
            assert status_of(trading, order(trading, "buy 1 SPY limit 90 ioc")) == ends


def test_one_order_in_ten_is_filled_in_part_first_and_by_the_next_bar_then() -> None:
    with opened(PRICES, switches=Switches(partial_percent=100)) as server, updates(server) as listening:
        trading = client(server)
        one = order(trading, "buy 100 SPY")
        part = trading.get(f"/orders/{one['id']}")
        assert part["status"] == "partially_filled"
        assert 0 < int(part["filled_qty"]) < 100
        server.step(2)
        assert trading.get(f"/orders/{one['id']}")["filled_qty"] == "100"
        heard = listening.until(4)
        assert events(heard) == ["pending_new", "new", "partial_fill", "fill"]
        assert sum(Decimal(message["data"].get("qty", 0)) for message in heard) == 100
        rows = trading.get("/account/activities/FILL")
        assert [(row["type"], row["cum_qty"], row["leaves_qty"]) for row in rows] == [
            ("fill", "100", "0"),
            ("partial_fill", part["filled_qty"], str(100 - int(part["filled_qty"]))),
        ]


def test_about_one_order_in_ten_is_partial_by_default_and_the_same_ones_every_time() -> None:
    def partial(seed: int) -> list[int]:
        with opened(PRICES, seed=seed, switches=Switches()) as server:
            trading = client(server)
            for _ in range(60):
                order(trading, "buy 10 SPY")
            return [one.number for one in server.account().book.orders if len(one.executions) > 1]

    first = partial(1)
    assert 1 <= len(first) <= 15
    assert partial(1) == first != partial(2)


def test_an_order_before_the_open_is_accepted_and_filled_when_the_bell_rings() -> None:
    with LoopbackServer(PRICES, switches=WHOLE) as server, updates(server) as listening:
        trading = client(server)
        early = order(trading, "buy 5 SPY")
        assert early["status"] == "accepted"
        server.step(4)
        assert status_of(trading, early) == "accepted"
        server.step()
        assert status_of(trading, early) == "filled"
        assert events(listening.until(2)) == ["new", "fill"]
        assert listening.heard[-1]["data"]["price"] == "100"


def test_a_day_order_expires_at_the_close_and_a_gtc_order_stays() -> None:
    with opened(flat(2), accounts=account_specs(2)) as server, updates(server) as listening:
        trading = client(server)
        today, good = order(trading, "buy 1 SPY limit 90"), order(trading, "buy 1 SPY limit 91 gtc")
        assert today["expires_at"] == "2026-01-05T21:00:00Z"
        server.play_until(at("20:59"))
        assert status_of(trading, today) == "new"
        server.play_until(at("21:00"))
        expired = trading.get(f"/orders/{today['id']}")
        assert expired["status"] == "expired"
        assert expired["expired_at"] > "2026-01-05T21:00:00"
        assert events(listening.until(5))[-1] == "expired"
        late = order(trading, "sell 1 SPY limit 120")
        assert (late["status"], late["expires_at"]) == ("accepted", "2026-01-06T21:00:00Z")
        server.play_until(at("2026-01-06T21:00"))
        assert (status_of(trading, good), status_of(trading, late)) == ("new", "expired")


def test_an_order_by_notional_buys_fractions_for_its_dollars() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        one = order(trading, "buy $250 SPY")
        filled = trading.get(f"/orders/{one['id']}")
        assert (filled["status"], filled["qty"], filled["notional"], filled["filled_qty"]) == (
            "filled",
            None,
            "250",
            "2.5",
        )


def test_in_a_halt_orders_rest_and_there_are_no_bars() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        server.call(lambda: server.market.halt("SPY"))
        one = order(trading, "buy 5 SPY")
        server.step(2)
        assert status_of(trading, one) == "new"
        assert "SPY" not in server.market.history
        server.call(lambda: server.market.resume("SPY"))
        server.step(2)
        assert trading.get(f"/orders/{one['id']}")["filled_avg_price"] == "102"


def test_the_stop_of_one_account_is_nothing_to_another() -> None:
    with opened(PRICES, accounts=account_specs(2, Decimal(5000))) as server:
        first, second = client(server, "PKLOOPBACK1"), client(server, "PKLOOPBACK2")
        order(first, "buy 10 SPY")
        assert second.get("/positions") == second.get("/orders", {"status": "all"}) == []
        assert (first.get("/account")["cash"], second.get("/account")["cash"]) == ("4000", "5000")


# --- looking orders up -----------------------------------------------------------------------------------------------------


def test_orders_are_listed_by_status_time_symbol_and_cursor() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        taken = [
            order(trading, f"buy 1 {symbol} limit 40.{n}0") for n, symbol in enumerate(("SPY", "QQQ", "SPY", "QQQ"))
        ]
        done = order(trading, "buy 1 SPY")
        ids = [one["id"] for one in taken]

        def listed(**query: object) -> list[str]:
            return [one["id"] for one in trading.get("/orders", query)]

        assert listed() == ids[::-1]
        assert listed(status="closed") == [done["id"]]
        assert listed(status="all", direction="asc", limit=2) == ids[:2]
        assert listed(symbols="qqq,IWM", direction="asc") == [ids[1], ids[3]]
        assert listed(side="sell") == []
        times = [one["submitted_at"] for one in taken]
        assert times == sorted(set(times))
        assert listed(after=times[1], until=times[3]) == [ids[2]]  # both exclusive, to the nanosecond
        assert listed(after_order_id=ids[0], before_order_id=ids[3], direction="asc") == ids[1:3]
        parsed = client(server, raw=False).get_orders(
            GetOrdersRequest(status=QueryOrderStatus.ALL, nested=True, limit=500)
        )
        assert len(parsed) == 5


def test_times_in_microseconds_as_the_client_sends_them_repeat_the_sibling() -> None:
    """Server times have nanoseconds: the documented trap of paging by time."""
    with opened(PRICES) as server:
        trading = client(server, raw=False)
        one = order(client(server), "buy 1 SPY limit 40")
        parsed = trading.get_order_by_id(one["id"])
        again = trading.get_orders(GetOrdersRequest(after=parsed.submitted_at))
        assert [found.id for found in again] == [parsed.id]


@pytest.mark.parametrize(
    ("path", "words"),
    (
        ("/orders/61e69015-8549-4bfd-b9c3-01e75843f47d", "order not found for 61e69015"),
        ("/orders:by_client_order_id?client_order_id=nobody", "order not found for nobody"),
        ("/positions/SPY", "position does not exist"),
        ("/assets/NONE", "asset not found for NONE"),
    ),
)
def test_what_is_not_there_is_404(path: str, words: str) -> None:
    with opened(PRICES) as server, pytest.raises(APIError) as caught:
        client(server).get(path)
    assert (caught.value.status_code, caught.value.code) == (404, 40410000)
    assert words in caught.value.message


def test_wrong_keys_are_401() -> None:
    with opened(PRICES) as server:
        for key, secret in ((KEY, "wrong"), ("PKNOBODY", SECRET)):
            trading = TradingClient(key, secret, url_override=server.rest_url)
            with pytest.raises(APIError) as caught:
                trading.get_account()
            assert caught.value.status_code == 401


# --- cancel and replace ----------------------------------------------------------------------------------------------------


def test_a_cancel_is_204_and_ends_the_order_once() -> None:
    with opened(PRICES) as server, updates(server) as listening:
        trading = client(server)
        one = order(trading, "buy 10 SPY limit 90")
        assert trading.cancel_order_by_id(one["id"]) is None
        canceled = trading.get(f"/orders/{one['id']}")
        assert canceled["status"] == "canceled"
        assert canceled["cancel_requested_at"] < canceled["canceled_at"]
        assert events(listening.until(4)) == ["pending_new", "new", "pending_cancel", "canceled"]
        with pytest.raises(APIError) as caught:
            trading.cancel_order_by_id(one["id"])
        assert (caught.value.status_code, caught.value.code) == (422, 42210000)
        assert caught.value.message == 'order is already in "canceled" state'


def test_all_orders_are_canceled_at_once() -> None:
    with opened(PRICES) as server:
        trading = client(server, raw=False)
        raw = client(server)
        ids = {order(raw, f"buy 1 {symbol} limit 40")["id"] for symbol in ("SPY", "QQQ")}
        answers = trading.cancel_orders()
        assert {(str(row.id), row.status) for row in answers} == {(one, 200) for one in ids}
        assert raw.get("/orders") == []


def test_a_replacement_is_another_order_that_follows_the_first() -> None:
    with opened(PRICES) as server, updates(server) as listening:
        trading = client(server)
        old = order(trading, "buy 10 SPY limit 90", client_order_id="first")
        new = trading.replace_order_by_id(
            old["id"], ReplaceOrderRequest(qty=8, limit_price=91, client_order_id="second")
        )
        assert (new["replaces"], new["qty"], new["limit_price"], new["client_order_id"]) == (
            old["id"],
            "8",
            "91",
            "second",
        )
        before = trading.get(f"/orders/{old['id']}")
        assert (before["status"], before["replaced_by"]) == ("replaced", new["id"])
        assert before["replaced_at"]
        assert events(listening.until(4)) == ["pending_new", "new", "replaced", "new"]
        again = trading.replace_order_by_id(new["id"], ReplaceOrderRequest(limit_price=150))
        assert status_of(trading, again) == "filled"
        assert trading.get("/positions/SPY")["qty"] == "8"


def test_a_replacement_counts_what_was_filled_before() -> None:
    with opened(PRICES, switches=Switches(partial_percent=100)) as server:
        trading = client(server)
        old = order(trading, "buy 100 SPY limit 100")
        filled = int(trading.get(f"/orders/{old['id']}")["filled_qty"])
        new = trading.replace_order_by_id(old["id"], ReplaceOrderRequest(limit_price=90))
        assert new["qty"] == str(100 - filled)
        with pytest.raises(APIError, match="qty must be greater than the filled qty"):
            trading.patch(f"/orders/{new['id']}", {"qty": "0"})


# --- positions -------------------------------------------------------------------------------------------------------------


def test_positions_are_closed_in_part_by_percentage_and_as_a_whole() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        order(trading, "buy 10 SPY")
        trading.close_position("SPY", ClosePositionRequest(qty="2"))
        assert trading.get("/positions/SPY")["qty"] == "8"
        trading.close_position("SPY", ClosePositionRequest(percentage="50"))
        assert trading.get("/positions/SPY")["qty"] == "4"
        asset_id = trading.get("/positions/SPY")["asset_id"]
        assert trading.get(f"/positions/{asset_id}")["symbol"] == "SPY"
        closing = trading.close_position("SPY")
        assert (closing["side"], closing["qty"], closing["position_intent"]) == ("sell", "4", "sell_to_close")
        assert trading.get("/positions") == []


def test_closing_all_says_of_each_position_how_it_went() -> None:
    with opened(PRICES) as server:
        trading, parsed = client(server), client(server, raw=False)
        order(trading, "buy 5 SPY")
        order(trading, "buy 5 QQQ")
        held = order(trading, "sell 5 QQQ limit 90")
        rows = trading.delete("/positions")
        assert [(row["symbol"], row["status"]) for row in rows] == [("QQQ", 403), ("SPY", 200)]
        assert rows[0]["body"] == {
            "code": 40310000,
            "message": "insufficient qty available for order (requested: 5, available: 0)",
            "available": "0",
            "existing_qty": "5",
            "held_for_orders": "5",
            "related_orders": [held["id"]],
            "symbol": "QQQ",
        }
        assert [(row.symbol, row.status) for row in parsed.close_all_positions(cancel_orders=True)] == [("QQQ", 200)]
        assert trading.get("/positions") == trading.get("/orders") == []


def test_a_short_position_is_negative_and_costs_buying_power() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        taken = order(trading, "sell 10 SPY")
        assert taken["position_intent"] == "sell_to_open"
        server.step(2)
        short = trading.get("/positions/SPY")
        names = ("qty", "side", "cost_basis", "market_value", "avg_entry_price", "unrealized_pl", "qty_available")
        assert [short[name] for name in names] == ["-10", "short", "-1000", "-1020", "100", "-20", "-10"]
        account = trading.get("/account")
        assert (account["cash"], account["equity"], account["buying_power"]) == ("101000", "99980", "198940")
    with opened(PRICES, switches=Switches(shorts_are_negative=False)) as server:
        trading = client(server)
        order(trading, "sell 10 SPY")
        assert trading.get("/positions/SPY")["qty"] == "10"


def test_open_orders_hold_buying_power_and_shares() -> None:
    with opened(PRICES) as server:
        trading = client(server)
        order(trading, "buy 10 SPY")
        order(trading, "sell 4 SPY limit 120")
        order(trading, "buy 10 QQQ limit 40")
        assert trading.get("/positions/SPY")["qty_available"] == "6"
        assert trading.get("/account")["buying_power"] == "198600"


# --- activities ------------------------------------------------------------------------------------------------------------


def test_fills_are_paged_newest_first_and_named_by_new_york_time() -> None:
    with opened(PRICES) as server, updates(server) as listening:
        trading = client(server)
        taken = [order(trading, "buy 1 SPY") for _ in range(5)]
        rows: list[Any] = []
        while page := trading.get(
            "/account/activities/FILL", {"page_size": 2, **({"page_token": rows[-1]["id"]} if rows else {})}
        ):
            assert len(page) <= 2
            rows += page
        assert [row["order_id"] for row in rows] == [one["id"] for one in reversed(taken)]
        assert rows[0]["id"].startswith("20260105093000")
        assert rows[0]["transaction_time"].startswith("2026-01-05T14:30:00")
        listening.until(15)
        told = [message["data"]["execution_id"] for message in listening.heard if message["data"]["event"] == "fill"]
        assert [row["id"].split("::")[1] for row in reversed(rows)] == told
        assert trading.get("/account/activities", {"activity_types": "DIV"}) == []
        only = trading.get("/account/activities/FILL", {"after": rows[2]["transaction_time"], "direction": "asc"})
        assert [row["id"] for row in only] == [rows[1]["id"], rows[0]["id"]]
        assert len(trading.get("/account/activities/FILL", {"order_id": taken[0]["id"]})) == 1
        assert len(trading.get("/account/activities/FILL", {"date": "2026-01-05"})) == 5
        assert trading.get("/account/activities/FILL", {"date": "2026-01-06"}) == []
        with pytest.raises(APIError, match="page_size must be between 1 and 100"):
            trading.get("/account/activities/FILL", {"page_size": 101})


def test_the_activity_need_not_be_named_like_the_execution() -> None:
    with opened(PRICES, switches=Switches(partial_percent=0, activity_is_execution=False)) as server:
        order(client(server), "buy 1 SPY")
        execution = server.account().book.orders[0].executions[0]
        assert client(server).get("/account/activities/FILL")[0]["id"].endswith(execution.activity_id)
        assert execution.activity_id != execution.execution_id


# --- the exchange ----------------------------------------------------------------------------------------------------------


def test_the_clock_knows_sessions_and_half_days() -> None:
    with LoopbackServer([bar("SPY 2026-11-25T20:59 100"), bar("SPY 2026-11-27T14:30 100")]) as server:
        trading = client(server, raw=False)
        closed = trading.get_clock()
        assert (closed.is_open, closed.next_open.isoformat()) == (False, "2026-11-25T09:30:00-05:00")
        server.play_until(at("2026-11-27T15:00"))
        half = trading.get_clock()
        assert (half.is_open, half.next_close.isoformat()) == (True, "2026-11-27T13:00:00-05:00")
        assert half.next_open.isoformat() == "2026-11-30T09:30:00-05:00"
        days = trading.get_calendar(GetCalendarRequest(start=date(2026, 11, 25), end=date(2026, 11, 28)))
        assert [(day.date, day.close.hour) for day in days] == [(date(2026, 11, 25), 16), (date(2026, 11, 27), 13)]
        raw = client(server).get("/calendar", {"start": "2026-11-27", "end": "2026-11-27"})
        assert raw == [
            {
                "date": "2026-11-27",
                "open": "09:30",
                "close": "13:00",
                "session_open": "0400",
                "session_close": "1700",
                "settlement_date": "2026-11-30",
            }
        ]


def test_assets_are_the_symbols_of_the_bars() -> None:
    with opened(PRICES) as server:
        trading = client(server, raw=False)
        assert [asset.symbol for asset in trading.get_all_assets()] == ["QQQ", "SPY"]
        spy = trading.get_asset("SPY")
        assert spy.fractionable
        assert trading.get_asset(str(spy.id)).symbol == "SPY"
        assert not trading.get_account_configurations().no_shorting


def test_requests_are_limited_where_the_switch_says_so() -> None:
    with opened(PRICES, switches=Switches(requests_per_minute=3), accounts=account_specs(2)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)

        def ask(key: str) -> tuple[int, str | None, bytes]:
            connection.request("GET", "/v2/clock", headers={"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": SECRET})
            response = connection.getresponse()
            return response.status, response.getheader("X-RateLimit-Remaining"), response.read()

        assert [ask(KEY)[:2] for _ in range(4)] == [(200, "2"), (200, "1"), (200, "0"), (429, "0")]
        assert json.loads(ask(KEY)[2]) == {"code": 42910000, "message": "rate limit exceeded"}
        assert ask("PKLOOPBACK2")[0] == 200
        connection.close()


# --- market data -----------------------------------------------------------------------------------------------------------


def test_bars_that_were_played_are_read_page_by_page() -> None:
    with opened(list(sample_bars(sessions=2))) as server:
        server.step(100)
        data = history(server)
        wanted: dict[str, Any] = {
            "symbol_or_symbols": ["SYNA", "SYNB"],
            "timeframe": TimeFrame.Minute,
            "adjustment": Adjustment.RAW,
        }
        bars = data.get_stock_bars(StockBarsRequest(**wanted)).data
        assert [len(bars[symbol]) for symbol in ("SYNA", "SYNB")] == [100, 100]
        assert bars["SYNA"][0].timestamp == OPENING
        known = server.market.history["SYNA"][7]
        assert (bars["SYNA"][7].open, bars["SYNA"][7].volume) == (float(known.open), known.volume)
        path = {"symbols": "SYNA,SYNB", "timeframe": "1Min", "limit": "70"}
        pages = [data.get("/stocks/bars", path)]
        while token := pages[-1]["next_page_token"]:
            pages.append(data.get("/stocks/bars", {**path, "page_token": token}))
        assert [sum(len(rows) for rows in page["bars"].values()) for page in pages] == [70, 70, 60]
        assert [list(page["bars"]) for page in pages] == [["SYNA"], ["SYNA", "SYNB"], ["SYNB"]]
        part = data.get_stock_bars(
            StockBarsRequest(symbol_or_symbols="SYNA", timeframe=TimeFrame.Minute, start=at("14:40"), end=at("14:44"))
        )
        assert [one.timestamp.minute for one in part.data["SYNA"]] == [40, 41, 42, 43, 44]
        assert data.get("/stocks/bars", {"symbols": "NONE", "timeframe": "1Min"})["bars"] == {}


def test_longer_bars_are_made_of_minutes() -> None:
    with opened(PRICES) as server:
        server.step(6)
        data = history(server)

        def first(frame: TimeFrame) -> tuple[datetime, float, float, float]:
            one = data.get_stock_bars(StockBarsRequest(symbol_or_symbols="SPY", timeframe=frame)).data["SPY"][0]
            return one.timestamp, one.open, one.close, one.volume

        assert first(TimeFrame(5, TimeFrameUnit.Minute)) == (OPENING, 100, 104, 5000)
        assert first(TimeFrame.Hour) == (at("14:00"), 100, 105, 6000)
        assert first(TimeFrame.Day) == (datetime(2026, 1, 5, 5, tzinfo=UTC), 100, 105, 6000)
        assert first(TimeFrame.Week) == (datetime(2026, 1, 5, 5, tzinfo=UTC), 100, 105, 6000)
        with pytest.raises(APIError, match="invalid timeframe"):
            data.get("/stocks/bars", {"symbols": "SPY", "timeframe": "1Moon"})


def test_the_latest_bar_quote_and_trade() -> None:
    with opened(PRICES) as server:
        server.step(2)
        data = history(server)
        assert data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="SPY"))["SPY"].close == 101
        quote = data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="SPY"))["SPY"]
        assert (quote.bid_price, quote.ask_price) == (101.99, 102.01)
        trade = data.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="SPY"))["SPY"]
        assert trade.price == 102


# --- by hand, and by itself ------------------------------------------------------------------------------------------------


def test_orders_by_hand_are_those_of_nobodys_program() -> None:
    with opened(PRICES) as server, updates(server) as listening:
        server.by_hand(KEY, "SPY", Side.BUY, Decimal(7))
        assert client(server).get("/positions/SPY")["qty"] == "7"
        heard = listening.until(3)[0]["data"]["order"]
        assert len(heard["client_order_id"]) == 36
        server.close_by_hand(KEY, "SPY")
        assert client(server).get("/positions") == []


def test_with_a_speed_the_market_plays_by_itself_and_jumps_over_the_night() -> None:
    days = [*flat(1), *(bar(f"SPY 2026-01-06T14:{minute} 101") for minute in range(30, 40))]
    with LoopbackServer(days, speed=300_000, accounts=(AccountSpec(),)) as server:
        until(lambda: server.market.is_over)
        assert len(server.market.history["SPY"]) == 400
        assert server.clock.now() - OPENING > timedelta(hours=24)


def test_bars_of_extended_hours_are_history_and_no_order_meets_them() -> None:
    with LoopbackServer([bar("SPY 13:00 90"), bar("SPY 14:30 100"), bar("SPY 14:31 101")], switches=WHOLE) as server:
        trading = client(server)
        early = order(trading, "buy 1 SPY limit 95 gtc")
        server.step(7)
        assert len(server.market.history["SPY"]) == 3
        assert status_of(trading, early) == "new"
