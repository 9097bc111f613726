"""Alpaca's JSON becomes the market's nouns: exactly, whatever else stands in it, and one bad object never costs the others."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from alpaca.trading.enums import OrderStatus
from hypothesis import given
from hypothesis import strategies as st

from mqd_ledger.brokers import alpaca_reading as reading
from mqd_ledger.brokers.alpaca_reading import STATUSES, Unreadable, order_of, read, time_of
from mqd_ledger.brokers.base import BrokerFill
from mqd_ledger.orders import TERMINAL
from mqd_ledger.values import OrderState, OrderType, Side, TimeInForce
from tests.dsl import OPENING, D
from tests.test_alpaca_updates import snapshot

ACCOUNT = {
    "account_number": "PA3LOOPBACK1",
    "status": "ACTIVE",
    "cash": "100000.10",
    "equity": "100500",
    "buying_power": "200000",
    "trading_blocked": False,
}
FILL = {
    "activity_type": "FILL",
    "id": "20260105093000176::0ef90479-4a4a-44e4-b7a2-000000000001",
    "order_id": "b1",
    "symbol": "SPY",
    "side": "sell_short",
    "type": "partial_fill",
    "price": "190.05",
    "qty": "4",
    "cum_qty": "6",
    "leaves_qty": "4",
    "transaction_time": "2026-01-05T14:30:00.176482Z",
}


def test_every_status_of_the_sdk_has_its_row_and_only_ends_are_ends() -> None:
    assert {status.value for status in OrderStatus} <= STATUSES.keys()
    assert {name for name, row in STATUSES.items() if row.ended} == {
        "filled",
        "canceled",
        "expired",
        "rejected",
        "replaced",
    }
    assert all((row.state in TERMINAL) == bool(row.ended) for row in STATUSES.values())


def test_an_order_is_read_to_the_last_digit() -> None:
    order = order_of(
        snapshot(qty="123456789.123456789", limit_price="0.1234", type="stop_limit", stop_price=Decimal("0.12"))
    )
    assert (order.quantity, order.limit_price, order.stop_price) == (D("123456789.123456789"), D("0.1234"), D("0.12"))
    assert (order.side, order.order_type, order.time_in_force) == (Side.BUY, OrderType.STOP_LIMIT, TimeInForce.DAY)
    assert order.created_at == OPENING + timedelta(microseconds=123456)
    assert order.updated_at == OPENING + timedelta(seconds=1.5)
    assert order.raw["created_at"] == "2026-01-05T14:30:00.123456789Z"


def test_what_is_not_needed_may_be_missing_new_or_odd() -> None:
    bare = {
        name: snapshot()[name]
        for name in ("id", "client_order_id", "symbol", "side", "type", "time_in_force", "submitted_at", "status")
    }
    order = order_of({**bare, "subtag": {"new": [1]}, "legs": 7})
    assert (order.quantity, order.filled_quantity, order.replaces) == (None, D(0), "")
    odd = order_of({**bare, "status": "quantum", "filled_qty": "3"})
    assert (odd.status, odd.state) == ("quantum", None)


def test_an_order_with_a_part_filled_says_so_whatever_else_is_pending() -> None:
    assert order_of(snapshot(status="pending_cancel", filled_qty="3")).state is OrderState.PARTIALLY_FILLED
    assert order_of(snapshot(status="canceled", filled_qty="3")).state is OrderState.CANCELED


def test_one_bad_object_costs_nothing_but_itself() -> None:
    found = read([snapshot("a"), snapshot("b", time_in_force="whenever"), None, snapshot("c")], "order", order_of)
    assert [order.client_order_id for order in found.items] == ["a", "c"]
    assert len(found.problems) == 2
    assert "Found time_in_force 'whenever'; known are day," in found.problems[0]
    assert read({"message": "no list"}, "order", order_of).problems == (
        'Instead of a list of orders Alpaca sent {"message": "no list"}.',
    )


@pytest.mark.parametrize(
    ("text", "microseconds"),
    (
        ("2026-01-05T14:30:00Z", 0),
        ("2026-01-05T14:30:00.1Z", 100_000),
        ("2026-01-05T09:30:00.123456-05:00", 123_456),
        ("2026-01-05T09:30:00.123456789-05:00", 123_456),
        ("2026-01-05T14:30:00.999999999+00:00", 999_999),
    ),
)
def test_a_time_is_utc_and_cut_to_microseconds(text: str, microseconds: int) -> None:
    assert time_of(text) == OPENING + timedelta(microseconds=microseconds)


@pytest.mark.parametrize(
    "text", (None, 7, "", "tomorrow", "2026-01-05", "2026-01-05T14:30:00", "0001-01-01T00:00:00+14:00")
)
def test_what_is_no_instant_is_none(text: object) -> None:
    assert time_of(text) is None


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.integers(-14 * 60, 14 * 60),
    st.integers(0, 9),
    st.integers(0, 999),
)
def test_any_offset_and_any_number_of_digits_is_the_same_instant(
    at: datetime, minutes: int, digits: int, rest: int
) -> None:
    local = at.astimezone(timezone(timedelta(minutes=minutes)))
    fraction = f"{local.microsecond:06d}{rest:03d}"[:digits]
    text = f"{local:%Y-%m-%dT%H:%M:%S}{'.' if fraction else ''}{fraction}{local.isoformat()[-6:]}"
    assert time_of(text) == at.replace(microsecond=int(fraction[:6].ljust(6, "0")))


@pytest.mark.parametrize(
    ("changes", "reason"),
    (
        ({}, ""),
        ({"trading_blocked": True}, "trading_blocked"),
        ({"account_blocked": True, "trade_suspended_by_user": True}, "account_blocked, trade_suspended_by_user"),
        ({"status": "ACCOUNT_CLOSED_PENDING"}, "status ACCOUNT_CLOSED_PENDING"),
        ({"status": None}, "status missing"),
    ),
)
def test_an_account_says_whether_it_would_take_an_order(changes: dict[str, Any], reason: str) -> None:
    account = reading.account_of({**ACCOUNT, **changes}, "paper")
    assert (account.is_blocked, account.blocked_because) == (bool(reason), reason)
    assert (account.cash, account.equity, account.buying_power) == (D("100000.10"), D(100500), D(200000))


def test_an_account_without_its_money_is_not_guessed() -> None:
    with pytest.raises(Unreadable, match="Found no cash"):
        reading.account_of({**ACCOUNT, "cash": None}, "paper")
    moved = {name: value for name, value in ACCOUNT.items() if name != "equity"}
    assert reading.account_of({**moved, "portfolio_value": "7"}, "paper").equity == 7


@pytest.mark.parametrize(
    ("side", "quantity", "signed"), (("long", "5", 5), ("short", "-5", -5), ("short", "5", -5), (None, "-5", -5))
)
def test_a_short_is_short_with_or_without_its_minus(side: str | None, quantity: str, signed: int) -> None:
    raw = {"symbol": "SPY", "qty": quantity, "side": side, "avg_entry_price": "100"}
    position = reading.position_of(raw)
    assert (position.quantity, position.current_price) == (D(signed), None)


def test_an_activity_is_an_execution_with_its_name_after_the_local_time() -> None:
    fill = reading.fill_of(FILL)
    assert fill.execution_id == "0ef90479-4a4a-44e4-b7a2-000000000001"
    assert (fill.side, fill.quantity, fill.price, fill.cumulative_quantity) == (Side.SELL, D(4), D("190.05"), D(6))
    for bad in ({"qty": "0"}, {"price": None}, {"cum_qty": None}, {"side": "up"}, {"transaction_time": "2026-01-05"}):
        with pytest.raises(Unreadable):
            reading.fill_of({**FILL, **bad})


def test_money_that_moved_without_a_trade() -> None:
    raw = {
        "activity_type": "DIV",
        "id": "20260105000000000::x",
        "date": "2026-01-05",
        "net_amount": "1.02",
        "symbol": "T",
    }
    movement = reading.movement_of(raw)
    assert (movement.kind, movement.amount, movement.symbol, movement.quantity) == ("DIV", D("1.02"), "T", D(0))
    assert movement.occurred_at == datetime(2026, 1, 5, tzinfo=UTC)
    assert reading.movement_of({**raw, "transaction_time": "2026-01-05T14:30:00Z"}).occurred_at == OPENING
    with pytest.raises(Unreadable, match="Found date 'soon'"):
        reading.movement_of({**raw, "date": "soon"})


@given(st.permutations(range(6)))
def test_executions_come_in_time_but_never_against_their_orders_count(places: list[int]) -> None:
    def row(order: str, cumulative: int, second: int) -> BrokerFill:
        at = OPENING + timedelta(seconds=second)
        return BrokerFill(f"{order}{cumulative}", order, "SPY", Side.BUY, D(1), D(1), D(cumulative), at)

    rows = [row("a", 1, 5), row("a", 2, 5), row("a", 3, 2), row("b", 1, 1), row("b", 2, 6), row("c", 1, 4)]
    shuffled = [rows[place] for place in places]
    assert [fill.execution_id for fill in reading.in_order(shuffled)] == ["b1", "c1", "a1", "a2", "a3", "b2"]
