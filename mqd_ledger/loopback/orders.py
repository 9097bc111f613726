"""An order as Alpaca's clients see it, its JSON, and when it is in the market.

To show another field of an order, add it to `OrderRecord` where it has to be known, and to `order_json`.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mqd_ledger.loopback.chance import uuid_of
from mqd_ledger.loopback.clock import nanosecond_text
from mqd_ledger.sessions import is_extended, is_regular, next_session, session_at
from mqd_ledger.values import (
    QUANTITY_STEP,
    ZERO,
    Money,
    OrderType,
    Price,
    Quantity,
    Side,
    Symbol,
    TimeInForce,
    plain,
)

OPEN = frozenset({"pending_new", "accepted", "new", "partially_filled", "pending_cancel", "pending_replace"})
GTC_LASTS = timedelta(days=90)
DAY = timedelta(days=1)


@dataclass(slots=True)
class Execution:
    """`engine_id` is the execution's id inside the account's own ledger."""

    engine_id: str
    execution_id: str
    activity_id: str
    at: datetime
    price: Price
    quantity: Quantity
    filled_quantity: Quantity
    leaves_quantity: Quantity


@dataclass(slots=True)
class OrderRecord:
    """An order as Alpaca's clients see it. `engine_id` is the client_order_id inside the account's own ledger."""

    number: int
    id: str
    client_order_id: str
    engine_id: str
    symbol: Symbol
    side: Side
    order_type: OrderType
    quantity: Quantity | None
    notional: Money | None
    limit_price: Price | None
    stop_price: Price | None
    time_in_force: TimeInForce
    extended_hours: bool
    created_at: datetime
    updated_at: datetime
    submitted_at: datetime
    expires_at: datetime
    position_intent: str
    status: str = "pending_new"
    filled_quantity: Quantity = ZERO
    filled_notional: Money = ZERO
    executions: list[Execution] = field(default_factory=list)
    undone: int = 0  # executions that the market took back or replaced
    filled_at: datetime | None = None
    expired_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    canceled_at: datetime | None = None
    failed_at: datetime | None = None
    replaced_at: datetime | None = None
    replaced_by: str | None = None
    replaces: str | None = None

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def leaves_quantity(self) -> Quantity:
        return ZERO if self.quantity is None else self.quantity - self.filled_quantity


def is_trading(at: datetime, *, extended: bool) -> bool:
    return is_regular(at) or (extended and is_extended(at))


def expires_at(submitted_at: datetime, time_in_force: TimeInForce, *, extended: bool) -> datetime:
    """When an order leaves the book by itself: at the close of its session (the next one if none was open), GTC after 90 days."""
    at = submitted_at + GTC_LASTS if time_in_force is TimeInForce.GTC else submitted_at
    if not extended:
        return (session_at(at) or next_session(at)).close_at
    session = next_session(at - DAY)
    while session.extended_close_at <= at:
        session = next_session(session.open_at)
    return session.extended_close_at


def order_json(order: OrderRecord) -> dict[str, Any]:
    """The order object of REST and of the stream."""
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": nanosecond_text(order.created_at),
        "updated_at": nanosecond_text(order.updated_at),
        "submitted_at": nanosecond_text(order.submitted_at),
        "filled_at": _time(order.filled_at),
        "expired_at": _time(order.expired_at),
        "expires_at": f"{order.expires_at:%Y-%m-%dT%H:%M:%SZ}",
        "cancel_requested_at": _time(order.cancel_requested_at),
        "canceled_at": _time(order.canceled_at),
        "failed_at": _time(order.failed_at),
        "replaced_at": _time(order.replaced_at),
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": uuid_of("asset", order.symbol),
        "symbol": order.symbol,
        "asset_class": "us_equity",
        "notional": _number(order.notional),
        "qty": _number(order.quantity),
        "filled_qty": plain(order.filled_quantity),
        "filled_avg_price": _average(order),
        "order_class": "",
        "order_type": order.order_type.lower(),
        "type": order.order_type.lower(),
        "side": order.side.lower(),
        "position_intent": order.position_intent,
        "time_in_force": order.time_in_force.lower(),
        "limit_price": _number(order.limit_price),
        "stop_price": _number(order.stop_price),
        "status": order.status,
        "extended_hours": order.extended_hours,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        "subtag": None,
        "source": None,
        "ratio_qty": None,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else nanosecond_text(at)


def _number(value: Quantity | None) -> str | None:
    return None if value is None else plain(value)


def _average(order: OrderRecord) -> str | None:
    if not order.filled_quantity:
        return None
    return plain((order.filled_notional / order.filled_quantity).quantize(QUANTITY_STEP))
