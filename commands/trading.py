"""What we want from the market: a strategy's signal, an operator's order, a cancel. Each order passes the risk gate here."""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from commands.base import Command, order_of
from mqd_ledger.errors import CommandRefused
from mqd_ledger.events import (
    CancelRequested,
    Check,
    Event,
    OrderApproved,
    OrderDenied,
    OrderRequested,
    OrderSent,
    PositionCloseRequested,
    ReplaceRejected,
    ReplaceRequested,
    SignalIgnored,
    SignalRaised,
)
from mqd_ledger.naming import next_name
from mqd_ledger.orders import Order
from mqd_ledger.risk import evaluate
from mqd_ledger.sizing import Wish, target_quantity
from mqd_ledger.state import State
from mqd_ledger.values import (
    ZERO,
    Direction,
    Money,
    OrderType,
    Price,
    Quantity,
    Side,
    Symbol,
    TimeInForce,
    TradingState,
    plain,
)


class RaiseSignal(Command, frozen=True, gc=False):
    """A strategy's wish to hold a symbol long, short or not at all."""

    strategy: str
    symbol: Symbol
    direction: Direction
    reason: str
    quantity: Quantity | None = None  # shares to hold; none: the policy's sizing
    notional: Money | None = None  # dollars to hold
    stop_price: Price | None = None
    target_price: Price | None = None
    confidence: str | None = None


class SubmitOrder(Command, frozen=True, gc=False):
    """One order as given. Exactly one of quantity and notional."""

    symbol: Symbol
    side: Side
    order_type: OrderType
    quantity: Quantity | None = None
    notional: Money | None = None
    limit_price: Price | None = None
    stop_price: Price | None = None
    trail_price: Price | None = None
    trail_percent: Price | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    extended_hours: bool = False
    strategy: str = ""


class CancelOrder(Command, frozen=True, gc=False):
    client_order_id: str
    reason: str


class ReplaceOrder(Command, frozen=True, gc=False):
    """Another size or price for a working order; None keeps what it has."""

    client_order_id: str
    reason: str
    quantity: Quantity | None = None
    limit_price: Price | None = None
    stop_price: Price | None = None
    time_in_force: TimeInForce | None = None


class ClosePosition(Command, frozen=True, gc=False):
    """Get out of a symbol at the market. It can only make the position smaller, so the risk gate is not asked."""

    symbol: Symbol
    operator: str
    reason: str
    request_id: str = ""


def raise_signal(command: RaiseSignal, state: State) -> list[Event]:
    """The signal, then the order that brings the strategy's holding to what it wants, or why there is none."""
    raised = SignalRaised(
        command.at,
        command.strategy,
        command.symbol,
        command.direction,
        command.reason,
        command.quantity,
        command.notional,
        command.stop_price,
        command.target_price,
        command.confidence,
    )
    own_orders = [
        order for order in state.working.get(command.symbol, {}).values() if order.strategy == command.strategy
    ]
    if own_orders:
        return [raised, *_meet_own_orders(command, own_orders)]
    holds = state.strategy_positions.get((command.strategy, command.symbol), ZERO)
    wants, notional = _wanted(command, state, holds)
    if not notional and wants == holds:
        reason = f"it holds {holds} already" if holds else "it holds nothing to close"
        return [raised, SignalIgnored(command.at, command.strategy, command.symbol, command.direction, reason)]
    change = wants - holds
    order = SubmitOrder(
        command.at,
        command.symbol,
        Side.BUY if change > 0 or notional else Side.SELL,
        OrderType.MARKET,
        None if notional else abs(change),
        notional,
        extended_hours=state.policy.limits.session != "regular",
        strategy=command.strategy,
    )
    return [raised, *submit_order(order, state)]


def _meet_own_orders(command: RaiseSignal, own_orders: list[Order]) -> list[Event]:
    """While an order of its own works, a strategy can only take it back: a second one on top would be a duplicate."""
    ignored = SignalIgnored(
        command.at,
        command.strategy,
        command.symbol,
        command.direction,
        f"its order {own_orders[0].client_order_id} is still working",
    )
    if command.direction is not Direction.FLAT:
        return [ignored]
    cancels = [
        CancelRequested(command.at, order.client_order_id, f"signal FLAT: {command.reason}")
        for order in own_orders
        if not order.cancel_requested
    ]
    return [ignored, *cancels]


