"""Executions and orders that the broker has and the ledger has not: as reports, and as the evidence that goes before them.

An execution is known by the part of the order that it filled, in the broker's count, whatever it is called. Where the broker counts
more than it has told, the parts that nobody told are reported at the price that makes its average right.
"""

from datetime import datetime

import msgspec

from commands.executions import ReportFill
from commands.truth import ReportDifference
from mqd_ledger.brokers.base import BrokerBooks, BrokerFill, BrokerOrder
from mqd_ledger.orders import Order
from mqd_ledger.state import State
from mqd_ledger.values import CENT, QUANTITY_STEP, ZERO, DifferenceKind, OrderState, Price, Quantity, iso, plain

TICK = CENT / 100  # to which a price is rounded that follows from an average


def told_of(order: BrokerOrder) -> dict[str, str]:
    size = plain(order.quantity) if order.quantity is not None else f"${plain(order.notional or ZERO)}"
    return {
        "order": f"{order.side} {size} {order.symbol} {order.order_type} {order.time_in_force}",
        "status": order.status,
        "filled": plain(order.filled_quantity),
        "updated_at": iso(order.updated_at),
    }


def fill_of(row: BrokerFill, theirs: BrokerOrder, ours: Order, at: datetime) -> ReportFill:
    return ReportFill(
        at,
        row.occurred_at,
        ours.client_order_id,
        row.execution_id,
        row.symbol,
        row.side,
        row.quantity,
        row.price,
        leaves_quantity=_leaves(theirs, row.cumulative_quantity),
        cumulative_quantity=row.cumulative_quantity,
        stated_at=str(row.raw["transaction_time"]) if "transaction_time" in row.raw else msgspec.UNSET,
    )


def is_counted(row: BrokerFill, ours: Order) -> bool:
    """Whether it is among executions that were booked without the broker's count: those are not known by what they filled."""
    counted = sum((high - low for low, high, _ in ours.spans), ZERO)
    return counted != ours.filled_quantity and row.cumulative_quantity <= ours.filled_quantity


def rest_of(theirs: BrokerOrder, ours: Order, at: datetime) -> list[ReportFill]:
    """What the broker says that it filled without having told the executions."""
    missing = theirs.filled_quantity - ours.filled_quantity
    if missing <= 0:
        return []
    price = _price_of_rest(theirs, ours, missing)
    return [
        ReportFill(
            at,
            theirs.updated_at,
            ours.client_order_id,
            f"{theirs.broker_order_id}-upto-{plain(end)}",
            ours.symbol,
            ours.side,
            end - start,
            price,
            leaves_quantity=_leaves(theirs, end),
            cumulative_quantity=end,
        )
        for start, end in _gaps_of(ours, theirs.filled_quantity)
    ]


def _leaves(theirs: BrokerOrder, upto: Quantity) -> Quantity:
    """Only an order by notional needs to be told: it is filled when the broker says so, whatever is left of the dollars."""
    if upto < theirs.filled_quantity:
        return theirs.filled_quantity - upto
    return ZERO if theirs.state is OrderState.FILLED else QUANTITY_STEP


def _gaps_of(ours: Order, upto: Quantity) -> list[tuple[Quantity, Quantity]]:
    """The parts of the order, in the broker's count, that no booked execution filled."""
    gaps: list[tuple[Quantity, Quantity]] = []
    start = ZERO
    for low, high, _ in sorted(ours.spans):
        if low > start:
            gaps.append((start, low))
        start = max(start, high)
    if start < upto:
        gaps.append((start, upto))
    is_whole = sum((high - low for low, high in gaps), ours.filled_quantity) == upto
    return gaps if is_whole else [(ours.filled_quantity, upto)]


def _price_of_rest(theirs: BrokerOrder, ours: Order, missing: Quantity) -> Price:
    """That which makes the average of all executions the broker's own."""
    average = theirs.filled_average_price or ZERO
    implied = ((average * theirs.filled_quantity - ours.filled_notional) / missing).quantize(TICK)
    return implied if implied > 0 else average


def missed(fill: ReportFill, theirs: BrokerOrder, ours: Order, state: State, books: BrokerBooks) -> ReportDifference:
    """Evidence of an execution that the stream did not bring; the execution's own report books it."""
    is_ours = ours.client_order_id.startswith(f"{state.ledger_id}-")
    evidence = {
        "execution_id": fill.execution_id,
        "executed_at": iso(fill.occurred_at),
        "asked_at": iso(books.asked_at),
        "last_execution_at": iso(state.last_execution_at),
        **told_of(theirs),
    }
    return ReportDifference(
        fill.at,
        DifferenceKind.MISSED_FILL if is_ours else DifferenceKind.MANUAL_TRADE,
        ours.client_order_id,
        f"{plain(ours.filled_quantity)} filled",
        f"{fill.side} {plain(fill.quantity)} {fill.symbol} at {plain(fill.price)}",
        evidence=evidence,
    )


def manual_order(order: BrokerOrder, at: datetime) -> ReportDifference:
    """Evidence of an order that was not sent from here; its adoption follows it from then on."""
    evidence = {"broker_order_id": order.broker_order_id, "created_at": iso(order.created_at), **told_of(order)}
    return ReportDifference(
        at, DifferenceKind.MANUAL_ORDER, order.client_order_id, "not sent from here", order.status, evidence=evidence
    )


def contradiction(theirs: BrokerOrder, ours: Order, books: BrokerBooks, at: datetime) -> ReportDifference:
    """Evidence that an order is not what it was here."""
    evidence = {"broker_order_id": theirs.broker_order_id, "asked_at": iso(books.asked_at), **told_of(theirs)}
    return ReportDifference(
        at, DifferenceKind.UNKNOWN, ours.client_order_id, f"{ours.state}", theirs.status, evidence=evidence
    )


def disappearance(ours: Order, books: BrokerBooks, at: datetime) -> ReportDifference:
    evidence = {"broker_order_id": ours.broker_order_id or "", "asked_at": iso(books.asked_at)}
    return ReportDifference(
        at, DifferenceKind.UNKNOWN, ours.client_order_id, f"{ours.state}", "no such order", evidence=evidence
    )
