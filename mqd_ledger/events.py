"""Every fact there can be, and the envelope it is kept in.

Laws of this file: an event is past tense, immutable and self-contained; it carries the outcome of the rule that made it, so
that changing the rule tomorrow leaves yesterday alone. Stored names and shapes are promises for ever.

To add an event: write the class with its `stream`, add one row to `TYPES`, one to `evolve.EVOLVE`, and one stored example to
`tests/golden/events.jsonl`. To change a shape: give the new one the next version and write an upcast in `upcasts.py`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from mqd_ledger.policy import Policy
from mqd_ledger.values import (
    Anomaly,
    Bar,
    Direction,
    LotCause,
    Money,
    OrderType,
    Price,
    Quantity,
    Side,
    Symbol,
    TimeInForce,
)


class Event(msgspec.Struct, frozen=True, gc=False):
    """`occurred_at` is when it happened in the world; the envelope's `recorded_at` is when we learned it."""

    occurred_at: datetime


# --- runs ------------------------------------------------------------------------------------------------------------------


class StrategySpec(msgspec.Struct, frozen=True):
    """A strategy of a run: the name under which events speak of it (`vwap-2`), where it comes from (a registered name, or
    file.py:Class), its parameters as JSON values (decimals as text), and a hash of its code.
    """

    strategy: str
    source: str
    parameters: dict[str, Any]
    code_sha256: str


class Source(msgspec.Struct, frozen=True):
    """Where a run's bars come from. `sha256` is of the file's bytes, or of the recipe of a synthetic sample."""

    kind: str  # "file", "synthetic", "alpaca"
    name: str
    sha256: str


class AccountEvent(Event, frozen=True, gc=False):
    """Money and identity of the account itself."""


class LedgerCreated(AccountEvent, frozen=True, gc=False):
    ledger_id: str  # in front of every client_order_id of this ledger
    currency: str = "USD"  # of all its money


class RunEvent(Event, frozen=True, gc=False):
    run: int


class RunStarted(RunEvent, frozen=True, gc=False):
    mode: str
    code_version: str
    source: Source
    strategies: tuple[StrategySpec, ...]
    policy: Policy
    checks: tuple[
        str, ...
    ] = ()  # of the risk gate, in their order; one added later does not apply to this run. None: all


class RunEnded(RunEvent, frozen=True, gc=False):
    reason: str


# --- market ----------------------------------------------------------------------------------------------------------------


class BarClosed(Event, frozen=True, gc=False):
    bar: Bar


class BarRejected(Event, frozen=True, gc=False):
    """A bar that no strategy ever saw: a row of a source (`line` and `raw`), or a whole bar that came too late or too early."""

    symbol: Symbol | None
    line: int | None
    raw: str
    reason: str
    bar: Bar | None = None


# --- strategies ------------------------------------------------------------------------------------------------------------


class StrategyEvent(Event, frozen=True, gc=False):
    strategy: str


class SignalRaised(StrategyEvent, frozen=True, gc=False):
    """A strategy's wish. Without quantity or notional the sizing of the policy applies."""

    symbol: Symbol
    direction: Direction
    reason: str
    quantity: Quantity | None
    notional: Money | None
    stop_price: Price | None
    target_price: Price | None
    confidence: str | None


class SignalIgnored(StrategyEvent, frozen=True, gc=False):
    """A signal that asked for nothing new: already there, or an order of its own still works."""

    symbol: Symbol
    direction: Direction
    reason: str


class StrategyStopped(StrategyEvent, frozen=True, gc=False):
    error: str


# --- orders ----------------------------------------------------------------------------------------------------------------


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


# --- books -----------------------------------------------------------------------------------------------------------------


class LotEvent(Event, frozen=True, gc=False):
    """Books of one lot. `execution_id` is the execution that caused the entry; `strategy` the one whose order it was."""

    lot_id: str
    symbol: Symbol
    strategy: str
    execution_id: str


class LotOpened(LotEvent, frozen=True, gc=False):
    """`quantity` is signed: short lots are negative. `cost_basis` = quantity x cost_price, so negative for a short.

    `opened_at` is when its first share was bought or sold; that is earlier than `occurred_at` for one that lots were merged into.
    """

    quantity: Quantity
    cost_price: Price
    cost_basis: Money
    opened_at: datetime


