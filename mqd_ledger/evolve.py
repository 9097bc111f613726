"""`evolve`: how one more event changes the State.

It checks no rule, for the event has happened. To make an event count, write its function and put it in `EVOLVE`; the module does
not load while a row is missing.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import structs

from mqd_ledger import events as e
from mqd_ledger.lots import apply_entry
from mqd_ledger.orders import Order, Trigger, transition
from mqd_ledger.sessions import midnight
from mqd_ledger.state import EXECUTIONS_KEPT, ORDERS_KEPT, Execution, Mark, Period, State
from mqd_ledger.values import (
    ZERO,
    Money,
    OrderState,
    OrderType,
    Price,
    Quantity,
    Side,
    Symbol,
    TradingState,
)


def evolve(state: State, event: e.Event) -> None:
    """Make `state` know `event`."""
    if event.occurred_at >= state.day.ends_at:
        _start_day(state, event.occurred_at)
    EVOLVE[type(event)](state, event)


def _start_day(state: State, at: datetime) -> None:
    starts_at = midnight(at, state.policy.day_starts)
    state.day = Period(starts_at, midnight(starts_at + timedelta(hours=36), state.policy.day_starts), state.equity)
    if at >= state.week.ends_at:
        state.week = Period(_monday(starts_at, state), _monday(starts_at, state, weeks=1), state.equity)
    window = timedelta(seconds=state.policy.limits.duplicate_window or 0)
    state.recent_requests = {key: then for key, then in state.recent_requests.items() if at - then <= window}


def _equity_changed(state: State) -> None:
    """Only a new low since the peak can be a new largest drawdown; all else costs no division."""
    equity = state.equity
    if equity > state.peak_equity:
        state.peak_equity = state.low_equity = equity
    elif equity < state.low_equity:
        state.low_equity = equity
        if state.peak_equity > 0:
            state.max_drawdown = max(state.max_drawdown, (state.peak_equity - equity) / state.peak_equity)


# --- runs, market, strategies ----------------------------------------------------------------------------------------------


def _ledger_created(state: State, event: e.LedgerCreated) -> None:
    state.ledger_id = event.ledger_id


def _run_started(state: State, event: e.RunStarted) -> None:
    state.run, state.run_is_open, state.policy = event, True, event.policy
    state.feed_items = state.orders_requested = 0
    state.stopped_strategies = {}
    _start_day_again(state, event.occurred_at)


def _start_day_again(state: State, at: datetime) -> None:
    """A policy with another midnight moves the end of the day and of the week, never their loss so far."""
    starts_at = midnight(at, state.policy.day_starts)
    if starts_at != state.day.starts_at:
        state.day.ends_at = midnight(starts_at + timedelta(hours=36), state.policy.day_starts)
        state.week.ends_at = _monday(starts_at, state, weeks=1)


def _monday(starts_at: datetime, state: State, weeks: int = 0) -> datetime:
    """The start of the week that holds a day, or of a later one."""
    days = timedelta(days=7 * weeks - starts_at.weekday(), hours=12)
    return midnight(starts_at + days, state.policy.day_starts)


def _run_ended(state: State, _event: e.RunEnded) -> None:
    state.run_is_open = False


def _bar_closed(state: State, event: e.BarClosed) -> None:
    bar = event.bar
    symbol = bar.symbol
    held = state.positions.get(symbol)
    if held is not None:
        state.equity += held * (bar.close - state.marks[symbol].price)
        _equity_changed(state)
    state.marks[symbol] = Mark(bar.close, event.occurred_at)
    state.last_bars[symbol, bar.interval] = bar.start_at
    state.feed_items += 1
    state.bars_total += 1
    if symbol in state.working:
        for order in state.working[symbol].values():
            if order.order_type is OrderType.STOP_LIMIT and order.triggered_at is None and order.meets(bar):
                assert order.stop_price is not None
                if bar.high >= order.stop_price if order.side is Side.BUY else bar.low <= order.stop_price:
                    order.triggered_at = bar.start_at


def _bar_rejected(state: State, _event: e.BarRejected) -> None:
    state.feed_items += 1
    state.rejected_total += 1


def _strategy_stopped(state: State, event: e.StrategyStopped) -> None:
    state.stopped_strategies[event.strategy] = event.error


def _nothing(_state: State, _event: e.Event) -> None:
    """For events that no decision looks back to."""


# --- orders ----------------------------------------------------------------------------------------------------------------


def _requested(state: State, event: e.OrderRequested) -> None:
    state.orders_requested += 1
    state.orders_total += 1
    # An Order begins with the fields of its request, in their order.
    fields: list[Any] = [*structs.astuple(event)[1:], event.occurred_at]
    _follow(state, Order(*fields))


def _adopted(state: State, event: e.OrderAdopted) -> None:
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
    _follow(state, order)


def _follow(state: State, order: Order) -> None:
    state.orders[order.client_order_id] = order
    state.working.setdefault(order.symbol, {})[order.client_order_id] = order


def _move(state: State, order: Order, trigger: Trigger) -> None:
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


def _approved(state: State, event: e.OrderApproved) -> None:
    order = state.orders[event.client_order_id]
    order.approved = True
    state.day.orders += 1
    state.week.orders += 1
    size = order.quantity if order.quantity is not None else order.notional
    assert size is not None
    state.recent_requests[order.symbol, order.side, size] = order.requested_at


def _denied(state: State, event: e.OrderDenied) -> None:
    state.denied_total += 1
    _move(state, state.orders[event.client_order_id], Trigger.DENIED)


def _sent(state: State, event: e.OrderSent) -> None:
    state.orders[event.client_order_id].attempts = event.attempt


def _submitted(state: State, event: e.OrderSubmitted) -> None:
    order = state.orders[event.client_order_id]
    order.broker_order_id, order.submitted_at = event.broker_order_id, event.occurred_at
    _move(state, order, Trigger.SUBMITTED)


def _cancel_requested(state: State, event: e.CancelRequested) -> None:
    state.orders[event.client_order_id].cancel_requested = True


def _cancel_rejected(state: State, event: e.CancelRejected) -> None:
    state.orders[event.client_order_id].cancel_requested = False


def _moves(trigger: Trigger) -> Callable[[State, Any], None]:
    def moved(state: State, event: e.OrderEvent) -> None:
        order = state.orders[event.client_order_id]
        order.ends += (trigger,)
        _move(state, order, trigger)

    return moved


# --- executions and books --------------------------------------------------------------------------------------------------


def _hold(state: State, symbol: Symbol, signed_quantity: Quantity, price: Price, at: datetime) -> None:
    """Shares came (or went) for cash at `price`; between trade and mark lies unrealized profit."""
    mark = state.marks.setdefault(symbol, Mark(price, at))
    held = state.positions.get(symbol, ZERO) + signed_quantity
    if held:
        state.positions[symbol] = held
    else:
        del state.positions[symbol]
    state.cash -= signed_quantity * price
    state.equity += signed_quantity * (mark.price - price)


def _pay(state: State, amount: Money) -> None:
    state.cash -= amount
    state.equity -= amount


def _filled(state: State, event: e.OrderFilled) -> None:
    order = state.orders[event.client_order_id]
    signed = order.signed(event.last_quantity)
    order.filled_quantity = event.filled_quantity
    order.filled_notional += event.last_quantity * event.last_price
    order.executions += 1
    state.fills_total += 1
    _remember(state, event.execution_id, Execution(event.client_order_id, signed, event.last_price, event.commission))
    _hold(state, event.symbol, signed, event.last_price, event.occurred_at)
    _pay(state, event.commission)
    state.commissions += event.commission
    _equity_changed(state)
    _move(state, order, Trigger.PARTIAL_FILL if event.leaves_quantity else Trigger.FULL_FILL)


def _remember(state: State, execution_id: str, execution: Execution) -> None:
    state.executions[execution_id] = execution
    if len(state.executions) > EXECUTIONS_KEPT:
        del state.executions[next(iter(state.executions))]


def _busted(state: State, event: e.ExecutionBusted) -> None:
    order = state.orders[event.client_order_id]
    execution = state.executions.get(event.execution_id)
    if execution is None:  # never seen: remembered, so that it is not booked should it still arrive
        _remember(
            state, event.execution_id, Execution(event.client_order_id, ZERO, event.last_price, ZERO, busted=True)
        )
        return
    execution.busted = True
    order.filled_quantity -= event.last_quantity
    order.filled_notional -= event.last_quantity * event.last_price
    _hold(state, event.symbol, -order.signed(event.last_quantity), event.last_price, event.occurred_at)
    _pay(state, -event.commission)
    state.commissions -= event.commission
    _equity_changed(state)
    _move(state, order, Trigger.BUSTED)


def _corrected(state: State, event: e.ExecutionCorrected) -> None:
    order = state.orders[event.client_order_id]
    previous = state.executions[event.previous_execution_id]
    previous.busted = True
    signed = order.signed(event.last_quantity)
    order.filled_quantity += event.last_quantity - event.previous_quantity
    order.filled_notional += event.last_quantity * event.last_price - event.previous_quantity * event.previous_price
    _remember(state, event.execution_id, Execution(event.client_order_id, signed, event.last_price, event.commission))
    _hold(state, event.symbol, -order.signed(event.previous_quantity), event.previous_price, event.occurred_at)
    _hold(state, event.symbol, signed, event.last_price, event.occurred_at)
    _equity_changed(state)
    _move(state, order, Trigger.CORRECTED)


def _enter(state: State, entry: e.LotEvent, signed_quantity: Quantity) -> Execution | None:
    """Take an entry into the lots and its strategy's holding; the execution that caused it, if it is still remembered."""
    lots = state.lots.setdefault(entry.symbol, [])
    apply_entry(lots, entry)
    if not lots:
        del state.lots[entry.symbol]
    key = (entry.strategy, entry.symbol)
    held = state.strategy_positions.get(key, ZERO) + signed_quantity
    if held:
        state.strategy_positions[key] = held
    else:
        del state.strategy_positions[key]
    return state.executions.get(entry.execution_id)


