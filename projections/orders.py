"""What became of each order? One row per order, as it stands now.

States follow `mqd_ledger.orders.TRANSITIONS`, the same table by which decisions go.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from mqd_ledger import events as e
from mqd_ledger.orders import Trigger
from mqd_ledger.values import OrderState
from projections.shape import Kind, Meta, Statement, Table, amount, amount_or_none, at

NAME = "orders"
VERSION = 2

ORDERS = Table(
    "orders",
    key=("client_order_id",),
    columns={
        "client_order_id": Kind.TEXT,
        "strategy": Kind.TEXT,  # "" for an operator's order
        "symbol": Kind.TEXT,
        "side": Kind.TEXT,
        "order_type": Kind.TEXT,
        "quantity": Kind.DECIMAL,
        "notional": Kind.DECIMAL,
        "limit_price": Kind.DECIMAL,
        "stop_price": Kind.DECIMAL,
        "trail_price": Kind.DECIMAL,
        "trail_percent": Kind.DECIMAL,
        "time_in_force": Kind.TEXT,
        "extended_hours": Kind.BOOLEAN,
        "state": Kind.TEXT,
        "reason": Kind.TEXT,  # of a denial, a rejection, a cancel, an expiry or a replacement
        "approved": Kind.BOOLEAN,
        "attempts": Kind.INTEGER,
        "broker_order_id": Kind.TEXT,
        "cancel_requested": Kind.BOOLEAN,
        "filled_quantity": Kind.DECIMAL,
        "leaves_quantity": Kind.DECIMAL,  # zero for an order by notional
        "filled_notional": Kind.DECIMAL,
        "average_fill_price": Kind.DECIMAL,
        "commission": Kind.DECIMAL,
        "executions": Kind.INTEGER,
        "requested_at": Kind.TIME,
        "submitted_at": Kind.TIME,
        "changed_at": Kind.TIME,
        "position": Kind.INTEGER,  # of the request in the log
        "replaces": Kind.TEXT,  # client_order_id
        "replacement_id": Kind.TEXT,  # client_order_id of the order that was asked for in its place, or that took it
    },
)
TABLES = (ORDERS,)

_APPROVED = "update orders set approved = 1, changed_at = ? where client_order_id = ?"
_SENT = "update orders set attempts = ?, changed_at = ? where client_order_id = ?"
_SUBMITTED = """update orders set broker_order_id = ?, submitted_at = ?, state = order_state(state, ?), changed_at = ?
    where client_order_id = ?"""
_ENDED = """update orders set reason = ?1, state = order_state(state, ?2), changed_at = ?3
    where client_order_id = ?4 and state != order_state(state, ?2)"""
_CANCEL = "update orders set cancel_requested = ?, changed_at = ? where client_order_id = ?"
_EXECUTED = """update orders set state = order_state(state, ?), changed_at = ?, executions = executions + ?,
    filled_quantity = decimal_add(filled_quantity, ?), filled_notional = decimal_add(filled_notional, ?),
    commission = decimal_add(commission, ?) where client_order_id = ?"""
_SUMMED = """update orders set leaves_quantity = decimal_left(quantity, filled_quantity),
    average_fill_price = decimal_ratio(filled_notional, filled_quantity) where client_order_id = ?"""

_REPLACING = "update orders set replacement_id = ?, changed_at = ? where client_order_id = ?"
_REPLACEMENT = """insert or ignore into orders select ?1, strategy, symbol, side, order_type, ?2, notional, ?3, ?4, trail_price,
    trail_percent, ?5, extended_hours, 'SUBMITTED', null, approved, 1, ?6, 0, '0', ?2, '0', null, '0', 0, ?7, ?7, ?7, ?8,
    client_order_id, null from orders where client_order_id = ?9"""


def _requested(event: e.OrderRequested, meta: Meta) -> Iterator[Statement]:
    yield (
        ORDERS.insert,
        (
            event.client_order_id,
            event.strategy,
            event.symbol,
            event.side,
            event.order_type,
            amount_or_none(event.quantity),
            amount_or_none(event.notional),
            amount_or_none(event.limit_price),
            amount_or_none(event.stop_price),
            amount_or_none(event.trail_price),
            amount_or_none(event.trail_percent),
            event.time_in_force,
            int(event.extended_hours),
            OrderState.PENDING,
            *(None, 0, 0, None, 0),
            "0",
            "0" if event.quantity is None else amount(event.quantity),
            *("0", None, "0", 0),
            at(event.occurred_at),
            None,
            at(event.occurred_at),
            meta.position,
            *(None, None),
        ),
    )


def _adopted(event: e.OrderAdopted, meta: Meta) -> Iterator[Statement]:
    """How it came about is not known; the broker has it."""
    when = at(event.occurred_at)
    yield (
        ORDERS.insert,
        (
            event.client_order_id,
            "",
            event.symbol,
            event.side,
            event.order_type,
            amount_or_none(event.quantity),
            amount_or_none(event.notional),
            amount_or_none(event.limit_price),
            amount_or_none(event.stop_price),
            *(None, None),
            event.time_in_force,
            0,
            OrderState.SUBMITTED,
            *(None, 1, 0, event.broker_order_id, 0),
            *("0", "0" if event.quantity is None else amount(event.quantity), "0", None, "0", 0),
            when,
            when,
            when,
            meta.position,
            *(None, None),
        ),
    )


def _approved(event: e.OrderApproved, _meta: Meta) -> Iterator[Statement]:
    yield _APPROVED, (at(event.occurred_at), event.client_order_id)


def _denied(event: e.OrderDenied, _meta: Meta) -> Iterator[Statement]:
    yield _ended(event, Trigger.DENIED, " ".join(event.reasons))


def _sent(event: e.OrderSent, _meta: Meta) -> Iterator[Statement]:
    yield _SENT, (event.attempt, at(event.occurred_at), event.client_order_id)


def _submitted(event: e.OrderSubmitted, _meta: Meta) -> Iterator[Statement]:
    when = at(event.occurred_at)
    yield _SUBMITTED, (event.broker_order_id, when, Trigger.SUBMITTED, when, event.client_order_id)


def _ended(event: e.OrderEvent, trigger: Trigger, reason: str) -> Statement:
    """The first word counts: an order that has ended keeps its reason."""
    return _ENDED, (reason, trigger, at(event.occurred_at), event.client_order_id)


def _ends(trigger: Trigger) -> Callable[[Any, Meta], Iterator[Statement]]:
    def ended(event: e.OrderRejected | e.OrderCanceled | e.OrderExpired, _meta: Meta) -> Iterator[Statement]:
        yield _ended(event, trigger, event.reason)

    return ended


def _cancel(requested: int) -> Callable[[Any, Meta], Iterator[Statement]]:
    def changed(event: e.CancelRequested | e.CancelRejected, _meta: Meta) -> Iterator[Statement]:
        yield _CANCEL, (requested, at(event.occurred_at), event.client_order_id)

    return changed


def _replacing(event: e.ReplaceRequested | e.ReplaceRejected, _meta: Meta) -> Iterator[Statement]:
    replacement_id = event.replacement_id if isinstance(event, e.ReplaceRequested) else None
    yield _REPLACING, (replacement_id, at(event.occurred_at), event.client_order_id)


def _replaced(event: e.OrderReplaced, meta: Meta) -> Iterator[Statement]:
    """The replacement lives on with what the broker says of it, and all else of the order that it replaces."""
    when = at(event.occurred_at)
    yield _REPLACING, (event.replacement_id, when, event.client_order_id)
    yield _ended(event, Trigger.REPLACED, f"replaced by {event.replacement_id}")
    prices = amount_or_none(event.limit_price), amount_or_none(event.stop_price)
    described = (amount(event.quantity), *prices, event.time_in_force, event.broker_order_id, when, meta.position)
    yield _REPLACEMENT, (event.replacement_id, *described, event.client_order_id)


def _filled(event: e.OrderFilled, _meta: Meta) -> Iterator[Statement]:
    trigger = Trigger.PARTIAL_FILL if event.leaves_quantity else Trigger.FULL_FILL
    notional, when = amount(event.last_quantity * event.last_price), at(event.occurred_at)
    quantity, commission = amount(event.last_quantity), amount(event.commission)
    yield _EXECUTED, (trigger, when, 1, quantity, notional, commission, event.client_order_id)
    yield _SUMMED, (event.client_order_id,)


def _busted(event: e.ExecutionBusted, _meta: Meta) -> Iterator[Statement]:
    notional, when = amount(-event.last_quantity * event.last_price), at(event.occurred_at)
    quantity, commission = amount(-event.last_quantity), amount(-event.commission)
    yield _EXECUTED, (Trigger.BUSTED, when, -1, quantity, notional, commission, event.client_order_id)
    yield _SUMMED, (event.client_order_id,)


def _corrected(event: e.ExecutionCorrected, _meta: Meta) -> Iterator[Statement]:
    notional = event.last_quantity * event.last_price - event.previous_quantity * event.previous_price
    quantity, when = event.last_quantity - event.previous_quantity, at(event.occurred_at)
    yield _EXECUTED, (Trigger.CORRECTED, when, 0, amount(quantity), amount(notional), "0", event.client_order_id)
    yield _SUMMED, (event.client_order_id,)


_APPLY: Mapping[type[e.Event], Callable[[Any, Meta], Iterator[Statement]]] = MappingProxyType(
    {
        e.OrderRequested: _requested,
        e.OrderAdopted: _adopted,
        e.OrderApproved: _approved,
        e.OrderDenied: _denied,
        e.OrderSent: _sent,
        e.OrderSubmitted: _submitted,
        e.OrderRejected: _ends(Trigger.REJECTED),
        e.OrderCanceled: _ends(Trigger.CANCELED),
        e.OrderExpired: _ends(Trigger.EXPIRED),
        e.CancelRequested: _cancel(1),
        e.CancelRejected: _cancel(0),
        e.ReplaceRequested: _replacing,
        e.ReplaceRejected: _replacing,
        e.OrderReplaced: _replaced,
        e.OrderFilled: _filled,
        e.ExecutionBusted: _busted,
        e.ExecutionCorrected: _corrected,
    }
)
READS = tuple(_APPLY)


def apply(event: e.Event, meta: Meta) -> Iterator[Statement]:
    return _APPLY[type(event)](event, meta)
