"""What the broker says of our orders. The position follows its executions, whatever the order's state should have allowed.

A report that says again what is known changes nothing; one that surprises is recorded with its `Anomaly`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import structs

from commands.base import Command, order_of
from commands.books import book, unbook
from mqd_ledger.errors import CommandRefused
from mqd_ledger.events import (
    CancelRejected,
    Event,
    ExecutionBusted,
    ExecutionCorrected,
    OrderAdopted,
    OrderAnomalyFound,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
)
from mqd_ledger.orders import Order, Trigger, transition
from mqd_ledger.state import Execution, State
from mqd_ledger.values import ZERO, Anomaly, Money, OrderState, OrderType, Price, Quantity, Side, Symbol, TimeInForce


class BrokerReport(Command, frozen=True, gc=False):
    """`occurred_at` is the broker's time of the fact, `at` ours of hearing it."""

    occurred_at: datetime
    client_order_id: str


class ReportSubmitted(BrokerReport, frozen=True, gc=False):
    broker_order_id: str


class ReportRejected(BrokerReport, frozen=True, gc=False):
    reason: str


class ReportFill(BrokerReport, frozen=True, gc=False):
    """One execution: `quantity` and `price` of this execution only. `leaves_quantity` counts where the order is by notional."""

    execution_id: str
    symbol: Symbol
    side: Side
    quantity: Quantity
    price: Price
    commission: Money = ZERO
    leaves_quantity: Quantity = ZERO


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


class ReportBust(BrokerReport, frozen=True, gc=False):
    execution_id: str
    symbol: Symbol
    side: Side
    quantity: Quantity
    price: Price
    commission: Money = ZERO


class ReportCorrection(BrokerReport, frozen=True, gc=False):
    previous_execution_id: str
    execution_id: str
    quantity: Quantity
    price: Price


def _surprise(order: Order, trigger: Trigger, at: datetime) -> list[Event]:
    anomaly = transition(order.state, trigger).anomaly
    if anomaly is None:
        return []
    return [OrderAnomalyFound(at, order.client_order_id, anomaly, f"{trigger} while the order was {order.state}")]