def _lot_opened(state: State, event: e.LotOpened) -> None:
    execution = _enter(state, event, event.quantity)
    if execution is not None:
        execution.opened += event.quantity


def _lot_closed(state: State, event: e.LotClosed) -> None:
    execution = _enter(state, event, -event.quantity)
    if execution is not None:
        execution.closed.append(event)
    _realize(state, event.realized_pnl)
    if event.realized_pnl < 0:
        state.consecutive_losses += 1
    elif event.realized_pnl > 0:
        state.consecutive_losses = 0


def _lot_reopened(state: State, event: e.LotReopened) -> None:
    _enter(state, event, event.quantity)
    _realize(state, -event.realized_pnl)


def _realize(state: State, amount: Money) -> None:
    state.realized_pnl += amount
    state.day.realized_pnl += amount
    state.week.realized_pnl += amount


def _cash_moved(state: State, event: e.CashMoved) -> None:
    """Money in or out is neither profit nor loss: the day, the week and the peak begin that much higher or lower."""
    state.movements.add(event.movement_id)
    _pay(state, -event.amount)
    state.deposits += event.amount
    state.peak_equity += event.amount
    state.low_equity = state.peak_equity  # a fall weighs more or less from here: look again
    state.day.start_equity += event.amount
    state.week.start_equity += event.amount


