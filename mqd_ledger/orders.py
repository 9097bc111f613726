"""One order's life: which state follows which, as one table.

Laws of this file: only a listed row may happen; a terminal state is never left; the position follows the broker's executions
even where the state does not, and each such surprise carries an `Anomaly` that the operator is told.

To add a state or a trigger, add its rows; `mermaid()` draws the README's diagram from the table, and a test visits every row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from mqd_ledger.errors import IllegalTransition
from mqd_ledger.sessions import is_regular
from mqd_ledger.values import (
    ZERO,
    Anomaly,
    Bar,
    Money,
    OrderState,
    OrderType,
    Price,
    Quantity,
    Side,
    Symbol,
    TimeInForce,
)


class Trigger(StrEnum):
    """What happens to an order. All but DENIED are the broker's word."""

    DENIED = "denied"
    SUBMITTED = "acknowledged"
    REJECTED = "rejected"
    PARTIAL_FILL = "partial fill"
    FULL_FILL = "full fill"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REPLACED = "replaced"
    BUSTED = "execution busted"
    CORRECTED = "execution corrected"


class Transition(NamedTuple):
    to: OrderState
    anomaly: Anomaly | None = None


_S, _T, _A = OrderState, Trigger, Anomaly

TERMINAL = frozenset({_S.FILLED, _S.CANCELED, _S.REJECTED, _S.EXPIRED})  # membership only

TRANSITIONS: Mapping[tuple[OrderState, Trigger], Transition] = MappingProxyType(
    {
        (_S.PENDING, _T.DENIED): Transition(_S.REJECTED),
        (_S.PENDING, _T.SUBMITTED): Transition(_S.SUBMITTED),
        (_S.PENDING, _T.REJECTED): Transition(_S.REJECTED),
        (_S.PENDING, _T.CANCELED): Transition(_S.CANCELED),
        (_S.PENDING, _T.EXPIRED): Transition(_S.EXPIRED),
        # The stream can be faster than the answer to our own request.
        (_S.PENDING, _T.PARTIAL_FILL): Transition(_S.PARTIALLY_FILLED, _A.FILL_BEFORE_ACKNOWLEDGEMENT),
        (_S.PENDING, _T.FULL_FILL): Transition(_S.FILLED, _A.FILL_BEFORE_ACKNOWLEDGEMENT),
        (_S.PENDING, _T.REPLACED): Transition(_S.CANCELED),
        (_S.SUBMITTED, _T.PARTIAL_FILL): Transition(_S.PARTIALLY_FILLED),
        (_S.SUBMITTED, _T.FULL_FILL): Transition(_S.FILLED),
        (_S.SUBMITTED, _T.CANCELED): Transition(_S.CANCELED),
        (_S.SUBMITTED, _T.EXPIRED): Transition(_S.EXPIRED),
        (_S.SUBMITTED, _T.REPLACED): Transition(_S.CANCELED),
        # Acceptance is provisional: a rejection can come after it.
        (_S.SUBMITTED, _T.REJECTED): Transition(_S.REJECTED),
        (_S.PARTIALLY_FILLED, _T.SUBMITTED): Transition(_S.PARTIALLY_FILLED),  # the late answer
        (_S.PARTIALLY_FILLED, _T.PARTIAL_FILL): Transition(_S.PARTIALLY_FILLED),
        (_S.PARTIALLY_FILLED, _T.FULL_FILL): Transition(_S.FILLED),
        (_S.PARTIALLY_FILLED, _T.CANCELED): Transition(_S.CANCELED),
        (_S.PARTIALLY_FILLED, _T.EXPIRED): Transition(_S.EXPIRED),
        (_S.PARTIALLY_FILLED, _T.REPLACED): Transition(_S.CANCELED),
        (_S.PARTIALLY_FILLED, _T.REJECTED): Transition(_S.REJECTED, _A.REJECT_AFTER_FILL),
        (_S.PARTIALLY_FILLED, _T.BUSTED): Transition(_S.PARTIALLY_FILLED, _A.EXECUTION_BUSTED),
        (_S.PARTIALLY_FILLED, _T.CORRECTED): Transition(_S.PARTIALLY_FILLED, _A.EXECUTION_CORRECTED),
        (_S.FILLED, _T.SUBMITTED): Transition(_S.FILLED),  # the late answer
        (_S.FILLED, _T.PARTIAL_FILL): Transition(_S.FILLED),  # what a bust had left open
        (_S.FILLED, _T.FULL_FILL): Transition(_S.FILLED, _A.OVERFILL),
        (_S.FILLED, _T.CANCELED): Transition(_S.FILLED, _A.CANCEL_AFTER_FILL),  # lost the race on the wire
        (_S.FILLED, _T.EXPIRED): Transition(_S.FILLED, _A.EXPIRY_AFTER_FILL),
        (_S.FILLED, _T.REJECTED): Transition(_S.FILLED, _A.REJECT_AFTER_FILL),
        (_S.FILLED, _T.REPLACED): Transition(_S.FILLED, _A.CANCEL_AFTER_FILL),
        (_S.FILLED, _T.BUSTED): Transition(_S.FILLED, _A.EXECUTION_BUSTED),
        (_S.FILLED, _T.CORRECTED): Transition(_S.FILLED, _A.EXECUTION_CORRECTED),
        (_S.CANCELED, _T.SUBMITTED): Transition(_S.CANCELED),  # the late answer
        (_S.CANCELED, _T.PARTIAL_FILL): Transition(_S.CANCELED, _A.FILL_AFTER_CANCEL),
        (_S.CANCELED, _T.FULL_FILL): Transition(_S.CANCELED, _A.FILL_AFTER_CANCEL),
        (_S.CANCELED, _T.REJECTED): Transition(_S.CANCELED, _A.REJECT_AFTER_CANCEL),
        (_S.CANCELED, _T.EXPIRED): Transition(_S.CANCELED),  # said twice in other words
        (_S.CANCELED, _T.REPLACED): Transition(_S.CANCELED),
        (_S.CANCELED, _T.BUSTED): Transition(_S.CANCELED, _A.EXECUTION_BUSTED),
        (_S.CANCELED, _T.CORRECTED): Transition(_S.CANCELED, _A.EXECUTION_CORRECTED),
        (_S.EXPIRED, _T.SUBMITTED): Transition(_S.EXPIRED),  # the late answer
        (_S.EXPIRED, _T.PARTIAL_FILL): Transition(_S.EXPIRED, _A.FILL_AFTER_EXPIRY),
        (_S.EXPIRED, _T.FULL_FILL): Transition(_S.EXPIRED, _A.FILL_AFTER_EXPIRY),
        (_S.EXPIRED, _T.CANCELED): Transition(_S.EXPIRED),  # said twice in other words
        (_S.EXPIRED, _T.REPLACED): Transition(_S.EXPIRED),
        (_S.EXPIRED, _T.REJECTED): Transition(_S.EXPIRED, _A.REJECT_AFTER_CANCEL),
        (_S.EXPIRED, _T.BUSTED): Transition(_S.EXPIRED, _A.EXECUTION_BUSTED),
        (_S.EXPIRED, _T.CORRECTED): Transition(_S.EXPIRED, _A.EXECUTION_CORRECTED),
        (_S.REJECTED, _T.SUBMITTED): Transition(_S.REJECTED, _A.ACKNOWLEDGEMENT_AFTER_REJECT),
        (_S.REJECTED, _T.PARTIAL_FILL): Transition(_S.REJECTED, _A.FILL_AFTER_REJECT),
        (_S.REJECTED, _T.FULL_FILL): Transition(_S.REJECTED, _A.FILL_AFTER_REJECT),
        (_S.REJECTED, _T.CANCELED): Transition(_S.REJECTED),  # said twice in other words
        (_S.REJECTED, _T.EXPIRED): Transition(_S.REJECTED),
        (_S.REJECTED, _T.REPLACED): Transition(_S.REJECTED),
        (_S.REJECTED, _T.BUSTED): Transition(_S.REJECTED, _A.EXECUTION_BUSTED),
        (_S.REJECTED, _T.CORRECTED): Transition(_S.REJECTED, _A.EXECUTION_CORRECTED),
    }
)


