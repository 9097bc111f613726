"""What an execution does to the lots: the entries that are recorded together with it."""

from collections.abc import Sequence
from datetime import datetime

from mqd_ledger.events import LotClosed, LotEvent, LotOpened, LotReopened
from mqd_ledger.lots import Lot, apply_entry, copy_of, match, merge
from mqd_ledger.orders import Order
from mqd_ledger.state import Execution, State
from mqd_ledger.values import ZERO, LotMethod, Price, Quantity


def book(
    order: Order,
    execution_id: str,
    signed_quantity: Quantity,
    price: Price,
    at: datetime,
    state: State,
    after: Sequence[LotEvent] = (),
) -> list[LotEvent]:
    """Lots closed and opened by a trade of `signed_quantity`, once `after` (entries not in the state yet) is taken in."""
    lots = state.lots.get(order.symbol, [])
    if after:
        lots = copy_of(lots)
        for entry in after:
            apply_entry(lots, entry)
    method = state.policy.lot_method
    closings, opening = match(_own_first(lots, order.strategy), method, signed_quantity, price)
    entries: list[LotEvent] = [
        LotClosed(
            at,
            closing.lot.lot_id,
            order.symbol,
            closing.lot.strategy,
            execution_id,
            closing.quantity,
            closing.cost_basis,
            price,
            closing.realized_pnl,
            closing.lot.opened_at,
        )
        for closing in closings
    ]
    if not opening:
        return entries
    same_side = [lot for lot in lots if lot.strategy == order.strategy] if not closings else []
    if method is LotMethod.AVERAGE and same_side:
        quantity, cost_price, cost_basis = merge(same_side, opening, price)
        entries += [_averaged_away(lot, execution_id, at) for lot in same_side]
    else:
        quantity, cost_price, cost_basis = opening, price, opening * price
    entries.append(
        LotOpened(at, execution_id, order.symbol, order.strategy, execution_id, quantity, cost_price, cost_basis)
    )
    return entries


def _own_first(lots: list[Lot], strategy: str) -> list[Lot]:
    """A strategy closes its own lots before another's, so that each keeps its own profit and loss."""
    if all(lot.strategy == strategy for lot in lots):
        return lots
    return [lot for lot in lots if lot.strategy == strategy] + [lot for lot in lots if lot.strategy != strategy]


def _averaged_away(lot: Lot, execution_id: str, at: datetime) -> LotClosed:
    return LotClosed(
        at,
        lot.lot_id,
        lot.symbol,
        lot.strategy,
        execution_id,
        lot.quantity,
        lot.cost_basis,
        lot.cost_price,
        ZERO,
        lot.opened_at,
    )


def unbook(order: Order, execution_id: str, execution: Execution, at: datetime, state: State) -> list[LotEvent]:
    """The entries that undo an execution's own: what it closed is open again, what it opened is gone.

    Where later trades have already closed what it opened, they closed shares that never were: the missing part is booked as
    the opposite trade at the same price, so that position and cash are the broker's.
    """
    entries: list[LotEvent] = [
        LotReopened(
            at,
            closed.lot_id,
            order.symbol,
            closed.strategy,
            execution_id,
            closed.quantity,
            closed.cost_basis,
            closed.realized_pnl,
            closed.opened_at,
        )
        for closed in reversed(execution.closed)
    ]
    opened = execution.opened
    lot = next((lot for lot in state.lots.get(order.symbol, ()) if lot.lot_id == execution_id), None)
    if lot is not None:
        entries.append(_averaged_away(lot, execution_id, at))
        opened -= lot.quantity
    if opened:
        entries += book(order, f"{execution_id}-bust", -opened, execution.price, at, state, after=entries)
    return entries
