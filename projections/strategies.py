"""How does each strategy do? One row per strategy; the operator's own orders are the strategy without a name."""

from collections.abc import Iterator
from decimal import Decimal

from mqd_ledger import events as e
from mqd_ledger.values import ZERO
from projections.shape import Kind, Meta, Statement, Table, amount

NAME = "strategies"
VERSION = 1

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
READS = (
    e.SignalRaised,
    e.SignalIgnored,
    e.StrategyStopped,
    e.OrderRequested,
    e.OrderAdopted,
    e.OrderDenied,
    e.OrderFilled,
    e.ExecutionBusted,
    e.LotClosed,
    e.LotReopened,
)

_BORN = "insert or ignore into strategies values (?, 0, 0, 0, 0, 0, '0', '0', 0, 0, 0, null)"
_SIGNAL = "update strategies set signals = signals + 1 where strategy = ?"
_IGNORED = "update strategies set signals_ignored = signals_ignored + 1 where strategy = ?"
_STOPPED = "update strategies set stopped = ? where strategy = ?"
_ORDER = "update strategies set orders = orders + 1 where strategy = ?"
_OF_ORDER = "where strategy = coalesce((select strategy from strategies_orders where client_order_id = ?), '')"
_DENIED = f"update strategies set orders_denied = orders_denied + 1 {_OF_ORDER}"
_EXECUTED = (
    f"update strategies set executions = executions + ?, commissions = decimal_add(commissions, ?) {_OF_ORDER}"
)
_REALIZED = """update strategies set realized_pnl = decimal_add(realized_pnl, ?), closings = closings + ?,
    wins = wins + ?, losses = losses + ? where strategy = ?"""


def apply(event: e.Event, _meta: Meta) -> Iterator[Statement]:
    match event:
        case e.SignalRaised():
            yield _BORN, (event.strategy,)
            yield _SIGNAL, (event.strategy,)
        case e.SignalIgnored():
            yield _IGNORED, (event.strategy,)
        case e.StrategyStopped():
            yield _BORN, (event.strategy,)
            yield _STOPPED, (event.error, event.strategy)
        case e.OrderRequested():
            yield _BORN, (event.strategy,)
            yield ORDERS.insert, (event.client_order_id, event.strategy)
            yield _ORDER, (event.strategy,)
        case e.OrderAdopted():
            yield _BORN, ("",)
        case e.OrderDenied():
            yield _DENIED, (event.client_order_id,)
        case e.OrderFilled():
            yield _executed(event, 1, event.commission)
        case e.ExecutionBusted():
            yield _executed(event, -1, -event.commission)
        case e.LotClosed():
            yield from _realized(event, 1)
        case e.LotReopened():
            yield from _realized(event, -1)
        case _:
            return


def _executed(event: e.OrderFilled | e.ExecutionBusted, count: int, commission: Decimal) -> Statement:
    return _EXECUTED, (count, amount(commission), event.client_order_id)


def _realized(event: e.LotClosed | e.LotReopened, sign: int) -> Iterator[Statement]:
    wins, losses = sign * (event.realized_pnl > ZERO), sign * (event.realized_pnl < ZERO)
    yield _BORN, (event.strategy,)
    yield _REALIZED, (amount(sign * event.realized_pnl), sign, wins, losses, event.strategy)
