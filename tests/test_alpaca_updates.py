"""What Alpaca says of orders, in any order, twice, torn or not at all: the books follow, and nothing of it stops the desk."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import Command
from commands.broker_reports import (
    ReportCanceled,
    ReportCancelRejected,
    ReportExpired,
    ReportRejected,
    ReportReplaceRejected,
    ReportSubmitted,
    ReportUnknownOrder,
    ReportUnknownStatus,
)
from commands.executions import ReportBust, ReportCorrection, ReportFill
from commands.trading import CancelOrder, ReplaceOrder
from commands.truth import ReportUnusable
from mqd_ledger import events as e
from mqd_ledger.brokers.alpaca_reading import STATUSES, order_of, read
from mqd_ledger.brokers.alpaca_updates import EVENTS, commands_of, order_commands
from mqd_ledger.values import Anomaly, OrderState
from tests.dsl import OPENING, D, Desk, books_balance, kinds

LATER = OPENING + timedelta(seconds=2)


def snapshot(client_order_id: str = "L-1-000001", **fields: object) -> dict[str, Any]:
    """An order of Alpaca's, as JSON."""
    return {
        "id": f"b-{client_order_id}",
        "client_order_id": client_order_id,
        "created_at": "2026-01-05T14:30:00.123456789Z",
        "updated_at": "2026-01-05T09:30:01.5-05:00",
        "submitted_at": "2026-01-05T14:30:00.1Z",
        "canceled_at": None,
        "symbol": "SPY",
        "asset_class": "us_equity",
        "notional": None,
        "qty": "10",
        "filled_qty": "0",
        "filled_avg_price": None,
        "type": "limit",
        "side": "buy",
        "time_in_force": "day",
        "limit_price": "100",
        "stop_price": None,
        "status": "new",
        "replaces": None,
        "replaced_by": None,
        **fields,
    }


def update(event: str, order: dict[str, Any] | None = None, **fields: object) -> dict[str, Any]:
    made = {
        "event": event,
        "timestamp": "2026-01-05T14:30:01.176482931Z",
        "order": order or snapshot(),
        "execution_id": None,
    }
    return {**made, **fields}


def fill_of(
    quantity: str, cumulative: str, execution_id: str = "x1", price: str = "100", **fields: object
) -> dict[str, Any]:
    is_all = cumulative == "10"
    order = snapshot(status="filled" if is_all else "partially_filled", filled_qty=cumulative, filled_avg_price=price)
    event = "fill" if is_all else "partial_fill"
    return update(event, order, qty=quantity, price=price, position_qty=cumulative, execution_id=execution_id, **fields)


def sent_desk() -> Desk:
    """A desk with one order on its way, L-1-000001: buy 10 SPY at 100."""
    desk = Desk()
    desk.order("BUY 10 SPY LIMIT 100")
    return desk


def heard(desk: Desk, *updates: object) -> list[e.Event]:
    return [event for one in updates for event in desk.do(*commands_of(one, desk.state, LATER))]


@pytest.mark.parametrize(
    "event", ("pending_new", "accepted", "new", "pending_cancel", "held", "restated", "calculated")
)
def test_an_order_that_is_told_of_is_acknowledged_once(event: str) -> None:
    desk = sent_desk()
    assert commands_of(update(event), desk.state, LATER) == [
        ReportSubmitted(LATER, OPENING + timedelta(seconds=1, microseconds=176482), "L-1-000001", "b-L-1-000001")
    ]
    assert kinds(heard(desk, update(event), update("new"), {"stream": "trade_updates", "data": update(event)})) == [
        "OrderSubmitted"
    ]


def test_a_fill_is_one_execution_whoever_tells_of_it_and_how_often() -> None:
    desk = sent_desk()
    commands = commands_of(fill_of("4", "4"), desk.state, LATER)
    assert [type(command) for command in commands] == [ReportFill]
    heard(desk, update("new"), fill_of("4", "4"), fill_of("4", "4"), fill_of("6", "10", "x2"), fill_of("4", "4"))
    order = desk.state.orders["L-1-000001"]
    assert (order.state, order.filled_quantity, order.executions) == (OrderState.FILLED, D(10), 2)
    books_balance(desk.state)


def test_a_fill_without_a_name_is_named_by_what_was_filled() -> None:
    desk = sent_desk()
    (command,) = commands_of(fill_of("4", "4", execution_id=None), desk.state, LATER)  # type: ignore[arg-type]
    assert isinstance(command, ReportFill)
    assert command.execution_id == "b-L-1-000001:4"


