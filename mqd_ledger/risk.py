"""The pre-trade risk gate: every check that an order must pass, each named as the sentence that must be true.

All checks are evaluated and recorded with their inputs, also after one has failed. An error inside a check denies the order. An
order that only makes a position smaller passes the limits on losses, sizes and counts: getting out must always be possible.

To add a check: write a function named as the sentence that must be true and add it to `CHECKS`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from types import MappingProxyType

import msgspec

from mqd_ledger import sessions
from mqd_ledger.errors import BrokenPromise
from mqd_ledger.events import Check, OrderRequested
from mqd_ledger.orders import Order
from mqd_ledger.policy import Limits
from mqd_ledger.state import Mark, Period, State
from mqd_ledger.values import ZERO, Money, OrderType, Price, Quantity, Side, Symbol, TimeInForce, TradingState, plain

HUNDRED = Decimal(100)
HOURS: Mapping[str, Callable[[datetime], bool]] = MappingProxyType(
    {"regular": sessions.is_regular, "extended": sessions.is_extended}
)
UNKNOWN = Decimal("Infinity")  # an amount that nobody knows is above every limit


class Proposal(msgspec.Struct, frozen=True):
    """An order as the checks look at it: what it would do to the account, should all that works on its side fill as well."""

    order: OrderRequested
    state: State
    limits: Limits
    at: datetime
    price: Price | None  # what a share will cost at worst, as far as it is known
    mark_price: Price | None  # what the shares are worth that are held already
    quantity: Quantity  # estimated where the order is by notional
    notional: Money
    position: Quantity  # signed, now
    position_before: Quantity  # signed, with all working orders of the symbol that are on the same side
    position_after: Quantity  # the same with this order
    reduces: bool
    instead_of: Order | None = None  # the working order that makes place for it


def propose(order: OrderRequested, state: State, instead_of: Order | None = None) -> Proposal:
    mark = state.marks.get(order.symbol)
    price = _worst_price(order, mark)
    if order.quantity is not None:
        quantity = order.quantity
        notional = quantity * price if price is not None else ZERO
    else:
        assert order.notional is not None
        notional = order.notional
        quantity = notional / price if price else ZERO
    position = state.positions.get(order.symbol, ZERO)
    # Only what works on the same side: the other side may never fill, so it makes room for nothing.
    same_side = [
        other
        for other in state.working.get(order.symbol, {}).values()
        if other.approved and other.side is order.side and other is not instead_of
    ]
    ahead = sum((other.signed(_leaves(other, price)) for other in same_side), ZERO)
    signed = quantity if order.side is Side.BUY else -quantity
    reduces = position != 0 and (signed > 0) != (position > 0) and abs(ahead + signed) <= abs(position)
    return Proposal(
        order,
        state,
        state.policy.limits,
        order.occurred_at,
        price,
        mark.price if mark else price,
        quantity,
        notional,
        position,
        position + ahead,
        position + ahead + signed,
        reduces,
        instead_of,
    )


def _worst_price(order: OrderRequested | Order, mark: Mark | None) -> Price | None:
    """What a share may cost: a buy pays up to its limit, or from its stop on; what is sold short is worth its mark or its limit."""
    if order.side is Side.BUY and order.limit_price is not None:
        return order.limit_price
    known = (order.limit_price if order.side is Side.SELL else order.stop_price, mark.price if mark else None)
    return max((price for price in known if price is not None), default=None)


def _leaves(order: Order, price: Price | None) -> Quantity:
    """What a working order may still fill; one by notional buys what is left of its dollars."""
    if order.notional is None:
        return order.leaves_quantity
    return _leaves_notional(order) / price if price else ZERO


def _leaves_notional(order: Order) -> Money:
    assert order.notional is not None
    return max(ZERO, order.notional - order.filled_notional)


def _limit(name: str, found: Decimal, most: Decimal | None, proposal: Proposal, unit: str) -> Check:
    """The common shape: `found` may not be above `most`, unless there is no limit or the order only reduces."""
    inputs = {unit: plain(found)}
    if proposal.reduces:
        inputs["reduces"] = "yes"
    passed = most is None or proposal.reduces or found <= most
    return Check(name, passed, None if most is None else plain(most), inputs)


def trading_is_allowed(p: Proposal) -> Check:
    """By the operator, by the exchange, and by what is down or not done yet between us and the broker."""
    state = p.state.trading_state
    inputs = {"trading_state": state.value}
    blocks = [f"{what} ({how})" for what, how in p.state.blocks.items()]
    if p.order.symbol in p.state.halted_symbols:
        blocks.append(f"halt of {p.order.symbol} ({p.state.halted_symbols[p.order.symbol]})")
    if blocks:
        inputs["blocked_by"] = ", ".join(blocks)
    passed = not blocks and (state is TradingState.ACTIVE or (state is TradingState.REDUCING and p.reduces))
    return Check("trading_is_allowed", passed, "ACTIVE", inputs)


def session_is_open(p: Proposal) -> Check:
    wanted = p.limits.session
    at = p.at.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Check("session_is_open", wanted == "any" or HOURS[wanted](p.at), wanted, {"at": at})


def price_is_known(p: Proposal) -> Check:
    return Check("price_is_known", p.price is not None, None, {"price": "none" if p.price is None else plain(p.price)})


def price_is_fresh(p: Proposal) -> Check:
    mark = p.state.marks.get(p.order.symbol)
    oldest = p.limits.stale_after
    if mark is None:
        return Check(
            "price_is_fresh", oldest is None, None if oldest is None else str(oldest), {"age_seconds": "unknown"}
        )
    age = p.at - mark.at
    passed = oldest is None or age <= timedelta(seconds=oldest)
    return Check(
        "price_is_fresh", passed, None if oldest is None else str(oldest), {"age_seconds": f"{age.total_seconds():g}"}
    )


def daily_loss_is_within_limit(p: Proposal) -> Check:
    return _limit("daily_loss_is_within_limit", _loss(p.state.day, p), p.limits.daily_loss_max, p, "loss")


def weekly_loss_is_within_limit(p: Proposal) -> Check:
    return _limit("weekly_loss_is_within_limit", _loss(p.state.week, p), p.limits.weekly_loss_max, p, "loss")


def _loss(period: Period, p: Proposal) -> Money:
    """Nothing has been lost yet in a day or week of which this order is the first event."""
    return ZERO if p.at >= period.ends_at else period.start_equity - p.state.equity


def position_notional_is_within_limit(p: Proposal) -> Check:
    notional = _position_notional(p)
    return _limit("position_notional_is_within_limit", notional, p.limits.position_notional_max, p, "notional")


def _position_notional(p: Proposal) -> Money:
    """The position after the order: what is there already at its mark, what comes at the order's price."""
    if p.price is None or p.mark_price is None:
        return ZERO
    before, after = p.position_before, p.position_after
    if not before or (before > 0) == (p.order.side is Side.BUY):
        return abs(before) * p.mark_price + p.quantity * p.price
    return abs(after) * (p.mark_price if (after > 0) == (before > 0) else p.price)