def transition(state: OrderState, trigger: Trigger) -> Transition:
    """The row for a state and a trigger."""
    row = TRANSITIONS.get((state, trigger))
    if row is None:
        allowed = ", ".join(known_trigger for known_state, known_trigger in TRANSITIONS if known_state is state)
        raise IllegalTransition(
            f"An order in state {state} cannot be {trigger}. From {state} an order can be: {allowed}."
        )
    return row


@dataclass(slots=True)
class Order:
    """An order as the log tells it so far. `filled_notional` is the sum of price x quantity over its executions."""

    client_order_id: str
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
    requested_at: datetime
    state: OrderState = OrderState.PENDING
    approved: bool = False
    attempts: int = 0
    broker_order_id: str | None = None
    submitted_at: datetime | None = None
    cancel_requested: bool = False
    replacement_id: str = ""  # of the order that was asked for in its place
    ends: tuple[Trigger, ...] = ()  # rejected, canceled, expired: those that the broker has reported
    filled_quantity: Quantity = ZERO
    filled_notional: Money = ZERO
    executions: int = 0
    # What of the order each execution filled, in the broker's own count: (from, to, execution_id). The same shares told again,
    # by another source and under another name, are known by it.
    spans: list[tuple[Quantity, Quantity, str]] = field(default_factory=list)
    unknown_statuses: list[str] = field(default_factory=list)  # the broker's words for it that nobody here knows
    triggered_at: datetime | None = None  # start of the bar in which a stop-limit order's stop was reached

    @property
    def leaves_quantity(self) -> Quantity:
        """What is still to be filled. An order by notional does not know it before the broker does: then it is zero."""
        return ZERO if self.quantity is None else max(ZERO, self.quantity - self.filled_quantity)

    @property
    def average_fill_price(self) -> Price | None:
        return self.filled_notional / self.filled_quantity if self.filled_quantity else None

    @property
    def is_working(self) -> bool:
        return self.state not in TERMINAL

    def covers(self, start: Quantity, end: Quantity) -> bool:
        """Whether every share from `start` to `end`, in the broker's count, is booked already."""
        for low, high, _ in sorted(self.spans):
            if low > start:
                return False
            start = max(start, high)
            if start >= end:
                return True
        return False

    def meets(self, bar: Bar) -> bool:
        """Whether it is in the market during a bar: not before it was acknowledged, and only in the hours it is for."""
        if self.submitted_at is None or bar.start_at < self.submitted_at:
            return False
        return self.extended_hours or bar.interval == "1d" or is_regular(bar.start_at)

    def signed(self, quantity: Decimal) -> Decimal:
        """What `quantity` of this order adds to the position."""
        return quantity if self.side is Side.BUY else -quantity


def mermaid() -> str:
    """The state diagram of the README, drawn from the table; surprises are dotted notes and left out."""
    lines = ["stateDiagram-v2", "    [*] --> PENDING: requested"]
    lines += [
        f"    {state} --> {row.to}: {trigger}"
        for (state, trigger), row in TRANSITIONS.items()
        if row.anomaly is None and row.to is not state
    ]
    lines += [f"    {state} --> [*]" for state in OrderState if state in TERMINAL]
    return "\n".join(lines)
