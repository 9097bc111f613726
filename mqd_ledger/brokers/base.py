"""What every broker has in common: the shapes it answers with, and the protocol that the rest of the program speaks to it.

A broker is told things in two ways. As a reactor it hears the log's own events (an order was sent, a cancel or a replacement was
asked for) and answers with commands (`commands/broker_reports.py`, `commands/executions.py`): at once where it lives in this
process, later and as inputs of their own where it lives elsewhere. And it can be asked what it knows: that is `BrokerBooks`, by
which a ledger is compared with the truth.

All numbers are exact decimals, all times aware UTC. `raw` is what the broker said, untouched, for evidence.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from mqd_ledger.values import Money, OrderState, OrderType, Price, Quantity, Side, Symbol, TimeInForce


class BrokerAccount(msgspec.Struct, frozen=True):
    account_number: str
    environment: str  # "paper", "live", "loopback", "simulated"
    cash: Money
    equity: Money
    buying_power: Money
    is_blocked: bool  # no order would be taken
    blocked_because: str = ""


class BrokerPosition(msgspec.Struct, frozen=True):
    symbol: Symbol
    quantity: Quantity  # signed: negative when short
    average_price: Price
    current_price: Price | None


class BrokerOrder(msgspec.Struct, frozen=True):
    """An order as the broker tells it now. `state` is None where its `status` is one that nobody here knows."""

    broker_order_id: str
    client_order_id: str
    symbol: Symbol
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Quantity | None
    notional: Money | None
    limit_price: Price | None
    stop_price: Price | None
    status: str
    state: OrderState | None
    filled_quantity: Quantity
    filled_average_price: Price | None
    created_at: datetime
    updated_at: datetime
    reason: str = ""
    replaces: str = ""  # broker_order_id
    replaced_by: str = ""  # broker_order_id
    raw: Mapping[str, Any] = {}


class BrokerFill(msgspec.Struct, frozen=True):
    """One execution out of the account's activities. `cumulative_quantity` is the order's filled quantity with it."""

    execution_id: str
    broker_order_id: str
    symbol: Symbol
    side: Side
    quantity: Quantity
    price: Price
    cumulative_quantity: Quantity
    occurred_at: datetime
    raw: Mapping[str, Any] = {}


class BrokerMovement(msgspec.Struct, frozen=True):
    """Money or shares that moved without a trade: deposits, dividends, fees, splits."""

    movement_id: str
    kind: str  # the broker's own word: "CSD", "DIV", "FEE", "SPLIT"
    symbol: Symbol
    amount: Money
    quantity: Quantity
    occurred_at: datetime
    detail: str = ""


class BrokerClock(msgspec.Struct, frozen=True):
    now: datetime
    is_open: bool
    next_open_at: datetime
    next_close_at: datetime


class BrokerBooks(msgspec.Struct, frozen=True):
    """All that a comparison needs, as the broker told it at about one instant; the parts may disagree for some seconds."""

    asked_at: datetime  # by our clock, before the first question
    account: BrokerAccount
    positions: tuple[BrokerPosition, ...]
    open_orders: tuple[BrokerOrder, ...]
    orders: tuple[
        BrokerOrder, ...
    ]  # those that the ledger has working, and those of fills, whatever has become of them
    fills: tuple[BrokerFill, ...]
    movements: tuple[BrokerMovement, ...]
    problems: tuple[str, ...] = ()  # what could not be read and was left out
    unread: tuple[str, ...] = ()  # of these, the open orders: new ones wait, and nothing is gone while there are any


class Broker(Protocol):
    """What can be asked of any broker. Whoever calls waits: not from the thread that decides."""

    def account(self) -> BrokerAccount: ...

    def positions(self) -> Sequence[BrokerPosition]: ...

    def open_orders(self) -> Sequence[BrokerOrder]: ...

    def order(self, client_order_id: str) -> BrokerOrder | None:
        """None where the broker has no such order (which shortly after an attempt proves nothing)."""

    def order_by_broker_id(self, broker_order_id: str) -> BrokerOrder | None: ...

    def fills(self, after: datetime) -> Sequence[BrokerFill]:
        """Executions after a time, the earliest first; those of one order by their cumulative quantity."""

    def movements(self, after: datetime) -> Sequence[BrokerMovement]: ...

    def clock(self) -> BrokerClock: ...
