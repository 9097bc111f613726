"""How many shares a signal asks for when it does not say so itself.

The sizer stays inside the limits that it can know (position, exposure, buying power), so that a full position is not asked for
again and again; the risk gate still decides. Where the limits leave less than the smallest order, what was wished is asked for
all the same: the gate then denies it with every number, instead of nothing happening and nobody knowing why.
"""

from collections.abc import Callable, Mapping
from decimal import ROUND_DOWN, Decimal
from types import MappingProxyType
from typing import NamedTuple

from mqd_ledger.state import State
from mqd_ledger.values import QUANTITY_STEP, ZERO, Direction, Money, Price, Quantity, Symbol

ONE_SHARE = Decimal(1)
HUNDRED = Decimal(100)


class Wish(NamedTuple):
    """What a signal asks to hold; `notional` is its own wish in dollars, if it has one."""

    symbol: Symbol
    direction: Direction
    notional: Money | None


def _fixed(_wish: Wish, _price: Price, state: State) -> Quantity:
    return state.policy.sizing.quantity


def _notional(wish: Wish, price: Price, state: State) -> Quantity:
    """Account x percent / price, inside the limits. Nobody lends a fraction of a share: a short is sized in whole ones."""
    policy = state.policy
    symbol, direction, notional = wish
    wished = notional if notional is not None else state.equity * policy.sizing.percent / HUNDRED
    held = state.positions.get(symbol, ZERO)
    others = state.gross_exposure - abs(held) * state.marks[symbol].price
    room = [wished, state.equity - others]
    if policy.limits.position_notional_max is not None:
        room.append(policy.limits.position_notional_max)
    if policy.limits.position_percent_max is not None:
        room.append(state.equity * policy.limits.position_percent_max / HUNDRED)
    if policy.limits.exposure_max is not None:
        room.append(policy.limits.exposure_max - others)
    fractional = (
        policy.sizing.fractional and symbol not in policy.limits.whole_share_symbols and direction is Direction.LONG
    )
    step = QUANTITY_STEP if fractional else ONE_SHARE
    quantity = (max(ZERO, min(room)) / price).quantize(step, rounding=ROUND_DOWN)
    if quantity > 0:
        return quantity
    return max((wished / price).quantize(step, rounding=ROUND_DOWN), step)


SIZERS: Mapping[str, Callable[[Wish, Price, State], Quantity]] = MappingProxyType(
    {"fixed": _fixed, "notional": _notional}
)


def target_quantity(wish: Wish, state: State) -> Quantity:
    """Shares to hold, unsigned and above zero."""
    mark = state.marks.get(wish.symbol)
    if mark is None:
        return ONE_SHARE  # nothing to size on: the gate will say that no price is known
    method = "notional" if wish.notional is not None else state.policy.sizing.method
    return SIZERS[method](wish, mark.price, state)