def test_a_fill_before_the_acknowledgement_is_a_fill() -> None:
    desk = sent_desk()
    heard(desk, fill_of("10", "10"), update("new"))
    order = desk.state.orders["L-1-000001"]
    assert (order.state, order.broker_order_id) == (OrderState.FILLED, "b-L-1-000001")
    found = [event.anomaly for event in desk.tape.events if isinstance(event, e.OrderAnomalyFound)]
    assert found == [Anomaly.FILL_BEFORE_ACKNOWLEDGEMENT]


def test_a_fill_after_the_cancel_is_booked() -> None:
    desk = sent_desk()
    heard(desk, update("new"), update("canceled", snapshot(status="canceled")), fill_of("4", "4"))
    assert desk.state.positions == {"SPY": 4}
    assert desk.state.orders["L-1-000001"].state is OrderState.CANCELED


def test_an_order_by_notional_is_open_until_its_last_fill() -> None:
    desk = Desk()
    desk.order("BUY $1000 SPY")
    order = snapshot(
        qty=None, notional="1000", type="market", limit_price=None, status="partially_filled", filled_qty="4"
    )
    heard(desk, update("partial_fill", order, qty="4", price="100", execution_id="x1"))
    assert desk.state.orders["L-1-000001"].is_working
    heard(desk, update("fill", {**order, "filled_qty": "10"}, qty="6", price="100", execution_id="x2"))
    assert desk.state.orders["L-1-000001"].state is OrderState.FILLED


@pytest.mark.parametrize(
    ("event", "status", "command"),
    (
        ("canceled", "canceled", ReportCanceled),
        ("expired", "expired", ReportExpired),
        ("rejected", "rejected", ReportRejected),
        ("order_cancel_rejected", "filled", ReportCancelRejected),
        ("order_replace_rejected", "new", ReportReplaceRejected),
    ),
)
def test_the_brokers_reason_goes_into_the_ledger(event: str, status: str, command: type[Command]) -> None:
    desk = sent_desk()
    for reason in ("CORPORATE_ACTION", None):
        (found,) = commands_of(update(event, snapshot(status=status), reason=reason), desk.state, LATER)
        assert isinstance(found, command)
        text: str = getattr(found, "reason", "")
        assert text == reason if reason else text


def test_an_order_of_somebody_else_is_adopted_before_anything_is_said_of_it() -> None:
    desk = sent_desk()
    order = snapshot("from-the-web-page", status="filled", filled_qty="3", qty="3", filled_avg_price="99")
    commands = commands_of(update("fill", order, qty="3", price="99", execution_id="m1"), desk.state, LATER)
    assert [type(command) for command in commands] == [ReportUnknownOrder, ReportFill]
    desk.do(*commands)
    assert desk.state.positions == {"SPY": 3}
    never = snapshot("was-never-filled", status="canceled")
    assert commands_of(update("canceled", never), desk.state, LATER) == []


def test_an_order_that_we_named_and_have_forgotten_is_not_adopted() -> None:
    desk = sent_desk()
    del desk.state.orders["L-1-000001"]
    (command,) = commands_of(update("new"), desk.state, LATER)
    assert isinstance(command, ReportUnusable)
    assert "a name that this ledger gave" in command.reason


def test_an_order_with_a_name_of_ours_that_was_never_given_halts_trading_and_is_adopted() -> None:
    """Two copies of this ledger trade, or this one has lost its end."""
    desk = sent_desk()
    assert kinds(heard(desk, update("new", snapshot("L-1-000777"))))[:2] == ["TradingHalted", "OrderAdopted"]
    assert desk.state.orders_requested == 777


def test_a_replacement_takes_its_predecessors_place_once_it_is_there() -> None:
    desk = sent_desk()
    heard(desk, update("new"))
    desk.do(ReplaceOrder(LATER, "L-1-000001", "better price", limit_price=D(101)))
    new = snapshot("L-1-000002", replaces="b-L-1-000001", limit_price="101")
    old = snapshot(status="replaced", replaced_by="b-L-1-000002")
    promised = {**new, "status": "pending_new"}
    assert order_commands(order_of(promised), desk.state, LATER) == []  # the old order may fill first
    assert heard(desk, update("replaced", old)) == []  # by what, is said next
    assert kinds(heard(desk, update("new", new))) == ["OrderReplaced"]
    assert heard(desk, update("replaced", old), update("new", new)) == []
    assert desk.state.orders["L-1-000001"].state is OrderState.CANCELED
    assert desk.state.orders["L-1-000002"].limit_price == 101


