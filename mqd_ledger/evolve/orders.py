"""Orders and their executions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import structs

from mqd_ledger import events as e
from mqd_ledger import naming
from mqd_ledger.evolve.money import equity_changed, hold, pay
from mqd_ledger.orders import Order, Trigger, transition
from mqd_ledger.state import EXECUTIONS_KEPT, ORDERS_KEPT, Execution, State
from mqd_ledger.values import ZERO, OrderState


def requested(state: State, event: e.OrderRequested) -> None:
    state.orders_requested += 1
    state.orders_total += 1
    # An Order begins with the fields of its request, in their order.
    fields: list[Any] = [*structs.astuple(event)[1:], event.occurred_at]
    follow(state, Order(*fields))


def adopted(state: State, event: e.OrderAdopted) -> None:
    order = Order(
        event.client_order_id,
        "",
        event.symbol,
        event.side,
        event.order_type,
        event.quantity,
        event.notional,
        event.limit_price,
        event.stop_price,
        trail_price=None,
        trail_percent=None,
        time_in_force=event.time_in_force,
        extended_hours=False,
        requested_at=event.occurred_at,
        state=OrderState.SUBMITTED,
        approved=True,
        broker_order_id=event.broker_order_id,
        submitted_at=event.occurred_at,
    )
    follow(state, order)
    naming.take(event.client_order_id, state)


def follow(state: State, order: Order) -> None:
    state.orders[order.client_order_id] = order
    state.working.setdefault(order.symbol, {})[order.client_order_id] = order


def move(state: State, order: Order, trigger: Trigger) -> None:
    was_working = order.is_working
    order.state = transition(order.state, trigger).to
    if was_working and not order.is_working:
        of_symbol = state.working[order.symbol]
        del of_symbol[order.client_order_id]
        if not of_symbol:
            del state.working[order.symbol]
        state.closed_orders.append(order.client_order_id)
        if len(state.closed_orders) > ORDERS_KEPT:
            del state.orders[state.closed_orders.popleft()]


def approved(state: State, event: e.OrderApproved) -> None:
    order = state.orders[event.client_order_id]
    order.approved = True
    state.day.orders += 1
    state.week.orders += 1
    size = order.quantity if order.quantity is not None else order.notional
    assert size is not None
    state.recent_requests[order.symbol, order.side, size] = order.requested_at


def denied(state: State, event: e.OrderDenied) -> None:
    state.denied_total += 1
    move(state, state.orders[event.client_order_id], Trigger.DENIED)


def sent(state: State, event: e.OrderSent) -> None:
    state.orders[event.client_order_id].attempts = event.attempt


def submitted(state: State, event: e.OrderSubmitted) -> None:
    order = state.orders[event.client_order_id]
    order.broker_order_id, order.submitted_at = event.broker_order_id, event.occurred_at
    move(state, order, Trigger.SUBMITTED)


def cancel_requested(state: State, event: e.CancelRequested) -> None:
    state.orders[event.client_order_id].cancel_requested = True


def cancel_rejected(state: State, event: e.CancelRejected) -> None:
    state.orders[event.client_order_id].cancel_requested = False


def anomaly_found(state: State, event: e.OrderAnomalyFound) -> None:
    if isinstance(event.status, str):
        state.orders[event.client_order_id].unknown_statuses.append(event.status)


def replace_requested(state: State, event: e.ReplaceRequested) -> None:
    """The replacement takes the next number, whether or not it ever lives."""
    state.orders_requested += 1
    state.orders[event.client_order_id].replacement_id = event.replacement_id


def replaced(state: State, event: e.OrderReplaced) -> None:
    old = state.orders[event.client_order_id]
    old.ends += (Trigger.REPLACED,)
    move(state, old, Trigger.REPLACED)
    if event.replacement_id in state.orders:  # its own acknowledgement was faster
        return
    state.orders_total += 1
    new = dataclasses.replace(
        old,
        client_order_id=event.replacement_id,
        quantity=event.quantity,
        limit_price=event.limit_price,
        stop_price=event.stop_price,
        time_in_force=event.time_in_force,
        requested_at=event.occurred_at,
        state=OrderState.SUBMITTED,
        attempts=1,
        broker_order_id=event.broker_order_id,
        submitted_at=event.occurred_at,
        cancel_requested=False,
        replacement_id="",
        ends=(),
        filled_quantity=ZERO,
        filled_notional=ZERO,
        executions=0,
        spans=[],
        unknown_statuses=[],
        triggered_at=None,
    )
    follow(state, new)


def replace_rejected(state: State, event: e.ReplaceRejected) -> None:
    state.orders[event.client_order_id].replacement_id = ""


def moves(trigger: Trigger) -> Callable[[State, Any], None]:
    def moved(state: State, event: e.OrderEvent) -> None:
        order = state.orders[event.client_order_id]
        order.ends += (trigger,)
        move(state, order, trigger)

    return moved


def filled(state: State, event: e.OrderFilled) -> None:
    order = state.orders[event.client_order_id]
    signed = order.signed(event.last_quantity)
    order.filled_quantity = event.filled_quantity
    order.filled_notional += event.last_quantity * event.last_price
    order.executions += 1
    end = event.cumulative_quantity
    if not isinstance(end, msgspec.UnsetType):
        order.spans.append((end - event.last_quantity, end, event.execution_id))
    state.fills_total += 1
    state.last_execution_at = max(state.last_execution_at, event.occurred_at)
    remember(state, event.execution_id, Execution(event.client_order_id, signed, event.last_price, event.commission))
    hold(state, event.symbol, signed, event.last_price, event.occurred_at)
    pay(state, event.commission)
    state.commissions += event.commission
    equity_changed(state)
    move(state, order, Trigger.PARTIAL_FILL if event.leaves_quantity else Trigger.FULL_FILL)


def _forget_span(order: Order, execution_id: str) -> None:
    order.spans = [span for span in order.spans if span[2] != execution_id]


def remember(state: State, execution_id: str, execution: Execution) -> None:
    state.executions[execution_id] = execution
    if len(state.executions) > EXECUTIONS_KEPT:
        del state.executions[next(iter(state.executions))]


def busted(state: State, event: e.ExecutionBusted) -> None:
    order = state.orders[event.client_order_id]
    execution = state.executions.get(event.execution_id)
    if execution is None:  # never seen: remembered, so that it is not booked should it still arrive
        remember(state, event.execution_id, Execution(event.client_order_id, ZERO, event.last_price, ZERO, busted=True))
        return
    execution.busted = True
    _forget_span(order, event.execution_id)
    order.filled_quantity -= event.last_quantity
    order.filled_notional -= event.last_quantity * event.last_price
    hold(state, event.symbol, -order.signed(event.last_quantity), event.last_price, event.occurred_at)
    pay(state, -event.commission)
    state.commissions -= event.commission
    equity_changed(state)
    move(state, order, Trigger.BUSTED)


def corrected(state: State, event: e.ExecutionCorrected) -> None:
    order = state.orders[event.client_order_id]
    previous = state.executions[event.previous_execution_id]
    previous.busted = True
    # What the broker told of the old execution is told; how far it counts the new one nobody knows, so that it covers no more.
    order.spans = [
        (low, high, event.execution_id if name == event.previous_execution_id else name)
        for low, high, name in order.spans
    ]
    signed = order.signed(event.last_quantity)
    order.filled_quantity += event.last_quantity - event.previous_quantity
    order.filled_notional += event.last_quantity * event.last_price - event.previous_quantity * event.previous_price
    remember(state, event.execution_id, Execution(event.client_order_id, signed, event.last_price, event.commission))
    hold(state, event.symbol, -order.signed(event.previous_quantity), event.previous_price, event.occurred_at)
    hold(state, event.symbol, signed, event.last_price, event.occurred_at)
    equity_changed(state)
    move(state, order, Trigger.CORRECTED)