def _wanted(command: RaiseSignal, state: State, holds: Quantity) -> tuple[Quantity, Money | None]:
    """The signed holding that a signal asks for, or the notional where it is dollars for the broker to size."""
    match command.direction:
        case Direction.FLAT:
            return ZERO, None
        case Direction.LONG if holds > 0:
            return holds, None
        case Direction.SHORT if holds < 0:
            return holds, None
        case Direction.LONG if command.notional is not None and not holds:
            return ZERO, command.notional
    wish = Wish(command.symbol, command.direction, command.notional)
    size = command.quantity if command.quantity is not None else target_quantity(wish, state)
    return (size if command.direction is Direction.LONG else -size), None


def _request(command: SubmitOrder, client_order_id: str) -> OrderRequested:
    return OrderRequested(
        command.at,
        client_order_id,
        command.strategy,
        command.symbol,
        command.side,
        command.order_type,
        command.quantity,
        command.notional,
        command.limit_price,
        command.stop_price,
        command.trail_price,
        command.trail_percent,
        command.time_in_force,
        command.extended_hours,
    )


def submit_order(command: SubmitOrder, state: State) -> list[Event]:
    """The request, the risk gate's decision with every check, and, if it passed, the sending."""
    _make_sense(command)
    client_order_id = next_name(state)
    requested = _request(command, client_order_id)
    checks, reasons = evaluate(requested, state)
    if reasons:
        return [requested, OrderDenied(command.at, client_order_id, reasons, checks)]
    return [requested, OrderApproved(command.at, client_order_id, checks), OrderSent(command.at, client_order_id, 1)]


# Which prices an order type must have; it must have no other.
_PRICES: Mapping[OrderType, frozenset[str]] = {
    OrderType.MARKET: frozenset(),
    OrderType.LIMIT: frozenset({"limit_price"}),
    OrderType.STOP: frozenset({"stop_price"}),
    OrderType.STOP_LIMIT: frozenset({"limit_price", "stop_price"}),
    OrderType.TRAILING_STOP: frozenset({"trail_price"}),
}


def _make_sense(command: SubmitOrder) -> None:
    sizes = [size for size in (command.quantity, command.notional) if size is not None]
    if len(sizes) != 1 or not _is_positive(sizes[0]):
        raise CommandRefused(
            f"An order needs exactly one of quantity and notional, above zero; found quantity {command.quantity} "
            f"and notional {command.notional}."
        )
    if command.quantity is not None and not is_tradable(command.quantity):
        raise CommandRefused(f"A quantity has up to 9 decimals; found {command.quantity}.")
    needed = _PRICES[command.order_type]
    if command.trail_percent is not None and command.order_type is OrderType.TRAILING_STOP:
        needed = frozenset({"trail_percent"})
    for name in ("limit_price", "stop_price", "trail_price", "trail_percent"):
        value: Decimal | None = getattr(command, name)
        if (value is not None) != (name in needed) or (value is not None and not _is_positive(value)):
            raise CommandRefused(
                f"A {command.order_type} order takes {' and '.join(sorted(needed)) or 'no price'}, above zero; "
                f"found {name} {value}."
            )


def is_tradable(quantity: Quantity) -> bool:
    """Whether a finite quantity has at most the 9 decimals of `QUANTITY_STEP`; by its text, for arithmetic would round."""
    return len(plain(quantity).partition(".")[2]) <= 9


def _is_positive(value: Decimal) -> bool:
    return value.is_finite() and value > 0


def cancel_order(command: CancelOrder, state: State) -> list[Event]:
    order = order_of(state, command.client_order_id)
    if not order.is_working:
        raise CommandRefused(f"Order {order.client_order_id} is {order.state} already: there is nothing to cancel.")
    if order.cancel_requested:
        return []
    return [CancelRequested(command.at, order.client_order_id, command.reason)]