def test_a_replacement_that_is_rejected_leaves_the_old_order_as_it_was() -> None:
    desk = sent_desk()
    heard(desk, update("new"))
    desk.do(ReplaceOrder(LATER, "L-1-000001", "better price", limit_price=D(101)))
    new = snapshot("L-1-000002", replaces="b-L-1-000001", status="rejected")
    assert kinds(heard(desk, update("rejected", new))) == ["ReplaceRejected"]
    assert desk.state.orders["L-1-000001"].is_working


def test_somebody_elses_replacement_of_our_order_is_its_replacement() -> None:
    desk = sent_desk()
    heard(desk, update("new"), update("new", snapshot("by-hand", replaces="b-L-1-000001", qty="4")))
    assert desk.state.orders["L-1-000001"].state is OrderState.CANCELED
    assert desk.state.orders["by-hand"].quantity == 4


@pytest.mark.parametrize("quantity", ("-4", "4"))
@pytest.mark.parametrize("named", ("x1", None, "stream-name"))
def test_a_bust_undoes_the_execution_that_it_means(quantity: str, named: str | None) -> None:
    desk = sent_desk()
    heard(desk, update("new"), fill_of("4", "4"), fill_of("3", "7", "x2", "101"))
    after = snapshot(status="partially_filled", filled_qty="3")
    bust = update("trade_bust", after, qty=quantity, price="100", execution_id="b1", previous_execution_id=named)
    (command,) = commands_of(bust, desk.state, LATER)
    assert isinstance(command, ReportBust)
    assert (command.execution_id, command.quantity, command.price) == ("x1", D(4), D(100))
    heard(desk, bust, {**bust, "previous_execution_id": "x1"})
    assert desk.state.positions == {"SPY": 3}
    books_balance(desk.state)


def test_a_bust_of_what_was_never_told_keeps_it_from_being_booked() -> None:
    desk = sent_desk()
    bust = update("trade_bust", qty="-4", price="100", execution_id="b1", previous_execution_id="x1")
    heard(desk, update("new"), bust, fill_of("4", "4"))
    assert desk.state.positions == {}
    nameless = update("trade_bust", qty="-4", price="100")
    assert kinds(heard(desk, nameless)) == ["BrokerReportIgnored"]


@pytest.mark.parametrize("named", ("x1", "stream-name"))
def test_a_correction_changes_the_execution_that_it_means(named: str) -> None:
    desk = sent_desk()
    heard(desk, update("new"), fill_of("4", "4"), fill_of("3", "7", "x2"))
    after = snapshot(status="partially_filled", filled_qty="5")
    fix = update("trade_correct", after, qty="2", price="99.5", execution_id="c1", previous_execution_id=named)
    (command,) = commands_of(fix, desk.state, LATER)
    assert isinstance(command, ReportCorrection)
    assert (command.previous_execution_id, command.quantity, command.price) == ("x1", D(2), D("99.5"))
    heard(desk, fix, fix)
    assert desk.state.positions == {"SPY": 5}
    lost = update(
        "trade_correct", after, qty="9", price="99.5", execution_id="c2", previous_execution_id="nobody-knows"
    )
    assert kinds(heard(desk, lost)) == ["BrokerReportIgnored"]
    books_balance(desk.state)


def test_an_event_or_status_that_nobody_has_heard_of_is_told_once() -> None:
    desk = sent_desk()
    commands = commands_of(update("quantum_leap", snapshot(status="elsewhere")), desk.state, LATER)
    assert [type(command) for command in commands] == [ReportUnknownStatus, ReportUnknownStatus]
    desk.do(*commands)
    assert heard(desk, update("quantum_leap", snapshot(status="elsewhere"))) == []
    odd = {**fill_of("4", "4"), "order": snapshot(status="elsewhere", filled_qty="4")}
    assert kinds(heard(desk, odd))[0] == "OrderFilled"
    over = update("unheard_of", snapshot(status="canceled", filled_qty="4"))
    assert "OrderCanceled" in kinds(heard(desk, over))


