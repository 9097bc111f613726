"""Lots, cash and fees."""

from datetime import datetime

from mqd_ledger.events.base import AccountEvent, Event
from mqd_ledger.values import LotCause, Money, Price, Quantity, Symbol


class LotEvent(Event, frozen=True, gc=False):
    """Books of one lot. `execution_id` is the execution that caused the entry; `strategy` the one whose order it was."""

    lot_id: str
    symbol: Symbol
    strategy: str
    execution_id: str


class LotOpened(LotEvent, frozen=True, gc=False):
    """`quantity` is signed: short lots are negative. `cost_basis` = quantity x cost_price, so negative for a short.

    `opened_at` is when its first share was bought or sold; that is earlier than `occurred_at` for one that lots were merged into.
    """

    quantity: Quantity
    cost_price: Price
    cost_basis: Money
    opened_at: datetime


class LotClosed(LotEvent, frozen=True, gc=False):
    """A part (or the whole) of a lot is gone. realized_pnl = quantity x price - cost_basis, before commissions.

    `cause` is TRADE; ADJUSTMENT, where the books followed the broker; or MERGE, where average cost or a split put it into another
    lot, or BUST, where what opened it was undone: those two realize nothing.
    """

    quantity: Quantity
    cost_basis: Money
    price: Price
    realized_pnl: Money
    opened_at: datetime
    cause: LotCause


class LotReopened(LotEvent, frozen=True, gc=False):
    """A closing was undone with the execution that caused it; `realized_pnl` is what is taken back."""

    quantity: Quantity
    cost_basis: Money
    realized_pnl: Money
    opened_at: datetime
    cause: LotCause  # of the closing that is undone


class CashMoved(AccountEvent, frozen=True, gc=False):
    """Money in (positive) or out of the account that is not a trade. Dividends and interest are profit, the other kinds are not."""

    movement_id: str  # the same movement reported twice counts once
    kind: str  # DEPOSIT, WITHDRAWAL; DIVIDEND, INTEREST
    amount: Money
    reason: str


class FeeCharged(AccountEvent, frozen=True, gc=False):
    """A fee that came apart from an execution. Positive amounts are paid by us."""

    fee_id: str
    kind: str  # SEC, TAF, CAT, OTHER
    amount: Money
    reason: str
