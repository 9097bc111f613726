"""What Alpaca validates before it takes an order, a cancel or a replacement: one function per rule, one table.

A rule returns None where it has nothing against the order, else the message, or the message with further fields for the answer's
body. To add a rule: a function (in `rules_of_shape` if it looks at the order alone), and its row in `RULES` with the HTTP status
and code; the first rule that objects answers.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from mqd_ledger.loopback import rules_of_shape as shape
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.figures import available, closing_orders, figures_of, size_of, valued_at
from mqd_ledger.loopback.orders import OrderRecord
from mqd_ledger.loopback.rules_of_shape import Case, Objection
from mqd_ledger.loopback.tickets import INVALID, Refused, Ticket
from mqd_ledger.values import CENT, ZERO, Side, plain

FORBIDDEN, UNPROCESSABLE, NOT_FOUND = 40310000, 42210000, 40410000
SHORT_EQUITY_MIN = Decimal(2000)


def client_order_id_is_unique(case: Case) -> Objection:
    """Those of orders that have ended count as well."""
    return "client_order_id must be unique" if case.ticket.client_order_id in case.account.book.by_client_id else None


def intent_is_what_follows(case: Case) -> Objection:
    inferred = f"{case.ticket.side.lower()}_to_{'close' if case.closes else 'open'}"
    specified = case.ticket.position_intent
    if specified and specified != inferred:
        return f"position intent mismatch, inferred: {inferred}, specified: {specified}"
    return None


def shares_are_available(case: Case) -> Objection:
    """A position is closed first and the other side opened then: no order does both."""
    if not case.closes:
        return None
    ticket, account = case.ticket, case.account
    wanted, free = size_of(ticket, account), available(account, ticket.symbol, case.replaced)
    if wanted <= free:
        return None
    existing = abs(account.held_quantity(ticket.symbol))
    shown = plain(max(ZERO, free))
    return f"insufficient qty available for order (requested: {plain(wanted)}, available: {shown})", {
        "available": shown,
        "existing_qty": plain(existing),
        "held_for_orders": plain(existing - free),
        "related_orders": [order.id for order in closing_orders(account, ticket.symbol)],
        "symbol": ticket.symbol,
    }


def _opens_a_short(case: Case) -> bool:
    return case.ticket.side is Side.SELL and not case.closes


def short_is_not_fractional(case: Case) -> Objection:
    return "fractional orders cannot be sold short" if _opens_a_short(case) and case.is_fractional else None


def account_may_sell_short(case: Case) -> Objection:
    if not _opens_a_short(case):
        return None
    account = case.account
    may = account.spec.shorting and account.spec.multiplier > 1
    return None if may and figures_of(account).equity >= SHORT_EQUITY_MIN else "account is not allowed to short"


def is_no_wash_trade(case: Case) -> Objection:
    ticket = case.ticket
    for other in case.account.book.open.values():
        if other.symbol != ticket.symbol or other.side is ticket.side or other is case.replaced:
            continue
        reason = _crosses(ticket, other)
        if reason:
            return "potential wash trade detected. use complex orders", {
                "existing_order_id": other.id,
                "reject_reason": reason,
            }
    return None


def _crosses(ticket: Ticket, other: OrderRecord) -> str | None:
    """Why two orders on opposite sides could meet each other."""
    if ticket.limit_price is None or other.limit_price is None:
        return "opposite side market/stop order exists"
    buy, sell = ticket.limit_price, other.limit_price
    if ticket.side is Side.SELL:
        buy, sell = sell, buy
    return "opposite side limit order exists" if buy >= sell else None


def buying_power_is_sufficient(case: Case) -> Objection:
    if case.closes:
        return None
    ticket, account = case.ticket, case.account
    cost = ticket.notional
    if cost is None:
        cost = size_of(ticket, account) * valued_at(ticket, account)
    power = figures_of(account, case.replaced).buying_power
    if cost <= power:
        return None
    return "insufficient buying power", {"buying_power": plain(_cents(power)), "cost_basis": plain(_cents(cost))}


class Rule(NamedTuple):
    objection: Callable[[Case], Objection]
    status: int
    code: int


RULES = (
    Rule(shape.has_a_size, 422, INVALID),
    Rule(shape.has_one_size, 422, INVALID),
    Rule(shape.size_is_positive, 422, INVALID),
    Rule(shape.size_is_not_too_fine, 422, INVALID),
    Rule(shape.client_order_id_is_short_enough, 422, INVALID),
    Rule(shape.type_is_taken, 422, INVALID),
    Rule(shape.prices_fit_the_type, 422, INVALID),
    Rule(shape.symbol_is_known, 422, UNPROCESSABLE),
    Rule(shape.prices_are_whole_ticks, 422, UNPROCESSABLE),
    Rule(shape.notional_is_a_market_order, 422, UNPROCESSABLE),
    Rule(shape.notional_is_large_enough, 422, UNPROCESSABLE),
    Rule(shape.extended_hours_are_for_limits, 422, UNPROCESSABLE),
    Rule(shape.fractions_are_for_the_day, 422, UNPROCESSABLE),
    Rule(shape.time_in_force_fits_the_type, 422, INVALID),
    Rule(client_order_id_is_unique, 422, INVALID),
    Rule(intent_is_what_follows, 422, UNPROCESSABLE),
    Rule(shares_are_available, 403, FORBIDDEN),
    Rule(short_is_not_fractional, 422, UNPROCESSABLE),
    Rule(account_may_sell_short, 403, FORBIDDEN),
    Rule(is_no_wash_trade, 403, FORBIDDEN),
    Rule(buying_power_is_sufficient, 403, FORBIDDEN),
)


def check(ticket: Ticket, account: Account, replaced: OrderRecord | None = None) -> None:
    """Raise what the first rule says that objects."""
    case = Case(ticket, account, replaced)
    for rule in RULES:
        objection = rule.objection(case)
        if objection is not None:
            message, fields = (objection, {}) if isinstance(objection, str) else objection
            raise Refused(rule.status, rule.code, message, **fields)


def check_cancel(order: OrderRecord) -> None:
    if order.status == "pending_cancel":
        raise Refused(422, UNPROCESSABLE, "order pending cancel")
    if order.status == "pending_replace":
        raise Refused(422, UNPROCESSABLE, "order is not cancelable")
    if not order.is_open:
        raise Refused(422, UNPROCESSABLE, f'order is already in "{order.status}" state')


REPLACEABLE = ("new", "partially_filled")


def check_replace(order: OrderRecord, ticket: Ticket) -> None:
    """What only a replacement has to keep; `check` looks at the new order like at any other."""
    if order.status not in REPLACEABLE:
        raise Refused(422, UNPROCESSABLE, "unable to replace order, order is not open")
    if order.notional is not None:
        raise Refused(422, UNPROCESSABLE, "unable to replace order, notional orders cannot be replaced")
    whole = order.quantity is None or order.quantity == order.quantity.to_integral_value()
    if not whole and ticket.quantity != order.leaves_quantity:
        raise Refused(422, UNPROCESSABLE, "unable to replace order, qty of fractional orders cannot be changed")
    if ticket.quantity is not None and ticket.quantity <= 0:
        raise Refused(422, UNPROCESSABLE, "unable to replace order, qty must be greater than the filled qty")


def _cents(value: Decimal) -> Decimal:
    return value.quantize(CENT)
