"""What the broker says of our orders. The position follows its executions, whatever the order's state should have allowed.

A report that says again what is known changes nothing; one that surprises is recorded with its `Anomaly`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from commands.base import Command, order_of
from mqd_ledger.errors import CommandRefused
from mqd_ledger.events import (
    CancelRejected,
    CancelRequested,
    Event,
    OrderAdopted,
    OrderAnomalyFound,
    OrderCanceled,
    OrderExpired,
    OrderRejected,
    OrderReplaced,
    OrderSent,
    OrderSubmitted,
    ReplaceRejected,
)
from mqd_ledger.orders import Order, Trigger, transition
from mqd_ledger.risk import HOURS
from mqd_ledger.state import State
from mqd_ledger.values import (
    Anomaly,
    Money,
    OrderState,
    OrderType,
    Price,
    Quantity,
    Side,
    Symbol,
    TimeInForce,
    TradingState,
)

# Blocks in which an order that was on its way may go out once more: a recovery is where that is asked, and that the broker has
# answered shows that requests reach it.
RESENDS_IN = frozenset({"recovery", "orders"})


class BrokerReport(Command, frozen=True, gc=False):
    """`occurred_at` is the broker's time of the fact, `at` ours of hearing it."""

    occurred_at: datetime
    client_order_id: str


class ReportSubmitted(BrokerReport, frozen=True, gc=False):
    broker_order_id: str


class ReportRejected(BrokerReport, frozen=True, gc=False):
    reason: str


class ReportCanceled(BrokerReport, frozen=True, gc=False):
    reason: str


class ReportCancelRejected(BrokerReport, frozen=True, gc=False):
    reason: str


class ReportExpired(BrokerReport, frozen=True, gc=False):
    reason: str


class ReportUnknownOrder(BrokerReport, frozen=True, gc=False):
    """The broker knows an order of this account that we never sent."""

    broker_order_id: str
    symbol: Symbol
    side: Side
    quantity: Quantity | None
    notional: Money | None = None
    order_type: OrderType = OrderType.MARKET
    limit_price: Price | None = None
    stop_price: Price | None = None
    time_in_force: TimeInForce = TimeInForce.DAY


class ReportUnknownStatus(BrokerReport, frozen=True, gc=False):
    """The broker says something of an order that no version of this program has heard of: recorded, told, and otherwise ignored."""

    status: str


class ReportAbsent(BrokerReport, frozen=True, gc=False):
    """The broker, asked by client_order_id long enough after the attempt, has no such order: the attempt never arrived."""


class ReportReplaced(BrokerReport, frozen=True, gc=False):
    """The broker put another order, described whole, in this one's place."""

    replacement_id: str
    broker_order_id: str
    quantity: Quantity
    limit_price: Price | None
    stop_price: Price | None
    time_in_force: TimeInForce


class ReportReplaceRejected(BrokerReport, frozen=True, gc=False):
    reason: str


def surprise_of(order: Order, trigger: Trigger, at: datetime) -> list[Event]:
    anomaly = transition(order.state, trigger).anomaly
    if anomaly is None:
        return []
    return [OrderAnomalyFound(at, order.client_order_id, anomaly, f"{trigger} while the order was {order.state}")]


