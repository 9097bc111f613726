"""Which lots are open, at which cost, and what did the closed ones earn? One row per lot ever opened."""

from collections.abc import Iterator

from mqd_ledger import events as e
from mqd_ledger.values import LotCause
from projections.shape import Kind, Meta, Statement, Table, amount, at

NAME = "lots"
VERSION = 1

LOTS = Table(
    "lots",
    key=("lot_id",),
    columns={
        "lot_id": Kind.TEXT,  # the execution, or the adjustment, that opened it
        "symbol": Kind.TEXT,
        "strategy": Kind.TEXT,
        # OPEN, CLOSED; ADJUSTED to the broker's books, MERGED into another (average cost, a split), BUSTED with what opened it
        "state": Kind.TEXT,
        "quantity": Kind.DECIMAL,  # still open; negative for a short lot
        "opened_quantity": Kind.DECIMAL,
        "cost_price": Kind.DECIMAL,
        "cost_basis": Kind.DECIMAL,  # of what is still open; negative for a short lot
        "realized_pnl": Kind.DECIMAL,  # of what is closed, before commissions
        "opened_at": Kind.TIME,
        "closed_at": Kind.TIME,
        "position": Kind.INTEGER,  # of its opening in the log
    },
)
TABLES = (LOTS,)
READS = (e.LotOpened, e.LotClosed, e.LotReopened)

_CHANGED = """update lots set quantity = decimal_add(quantity, ?), cost_basis = decimal_add(cost_basis, ?),
    realized_pnl = decimal_add(realized_pnl, ?), closed_at = ? where lot_id = ?"""
_STATE = """update lots set state = case quantity when '0' then ? else 'OPEN' end,
    closed_at = case quantity when '0' then closed_at end where lot_id = ?"""
_ENDED = {
    LotCause.TRADE: "CLOSED",
    LotCause.MERGE: "MERGED",
    LotCause.BUST: "BUSTED",
    LotCause.ADJUSTMENT: "ADJUSTED",
}


def apply(event: e.LotOpened | e.LotClosed | e.LotReopened, meta: Meta) -> Iterator[Statement]:
    quantity, cost_basis, when = event.quantity, event.cost_basis, at(event.occurred_at)
    match event:
        case e.LotOpened():
            opened = amount(quantity)
            yield (
                LOTS.insert,
                (
                    event.lot_id,
                    event.symbol,
                    event.strategy,
                    "OPEN",
                    opened,
                    opened,
                    amount(event.cost_price),
                    amount(cost_basis),
                    "0",
                    at(event.opened_at),
                    None,
                    meta.position,
                ),
            )
            return
        case e.LotClosed():
            change = amount(-quantity), amount(-cost_basis), amount(event.realized_pnl), when
        case e.LotReopened():
            change = amount(quantity), amount(cost_basis), amount(-event.realized_pnl), when
    yield _CHANGED, (*change, event.lot_id)
    yield _STATE, (_ENDED[event.cause], event.lot_id)
