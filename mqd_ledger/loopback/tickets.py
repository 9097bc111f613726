"""An order as a client asks for it: JSON taken apart into the market's types, and nothing judged yet beyond that.

Numbers may come as JSON numbers or as text; both are read as decimals from what was written. What cannot be read is refused with
Alpaca's status, code and words. To take another field, add it to `Ticket` and to `ticket_of`.
"""

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.values import Money, OrderType, Price, Quantity, Side, Symbol, TimeInForce

MALFORMED, INVALID = 40010000, 40010001
PRICES = ("limit_price", "stop_price")
E = TypeVar("E", bound=StrEnum)


class Refused(BadInput):
    """What Alpaca answers instead of doing it: HTTP status, code, message and further fields of the body."""

    def __init__(self, status: int, code: int, message: str, **fields: Any) -> None:
        self.status = status
        self.body: dict[str, Any] = {"code": code, "message": message, **fields}
        super().__init__(message)


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    symbol: Symbol
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Quantity | None = None
    notional: Money | None = None
    limit_price: Price | None = None
    stop_price: Price | None = None
    extended_hours: bool = False
    client_order_id: str = ""  # the server makes one up where it is empty
    position_intent: str = ""


def body_of(text: str) -> dict[str, Any]:
    """A request's JSON object, its numbers as decimals."""
    try:
        body = json.loads(text or "{}", parse_float=Decimal, parse_int=Decimal)
    except ValueError as error:
        raise Refused(400, MALFORMED, "request body format is invalid") from error
    if not isinstance(body, dict):
        raise Refused(400, MALFORMED, "request body format is invalid")
    return body


def ticket_of(body: Mapping[str, Any]) -> Ticket:
    """The order that a POST /orders asks for."""
    if body.get("order_class") not in (None, "", "simple"):
        raise Refused(
            422, INVALID, f"order_class {body['order_class']} is not supported by this server: only simple is"
        )
    return Ticket(
        symbol=_text(body, "symbol").upper(),
        side=_one_of(Side, body, "side"),
        order_type=_one_of(OrderType, body, "type"),
        time_in_force=_one_of(TimeInForce, body, "time_in_force"),
        quantity=number_of(body, "qty"),
        notional=number_of(body, "notional"),
        limit_price=number_of(body, "limit_price"),
        stop_price=number_of(body, "stop_price"),
        extended_hours=is_true(body.get("extended_hours")),
        client_order_id=str(body.get("client_order_id") or ""),
        position_intent=str(body.get("position_intent") or ""),
    )


def number_of(body: Mapping[str, Any], name: str) -> Decimal | None:
    value = body.get(name)
    if value is None or value == "":
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise Refused(422, INVALID, f"{name} must be a number") from error
    if isinstance(value, bool) or not number.is_finite():
        raise Refused(422, INVALID, f"{name} must be a number")
    return number


def is_true(value: object) -> bool:
    """Python's clients write True, others true."""
    return str(value).lower() == "true"


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(422, INVALID, f"{name} is required")
    return value


def _one_of(kind: type[E], body: Mapping[str, Any], name: str) -> E:
    value = _text(body, name)
    if value.upper() not in kind.__members__:
        raise Refused(422, INVALID, f"invalid {name}")
    return kind(value.upper())