def submitted(command: ReportSubmitted, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    if order.broker_order_id == command.broker_order_id:
        return []
    acknowledged = OrderSubmitted(command.occurred_at, command.client_order_id, command.broker_order_id)
    surprise = surprise_of(order, Trigger.SUBMITTED, command.occurred_at)
    if order.state is OrderState.CANCELED and order.broker_order_id is None:
        # It was taken for lost and is alive. Where the broker had canceled it before it said so, asking once more does no harm.
        reason = "it was canceled here before the broker acknowledged it"
        return [acknowledged, *surprise, CancelRequested(command.occurred_at, order.client_order_id, reason)]
    return [acknowledged, *surprise]


# What ends an order without a fill: the event, the trigger, and the state in which saying it again is no news.
_ENDS: Mapping[type[BrokerReport], tuple[Callable[[datetime, str, str], Event], Trigger, OrderState]] = {
    ReportRejected: (OrderRejected, Trigger.REJECTED, OrderState.REJECTED),
    ReportCanceled: (OrderCanceled, Trigger.CANCELED, OrderState.CANCELED),
    ReportExpired: (OrderExpired, Trigger.EXPIRED, OrderState.EXPIRED),
}


def ended(command: ReportRejected | ReportCanceled | ReportExpired, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    event, trigger, known = _ENDS[type(command)]
    if order.state is known or trigger in order.ends:
        return []
    surprise = surprise_of(order, trigger, command.occurred_at)
    return [event(command.occurred_at, command.client_order_id, command.reason), *surprise]


def cancel_rejected(command: ReportCancelRejected, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    if not order.cancel_requested:
        return []
    return [CancelRejected(command.occurred_at, command.client_order_id, command.reason)]


def unknown_order(command: ReportUnknownOrder, state: State) -> list[Event]:
    if command.client_order_id in state.orders:
        return []
    size = command.quantity if command.quantity is not None else command.notional
    if size is None or not (size.is_finite() and size > 0):
        raise CommandRefused(
            f"An order is of a quantity or a notional above zero; {command.client_order_id} came with {command.quantity} "
            f"and {command.notional}."
        )
    detail = f"{command.side} {size} {command.symbol} was not sent from this ledger"
    return [
        OrderAdopted(
            command.occurred_at,
            command.client_order_id,
            command.broker_order_id,
            command.symbol,
            command.side,
            command.quantity,
            command.notional,
            command.order_type,
            command.limit_price,
            command.stop_price,
            command.time_in_force,
        ),
        OrderAnomalyFound(command.occurred_at, command.client_order_id, Anomaly.UNKNOWN_ORDER, detail),
    ]


def unknown_status(command: ReportUnknownStatus, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    if command.status in order.unknown_statuses:
        return []
    detail = f"the broker says {command.status!r} of it, which this version does not know"
    return [
        OrderAnomalyFound(command.occurred_at, order.client_order_id, Anomaly.UNKNOWN_STATUS, detail, command.status)
    ]


def absent(command: ReportAbsent, state: State) -> list[Event]:
    """Sent again under the same id while the wish is young, which can make no second order; taken back when it is not."""
    order = order_of(state, command.client_order_id)
    if order.state is not OrderState.PENDING or order.broker_order_id is not None:
        return []
    rules = state.policy.unattended
    age = command.at - order.requested_at
    is_young = age <= timedelta(seconds=rules.resend_within) and order.attempts < rules.attempts_max
    is_free = state.blocks.keys() <= RESENDS_IN and order.symbol not in state.halted_symbols
    # After the close the broker would keep it for the next open.
    session = state.policy.limits.session
    is_free = is_free and (session == "any" or HOURS[session](command.at))
    if is_young and is_free and not order.cancel_requested and state.trading_state is TradingState.ACTIVE:
        return [OrderSent(command.at, order.client_order_id, order.attempts + 1)]
    reason = f"it never reached the broker in {order.attempts} attempts, and {age.total_seconds():.0f} s later it is not sent again"
    return [OrderCanceled(command.at, order.client_order_id, reason)]


def replaced(command: ReportReplaced, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    if Trigger.REPLACED in order.ends:
        return []
    return [
        OrderReplaced(
            command.occurred_at,
            command.client_order_id,
            command.replacement_id,
            command.broker_order_id,
            command.quantity,
            command.limit_price,
            command.stop_price,
            command.time_in_force,
        ),
        *surprise_of(order, Trigger.REPLACED, command.occurred_at),
    ]


def replace_rejected(command: ReportReplaceRejected, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    if not order.replacement_id:
        return []
    return [ReplaceRejected(command.occurred_at, command.client_order_id, command.reason)]


DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    ReportSubmitted: submitted,
    ReportRejected: ended,
    ReportCanceled: ended,
    ReportExpired: ended,
    ReportCancelRejected: cancel_rejected,
    ReportUnknownOrder: unknown_order,
    ReportUnknownStatus: unknown_status,
    ReportAbsent: absent,
    ReportReplaced: replaced,
    ReportReplaceRejected: replace_rejected,
}
READ_BACK: Mapping[type[Event], Callable[[Any, datetime], Command]] = {
    OrderSubmitted: lambda event, at: ReportSubmitted(
        at, event.occurred_at, event.client_order_id, event.broker_order_id
    ),
    OrderRejected: lambda event, at: ReportRejected(at, event.occurred_at, event.client_order_id, event.reason),
    OrderCanceled: lambda event, at: ReportCanceled(at, event.occurred_at, event.client_order_id, event.reason),
    OrderExpired: lambda event, at: ReportExpired(at, event.occurred_at, event.client_order_id, event.reason),
    CancelRejected: lambda event, at: ReportCancelRejected(at, event.occurred_at, event.client_order_id, event.reason),
    OrderAdopted: lambda event, at: ReportUnknownOrder(
        at,
        event.occurred_at,
        event.client_order_id,
        event.broker_order_id,
        event.symbol,
        event.side,
        event.quantity,
        event.notional,
        event.order_type,
        event.limit_price,
        event.stop_price,
        event.time_in_force,
    ),
    OrderAnomalyFound: lambda event, at: ReportUnknownStatus(
        at, event.occurred_at, event.client_order_id, event.status
    ),
    OrderSent: lambda event, _: ReportAbsent(event.occurred_at, event.occurred_at, event.client_order_id),
    OrderReplaced: lambda event, at: ReportReplaced(
        at,
        event.occurred_at,
        event.client_order_id,
        event.replacement_id,
        event.broker_order_id,
        event.quantity,
        event.limit_price,
        event.stop_price,
        event.time_in_force,
    ),
    ReplaceRejected: lambda event, at: ReportReplaceRejected(
        at, event.occurred_at, event.client_order_id, event.reason
    ),
}
