"""An order as Alpaca tells it, as commands to the ledger: made known to it first, then what has become of it. Pure.

An order that the ledger does not know is adopted, or, where it stands in the place of one that it knows, reported as that one's
replacement. Of an order's fills nothing is said here: they come from the stream or the activities (`alpaca_executions.py`).
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from commands import Command
from commands.broker_reports import (
    ReportCanceled,
    ReportExpired,
    ReportRejected,
    ReportReplaced,
    ReportReplaceRejected,
    ReportSubmitted,
    ReportUnknownOrder,
    ReportUnknownStatus,
)
from commands.control import HaltTrading
from commands.truth import ReportUnusable
from mqd_ledger.brokers.alpaca_reading import STATUSES, Unreadable, json_text, time_of
from mqd_ledger.brokers.base import BrokerOrder
from mqd_ledger.naming import number_of, was_given
from mqd_ledger.orders import Order, Trigger
from mqd_ledger.state import State
from mqd_ledger.values import OrderState

ORDERS = "orders"  # where something unusable came from
OLDER_COPY = "older copy"  # who halts for it: no halt for differences, which would end with them
LOST_END = (
    "the broker has orders with this ledger's name that this ledger never sent: it is an older copy, or another copy trades on "
    "this account. Make sure that no other one does; then `mqd-ledger resume` goes on with the account as it is"
)


def order_commands(order: BrokerOrder, state: State, at: datetime) -> list[Command]:
    """What the ledger may not know yet of an order as the broker tells it now; nothing of its fills."""
    try:
        introduction, is_followed = introduced(order, state, at)
        if not is_followed:
            return introduction
        return [*introduction, *standing(order, state, at), *unknown_status(order, at)]
    except Unreadable as problem:
        return [ReportUnusable(at, ORDERS, json_text(order.raw), str(problem))]


_ENDS: Mapping[OrderState, tuple[type[ReportCanceled | ReportExpired], str]] = MappingProxyType(
    {
        OrderState.CANCELED: (ReportCanceled, "canceled"),
        OrderState.EXPIRED: (ReportExpired, "its time in force has ended"),
    }
)


def standing(order: BrokerOrder, state: State, at: datetime) -> list[Command]:
    """What its status says of an order that is known."""
    row = STATUSES.get(order.status)
    if row is None:
        return []
    ended_at = time_of(order.raw.get(row.ended)) or order.updated_at
    if row.state is OrderState.REJECTED:
        return [ReportRejected(at, ended_at, order.client_order_id, order.reason or "rejected without a reason")]
    known: list[Command] = [ReportSubmitted(at, order.created_at, order.client_order_id, order.broker_order_id)]
    if order.status == "replaced":
        return [*known, *replaced_by(order, state, at, ended_at)]
    if row.state in _ENDS:
        report, otherwise = _ENDS[row.state]
        known.append(report(at, ended_at, order.client_order_id, order.reason or otherwise))
    return known


def unknown_status(order: BrokerOrder, at: datetime) -> list[Command]:
    if order.state is not None:
        return []
    return [ReportUnknownStatus(at, order.updated_at, order.client_order_id, order.status or "no status")]


def introduced(order: BrokerOrder, state: State, at: datetime) -> tuple[list[Command], bool]:
    """What makes an order known to the ledger, and whether anything else can be said of it after that."""
    ours = state.orders.get(order.client_order_id)
    if ours is not None:
        if ours.broker_order_id not in (None, order.broker_order_id):
            raise Unreadable(f"Its order is known as {ours.broker_order_id}, not as {order.broker_order_id}.")
        if (ours.symbol, ours.side) != (order.symbol, order.side):
            raise Unreadable(f"Its order is a {ours.side} of {ours.symbol}, not a {order.side} of {order.symbol}.")
        return [], True
    row = STATUSES.get(order.status)
    predecessor = _predecessor(order, state)
    if predecessor is not None:
        if row is not None and row.state is OrderState.REJECTED:
            reason = order.reason or "the replacement was rejected without a reason"
            return [ReportReplaceRejected(at, order.updated_at, predecessor.client_order_id, reason)], False
        if row is not None and row.is_promised:
            return [], False
        return [_replacement(predecessor, order, at)], True
    if was_given(order.client_order_id, state):
        raise Unreadable("It bears a name that this ledger gave, but the ledger does not know it any more.")
    if row is not None and row.ended and not order.filled_quantity:
        return [], False  # it came and went, and nothing was traded
    if number_of(order.client_order_id, state.ledger_id) is not None:
        return [HaltTrading(at, OLDER_COPY, LOST_END), _adopted(order, at)], True
    return [_adopted(order, at)], True


def _predecessor(order: BrokerOrder, state: State) -> Order | None:
    """The order in whose place an unknown one stands: we asked for it, or the broker says so."""
    for old in state.orders.values():
        is_meant = order.client_order_id == old.replacement_id or (
            order.replaces and order.replaces == old.broker_order_id
        )
        if is_meant and Trigger.REPLACED not in old.ends:
            return old
    return None


def _replacement(old: Order, new: BrokerOrder, at: datetime) -> ReportReplaced:
    if new.quantity is None:
        raise Unreadable("It stands in the place of another order and has no quantity.")
    return ReportReplaced(
        at,
        new.created_at,
        old.client_order_id,
        new.client_order_id,
        new.broker_order_id,
        new.quantity,
        new.limit_price,
        new.stop_price,
        new.time_in_force,
    )


def replaced_by(order: BrokerOrder, state: State, at: datetime, occurred_at: datetime) -> list[Command]:
    """An order gave way to another one. Nothing is said before that one is known: its own report names this one."""
    new = next(
        (new for new in state.orders.values() if order.replaced_by and new.broker_order_id == order.replaced_by), None
    )
    if new is None or new.quantity is None:
        return []
    return [
        ReportReplaced(
            at,
            occurred_at,
            order.client_order_id,
            new.client_order_id,
            order.replaced_by,
            new.quantity,
            new.limit_price,
            new.stop_price,
            new.time_in_force,
        )
    ]


def _adopted(order: BrokerOrder, at: datetime) -> ReportUnknownOrder:
    size = order.quantity if order.quantity is not None else order.notional
    if size is None or size <= 0:
        raise Unreadable("It has no size.")
    return ReportUnknownOrder(
        at,
        order.created_at,
        order.client_order_id,
        order.broker_order_id,
        order.symbol,
        order.side,
        order.quantity,
        order.notional,
        order.order_type,
        order.limit_price,
        order.stop_price,
        order.time_in_force,
    )