def position_percent_is_within_limit(p: Proposal) -> Check:
    equity = p.state.equity
    percent = _position_notional(p) * HUNDRED / equity if equity > 0 else HUNDRED * HUNDRED
    rounded = percent.quantize(Decimal("0.000001"))
    return _limit("position_percent_is_within_limit", rounded, p.limits.position_percent_max, p, "percent")


def exposure_is_within_limit(p: Proposal) -> Check:
    exposure = _others(p) + _position_notional(p)
    return _limit("exposure_is_within_limit", exposure, p.limits.exposure_max, p, "exposure")


def _others(p: Proposal) -> Money:
    """Gross exposure of the other symbols, with whichever side of their working orders makes it larger counted as filled."""
    symbols = {**p.state.positions, **p.state.working}
    return sum((_exposure(symbol, p.state) for symbol in symbols if symbol != p.order.symbol), ZERO)


def _exposure(symbol: Symbol, state: State) -> Money:
    mark = state.marks.get(symbol)
    held = state.positions[symbol] * state.marks[symbol].price if symbol in state.positions else ZERO
    buys = sells = ZERO
    for order in state.working.get(symbol, {}).values():
        if order.approved:
            notional = _working_notional(order, mark)
            if order.side is Side.BUY:
                buys += notional
            else:
                sells += notional
    return max(abs(held), abs(held + buys), abs(held - sells))


def _working_notional(order: Order, mark: Mark | None) -> Money:
    if order.notional is not None:
        return _leaves_notional(order)
    price = _worst_price(order, mark)
    return order.leaves_quantity * (UNKNOWN if price is None else price) if order.leaves_quantity else ZERO


def open_positions_are_within_limit(p: Proposal) -> Check:
    held = [symbol for symbol in p.state.positions if symbol != p.order.symbol]
    coming = [symbol for symbol in p.state.working if symbol != p.order.symbol and symbol not in p.state.positions]
    most = None if p.limits.positions_max is None else Decimal(p.limits.positions_max)
    return _limit("open_positions_are_within_limit", Decimal(len(held) + len(coming) + 1), most, p, "positions")


def orders_today_are_within_limit(p: Proposal) -> Check:
    most = None if p.limits.orders_per_day_max is None else Decimal(p.limits.orders_per_day_max)
    orders = 0 if p.at >= p.state.day.ends_at else p.state.day.orders
    return _limit("orders_today_are_within_limit", Decimal(orders + 1), most, p, "orders")


def order_is_not_a_duplicate(p: Proposal) -> Check:
    window = p.limits.duplicate_window
    size = p.order.quantity if p.order.quantity is not None else p.order.notional
    assert size is not None
    last = p.state.recent_requests.get((p.order.symbol, p.order.side, size))
    if p.instead_of is not None and last is not None and last <= p.instead_of.requested_at:
        last = None  # its own wish, at another price
    if window is None or last is None:
        return Check("order_is_not_a_duplicate", True, None if window is None else str(window), {"same_order": "none"})
    seconds = (p.at - last).total_seconds()
    return Check(
        "order_is_not_a_duplicate", seconds >= window, str(window), {"seconds_since_same_order": f"{seconds:g}"}
    )