class LotClosed(LotEvent, frozen=True, gc=False):
    """A part (or the whole) of a lot is gone. realized_pnl = quantity x price - cost_basis, before commissions.

    `cause` is TRADE; or MERGE, where average cost put it into another lot, or BUST, where what opened it was undone: those two
    realize nothing.
    """

    quantity: Quantity
    cost_basis: Money
    price: Price
    realized_pnl: Money
    opened_at: datetime
    cause: LotCause


class LotReopened(LotEvent, frozen=True, gc=False):
    """A closing was undone with the execution that caused it; `realized_pnl` is what is taken back."""

    quantity: Quantity
    cost_basis: Money
    realized_pnl: Money
    opened_at: datetime
    cause: LotCause  # of the closing that is undone


class CashMoved(AccountEvent, frozen=True, gc=False):
    """Money in (positive) or out of the account that is not a trade."""

    movement_id: str  # the same movement reported twice counts once
    kind: str  # DEPOSIT, WITHDRAWAL
    amount: Money
    reason: str


class FeeCharged(AccountEvent, frozen=True, gc=False):
    """A fee that came apart from an execution. Positive amounts are paid by us."""

    fee_id: str
    kind: str  # SEC, TAF, CAT, OTHER
    amount: Money
    reason: str


# --- control ---------------------------------------------------------------------------------------------------------------


class ControlEvent(Event, frozen=True, gc=False):
    """`request_id` is the asker's: a request that reaches us twice, even after others, counts once."""

    operator: str
    reason: str
    request_id: str = ""


class TradingHalted(ControlEvent, frozen=True, gc=False):
    """No orders at all from now on."""


class TradingReduced(ControlEvent, frozen=True, gc=False):
    """Only orders that make a position smaller."""


class TradingResumed(ControlEvent, frozen=True, gc=False):
    """An operator lifted the halt or the reduction."""


# The stream that each family of events belongs to; a class stands under the nearest of its bases.
STREAMS: Mapping[type[Event], Callable[[Any], str]] = MappingProxyType(
    {
        OrderEvent: lambda event: f"order-{event.client_order_id}",
        BarClosed: lambda event: f"bars-{event.bar.symbol}-{event.bar.interval}",
        BarRejected: lambda _: "bars-rejected",
        StrategyEvent: lambda event: f"strategy-{event.strategy}",
        LotEvent: lambda event: f"lots-{event.symbol}",
        ControlEvent: lambda _: "control",
        RunEvent: lambda event: f"run-{event.run}",
        AccountEvent: lambda _: "account",
    }
)

# Stored name -> class. A stored name never changes its meaning; nothing is ever removed.
TYPES: Mapping[str, type[Event]] = MappingProxyType(
    {
        "LedgerCreated.v1": LedgerCreated,
        "RunStarted.v1": RunStarted,
        "RunEnded.v1": RunEnded,
        "BarClosed.v1": BarClosed,
        "BarRejected.v1": BarRejected,
        "SignalRaised.v1": SignalRaised,
        "SignalIgnored.v1": SignalIgnored,
        "StrategyStopped.v1": StrategyStopped,
        "OrderRequested.v1": OrderRequested,
        "OrderApproved.v1": OrderApproved,
        "OrderDenied.v1": OrderDenied,
        "OrderSent.v1": OrderSent,
        "OrderSubmitted.v1": OrderSubmitted,
        "OrderRejected.v1": OrderRejected,
        "OrderFilled.v1": OrderFilled,
        "CancelRequested.v1": CancelRequested,
        "OrderCanceled.v1": OrderCanceled,
        "CancelRejected.v1": CancelRejected,
        "OrderExpired.v1": OrderExpired,
        "OrderAdopted.v1": OrderAdopted,
        "ExecutionBusted.v1": ExecutionBusted,
        "ExecutionCorrected.v1": ExecutionCorrected,
        "OrderAnomalyFound.v1": OrderAnomalyFound,
        "LotOpened.v1": LotOpened,
        "LotClosed.v1": LotClosed,
        "LotReopened.v1": LotReopened,
        "CashMoved.v1": CashMoved,
        "FeeCharged.v1": FeeCharged,
        "TradingHalted.v1": TradingHalted,
        "TradingReduced.v1": TradingReduced,
        "TradingResumed.v1": TradingResumed,
    }
)
STORED_NAME: Mapping[type[Event], str] = {cls: name for name, cls in TYPES.items()}
STREAM_OF: Mapping[type[Event], Callable[[Any], str]] = {
    cls: next(STREAMS[base] for base in cls.__mro__ if base in STREAMS) for cls in TYPES.values()
}
