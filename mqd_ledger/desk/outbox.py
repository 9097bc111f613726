"""What a turn wants done in the world: collected while it is decided, handed out once it is on the disk.

Nothing is collected while a record is rehearsed: what was done is done, and what may have been left undone is found by
`unanswered`, after the broker was asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from commands import Command
from mqd_ledger.brokers.alpaca import Cancel, Effect, Replace, Submit
from mqd_ledger.engine import Reaction
from mqd_ledger.events import CancelRequested, Event, OrderSent, ReplaceRequested
from mqd_ledger.orders import Order
from mqd_ledger.remembering import KeepsNothing
from mqd_ledger.state import State
from mqd_ledger.values import ZERO


class Outbox(KeepsNothing):
    """A reactor that answers with nothing: the broker's word comes later, from outside."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._effects: list[Effect] = []
        self.is_muted = True  # until the record has been rehearsed

    @property
    def reactions(self) -> dict[type[Event], Reaction]:
        return {OrderSent: self._send, CancelRequested: self._cancel, ReplaceRequested: self._replace}

    def __bool__(self) -> bool:
        return bool(self._effects)

    def take(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def _put(self, effect: Effect) -> Sequence[Command]:
        if not self.is_muted:
            self._effects.append(effect)
        return ()

    def _send(self, event: OrderSent, _at: datetime) -> Sequence[Command]:
        return self._put(submit_of(self._state.orders[event.client_order_id], self._state))

    def _cancel(self, event: CancelRequested, _at: datetime) -> Sequence[Command]:
        return self._put(cancel_of(self._state.orders[event.client_order_id]))

    def _replace(self, event: ReplaceRequested, _at: datetime) -> Sequence[Command]:
        order = self._state.orders[event.client_order_id]
        if order.replacement_id != event.replacement_id:  # our own risk gate said no
            return ()
        return self._put(
            Replace(
                order.client_order_id,
                order.broker_order_id,
                event.replacement_id,
                event.quantity,
                event.limit_price,
                event.stop_price,
                event.time_in_force,
            )
        )


def submit_of(order: Order, state: State) -> Submit:
    return Submit(
        order.client_order_id,
        order.symbol,
        order.side,
        order.order_type,
        order.quantity,
        order.notional,
        order.limit_price,
        order.stop_price,
        order.trail_price,
        order.trail_percent,
        order.time_in_force,
        order.extended_hours,
        closes=_closes(order, state),
    )


def _closes(order: Order, state: State) -> bool:
    return order.signed(Decimal(1)) * state.positions.get(order.symbol, ZERO) < 0


def cancel_of(order: Order) -> Cancel:
    return Cancel(order.client_order_id, order.broker_order_id)


def unanswered(state: State, open_at_broker: Mapping[str, object]) -> Iterator[Effect]:
    """Cancels that were asked for while the broker still has the order open: asking again does no harm.

    `open_at_broker` is by client_order_id.
    """
    for orders in state.working.values():
        for order in orders.values():
            if order.cancel_requested and order.client_order_id in open_at_broker:
                yield cancel_of(order)
