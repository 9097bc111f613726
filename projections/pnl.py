"""What was earned on which day, in which symbol, by which strategy? One row per trading day, symbol and strategy.

`realized_pnl` is before commissions and fees. A bust or a correction counts on the day on which it was made, so that past days
stay as they were reported. Fees that belong to no order, and income, stand under the empty symbol and strategy.
"""

from collections.abc import Iterator
from decimal import Decimal

from mqd_ledger import events as e
from mqd_ledger.evolve.books import INCOME
from mqd_ledger.values import ZERO, LotCause
from projections.shape import Kind, Meta, Statement, Table, amount

NAME = "pnl"
VERSION = 2

DAILY = Table(
    "pnl_daily",
    key=("trade_date", "symbol", "strategy"),
    columns={
        "trade_date": Kind.DATE,
        "symbol": Kind.TEXT,
        "strategy": Kind.TEXT,
        "realized_pnl": Kind.DECIMAL,
        "commissions": Kind.DECIMAL,
        "fees": Kind.DECIMAL,
        "income": Kind.DECIMAL,  # dividends and interest
        "closings": Kind.INTEGER,  # lots closed, wholly or in part
        "wins": Kind.INTEGER,
        "losses": Kind.INTEGER,  # what is neither was closed at its cost
    },
)
# A fill does not say whose order it was.
ORDERS = Table(
    "pnl_orders",
    key=("client_order_id",),
    columns={"client_order_id": Kind.TEXT, "strategy": Kind.TEXT},
    public=False,
)
TABLES = (DAILY, ORDERS)
READS = (
    e.OrderRequested,
    e.OrderReplaced,
    e.OrderFilled,
    e.ExecutionBusted,
    e.LotClosed,
    e.LotReopened,
    e.FeeCharged,
    e.CashMoved,
)

_ADDED = """insert into pnl_daily
    values (?, ?, coalesce(?, (select strategy from pnl_orders where client_order_id = ?), ''), ?, ?, ?, ?, ?, ?, ?)
    on conflict (trade_date, symbol, strategy) do update set
    realized_pnl = decimal_add(realized_pnl, excluded.realized_pnl),
    commissions = decimal_add(commissions, excluded.commissions), fees = decimal_add(fees, excluded.fees),
    income = decimal_add(income, excluded.income),
    closings = closings + excluded.closings, wins = wins + excluded.wins, losses = losses + excluded.losses"""

_REPLACED = "insert or ignore into pnl_orders select ?, strategy from pnl_orders where client_order_id = ?"


def apply(event: e.Event, meta: Meta) -> Iterator[Statement]:
    match event:
        case e.OrderRequested():
            yield ORDERS.insert, (event.client_order_id, event.strategy)
        case e.OrderReplaced():
            yield _REPLACED, (event.replacement_id, event.client_order_id)
        case e.OrderFilled():
            yield _commission(event, meta, event.commission)
        case e.ExecutionBusted():
            yield _commission(event, meta, -event.commission)
        case e.LotClosed():
            yield _realized(event, meta, 1)
        case e.LotReopened():
            yield _realized(event, meta, -1)
        case e.FeeCharged():
            yield _ADDED, (meta.trade_date, "", "", None, "0", "0", amount(event.amount), "0", 0, 0, 0)
        case e.CashMoved() if event.kind in INCOME:
            yield _ADDED, (meta.trade_date, "", "", None, "0", "0", "0", amount(event.amount), 0, 0, 0)
        case _:
            return


def _commission(event: e.OrderFilled | e.ExecutionBusted, meta: Meta, commission: Decimal) -> Statement:
    order = event.client_order_id
    return _ADDED, (meta.trade_date, event.symbol, None, order, "0", amount(commission), "0", "0", 0, 0, 0)


def _realized(event: e.LotClosed | e.LotReopened, meta: Meta, sign: int) -> Statement:
    closings = sign * (event.cause in (LotCause.TRADE, LotCause.ADJUSTMENT))
    wins, losses = sign * (event.realized_pnl > ZERO), sign * (event.realized_pnl < ZERO)
    realized = amount(sign * event.realized_pnl)
    of = meta.trade_date, event.symbol, event.strategy, None
    return _ADDED, (*of, realized, "0", "0", "0", closings, wins, losses)
