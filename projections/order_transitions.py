"""How did each order get to its state? One row per step: from, to, by what, and the surprise, if it was one.

A report that leaves the state as it is (a late acknowledgement, a fill after a cancel) is a step too.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from mqd_ledger import events as e
from mqd_ledger.orders import Trigger
from mqd_ledger.values import OrderState
from projections.shape import Kind, Meta, Statement, Table, at

NAME = "order_transitions"
VERSION = 2

TRANSITIONS = Table(
    "order_transitions",
    key=("client_order_id", "position"),
    columns={
        "client_order_id": Kind.TEXT,
        "position": Kind.INTEGER,  # of the cause in the log
        "changed_at": Kind.TIME,
        "from_state": Kind.TEXT,  # nothing before the first
        "to_state": Kind.TEXT,
        "trigger": Kind.TEXT,
        "anomaly": Kind.TEXT,
    },
)
TABLES = (TRANSITIONS,)

_STEP = """insert or ignore into order_transitions
    select client_order_id, ?1, ?2, to_state, order_state(to_state, ?3), ?3, order_anomaly(to_state, ?3)
    from order_transitions where client_order_id = ?4 order by position desc limit 1"""

_REPLACEMENT = """insert into order_transitions select ?1, ?2, ?3, null, 'SUBMITTED', 'replacement', null
    where not exists (select 1 from order_transitions where client_order_id = ?1)"""

_BORN: Mapping[type[e.Event], tuple[OrderState, str]] = MappingProxyType(
    {
        e.OrderRequested: (OrderState.PENDING, "requested"),
        e.OrderAdopted: (OrderState.SUBMITTED, "adopted"),
    }
)
_TRIGGERS: Mapping[type[e.Event], Callable[[Any], Trigger]] = MappingProxyType(
    {
        e.OrderDenied: lambda _: Trigger.DENIED,
        e.OrderSubmitted: lambda _: Trigger.SUBMITTED,
        e.OrderRejected: lambda _: Trigger.REJECTED,
        e.OrderFilled: lambda event: Trigger.PARTIAL_FILL if event.leaves_quantity else Trigger.FULL_FILL,
        e.OrderCanceled: lambda _: Trigger.CANCELED,
        e.OrderExpired: lambda _: Trigger.EXPIRED,
        e.OrderReplaced: lambda _: Trigger.REPLACED,
        e.ExecutionBusted: lambda _: Trigger.BUSTED,
        e.ExecutionCorrected: lambda _: Trigger.CORRECTED,
    }
)
READS = (*_BORN, *_TRIGGERS)


def apply(event: e.OrderEvent, meta: Meta) -> Iterator[Statement]:
    order, when = event.client_order_id, at(event.occurred_at)
    born = _BORN.get(type(event))
    if born is not None:
        state, trigger = born
        yield TRANSITIONS.insert, (order, meta.position, when, None, state, trigger, None)
    else:
        yield _STEP, (meta.position, when, _TRIGGERS[type(event)](event), order)
        if isinstance(event, e.OrderReplaced):
            yield _REPLACEMENT, (event.replacement_id, meta.position, when)
