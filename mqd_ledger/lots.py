"""Lots: what is held, at which cost, and which part a trade closes.

A lot is opened by one execution and closed by later ones on the other side. Quantities are signed (short lots are negative) and
so is the cost basis, which makes one formula right for both: realized = quantity x price - cost basis, before commissions.

To add a matching method, write the order in which it takes lots and put it in `METHODS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

from mqd_ledger.errors import BrokenPromise
from mqd_ledger.events import LotClosed, LotEvent, LotOpened, LotReopened
from mqd_ledger.values import QUANTITY_STEP, ZERO, LotMethod, Money, Price, Quantity, Symbol


@dataclass(slots=True)
class Lot:
    lot_id: str
    symbol: Symbol
    strategy: str
    quantity: Quantity
    cost_price: Price
    cost_basis: Money
    opened_at: datetime


class Closing(NamedTuple):
    """A part of a lot that a trade closes: signed quantity, its cost and what it earned."""

    lot: Lot
    quantity: Quantity
    cost_basis: Money
    realized_pnl: Money


class Booking(NamedTuple):
    """What a trade does to the lots of its symbol: parts closed, then the signed rest that opens a lot (zero if none)."""

    closings: tuple[Closing, ...]
    opening: Quantity


# Which lot goes first. A short lot with a low price is the dear one: buying it back earns the least.
METHODS: Mapping[LotMethod, Callable[[Sequence[Lot]], Sequence[Lot]]] = MappingProxyType(
    {
        LotMethod.FIFO: lambda lots: lots,
        LotMethod.LIFO: lambda lots: lots[::-1],
        LotMethod.HIFO: lambda lots: sorted(
            lots, key=lambda lot: -lot.cost_price if lot.quantity > 0 else lot.cost_price
        ),
        LotMethod.AVERAGE: lambda lots: lots,  # there is one lot at a time: `merge` saw to it
    }
)


def in_order(lots: Sequence[Lot], method: LotMethod, strategy: str) -> Sequence[Lot]:
    """The order in which a strategy's trade takes lots: its own before another's, so that each keeps its own profit and loss."""
    if all(lot.strategy == strategy for lot in lots):
        return METHODS[method](lots)
    own = [lot for lot in lots if lot.strategy == strategy]
    others = [lot for lot in lots if lot.strategy != strategy]
    return [*METHODS[method](own), *METHODS[method](others)]


def match(lots: Sequence[Lot], signed_quantity: Quantity, price: Price) -> Booking:
    """How a trade of `signed_quantity` (bought positive) at `price` meets the open lots of its symbol, taken in that order."""
    closings: list[Closing] = []
    rest = signed_quantity
    if lots and (lots[0].quantity > 0) != (signed_quantity > 0):
        for lot in lots:
            quantity = lot.quantity if abs(lot.quantity) <= abs(rest) else -rest
            # The last part takes all that is left of the cost, so that rounding never leaves a cent behind.
            cost_basis = lot.cost_basis if quantity == lot.quantity else quantity * lot.cost_price
            closings.append(Closing(lot, quantity, cost_basis, quantity * price - cost_basis))
            rest += quantity
            if not rest:
                break
    return Booking(tuple(closings), rest)


def merge(lots: Sequence[Lot], quantity: Quantity, price: Price) -> tuple[Quantity, Price, Money]:
    """Average cost: the one lot that replaces `lots` and a new trade on the same side: quantity, price (9 decimals), exact cost."""
    total = sum((lot.quantity for lot in lots), quantity)
    cost_basis = sum((lot.cost_basis for lot in lots), quantity * price)
    return total, (cost_basis / total).quantize(QUANTITY_STEP), cost_basis


def held(lots: Sequence[Lot]) -> Quantity:
    return sum((lot.quantity for lot in lots), ZERO)


def cost(lots: Sequence[Lot]) -> Decimal:
    return sum((lot.cost_basis for lot in lots), ZERO)


def copy_of(lots: Sequence[Lot]) -> list[Lot]:
    return [replace(lot) for lot in lots]


def apply_entry(lots: list[Lot], entry: LotEvent) -> None:
    """Take one recorded entry into the open lots of its symbol, in place; they stay in the order in which they were opened."""
    lot = next((lot for lot in lots if lot.lot_id == entry.lot_id), None)
    match entry:
        case LotOpened():
            lots.append(
                Lot(
                    entry.lot_id,
                    entry.symbol,
                    entry.strategy,
                    entry.quantity,
                    entry.cost_price,
                    entry.cost_basis,
                    entry.opened_at,
                )
            )
        case LotClosed() if lot is not None:
            lot.quantity -= entry.quantity
            lot.cost_basis -= entry.cost_basis
            if not lot.quantity:
                lots.remove(lot)
        case LotReopened() if lot is not None:
            lot.quantity += entry.quantity
            lot.cost_basis += entry.cost_basis
        case LotReopened():
            cost_price = (entry.cost_basis / entry.quantity).quantize(QUANTITY_STEP)
            lots.append(
                Lot(
                    entry.lot_id,
                    entry.symbol,
                    entry.strategy,
                    entry.quantity,
                    cost_price,
                    entry.cost_basis,
                    entry.opened_at,
                )
            )
            lots.sort(key=lambda lot: lot.opened_at)
        case _:
            raise BrokenPromise(
                f"{type(entry).__name__} speaks of lot {entry.lot_id}, which is not open in {entry.symbol}."
            )
