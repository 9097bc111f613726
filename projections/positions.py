"""What is held now, and at what cost? One row per symbol with an open position.

Its market value needs a price of now: `equity` has that of each day, the command `positions` that of the last bar.
"""

from collections.abc import Iterator

from mqd_ledger import events as e
from projections.shape import Kind, Meta, Statement, Table, amount, at

NAME = "positions"
VERSION = 2

POSITIONS = Table(
    "positions",
    key=("symbol",),
    columns={
        "symbol": Kind.TEXT,
        "side": Kind.TEXT,  # long, short
        "quantity": Kind.DECIMAL,  # negative for a short position
        "cost_basis": Kind.DECIMAL,
        "average_price": Kind.DECIMAL,
        "opened_at": Kind.TIME,
        "changed_at": Kind.TIME,
        "position": Kind.INTEGER,  # of the last change in the log
    },
)
TABLES = (POSITIONS,)
READS = (e.LotOpened, e.LotClosed, e.LotReopened)

_CHANGED = """insert into positions values (?, '', ?, ?, null, ?, ?, ?) on conflict (symbol) do update set
    quantity = decimal_add(quantity, excluded.quantity), cost_basis = decimal_add(cost_basis, excluded.cost_basis),
    changed_at = excluded.changed_at, position = excluded.position"""
_SUMMED = """update positions set side = case when quantity like '-%' then 'short' else 'long' end,
    average_price = decimal_ratio(cost_basis, quantity) where symbol = ?"""
_FLAT = "delete from positions where symbol = ? and quantity = '0'"


def apply(event: e.LotOpened | e.LotClosed | e.LotReopened, meta: Meta) -> Iterator[Statement]:
    sign = -1 if isinstance(event, e.LotClosed) else 1
    change = amount(sign * event.quantity), amount(sign * event.cost_basis)
    yield _CHANGED, (event.symbol, *change, at(event.opened_at), at(event.occurred_at), meta.position)
    yield _SUMMED, (event.symbol,)
    yield _FLAT, (event.symbol,)