def replace_order(command: ReplaceOrder, state: State) -> list[Event]:
    """The wish and, where the risk gate does not like what the order would become, its end right after."""
    order = order_of(state, command.client_order_id)
    if not order.is_working or order.cancel_requested or order.quantity is None:
        raise CommandRefused(
            f"Order {order.client_order_id} cannot be replaced: it is {order.state}"
            f"{', a cancel was asked for' if order.cancel_requested else ''}{', by notional' if order.quantity is None else ''}."
        )
    if order.replacement_id:
        return []
    changed = SubmitOrder(
        command.at,
        order.symbol,
        order.side,
        order.order_type,
        command.quantity or order.leaves_quantity,
        None,
        command.limit_price or order.limit_price,
        command.stop_price or order.stop_price,
        order.trail_price,
        order.trail_percent,
        command.time_in_force or order.time_in_force,
        order.extended_hours,
        order.strategy,
    )
    _make_sense(changed)
    new_id = next_name(state)
    wish = ReplaceRequested(
        command.at,
        order.client_order_id,
        new_id,
        command.quantity,
        command.limit_price,
        command.stop_price,
        command.time_in_force,
        command.reason,
    )
    _, reasons = evaluate(_request(changed, new_id), state, instead_of=order)
    if reasons:
        return [wish, ReplaceRejected(command.at, order.client_order_id, f"denied: {' '.join(reasons)}")]
    return [wish]


def close_position(command: ClosePosition, state: State) -> list[Event]:
    """An order for what is held and not being sold already; it goes out while trading is halted only for the kill switch."""
    if command.request_id and command.request_id in state.requests:
        return []
    if state.trading_state is TradingState.HALTED and state.kill_switch is None:
        raise CommandRefused(
            f"Trading is halted ({state.trading_state_reason}). Resume or reduce it first, or use `mqd-ledger kill`."
        )
    held = state.positions.get(command.symbol, ZERO)
    side = Side.SELL if held > 0 else Side.BUY
    working = state.working.get(command.symbol, {}).values()
    going = sum((order.leaves_quantity for order in working if order.side is side), ZERO)
    quantity = abs(held) - going
    if quantity <= 0:
        return []
    order = SubmitOrder(command.at, command.symbol, side, OrderType.MARKET, quantity)
    requested = _request(order, next_name(state))
    inputs = {"quantity": plain(quantity), "position": plain(held), "closing_already": plain(going)}
    check = Check("only_closes_the_position", True, plain(abs(held)), inputs)  # noqa: FBT003  a verdict, as in risk.py
    return [
        PositionCloseRequested(command.at, command.operator, command.reason, command.request_id, command.symbol),
        requested,
        OrderApproved(command.at, requested.client_order_id, (check,)),
        OrderSent(command.at, requested.client_order_id, 1),
    ]


DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    RaiseSignal: raise_signal,
    SubmitOrder: submit_order,
    CancelOrder: cancel_order,
    ReplaceOrder: replace_order,
    ClosePosition: close_position,
}
READ_BACK: Mapping[type[Event], Callable[[Any, datetime], Command]] = {
    SignalRaised: lambda event, _: RaiseSignal(
        event.occurred_at,
        event.strategy,
        event.symbol,
        event.direction,
        event.reason,
        event.quantity,
        event.notional,
        event.stop_price,
        event.target_price,
        event.confidence,
    ),
    OrderRequested: lambda event, _: SubmitOrder(
        event.occurred_at,
        event.symbol,
        event.side,
        event.order_type,
        event.quantity,
        event.notional,
        event.limit_price,
        event.stop_price,
        event.trail_price,
        event.trail_percent,
        event.time_in_force,
        event.extended_hours,
        event.strategy,
    ),
    CancelRequested: lambda event, _: CancelOrder(event.occurred_at, event.client_order_id, event.reason),
    ReplaceRequested: lambda event, _: ReplaceOrder(
        event.occurred_at,
        event.client_order_id,
        event.reason,
        event.quantity,
        event.limit_price,
        event.stop_price,
        event.time_in_force,
    ),
    PositionCloseRequested: lambda event, _: ClosePosition(
        event.occurred_at, event.symbol, event.operator, event.reason, event.request_id
    ),
}
