"""What an execution does to the lots: the entries that are recorded together with it."""

from collections.abc import Sequence
from datetime import datetime

from mqd_ledger.events import LotClosed, LotEvent, LotOpened, LotReopened
from mqd_ledger.lots import Lot, apply_entry, copy_of, in_order, match, merge
from mqd_ledger.orders import Order
from mqd_ledger.state import Execution, State
from mqd_ledger.values import QUANTITY_STEP, ZERO, LotCause, LotMethod, Price, Quantity, Symbol


def book(
    order: Order,
    execution_id: str,
    signed_quantity: Quantity,
    price: Price,
    at: datetime,
    state: State,
    after: Sequence[LotEvent] = (),
    first: str = "",
) -> list[LotEvent]:
    """What an execution of `order` does to the lots; see `enter`."""
    return enter(order.symbol, order.strategy, execution_id, signed_quantity, price, at, state, after, first)


def enter(  # noqa: PLR0913, PLR0917  a booking is all of these
    symbol: Symbol,
    strategy: str,
    execution_id: str,
    signed_quantity: Quantity,
    price: Price,
    at: datetime,
    state: State,
    after: Sequence[LotEvent] = (),
    first: str = "",
    cause: LotCause = LotCause.TRADE,
) -> list[LotEvent]:
    """Lots closed and opened by a trade of `signed_quantity`, once `after` (entries not in the state yet) is taken in.

    The lot named `first` is taken before all others.
    """
    lots = _lots_after(state.lots.get(symbol, []), after)
    method = state.policy.lot_method
    ordered = in_order(lots, method, strategy)
    if first:
        ordered = sorted(ordered, key=lambda lot: lot.lot_id != first)
    closings, opening = match(ordered, signed_quantity, price)
    entries: list[LotEvent] = [
        LotClosed(
            at,
            closing.lot.lot_id,
            symbol,
            closing.lot.strategy,
            execution_id,
            closing.quantity,
            closing.cost_basis,
            price,
            closing.realized_pnl,
            closing.lot.opened_at,
            cause,
        )
        for closing in closings
    ]
    if not opening:
        return entries
    same_side = [lot for lot in lots if lot.strategy == strategy] if not closings else []
    if method is LotMethod.AVERAGE and same_side:
        quantity, cost_price, cost_basis = merge(same_side, opening, price)
        entries += [_gone(lot, execution_id, at, LotCause.MERGE) for lot in same_side]
        opened_at = min(lot.opened_at for lot in same_side)
    else:
        quantity, cost_price, cost_basis, opened_at = opening, price, opening * price, at
    entries.append(
        LotOpened(at, execution_id, symbol, strategy, execution_id, quantity, cost_price, cost_basis, opened_at)
    )
    return entries


def split(symbol: Symbol, execution_id: str, change: Quantity, at: datetime, state: State) -> list[LotEvent]:
    """The same cost over `change` more (or less) shares, lot by lot, so that each strategy keeps its part; nothing is realized.

    No entries where a lot would be left without a share.
    """
    held = state.positions[symbol]
    entries: list[LotEvent] = []
    seen = given = ZERO
    for number, lot in enumerate(state.lots[symbol], 1):
        seen += lot.quantity
        upto = (seen * (held + change) / held).quantize(QUANTITY_STEP)
        quantity, given = upto - given, upto
        if not quantity:
            return []
        cost_price = (lot.cost_basis / quantity).quantize(QUANTITY_STEP)
        lot_id = f"{execution_id}-{number}"
        entries += [
            _gone(lot, execution_id, at, LotCause.MERGE),
            LotOpened(
                at, lot_id, symbol, lot.strategy, execution_id, quantity, cost_price, lot.cost_basis, lot.opened_at
            ),
        ]
    return entries


def _gone(lot: Lot, execution_id: str, at: datetime, cause: LotCause) -> LotClosed:
    """A lot that ends without a trade: at its cost, for nothing."""
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
        cause,
    )


def _lots_after(lots: list[Lot], entries: Sequence[LotEvent]) -> list[Lot]:
    if not entries:
        return lots
    lots = copy_of(lots)
    for entry in entries:
        apply_entry(lots, entry)
    return lots


def unbook(order: Order, execution_id: str, execution: Execution, at: datetime, state: State) -> list[LotEvent]:
    """The entries that undo an execution's own: what it closed is open again, what it opened is gone.

    Where later trades have already closed some of what it opened, or traded against what would open again, its books cannot be
    taken back one by one: then the opposite trade at the same price is booked, so that position and cash are the broker's.
    """
    lots = state.lots.get(order.symbol, [])
    opened = next((lot for lot in lots if lot.lot_id == execution_id), None)
    undone: list[LotEvent] = [
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
            closed.cause,
        )
        for closed in reversed(execution.closed)
    ]
    if opened is not None:
        undone.append(_gone(opened, execution_id, at, LotCause.BUST))
    is_whole = (opened.quantity if opened is not None else ZERO) == execution.opened
    if is_whole and len({lot.quantity > 0 for lot in _lots_after(lots, undone)}) <= 1:
        return undone
    return book(
        order, f"{execution_id}-bust", -execution.signed_quantity, execution.price, at, state, first=execution_id
    )
