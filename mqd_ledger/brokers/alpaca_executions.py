"""Executions as Alpaca tells them, as commands to the ledger: from the stream as they happen, from the activities afterwards. Pure.

The stream names an execution by its execution_id; whether an activity bears the same name is not documented. Both say how much of
the order was filled with it, and by that (`cumulative_quantity`) the ledger knows the same shares told twice.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import ROUND_HALF_EVEN
from typing import NamedTuple

import msgspec

from commands import Command
from commands.executions import ReportBust, ReportCorrection, ReportFill
from commands.truth import ReportUnusable
from mqd_ledger.brokers.alpaca_reading import (
    Raw,
    json_text,
    number,
    optional_number,
    optional_text,
    positive,
    text,
)
from mqd_ledger.brokers.base import BrokerOrder
from mqd_ledger.state import Execution, State
from mqd_ledger.values import QUANTITY_STEP, ZERO, Money, Price, Quantity

STREAM = "trade_updates"  # where something unusable came from


class Update(NamedTuple):
    """One trade update, taken apart as far as every event needs it."""

    raw: Raw
    order: BrokerOrder  # as it is afterwards
    at: datetime  # received
    occurred_at: datetime
    state: State


def _unusable(update: Update, reason: str) -> list[Command]:
    return [ReportUnusable(update.at, STREAM, json_text(update.raw), reason)]


def filled(update: Update) -> list[Command]:
    raw, order = update.raw, update.order
    quantity, price = positive(raw, "qty"), positive(raw, "price")
    execution_id = optional_text(raw, "execution_id") or f"{order.broker_order_id}:{order.filled_quantity}"
    leaves = ZERO if raw.get("event") == "fill" else _leaves(order, price)
    report = ReportFill(
        update.at,
        update.occurred_at,
        order.client_order_id,
        execution_id,
        order.symbol,
        order.side,
        quantity,
        price,
        ZERO,
        leaves,
        order.filled_quantity if order.filled_quantity >= quantity else msgspec.UNSET,
        optional_text(raw, "timestamp") or msgspec.UNSET,
    )
    return [_booked(report, update.state, update.raw, STREAM)]


def _leaves(order: BrokerOrder, price: Price) -> Quantity:
    """Only counts where the order is by notional: then the broker does not say it, and what its dollars still buy is near it."""
    if order.notional is None:
        return QUANTITY_STEP
    spent: Money = order.filled_quantity * (order.filled_average_price or price)
    left = ((order.notional - spent) / price).quantize(QUANTITY_STEP, rounding=ROUND_HALF_EVEN)
    return max(QUANTITY_STEP, left)


def _booked(report: ReportFill, state: State, raw: Raw, what: str) -> Command:
    """The report, or why it cannot be one of this order."""
    order = state.orders.get(report.client_order_id)
    if order is not None and (order.symbol, order.side) != (report.symbol, report.side):
        reason = f"It is a {report.side} of {report.symbol}, but the order is a {order.side} of {order.symbol}."
        return ReportUnusable(report.at, what, json_text(raw), reason)
    booked = state.executions.get(report.execution_id)
    if booked is not None and booked.client_order_id != report.client_order_id:
        reason = f"Execution {report.execution_id} is booked for order {booked.client_order_id} already."
        return ReportUnusable(report.at, what, json_text(raw), reason)
    return report


def busted(update: Update) -> list[Command]:
    """Quantity and price are taken from what was booked: a bust has been seen with a negative quantity."""
    raw, order, executions = update.raw, update.order, update.state.executions
    named = optional_text(raw, "previous_execution_id")
    quantity, price = abs(optional_number(raw, "qty") or ZERO), optional_number(raw, "price")
    found = _meant(update, ZERO, lambda booked: (abs(booked.signed_quantity), booked.price) == (quantity, price))
    if not found and (not named or named in executions):
        return _unusable(update, "It cannot be told which execution of the order was undone.")
    sizes = (quantity, price or ZERO, ZERO)
    if found:
        booked = executions[found]
        sizes = (abs(booked.signed_quantity), booked.price, booked.commission)
    known = (update.at, update.occurred_at, order.client_order_id)
    return [ReportBust(*known, found or named, order.symbol, order.side, *sizes)]


def corrected(update: Update) -> list[Command]:
    raw, state = update.raw, update.state
    quantity, price = abs(number(raw, "qty")), positive(raw, "price")
    execution_id = text(raw, "execution_id")
    if execution_id in state.executions:
        return []
    found = _meant(update, quantity, lambda _booked: True)
    if not found or state.executions[found].busted or not quantity:
        return _unusable(update, "It cannot be told which execution of the order was corrected, and to what.")
    known = (update.at, update.occurred_at, update.order.client_order_id)
    return [ReportCorrection(*known, found, execution_id, quantity, price)]


def _meant(update: Update, becomes: Quantity, is_like: Callable[[Execution], bool]) -> str:
    """The booked execution of the order that is undone, or becomes one of another quantity: the one that is named. Where it was
    booked under another name (an activity's), the only one by which our count of what is filled becomes the broker's.
    """
    of_order = {
        name: execution
        for name, execution in update.state.executions.items()
        if execution.client_order_id == update.order.client_order_id
    }
    for field in ("previous_execution_id", "execution_id"):
        name = optional_text(update.raw, field)
        if name in of_order:
            return name
    ours = update.state.orders.get(update.order.client_order_id)
    if ours is None:
        return ""
    change = update.order.filled_quantity - ours.filled_quantity
    fitting = [
        name
        for name, execution in of_order.items()
        if not execution.busted and becomes - abs(execution.signed_quantity) == change and is_like(execution)
    ]
    return fitting[0] if len(fitting) == 1 else ""
