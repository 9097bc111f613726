"""The kill switch at work: nothing is left open, and it is the broker who says so.

What is due follows from the state and the broker's books alone, so a restart goes on where the switch was. Every order is asked
back; a symbol is closed once no other order of it works at the broker, and only what broker and ledger both have: what one of them
does not know of could be opened by closing it. A close that did not come about is asked for again, later and later, for ever.

As with the reconciler's commands, which come before these for the same books, each is handled before the next one is asked for.
The simulated broker answers in the same turn and keeps no books beside ours: `simulated_steps` is all that it takes there.
To have the switch go off by itself for another reason, add it to `breach`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from commands import Command
from commands.control import ActivateKillSwitch, CompleteKillSwitch, is_killing
from commands.trading import CancelOrder, ClosePosition
from commands.truth import AcceptDifference
from mqd_ledger.brokers.base import BrokerBooks
from mqd_ledger.events import KillSwitchActivated
from mqd_ledger.orders import Order
from mqd_ledger.state import State
from mqd_ledger.values import ZERO, OrderState, OrderType, Quantity, Symbol, iso, plain

KILL_SWITCH = "kill switch"  # the operator's name where it asks for something
PATIENCE = timedelta(seconds=60)  # with orders that do not go; after it a position is closed beside them
AGAIN_AFTER = timedelta(seconds=5)  # until a close that failed is asked for once more; doubled each time
AGAIN_AFTER_MAX = timedelta(minutes=5)


def breach(state: State, at: datetime) -> ActivateKillSwitch | None:
    """The kill switch's own reason to go off: a day's loss that is not to be borne."""
    allowed = state.policy.unattended.kill_at_daily_loss
    if allowed is None or state.kill_switch is not None or at >= state.day.ends_at:
        return None
    loss = state.day.start_equity - state.equity
    if loss < allowed:
        return None
    return ActivateKillSwitch(
        at, KILL_SWITCH, f"the day's loss is {plain(loss)}; allowed is less than {plain(allowed)}"
    )


def next_steps(
    state: State, books: BrokerBooks | None, at: datetime, empty_since: datetime | None = None
) -> Iterator[Command]:
    """What is due now. `empty_since` is since when comparisons have found nothing open while nothing changed, where one knows."""
    switch = state.kill_switch
    if switch is None or not is_killing(state):
        return
    if books is not None and books.account.account_number != state.account_number:
        return  # not the account that these orders and positions are in
    for found in list(state.differences.values()):
        if found.quantity:
            yield AcceptDifference(at, found.difference_id, KILL_SWITCH, f"so that it can be closed: {switch.reason}")
    yield from _cancels(state, switch, at)
    if books is None or books.asked_at <= switch.occurred_at:
        return
    for symbol in sorted(state.positions):
        if _may_be_closed(symbol, state, books, switch, at):
            yield ClosePosition(at, symbol, KILL_SWITCH, switch.reason)
    if _is_verified(state, books, switch, empty_since):
        account = books.account.account_number
        yield CompleteKillSwitch(
            at, f"account {account} showed no open order and no position when asked at {iso(books.asked_at)}"
        )


def simulated_steps(state: State, at: datetime) -> list[Command]:
    """What is due at the simulated broker: every order was canceled as it was asked back, and what the record shows is what is."""
    switch = state.kill_switch
    if switch is None or not is_killing(state):
        return []
    if state.positions or state.working:
        ready = [symbol for symbol in sorted(state.positions) if symbol not in state.working]
        return [ClosePosition(at, symbol, KILL_SWITCH, switch.reason) for symbol in ready]
    return [CompleteKillSwitch(at, "the simulated broker has no open order and no position")]


def _cancels(state: State, switch: KillSwitchActivated, at: datetime) -> Iterator[Command]:
    """Everything that works but the orders that close, and those, too, where they would do more than that."""
    for symbol in list(state.working):
        held = state.positions.get(symbol, ZERO)
        orders = list(state.working[symbol].values())
        closing = [order for order in orders if _closes(order, switch)]
        going = sum((order.signed(order.leaves_quantity) for order in closing), ZERO)
        is_too_much = going * held > 0 or abs(going) > abs(held)
        for order in orders:
            if not order.cancel_requested and (order not in closing or is_too_much):
                yield CancelOrder(at, order.client_order_id, f"{KILL_SWITCH}: {switch.reason}")


def _closes(order: Order, switch: KillSwitchActivated) -> bool:
    """After the switch went off, nothing of ours goes out but what closes."""
    return order.attempts > 0 and order.order_type is OrderType.MARKET and order.requested_at > switch.occurred_at


def _may_be_closed(symbol: Symbol, state: State, books: BrokerBooks, switch: KillSwitchActivated, at: datetime) -> bool:
    if _held(symbol, books) != state.positions[symbol]:
        return False  # the comparison of the books has to say first which of the two it is
    closing = [order for order in state.orders.values() if order.symbol == symbol and _closes(order, switch)]
    going = {order.client_order_id for order in closing if not order.cancel_requested}
    others = {order.client_order_id for order in books.open_orders if order.symbol == symbol}
    others |= set(state.working.get(symbol, {}))
    if others - going and at - switch.occurred_at < PATIENCE:
        return False
    failed = [order for order in closing if not order.is_working and order.state is not OrderState.FILLED]
    if not failed:
        return True
    wait = min(AGAIN_AFTER * (1 << min(len(failed) - 1, 10)), AGAIN_AFTER_MAX)
    return at >= max(order.requested_at for order in failed) + wait


def _held(symbol: Symbol, books: BrokerBooks) -> Quantity:
    return sum((position.quantity for position in books.positions if position.symbol == symbol), ZERO)


def _is_verified(state: State, books: BrokerBooks, switch: KillSwitchActivated, empty_since: datetime | None) -> bool:
    """Nothing is open here or there, and has not been for so long that no answer lags behind what happened."""
    if (
        state.positions
        or state.working
        or books.open_orders
        or books.unread
        or any(one.quantity for one in books.positions)
    ):
        return False
    requested = (order.requested_at for order in state.orders.values())
    changed_at = max(switch.occurred_at, state.last_execution_at, empty_since or switch.occurred_at, *requested)
    return books.asked_at >= changed_at + timedelta(seconds=state.policy.unattended.settle)
