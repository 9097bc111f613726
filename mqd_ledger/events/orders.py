"""One order's life, from the request to the last execution."""

import msgspec

from mqd_ledger.events.base import Event
from mqd_ledger.values import Anomaly, Money, OrderType, Price, Quantity, Side, Symbol, TimeInForce


class OrderEvent(Event, frozen=True, gc=False):
    client_order_id: str  # ours, the idempotency key


class OrderRequested(OrderEvent, frozen=True, gc=False):
    """Exactly one of quantity and notional is given. `strategy` is "" for an operator's order."""

    strategy: str
    symbol: Symbol
    side: Side
    order_type: OrderType
    quantity: Quantity | None
    notional: Money | None
    limit_price: Price | None
    stop_price: Price | None
    trail_price: Price | None
    trail_percent: Price | None
    time_in_force: TimeInForce
    extended_hours: bool


class Check(msgspec.Struct, frozen=True, gc=False):
    """One risk check as it was evaluated. `allowed` is None where no limit is set."""

    name: str
    passed: bool
    allowed: str | None
    inputs: dict[str, str]


class OrderApproved(OrderEvent, frozen=True, gc=False):
    checks: tuple[Check, ...]


class OrderDenied(OrderEvent, frozen=True, gc=False):
    """Our own risk gate said no; the broker never saw it. `reasons` are sentences, one per failed check."""

    reasons: tuple[str, ...]
    checks: tuple[Check, ...]


class OrderSent(OrderEvent, frozen=True, gc=False):
    """An attempt leaves us. Recorded before it does, so that no attempt is ever forgotten."""

    attempt: int


class OrderSubmitted(OrderEvent, frozen=True, gc=False):
    """The broker acknowledged the order."""

    broker_order_id: str


class OrderRejected(OrderEvent, frozen=True, gc=False):
    """The broker said no."""

    reason: str


class OrderFilled(OrderEvent, frozen=True, gc=False):
    """One execution. Partial or full follows from the sum: `filled_quantity` and `leaves_quantity` are those after it."""

    execution_id: str
    symbol: Symbol
    side: Side
    last_quantity: Quantity
    last_price: Price
    commission: Money
    filled_quantity: Quantity
    leaves_quantity: Quantity
    # The broker's own count of what was filled of the order up to and with this execution, where it says one: the same execution
    # told by another source, under another name, is known by it.
    cumulative_quantity: Quantity | msgspec.UnsetType = msgspec.UNSET
    stated_at: str | msgspec.UnsetType = msgspec.UNSET  # the broker's time as it was written, to the nanosecond


class ReplaceRequested(OrderEvent, frozen=True, gc=False):
    """We ask for another order in this one's place. None keeps what the order has."""

    replacement_id: str  # the client_order_id of the order that is to be there instead
    quantity: Quantity | None
    limit_price: Price | None
    stop_price: Price | None
    time_in_force: TimeInForce | None
    reason: str


class OrderReplaced(OrderEvent, frozen=True, gc=False):
    """The broker put another order, described here whole, in this one's place."""

    replacement_id: str
    broker_order_id: str  # of the replacement
    quantity: Quantity
    limit_price: Price | None
    stop_price: Price | None
    time_in_force: TimeInForce


class ReplaceRejected(OrderEvent, frozen=True, gc=False):
    """The order stays as it was. `reason` begins with "denied" where our own risk gate said no."""

    reason: str


class CancelRequested(OrderEvent, frozen=True, gc=False):
    reason: str


class OrderCanceled(OrderEvent, frozen=True, gc=False):
    reason: str


class CancelRejected(OrderEvent, frozen=True, gc=False):
    reason: str


class OrderExpired(OrderEvent, frozen=True, gc=False):
    reason: str


class OrderAdopted(OrderEvent, frozen=True, gc=False):
    """An order that we never sent, known from the broker's report of it: from now on it is followed like any other."""

    broker_order_id: str
    symbol: Symbol
    side: Side
    quantity: Quantity | None
    notional: Money | None = None
    order_type: OrderType = OrderType.MARKET
    limit_price: Price | None = None
    stop_price: Price | None = None
    time_in_force: TimeInForce = TimeInForce.DAY


class ExecutionBusted(OrderEvent, frozen=True, gc=False):
    """The market undid an execution."""

    execution_id: str
    symbol: Symbol
    side: Side
    last_quantity: Quantity
    last_price: Price
    commission: Money  # given back


class ExecutionCorrected(OrderEvent, frozen=True, gc=False):
    """The market replaced an execution by another."""

    previous_execution_id: str
    execution_id: str
    symbol: Symbol
    side: Side
    previous_quantity: Quantity
    previous_price: Price
    last_quantity: Quantity
    last_price: Price
    commission: Money  # of the new execution: the one it replaces had the same


class OrderAnomalyFound(OrderEvent, frozen=True, gc=False):
    anomaly: Anomaly
    detail: str
    status: str | msgspec.UnsetType = msgspec.UNSET  # of UNKNOWN_STATUS: the broker's own word
