"""Executions as the broker reports them: filled, busted, corrected. The position follows them, whatever the order's state says."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from commands.base import Command, order_of
from commands.books import book, unbook
from commands.broker_reports import BrokerReport, surprise_of
from mqd_ledger.errors import CommandRefused
from mqd_ledger.events import (
    Event,
    ExecutionBusted,
    ExecutionCorrected,
    OrderAnomalyFound,
    OrderFilled,
)
from mqd_ledger.orders import Order, Trigger
from mqd_ledger.state import Execution, State
from mqd_ledger.values import ZERO, Anomaly, Money, OrderState, Price, Quantity, Side, Symbol


class ReportFill(BrokerReport, frozen=True, gc=False):
    """One execution: `quantity` and `price` of this execution only. `leaves_quantity` counts where the order is by notional."""

    execution_id: str
    symbol: Symbol
    side: Side
    quantity: Quantity
    price: Price
    commission: Money = ZERO
    leaves_quantity: Quantity = ZERO
    cumulative_quantity: Quantity | msgspec.UnsetType = msgspec.UNSET  # the broker's own count after it
    stated_at: str | msgspec.UnsetType = msgspec.UNSET  # the broker's time as it was written


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


def fill(command: ReportFill, state: State) -> list[Event]:
    """One execution and its books, together or not at all."""
    order = order_of(state, command.client_order_id)
    if command.execution_id in state.executions:
        _is_of_this_order(order, command.execution_id, state.executions[command.execution_id])
        return []
    _is_an_execution(command.quantity, command.price, command.commission)
    cumulative = command.cumulative_quantity
    if not isinstance(cumulative, msgspec.UnsetType) and order.covers(cumulative - command.quantity, cumulative):
        return []  # the same shares, told by another source under another name
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
        command.cumulative_quantity,
        command.stated_at,
    )
    is_over = order.quantity is not None and filled_quantity > order.quantity
    # What a bust left open may be filled again: a filled order is overfilled only by what is more than was ordered.
    refills = order.state is OrderState.FILLED and order.quantity is not None and not is_over
    surprise = surprise_of(order, Trigger.PARTIAL_FILL if leaves or refills else Trigger.FULL_FILL, at)
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
        return [busted, OrderAnomalyFound(at, order.client_order_id, Anomaly.UNKNOWN_EXECUTION, detail)]
    _is_an_execution(command.quantity, command.price, command.commission)
    if (abs(execution.signed_quantity), execution.price) != (command.quantity, command.price):
        raise CommandRefused(
            f"The bust of {command.execution_id} speaks of {command.quantity} at {command.price}, "
            f"but it was booked as {abs(execution.signed_quantity)} at {execution.price}."
        )
    return [
        busted,
        *surprise_of(order, Trigger.BUSTED, at),
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
    return [corrected, *surprise_of(order, Trigger.CORRECTED, at), *undone, *booked]


DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    ReportFill: fill,
    ReportBust: bust,
    ReportCorrection: correction,
}
READ_BACK: Mapping[type[Event], Callable[[Any, datetime], Command]] = {
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
        event.cumulative_quantity,
        event.stated_at,
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
