"""What was executed? One row per execution the broker reported, and whether it still stands.

The rows whose status is BOOKED add up to what the broker's statement says. A bust of an execution that was never reported
has no row here; it is in `alerts`.
"""

from collections.abc import Iterator

from mqd_ledger import events as e
from projections.shape import Kind, Meta, Statement, Table, amount, at

NAME = "executions"
VERSION = 1

EXECUTIONS = Table(
    "executions",
    key=("position",),
    columns={
        "position": Kind.INTEGER,  # in the log
        "execution_id": Kind.TEXT,
        "client_order_id": Kind.TEXT,
        "symbol": Kind.TEXT,
        "side": Kind.TEXT,
        "quantity": Kind.DECIMAL,
        "price": Kind.DECIMAL,
        "notional": Kind.DECIMAL,
        "commission": Kind.DECIMAL,
        "trade_date": Kind.DATE,
        "executed_at": Kind.TIME,
        "status": Kind.TEXT,  # BOOKED, BUSTED, CORRECTED
        "replaced_by": Kind.TEXT,  # the execution_id of the correction
    },
    indexes=("execution_id",),
)
TABLES = (EXECUTIONS,)
READS = (e.OrderFilled, e.ExecutionBusted, e.ExecutionCorrected)

_BUSTED = "update executions set status = 'BUSTED' where execution_id = ? and status = 'BOOKED'"
_CORRECTED = """update executions set status = 'CORRECTED', replaced_by = ?
    where execution_id = ? and status = 'BOOKED'"""


def apply(event: e.OrderFilled | e.ExecutionBusted | e.ExecutionCorrected, meta: Meta) -> Iterator[Statement]:
    match event:
        case e.OrderFilled():
            yield _booked(event, meta)
        case e.ExecutionBusted():
            yield _BUSTED, (event.execution_id,)
        case e.ExecutionCorrected():
            yield _booked(event, meta)
            yield _CORRECTED, (event.execution_id, event.previous_execution_id)


def _booked(event: e.OrderFilled | e.ExecutionCorrected, meta: Meta) -> Statement:
    return (
        EXECUTIONS.insert,
        (
            meta.position,
            event.execution_id,
            event.client_order_id,
            event.symbol,
            event.side,
            amount(event.last_quantity),
            amount(event.last_price),
            amount(event.last_quantity * event.last_price),
            amount(event.commission),
            meta.trade_date,
            at(event.occurred_at),
            "BOOKED",
            None,
        ),
    )
