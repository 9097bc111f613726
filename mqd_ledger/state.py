"""What decisions need to know: the fold of the log, and nothing else.

The same events give the same State on every machine (`evolve.py` says how). It keeps no history: open lots, working orders,
marks, the day's and week's totals, and the last closed orders and executions, so that a late report still finds its order. It is
changed in place; whoever folds it owns it.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import msgspec

from mqd_ledger import events as e
from mqd_ledger.lots import Lot
from mqd_ledger.orders import Order
from mqd_ledger.policy import Policy
from mqd_ledger.values import (
    EPOCH,
    ZERO,
    Money,
    Price,
    Quantity,
    Side,
    Symbol,
    TradingState,
)

# How many closed orders and executions a late or repeated report can still find: weeks of trading for a small account.
ORDERS_KEPT = 10_000
EXECUTIONS_KEPT = 20_000


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The last known price of a symbol and when it was known."""

    price: Price
    at: datetime


@dataclass(slots=True)
class Execution:
    """One execution as booked, so that a repeat is recognized and a bust can be undone."""

    client_order_id: str
    signed_quantity: Quantity
    price: Price
    commission: Money
    busted: bool = False
    closed: list[e.LotClosed] = field(default_factory=list)
    opened: Quantity = ZERO


@dataclass(slots=True)
class Period:
    """A trading day or week: from the equity at its start follows its profit and loss."""

    starts_at: datetime = EPOCH
    ends_at: datetime = EPOCH
    start_equity: Money = ZERO
    realized_pnl: Money = ZERO
    orders: int = 0  # approved


@dataclass(slots=True)
class State:
    ledger_id: str = ""
    policy: Policy = field(default_factory=Policy)
    run: e.RunStarted | None = None  # the last one started
    run_is_open: bool = False
    feed_items: int = 0  # bars and rejected bars of this run
    orders_requested: int = 0  # in this run: numbers the client_order_id
    last_numbers: dict[int, int] = field(default_factory=dict)  # of the orders of the other runs
    stopped_strategies: dict[str, str] = field(default_factory=dict)
    trading_state: TradingState = TradingState.ACTIVE
    trading_state_reason: str = ""
    trading_state_by: str = ""  # the operator who set it
    halted_from: TradingState = TradingState.ACTIVE  # what a halt took the place of
    kill_switch: e.KillSwitchActivated | None = None  # until an operator resumes trading
    kill_switch_completed: bool = False  # the broker has shown nothing open
    # Why no order may leave whatever the trading state is: what is down, or not done yet -> how it is.
    blocks: dict[str, str] = field(default_factory=dict)
    halted_symbols: dict[Symbol, str] = field(default_factory=dict)  # by the exchange -> why
    session: str = ""  # the date of the session that is open, where the run follows sessions
    account_number: str = ""  # the broker's account that the books are of
    environment: str = ""  # "paper", "live", "loopback"
    taken_over: bool = False  # what the account held before was booked, and its books have been kept here since
    attached_at: datetime = EPOCH  # what the account did before is not of these books
    differences: dict[str, e.DifferenceFound] = field(default_factory=dict)  # open ones
    differences_total: int = 0

    orders: dict[str, Order] = field(default_factory=dict)
    working: dict[Symbol, dict[str, Order]] = field(default_factory=dict)
    closed_orders: deque[str] = field(default_factory=deque)
    executions: dict[str, Execution] = field(default_factory=dict)
    recent_requests: dict[tuple[Symbol, Side, Quantity | Money], datetime] = field(default_factory=dict)

    lots: dict[Symbol, list[Lot]] = field(default_factory=dict)
    positions: dict[Symbol, Quantity] = field(default_factory=dict)  # signed, never zero
    strategy_positions: dict[tuple[str, Symbol], Quantity] = field(default_factory=dict)
    marks: dict[Symbol, Mark] = field(default_factory=dict)
    last_bars: dict[tuple[Symbol, str], datetime] = field(default_factory=dict)  # (symbol, interval) -> start_at

    cash: Money = ZERO
    equity: Money = ZERO  # cash + positions at their marks
    deposits: Money = ZERO  # net
    realized_pnl: Money = ZERO
    income: Money = ZERO  # dividends and interest
    commissions: Money = ZERO
    fees: Money = ZERO
    movements: set[str] = field(default_factory=set)  # ids of cash movements: membership only
    charges: set[str] = field(default_factory=set)  # ids of fees: membership only
    requests: set[str] = field(default_factory=set)  # ids of operators' requests: membership only
    peak_equity: Money = ZERO
    low_equity: Money = ZERO  # since the peak
    max_drawdown: Decimal = ZERO  # the largest fall from a peak, as a fraction of it
    consecutive_losses: int = 0
    day: Period = field(default_factory=Period)
    week: Period = field(default_factory=Period)
    last_execution_at: datetime = EPOCH  # the broker's time of the latest one
    bars_total: int = 0
    rejected_total: int = 0  # bars
    orders_total: int = 0
    fills_total: int = 0
    denied_total: int = 0

    @property
    def unrealized_pnl(self) -> Money:
        """Equity less what it would be had every lot kept its cost."""
        return self.equity - self.cash - sum((lot.cost_basis for lots in self.lots.values() for lot in lots), ZERO)

    @property
    def gross_exposure(self) -> Money:
        return sum((abs(quantity) * self.marks[symbol].price for symbol, quantity in self.positions.items()), ZERO)

    @property
    def drawdown(self) -> Decimal:
        return (self.peak_equity - self.equity) / self.peak_equity if self.peak_equity > 0 else ZERO