def submitted(command: ReportSubmitted, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    if order.broker_order_id == command.broker_order_id:
        return []
    surprise = _surprise(order, Trigger.SUBMITTED, command.occurred_at)
    return [OrderSubmitted(command.occurred_at, command.client_order_id, command.broker_order_id), *surprise]


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
    surprise = _surprise(order, trigger, command.occurred_at)
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


def fill(command: ReportFill, state: State) -> list[Event]:
    """One execution and its books, together or not at all."""
    order = order_of(state, command.client_order_id)
    if command.execution_id in state.executions:
        _is_of_this_order(order, command.execution_id, state.executions[command.execution_id])
        return []
    _is_an_execution(command.quantity, command.price, command.commission)
    if (command.symbol, command.side) != (order.symbol, order.side):
        raise CommandRefused(
            f"Execution {command.execution_id} is a {command.side} of {command.symbol}, but order {order.client_order_id} "
            f"is a {order.side} of {order.symbol}."
        )
    filled_quantity = order.filled_quantity + command.quantity
    leaves = command.leaves_quantity if order.quantity is None else max(ZERO, order.quantity - filled_quantity)
    at = command.occurred_at
    filled = OrderFilled(
        at,
        command.client_order_id,
        command.execution_id,
        command.symbol,
        command.side,
        command.quantity,
        command.price,
        command.commission,
        filled_quantity,
        leaves,
    )
    is_over = order.quantity is not None and filled_quantity > order.quantity
    # What a bust left open may be filled again: a filled order is overfilled only by what is more than was ordered.
    refills = order.state is OrderState.FILLED and order.quantity is not None and not is_over
    surprise = _surprise(order, Trigger.PARTIAL_FILL if leaves or refills else Trigger.FULL_FILL, at)
    if is_over and not surprise:
        detail = f"{filled_quantity} were filled of {order.quantity} ordered"
        surprise = [OrderAnomalyFound(at, order.client_order_id, Anomaly.OVERFILL, detail)]
    return [
        filled,
        *surprise,
        *book(order, command.execution_id, order.signed(command.quantity), command.price, at, state),
    ]


def _is_an_execution(quantity: Quantity, price: Price, commission: Money = ZERO) -> None:
    if not (quantity.is_finite() and price.is_finite() and quantity > 0 and price > 0 and commission.is_finite()):
        raise CommandRefused(
            "An execution has a quantity and a price above zero and a commission that is a number; "
            f"found {quantity} at {price}, commission {commission}."
        )


def _is_of_this_order(order: Order, execution_id: str, execution: Execution) -> None:
    if execution.client_order_id != order.client_order_id:
        raise CommandRefused(
            f"Execution {execution_id} is one of order {execution.client_order_id}, but it is reported of order "
            f"{order.client_order_id}: one execution belongs to one order."
        )


def bust(command: ReportBust, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    execution = state.executions.get(command.execution_id)
    if execution is not None:
        _is_of_this_order(order, command.execution_id, execution)
        if execution.busted:
            return []
    at = command.occurred_at
    busted = ExecutionBusted(
        at,
        command.client_order_id,
        command.execution_id,
        command.symbol,
        command.side,
        command.quantity,
        command.price,
        command.commission,
    )
    if execution is None:
        detail = f"execution {command.execution_id} ({command.quantity} at {command.price}) was undone before it was ever reported"
        nothing = structs.replace(busted, last_quantity=ZERO, commission=ZERO)  # there was nothing to take back
        return [nothing, OrderAnomalyFound(at, order.client_order_id, Anomaly.UNKNOWN_EXECUTION, detail)]
    _is_an_execution(command.quantity, command.price, command.commission)
    if (abs(execution.signed_quantity), execution.price) != (command.quantity, command.price):
        raise CommandRefused(
            f"The bust of {command.execution_id} speaks of {command.quantity} at {command.price}, "
            f"but it was booked as {abs(execution.signed_quantity)} at {execution.price}."
        )
    return [
        busted,
        *_surprise(order, Trigger.BUSTED, at),
        *unbook(order, command.execution_id, execution, at, state),
    ]


def correction(command: ReportCorrection, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    previous = state.executions.get(command.previous_execution_id)
    if command.execution_id in state.executions:
        return []
    if previous is None or previous.busted:
        raise CommandRefused(
            f"Execution {command.previous_execution_id} cannot be corrected: it is "
            + ("not known here." if previous is None else "undone already.")
        )
    _is_of_this_order(order, command.previous_execution_id, previous)
    _is_an_execution(command.quantity, command.price)
    at = command.occurred_at
    signed = order.signed(command.quantity)
    corrected = ExecutionCorrected(
        at,
        command.client_order_id,
        command.previous_execution_id,
        command.execution_id,
        order.symbol,
        order.side,
        abs(previous.signed_quantity),
        previous.price,
        command.quantity,
        command.price,
        previous.commission,
    )
    undone = unbook(order, command.previous_execution_id, previous, at, state)
    booked = book(order, command.execution_id, signed, command.price, at, state, after=undone)
    return [corrected, *_surprise(order, Trigger.CORRECTED, at), *undone, *booked]


DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    ReportSubmitted: submitted,
    ReportRejected: ended,
    ReportCanceled: ended,
    ReportExpired: ended,
    ReportCancelRejected: cancel_rejected,
    ReportUnknownOrder: unknown_order,
    ReportFill: fill,
    ReportBust: bust,
    ReportCorrection: correction,
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
    OrderFilled: lambda event, at: ReportFill(
        at,
        event.occurred_at,
        event.client_order_id,
        event.execution_id,
        event.symbol,
        event.side,
        event.last_quantity,
        event.last_price,
        event.commission,
        event.leaves_quantity,
    ),
    ExecutionBusted: lambda event, at: ReportBust(
        at,
        event.occurred_at,
        event.client_order_id,
        event.execution_id,
        event.symbol,
        event.side,
        event.last_quantity,
        event.last_price,
        event.commission,
    ),
    ExecutionCorrected: lambda event, at: ReportCorrection(
        at,
        event.occurred_at,
        event.client_order_id,
        event.previous_execution_id,
        event.execution_id,
        event.last_quantity,
        event.last_price,
    ),
}
