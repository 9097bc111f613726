"""What is sent to Alpaca, how it answers, and what the answers mean to the ledger. Pure: `AlpacaBroker.perform` does the sending.

An effect is made of the state once its turn is on the disk and goes to a thread that never sees the state, so it carries all that
it needs. To send something else, add its struct to `Effect`, a row to `_MEANINGS`, and one to `AlpacaBroker.perform`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from commands import Command
from commands.broker_reports import ReportAbsent, ReportCancelRejected, ReportRejected, ReportReplaceRejected
from mqd_ledger.brokers.alpaca_orders import order_commands
from mqd_ledger.brokers.base import BrokerOrder
from mqd_ledger.state import State
from mqd_ledger.values import CENT, Money, OrderType, Price, Quantity, Side, Symbol, TimeInForce, plain


class Submit(msgspec.Struct, frozen=True):
    client_order_id: str
    symbol: Symbol
    side: Side
    order_type: OrderType
    quantity: Quantity | None
    notional: Money | None
    limit_price: Price | None
    stop_price: Price | None
    trail_price: Price | None
    trail_percent: Price | None
    time_in_force: TimeInForce
    extended_hours: bool
    closes: bool = False  # a position: it may use the reserve of requests that is kept for exits


class Cancel(msgspec.Struct, frozen=True):
    client_order_id: str
    broker_order_id: str | None


class Replace(msgspec.Struct, frozen=True):
    """None keeps what the order has."""

    client_order_id: str
    broker_order_id: str | None
    replacement_id: str
    quantity: Quantity | None
    limit_price: Price | None
    stop_price: Price | None
    time_in_force: TimeInForce | None


class LookUp(msgspec.Struct, frozen=True):
    """What has become of an attempt whose answer never came."""

    client_order_id: str
    attempt_at: datetime


Effect = Submit | Cancel | Replace | LookUp


class Answer(msgspec.Struct, frozen=True):
    """`accepted`: the broker has the order, or took the request. `refused`: it did not, and `reason` says why. `absent`: it has no
    such order, and would by now. `unknown`: nobody can tell, ask again.
    """

    kind: Literal["accepted", "refused", "unknown", "absent"]
    order: BrokerOrder | None = None
    reason: str = ""


def body_of(submit: Submit) -> dict[str, Any]:
    """An order on the wire: numbers as text, so that no float comes near them."""
    notional = None if submit.notional is None else submit.notional.quantize(CENT, rounding=ROUND_DOWN)
    return {
        "client_order_id": submit.client_order_id,
        "symbol": submit.symbol,
        "side": submit.side.lower(),
        "type": submit.order_type.lower(),
        "time_in_force": submit.time_in_force.lower(),
        **_numbers(
            qty=submit.quantity,
            notional=notional,  # more than cents are refused
            limit_price=submit.limit_price,
            stop_price=submit.stop_price,
            trail_price=submit.trail_price,
            trail_percent=submit.trail_percent,
        ),
        **({"extended_hours": True} if submit.extended_hours else {}),
    }


def change_of(replace: Replace) -> dict[str, Any]:
    force = {} if replace.time_in_force is None else {"time_in_force": replace.time_in_force.lower()}
    prices = _numbers(qty=replace.quantity, limit_price=replace.limit_price, stop_price=replace.stop_price)
    return {"client_order_id": replace.replacement_id, **prices, **force}


def _numbers(**values: Decimal | None) -> dict[str, str]:
    return {name: plain(value) for name, value in values.items() if value is not None}


def answer_commands(effect: Effect, answer: Answer, state: State, at: datetime) -> list[Command]:
    """What the ledger is told. Nothing where nobody knows: the order stays as it is until it was looked up."""
    if answer.kind == "unknown":
        return []
    meant = _MEANINGS[type(effect)](effect, answer, state, at)
    return meant if answer.order is None else [*meant, *order_commands(answer.order, state, at)]


def _submitted(effect: Submit, answer: Answer, state: State, at: datetime) -> list[Command]:
    if effect.client_order_id not in state.orders or answer.kind == "accepted":
        return []
    return [ReportRejected(at, at, effect.client_order_id, answer.reason)]


def _canceled(effect: Cancel, answer: Answer, state: State, at: datetime) -> list[Command]:
    if effect.client_order_id not in state.orders or answer.kind == "accepted":
        return []
    return [ReportCancelRejected(at, at, effect.client_order_id, answer.reason)]


def _replaced(effect: Replace, answer: Answer, state: State, at: datetime) -> list[Command]:
    if effect.client_order_id not in state.orders or answer.kind == "accepted":
        return []
    return [ReportReplaceRejected(at, at, effect.client_order_id, answer.reason)]


def _looked_up(effect: LookUp, answer: Answer, state: State, at: datetime) -> list[Command]:
    """A replacement is no order of the ledger before the broker has made it one."""
    if answer.kind != "absent":
        return []
    if effect.client_order_id in state.orders:
        return [ReportAbsent(at, at, effect.client_order_id)]
    reason = "the request to replace it never reached the broker"
    return [
        ReportReplaceRejected(at, at, order.client_order_id, reason)
        for order in state.orders.values()
        if order.replacement_id == effect.client_order_id
    ]


_MEANINGS: Mapping[type[Effect], Callable[[Any, Answer, State, datetime], list[Command]]] = MappingProxyType(
    {Submit: _submitted, Cancel: _canceled, Replace: _replaced, LookUp: _looked_up}
)