def buying_power_covers_the_order(p: Proposal) -> Check:
    """Without margin: equity less what is bound in positions and working orders; a closing order needs none."""
    power = p.state.equity - _others(p)
    needed = _position_notional(p)
    inputs = {"needed": plain(needed), "buying_power": plain(power)}
    return Check("buying_power_covers_the_order", p.reduces or needed <= power, plain(power), inputs)


def notional_is_above_minimum(p: Proposal) -> Check:
    least = p.limits.order_notional_min
    passed = least is None or p.reduces or p.notional >= least
    return Check(
        "notional_is_above_minimum", passed, None if least is None else plain(least), {"notional": plain(p.notional)}
    )


def fractions_are_allowed(p: Proposal) -> Check:
    """Fractions: DAY, no short sale, not where the broker sells whole shares only; by notional: a market order too."""
    order = p.order
    if order.quantity is not None and order.quantity == order.quantity.to_integral_value():
        return Check("fractions_are_allowed", True, None, {"fractional": "no"})
    inputs = {"fractional": "yes", "time_in_force": order.time_in_force.value, "order_type": order.order_type.value}
    passed = (
        order.symbol not in p.limits.whole_share_symbols
        and order.time_in_force is TimeInForce.DAY
        and (order.notional is None or order.order_type is OrderType.MARKET)
        and (order.side is Side.BUY or p.position_after >= 0)
    )
    return Check("fractions_are_allowed", passed, "DAY, long, fractionable symbol", inputs)


def account_can_hold_the_symbol(p: Proposal) -> Check:
    """A $200 account cannot buy one $600 share, but it may buy a fraction of it."""
    whole = p.order.quantity is not None and p.order.quantity >= 1
    inputs = {"price": "none" if p.price is None else plain(p.price), "equity": plain(p.state.equity)}
    passed = p.reduces or not whole or (p.price is not None and p.price <= p.state.equity)
    return Check("account_can_hold_the_symbol", passed, plain(p.state.equity), inputs)


def short_selling_is_allowed(p: Proposal) -> Check:
    goes_short = p.order.side is Side.SELL and p.position_after < 0
    inputs = {"position_after": plain(p.position_after)}
    return Check(
        "short_selling_is_allowed",
        p.limits.short_selling or not goes_short,
        "yes" if p.limits.short_selling else "no",
        inputs,
    )


CHECKS: tuple[Callable[[Proposal], Check], ...] = (
    trading_is_allowed,
    session_is_open,
    price_is_known,
    price_is_fresh,
    daily_loss_is_within_limit,
    weekly_loss_is_within_limit,
    position_notional_is_within_limit,
    position_percent_is_within_limit,
    exposure_is_within_limit,
    open_positions_are_within_limit,
    orders_today_are_within_limit,
    order_is_not_a_duplicate,
    buying_power_covers_the_order,
    notional_is_above_minimum,
    fractions_are_allowed,
    account_can_hold_the_symbol,
    short_selling_is_allowed,
)


CHECK_NAMES = tuple(check.__name__ for check in CHECKS)


@cache
def checks_named(names: tuple[str, ...]) -> tuple[Callable[[Proposal], Check], ...]:
    """The checks of a run. One that was added since does not apply to it: its orders were decided without."""
    known = dict(zip(CHECK_NAMES, CHECKS, strict=True))
    if missing := [name for name in names if name not in known]:
        raise BrokenPromise(
            f"This run was decided with the risk checks {', '.join(missing)}, which this version does not have. "
            "Use the version of mqd-ledger that wrote the ledger, or a newer one."
        )
    return tuple(known[name] for name in names) or CHECKS


def evaluate(
    order: OrderRequested,
    state: State,
    checks: tuple[Callable[[Proposal], Check], ...] | None = None,
    instead_of: Order | None = None,
) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """Every check of the run on an order, and a sentence for each that failed (none: the order may go)."""
    proposal = propose(order, state, instead_of)
    checks = checks or checks_named(state.run.checks if state.run else ())
    results = tuple([_run(check, proposal) for check in checks])
    return results, tuple([_sentence(result) for result in results if not result.passed])


def _run(check: Callable[[Proposal], Check], proposal: Proposal) -> Check:
    try:
        return check(proposal)
    except Exception as error:  # noqa: BLE001  the gate fails closed: whatever breaks inside a check, the order does not go
        return Check(check.__name__, False, None, {"error": f"{type(error).__name__}: {error}"})


def _sentence(check: Check) -> str:
    found = ", ".join(f"{name} {value}" for name, value in check.inputs.items())
    allowed = f"; allowed {check.allowed}" if check.allowed is not None else ""
    return f"{check.name} does not hold: {found}{allowed}"