@pytest.mark.parametrize(
    "torn",
    (
        None,
        "text",
        [],
        {},
        {"stream": "trade_updates", "data": None},
        {"event": "fill"},
        {"event": "fill", "order": None},
        {"order": snapshot()},
        update("fill", snapshot(symbol=None)),
        update("fill", snapshot(side="sideways")),
        update("fill", snapshot(qty="ten")),
        update("fill", snapshot(qty="NaN")),
        update("fill"),
        update("fill", qty="4", price="0"),
        update("fill", snapshot(symbol="QQQ"), qty="4", price="1"),
        update("new", snapshot(id="another-id"), qty="4", price="1"),
        update("new", snapshot("theirs", qty=None)),
    ),
)
def test_what_cannot_be_used_is_kept_as_it_came(torn: object) -> None:
    desk = sent_desk()
    heard(desk, update("new"))
    (event,) = heard(desk, torn)
    assert isinstance(event, e.BrokerReportIgnored)
    assert event.reason.endswith(".")


@pytest.mark.parametrize("status", STATUSES)
def test_an_order_as_it_stands_says_what_has_become_of_it(status: str) -> None:
    desk = sent_desk()
    order = order_of(snapshot(status=status, replaced_by="b-next", canceled_at="2026-01-05T14:31:00Z"))
    desk.do(*order_commands(order, desk.state, LATER))
    ours = desk.state.orders["L-1-000001"]
    ended = STATUSES[status].state
    told = ended if ended in (OrderState.CANCELED, OrderState.REJECTED, OrderState.EXPIRED) else OrderState.SUBMITTED
    assert ours.state is (OrderState.SUBMITTED if status == "replaced" else told)  # what replaced it is not known yet
    assert desk.do(*order_commands(order, desk.state, LATER)) == []


# --- anything at all, in any order -------------------------------------------------------------------------------------------

NAMES = ("L-1-000001", "L-1-000002", "L-1-000003", "L-1-000009", "by-hand")
IDS = st.sampled_from([*(f"b-{name}" for name in NAMES), "elsewhere"])
SNAPSHOTS = st.builds(
    snapshot,
    st.sampled_from(NAMES),
    filled_qty=st.sampled_from(["0", "1", "3", "4", "7", "10"]),
    filled_avg_price=st.sampled_from([None, "100"]),
    status=st.sampled_from([*STATUSES, "unheard_of"]),
    replaces=st.none() | st.none() | IDS,
    replaced_by=st.none() | IDS,
)
UPDATES = st.builds(
    update,
    st.sampled_from([*EVENTS, *["fill", "partial_fill", "new", "trade_bust", "trade_correct"] * 4, "unheard_of"]),
    SNAPSHOTS,
    qty=st.sampled_from(["1", "3", "4", "10", "-4"]),
    price=st.sampled_from(["100", "99.5"]),
    execution_id=st.sampled_from(["x1", "x2", "x3", "x4", None]),
    previous_execution_id=st.sampled_from(["x1", "x2", None]),
)
JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "many", "NaN", "0", "-4", 4, 2.5, True, Decimal(3), [], {}, "sell_short", "2026-01-05"]
)


@st.composite
def spoiled(draw: st.DrawFn, whole: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """Now and then one field is not what it should be."""
    made = draw(whole)
    target = made["order"] if isinstance(made.get("order"), dict) and draw(st.booleans()) else made
    if draw(st.integers(0, 5)) == 0:
        target[draw(st.sampled_from(sorted(target)))] = draw(JUNK)
    return made


@settings(max_examples=400)
@given(st.lists(spoiled(UPDATES), min_size=1, max_size=25))
def test_nothing_that_the_stream_can_say_stops_the_desk_or_unbalances_the_books(said: list[dict[str, Any]]) -> None:
    desk = sent_desk()
    desk.order("BUY 4 SPY LIMIT 99")
    for number, one in enumerate(said):
        heard(desk, one)
        if number == 3 and desk.state.orders["L-1-000001"].is_working:
            desk.do(ReplaceOrder(LATER, "L-1-000001", "better price", limit_price=D(101)))
        if number == 6 and desk.state.orders["L-1-000002"].is_working:
            desk.do(CancelOrder(LATER, "L-1-000002", "enough"))
        books_balance(desk.state)


@settings(max_examples=200)
@given(st.lists(spoiled(SNAPSHOTS), min_size=1, max_size=15))
def test_nothing_that_an_order_can_look_like_stops_the_desk(said: list[dict[str, Any]]) -> None:
    desk = sent_desk()
    for one in said:
        for order in read([one], "order", order_of).items:
            desk.do(*order_commands(order, desk.state, LATER))
        books_balance(desk.state)
