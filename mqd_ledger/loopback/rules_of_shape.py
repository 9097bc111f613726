"""Rules that look at an order alone: its size, type, prices, time in force. `rules` has the others and the table of all.

A rule returns None where it has nothing against the order, else the message, or the message with further fields for the answer's
body.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.orders import OrderRecord
from mqd_ledger.loopback.tickets import PRICES, Ticket
from mqd_ledger.values import CENT, OrderType, Price, Side, TimeInForce, plain

CLIENT_ORDER_ID_MAX = 128
QUANTITY_DECIMALS, NOTIONAL_DECIMALS = 9, 2
NOTIONAL_MIN = Decimal(1)
TICK_BELOW_A_DOLLAR = Decimal("0.0001")

Objection = str | tuple[str, dict[str, Any]] | None


class Case(NamedTuple):
    """What a rule looks at: the order, the account, and the open order that it would replace."""

    ticket: Ticket
    account: Account
    replaced: OrderRecord | None = None

    @property
    def price(self) -> Price | None:
        return self.account.market.price(self.ticket.symbol)

    @property
    def is_fractional(self) -> bool:
        quantity = self.ticket.quantity
        return quantity is None or quantity != quantity.to_integral_value()

    @property
    def closes(self) -> bool:
        """Whether there is a position on the other side that it would make smaller."""
        held = self.account.held_quantity(self.ticket.symbol)
        return held > 0 if self.ticket.side is Side.SELL else held < 0


def has_a_size(case: Case) -> Objection:
    if case.ticket.quantity is None and case.ticket.notional is None:
        return "qty or notional is required"
    return None


def has_one_size(case: Case) -> Objection:
    if case.ticket.quantity is not None and case.ticket.notional is not None:
        return "only one of qty or notional is accepted"
    return None


def size_is_positive(case: Case) -> Objection:
    if case.ticket.quantity is not None and case.ticket.quantity <= 0:
        return "qty must be > 0"
    if case.ticket.notional is not None and case.ticket.notional <= 0:
        return "notional must be > 0"
    return None


def size_is_not_too_fine(case: Case) -> Objection:
    if case.ticket.quantity is not None and _decimals(case.ticket.quantity) > QUANTITY_DECIMALS:
        return "qty must be limited to 9 decimal places"
    return None


def client_order_id_is_short_enough(case: Case) -> Objection:
    if len(case.ticket.client_order_id) > CLIENT_ORDER_ID_MAX:
        return "client_order_id must be no more than 128 characters"
    return None


# What each type needs, and the words where it is missing.
NEEDS: Mapping[OrderType, Mapping[str, str]] = {
    OrderType.MARKET: {},
    OrderType.LIMIT: {"limit_price": "limit orders require a limit price"},
    OrderType.STOP: {"stop_price": "stop orders require a stop price"},
    OrderType.STOP_LIMIT: {
        "limit_price": "stop limit orders require both stop and limit price",
        "stop_price": "stop limit orders require both stop and limit price",
    },
}
UNWANTED: Mapping[OrderType, str] = {
    OrderType.MARKET: "market orders require no stop or limit price",
    OrderType.LIMIT: "limit orders require no stop price",
    OrderType.STOP: "stop orders require no limit price",
}


def type_is_taken(case: Case) -> Objection:
    if case.ticket.order_type not in NEEDS:
        return f"{case.ticket.order_type.lower()} orders are not supported by this server"
    return None


def prices_fit_the_type(case: Case) -> Objection:
    ticket = case.ticket
    for name in PRICES:
        value: Price | None = getattr(ticket, name)
        if value is None and name in NEEDS[ticket.order_type]:
            return NEEDS[ticket.order_type][name]
        if value is not None and name not in NEEDS[ticket.order_type]:
            return UNWANTED[ticket.order_type]
        if value is not None and value <= 0:
            return f"{name} must be > 0"
    return None


def symbol_is_known(case: Case) -> Objection:
    return None if case.price is not None else f'asset "{case.ticket.symbol}" not found'


def prices_are_whole_ticks(case: Case) -> Objection:
    for name in PRICES:
        value: Price | None = getattr(case.ticket, name)
        if value is None:
            continue
        tick = CENT if value >= 1 else TICK_BELOW_A_DOLLAR
        if value % tick:
            return f"invalid {name} {plain(value)}. sub-penny increment does not fulfill minimum pricing criteria"
    return None


TIMES_IN_FORCE: Mapping[OrderType, frozenset[TimeInForce]] = {
    OrderType.MARKET: frozenset({TimeInForce.DAY, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK}),
    OrderType.LIMIT: frozenset({TimeInForce.DAY, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK}),
    OrderType.STOP: frozenset({TimeInForce.DAY, TimeInForce.GTC}),
    OrderType.STOP_LIMIT: frozenset({TimeInForce.DAY, TimeInForce.GTC}),
}


def fractions_are_for_the_day(case: Case) -> Objection:
    if case.is_fractional and case.ticket.time_in_force is not TimeInForce.DAY:
        return "fractional orders must be DAY orders"
    return None


def notional_is_large_enough(case: Case) -> Objection:
    notional = case.ticket.notional
    if notional is not None and (notional < NOTIONAL_MIN or _decimals(notional) > NOTIONAL_DECIMALS):
        return "notional must be >= 1.00" if notional < NOTIONAL_MIN else "notional must be limited to 2 decimal places"
    return None


def notional_is_a_market_order(case: Case) -> Objection:
    if case.ticket.notional is not None and case.ticket.order_type is not OrderType.MARKET:
        return "notional orders must be market orders"
    return None


def time_in_force_fits_the_type(case: Case) -> Objection:
    if case.ticket.time_in_force not in TIMES_IN_FORCE[case.ticket.order_type]:
        return "invalid time_in_force"
    return None


def extended_hours_are_for_limits(case: Case) -> Objection:
    ticket = case.ticket
    fits = ticket.order_type is OrderType.LIMIT and ticket.time_in_force in (TimeInForce.DAY, TimeInForce.GTC)
    return None if fits or not ticket.extended_hours else "extended hours order must be DAY or GTC limit orders"


def _decimals(value: Decimal) -> int:
    return len(plain(value).partition(".")[2])
