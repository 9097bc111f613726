"""How does each strategy do? One row per strategy; the operator's own orders are the strategy without a name."""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from mqd_ledger import events as e
from mqd_ledger.values import ZERO, LotCause
from projections.shape import Kind, Meta, Statement, Table, amount

NAME = "strategies"
VERSION = 2

STRATEGIES = Table(
    "strategies",
    key=("strategy",),
    columns={
        "strategy": Kind.TEXT,
        "signals": Kind.INTEGER,
        "signals_ignored": Kind.INTEGER,
        "orders": Kind.INTEGER,
        "orders_denied": Kind.INTEGER,
        "executions": Kind.INTEGER,
        "realized_pnl": Kind.DECIMAL,  # of its own lots, before commissions
        "commissions": Kind.DECIMAL,  # of its own orders
        "closings": Kind.INTEGER,
        "wins": Kind.INTEGER,
        "losses": Kind.INTEGER,
        "stopped": Kind.TEXT,  # the error that stopped it last
    },
)
# Only the request says whose order it is.
ORDERS = Table(
    "strategies_orders",
    key=("client_order_id",),
    columns={"client_order_id": Kind.TEXT, "strategy": Kind.TEXT},
    public=False,
)
TABLES = (STRATEGIES, ORDERS)

_BORN = "insert or ignore into strategies values (?, 0, 0, 0, 0, 0, '0', '0', 0, 0, 0, null)"
_SIGNAL = "update strategies set signals = signals + 1 where strategy = ?"
_IGNORED = "update strategies set signals_ignored = signals_ignored + 1 where strategy = ?"
_STOPPED = "update strategies set stopped = ? where strategy = ?"
_ORDER = "update strategies set orders = orders + 1 where strategy = ?"
_DENIED = """update strategies set orders_denied = orders_denied + 1
    where strategy = coalesce((select strategy from strategies_orders where client_order_id = ?), '')"""
_EXECUTED = """update strategies set executions = executions + ?, commissions = decimal_add(commissions, ?)
    where strategy = coalesce((select strategy from strategies_orders where client_order_id = ?), '')"""
_REPLACED = (
    "insert or ignore into strategies_orders select ?, strategy from strategies_orders where client_order_id = ?"
)
_REALIZED = """update strategies set realized_pnl = decimal_add(realized_pnl, ?), closings = closings + ?,
    wins = wins + ?, losses = losses + ? where strategy = ?"""


def _executed(event: e.OrderFilled | e.ExecutionBusted, count: int, commission: Decimal) -> Statement:
    return _EXECUTED, (count, amount(commission), event.client_order_id)


def _realized(event: e.LotClosed | e.LotReopened, sign: int) -> tuple[Statement, ...]:
    closings = sign * (event.cause in (LotCause.TRADE, LotCause.ADJUSTMENT))
    wins, losses = sign * (event.realized_pnl > ZERO), sign * (event.realized_pnl < ZERO)
    realized = amount(sign * event.realized_pnl)
    return (_BORN, (event.strategy,)), (_REALIZED, (realized, closings, wins, losses, event.strategy))


_APPLY: Mapping[type[e.Event], Callable[[Any], tuple[Statement, ...]]] = MappingProxyType(
    {
        e.SignalRaised: lambda event: ((_BORN, (event.strategy,)), (_SIGNAL, (event.strategy,))),
        e.SignalIgnored: lambda event: ((_IGNORED, (event.strategy,)),),
        e.StrategyStopped: lambda event: ((_BORN, (event.strategy,)), (_STOPPED, (event.error, event.strategy))),
        e.OrderRequested: lambda event: (
            (_BORN, (event.strategy,)),
            (ORDERS.insert, (event.client_order_id, event.strategy)),
            (_ORDER, (event.strategy,)),
        ),
        e.OrderReplaced: lambda event: ((_REPLACED, (event.replacement_id, event.client_order_id)),),
        e.OrderAdopted: lambda _: ((_BORN, ("",)),),
        e.OrderDenied: lambda event: ((_DENIED, (event.client_order_id,)),),
        e.OrderFilled: lambda event: (_executed(event, 1, event.commission),),
        e.ExecutionBusted: lambda event: (_executed(event, -1, -event.commission),),
        e.LotClosed: lambda event: _realized(event, 1),
        e.LotReopened: lambda event: _realized(event, -1),
    }
)
READS = tuple(_APPLY)


def apply(event: e.Event, _meta: Meta) -> Iterator[Statement]:
    yield from _APPLY[type(event)](event)
