"""How much of the day's limits is used? One row per trading day, by the rules of the risk gate.

The day is the one in which we learned of a thing: what is reported after midnight counts against the new day, as the gate counts
it. `start_equity` is moved by deposits and withdrawals, which are neither profit nor loss; `pnl` is `equity` less it, marked at
the last bar of the day. The last row is the day that is still running.
"""

from collections.abc import Iterator
from decimal import Decimal

from mqd_ledger import events as e
from mqd_ledger.values import ZERO
from projections.shape import DayClosed, Kind, Meta, Statement, Table, amount, ratio

NAME = "daily_limits"
VERSION = 1

LIMITS = Table(
    "daily_limits",
    key=("trade_date",),
    columns={
        "trade_date": Kind.DATE,
        "orders_requested": Kind.INTEGER,
        "orders_approved": Kind.INTEGER,
        "orders_denied": Kind.INTEGER,
        "realized_pnl": Kind.DECIMAL,  # before commissions and fees
        "commissions": Kind.DECIMAL,
        "fees": Kind.DECIMAL,
        "consecutive_losses": Kind.INTEGER,  # closings in a row, over days
        "start_equity": Kind.DECIMAL,
        "equity": Kind.DECIMAL,
        "pnl": Kind.DECIMAL,  # realized and unrealized, after commissions and fees
        "peak_equity": Kind.DECIMAL,
        "max_drawdown": Kind.DECIMAL,  # so far, as a fraction of the peak
    },
)
TABLES = (LIMITS,)
READS = (
    e.OrderRequested,
    e.OrderApproved,
    e.OrderDenied,
    e.OrderFilled,
    e.ExecutionBusted,
    e.LotClosed,
    e.LotReopened,
    e.FeeCharged,
    DayClosed,
)

_ADDED = """insert into daily_limits values (?, ?, ?, ?, ?, ?, ?, 0, '0', '0', '0', '0', '0')
    on conflict (trade_date) do update set
    orders_requested = orders_requested + excluded.orders_requested,
    orders_approved = orders_approved + excluded.orders_approved,
    orders_denied = orders_denied + excluded.orders_denied,
    realized_pnl = decimal_add(realized_pnl, excluded.realized_pnl),
    commissions = decimal_add(commissions, excluded.commissions), fees = decimal_add(fees, excluded.fees)"""
_CLOSED = """insert into daily_limits values (?, 0, 0, 0, '0', '0', '0', ?, ?, ?, ?, ?, ?)
    on conflict (trade_date) do update set consecutive_losses = excluded.consecutive_losses,
    start_equity = excluded.start_equity, equity = excluded.equity, pnl = excluded.pnl,
    peak_equity = excluded.peak_equity, max_drawdown = excluded.max_drawdown"""


def apply(event: e.Event, meta: Meta) -> Iterator[Statement]:
    match event:
        case e.OrderRequested():
            yield _added(meta, requested=1)
        case e.OrderApproved():
            yield _added(meta, approved=1)
        case e.OrderDenied():
            yield _added(meta, denied=1)
        case e.OrderFilled():
            yield _added(meta, commission=event.commission)
        case e.ExecutionBusted():
            yield _added(meta, commission=-event.commission)
        case e.LotClosed():
            yield _added(meta, realized=event.realized_pnl)
        case e.LotReopened():
            yield _added(meta, realized=-event.realized_pnl)
        case e.FeeCharged():
            yield _added(meta, fee=event.amount)
        case DayClosed():
            yield _CLOSED, (event.day, *_standing(meta))
        case _:
            return


def _added(
    meta: Meta,
    *,
    requested: int = 0,
    approved: int = 0,
    denied: int = 0,
    realized: Decimal = ZERO,
    commission: Decimal = ZERO,
    fee: Decimal = ZERO,
) -> Statement:
    return _ADDED, (meta.day, requested, approved, denied, amount(realized), amount(commission), amount(fee))


def _standing(meta: Meta) -> tuple[int, str, str, str, str, str]:
    account = meta.account
    return (
        account.consecutive_losses,
        amount(account.start_equity),
        amount(account.equity),
        amount(account.equity - account.start_equity),
        amount(account.peak),
        ratio(account.max_drawdown),
    )