def _fee_charged(state: State, event: e.FeeCharged) -> None:
    state.charges.add(event.fee_id)
    _pay(state, event.amount)
    state.fees += event.amount
    _equity_changed(state)


# --- control ---------------------------------------------------------------------------------------------------------------


def _trading(to: TradingState) -> Callable[[State, Any], None]:
    def changed(state: State, event: e.ControlEvent) -> None:
        state.requests.add(event.request_id)
        state.trading_state, state.trading_state_reason = to, event.reason

    return changed


EVOLVE: Mapping[type[e.Event], Callable[[State, Any], None]] = {
    e.BarClosed: _bar_closed,
    e.BarRejected: _bar_rejected,
    e.LedgerCreated: _ledger_created,
    e.RunStarted: _run_started,
    e.RunEnded: _run_ended,
    e.SignalRaised: _nothing,
    e.SignalIgnored: _nothing,
    e.StrategyStopped: _strategy_stopped,
    e.OrderRequested: _requested,
    e.OrderApproved: _approved,
    e.OrderDenied: _denied,
    e.OrderSent: _sent,
    e.OrderSubmitted: _submitted,
    e.OrderRejected: _moves(Trigger.REJECTED),
    e.OrderFilled: _filled,
    e.CancelRequested: _cancel_requested,
    e.OrderCanceled: _moves(Trigger.CANCELED),
    e.CancelRejected: _cancel_rejected,
    e.OrderExpired: _moves(Trigger.EXPIRED),
    e.OrderAdopted: _adopted,
    e.ExecutionBusted: _busted,
    e.ExecutionCorrected: _corrected,
    e.OrderAnomalyFound: _nothing,
    e.LotOpened: _lot_opened,
    e.LotClosed: _lot_closed,
    e.LotReopened: _lot_reopened,
    e.CashMoved: _cash_moved,
    e.FeeCharged: _fee_charged,
    e.TradingHalted: _trading(TradingState.HALTED),
    e.TradingReduced: _trading(TradingState.REDUCING),
    e.TradingResumed: _trading(TradingState.ACTIVE),
}
if missing := [cls.__name__ for cls in e.TYPES.values() if cls not in EVOLVE]:
    raise TypeError(f"evolve.EVOLVE has no row for {', '.join(missing)}: say what they change, or `_nothing`")
