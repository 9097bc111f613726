"""One account at the loopback broker: the project's own engine and simulated broker on a ledger of its own.

An order that is taken meets the price of the moment at once, as a bar of one second that starts after it was submitted; what rests
meets the bars that are played. The account's ledger is all that is kept: orders, fills, position and cash are read back from it.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from commands.broker_reports import ReportExpired
from commands.cash import ReportCash
from commands.control import CreateLedger, StartRun
from commands.market import ReportBar
from commands.trading import CancelOrder, SubmitOrder
from mqd_ledger import __version__
from mqd_ledger.brokers.simulated import SimulatedBroker
from mqd_ledger.engine import Engine
from mqd_ledger.events import Source
from mqd_ledger.evolve import evolve
from mqd_ledger.log import EventLog
from mqd_ledger.loopback.chance import draw, uuid_of
from mqd_ledger.loopback.market import Market
from mqd_ledger.loopback.order_book import REPLACED_BY, OrderBook
from mqd_ledger.loopback.orders import OrderRecord, is_trading
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.loopback.tickets import Ticket
from mqd_ledger.policy import Limits, Policy, Simulation
from mqd_ledger.state import State
from mqd_ledger.values import Bar, Money, Quantity, TimeInForce

SECOND = timedelta(seconds=1)
ENOUGH = 10**15  # shares: the displayed size limits nothing at Alpaca's paper accounts
CHECKS = ("trading_is_allowed",)  # the gate is the client's; the broker's own rules are in `rules`
# All shares of a bar can be had, so that a bar with few of them fills in part.
POLICY = Policy(
    limits=Limits(session="any", short_selling=True, order_notional_min=None),
    simulation=Simulation(participation_percent_max=Decimal(100)),
)

Update = dict[str, Any]


class AccountSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account as it is opened. `multiplier` is 1 for cash, 2 for margin overnight, 4 for margin within the day."""

    key: str = "PKLOOPBACK1"
    secret: str = "loopback-secret"  # noqa: S105  of an account that exists only on this machine
    account_number: str = "PA3LOOPBACK1"
    cash: Money = Decimal(100_000)
    multiplier: int = 2
    shorting: bool = True


def account_specs(count: int = 1, cash: Money = Decimal(100_000)) -> tuple[AccountSpec, ...]:
    """Accounts with the keys PKLOOPBACK1, PKLOOPBACK2 and so on."""
    return tuple(
        AccountSpec(key=f"PKLOOPBACK{number}", account_number=f"PA3LOOPBACK{number}", cash=cash)
        for number in range(1, count + 1)
    )


class Account:
    def __init__(
        self, spec: AccountSpec, market: Market, switches: Switches, seed: int = 0, directory: Path | None = None
    ) -> None:
        self.spec = spec
        self.market = market
        self.switches = switches
        self.seed = seed
        self.id = uuid_of(seed, spec.key, "account")
        self.subscribers: list[Callable[[Update], None]] = []
        self.holds_cancel: Callable[[OrderRecord], bool] = lambda _order: (
            False
        )  # a fault: the order stays pending_cancel
        self.state = State()
        self.book = OrderBook(self.state, switches, seed, spec.key)
        path = None if directory is None else directory / f"{spec.account_number}.ledger"
        is_known = path is not None and path.exists()
        # A process that dies takes nothing with it that the system was given; only a power cut could.
        self.log = (
            EventLog.open(path, durability="normal")
            if path is not None and is_known
            else EventLog.create(path, durability="normal")
        )
        if is_known:
            self._read_back()
        self.engine = Engine(self.state, self.log, [self.book, SimulatedBroker(self.state)])
        if self.state.run is None:
            self._open()

    def _read_back(self) -> None:
        reactions = self.book.reactions
        for event in self.log.events():
            evolve(self.state, event)
            reaction = reactions.get(type(event))
            if reaction is not None:
                reaction(event, event.occurred_at)
        self.book.outbox.clear()

    def _open(self) -> None:
        at = self.market.clock.stamp()
        self.engine.handle(CreateLedger(at, self.spec.account_number))
        self.engine.handle(
            ReportCash(at, "opening", "DEPOSIT", self.spec.cash, "opening balance of a loopback account")
        )
        source = Source("loopback", "the bars of the loopback market", "")
        self.engine.handle(StartRun(at, "loopback", __version__, source, (), POLICY, CHECKS))
        self.log.commit()

    def instant(self) -> datetime:
        return self.book.instant(self.market.clock.stamp())

    # --- orders ------------------------------------------------------------------------------------------------------------

    def submit(self, ticket: Ticket) -> dict[str, Any]:
        """Take an order that the rules let through; the order as it was when it came, before anything else happened to it."""
        created = self._submit(ticket)
        self.publish()
        return created

    def _submit(self, ticket: Ticket) -> dict[str, Any]:
        self.engine.handle(
            SubmitOrder(
                self.instant(),
                ticket.symbol,
                ticket.side,
                ticket.order_type,
                ticket.quantity,
                ticket.notional,
                ticket.limit_price,
                ticket.stop_price,
                time_in_force=ticket.time_in_force,
                extended_hours=ticket.extended_hours,
                strategy=ticket.client_order_id or self.new_client_order_id(),
            )
        )
        created = self.book.created
        order = self.book.orders[-1]
        self._meet_the_price(order.symbol, self._share_of(order))
        return created

    def new_client_order_id(self) -> str:
        """For an order that came without one, such as one placed in Alpaca's web page."""
        return uuid_of(self.seed, self.spec.key, "client_order_id", len(self.book.orders) + 1)

    def _share_of(self, order: OrderRecord) -> int:
        """How much of a new order can be had at once: all, or now and then a random part."""
        price = self.market.price(order.symbol)
        if price is None or order.time_in_force is TimeInForce.FOK:
            return ENOUGH
        size = order.quantity if order.quantity is not None else (order.notional or 0) / price
        names = (self.seed, self.spec.key, "partial", order.number)
        if size < 2 or draw(100, *names) >= self.switches.partial_percent:
            return ENOUGH
        return 1 + draw(int(size) - 1 or 1, *names, "size")

    def _meet_the_price(self, symbol: str, volume: int = ENOUGH) -> None:
        """The working orders of a symbol meet the price of the moment, if there is trading."""
        price = self.market.price(symbol)
        start = self.instant()
        if price is None or symbol in self.market.halted or not is_trading(start, extended=True):
            return
        bar = Bar(symbol, "1s", start, price, price, price, price, volume, "loopback")
        self.engine.handle(ReportBar(start + SECOND, bar))

    def cancel(self, order: OrderRecord, reason: str = "canceled by the client") -> None:
        at = self.instant()
        if self.holds_cancel(order):
            self.book.hold_cancel(order, at)
        else:
            self.engine.handle(CancelOrder(at, order.engine_id, reason))
        self.publish()

    def replace(self, order: OrderRecord, ticket: Ticket) -> dict[str, Any]:
        """Another order takes an order's place; both or neither."""
        client_order_id = ticket.client_order_id or self.new_client_order_id()
        self.engine.handle(CancelOrder(self.instant(), order.engine_id, f"{REPLACED_BY}{client_order_id}"))
        return self.submit(structs.replace(ticket, client_order_id=client_order_id))

    # --- the market --------------------------------------------------------------------------------------------------------

    def play(self, at: datetime, bars: Sequence[Bar]) -> None:
        """Bars have closed, or the bell has rung: what rests meets them, and what has lasted long enough expires."""
        for bar in bars:
            if bar.symbol in self.state.working:
                self.engine.handle(ReportBar(at, structs.replace(bar, volume=ENOUGH)))
        if is_trading(at, extended=False):
            for symbol in sorted({order.symbol for order in self.book.open.values() if order.status == "accepted"}):
                self._meet_the_price(symbol)
        for order in [order for order in self.book.open.values() if order.expires_at <= at]:
            now = self.instant()
            self.engine.handle(ReportExpired(now, now, order.engine_id, "its time in force has ended"))
        self.publish()

    def publish(self) -> None:
        """Make what happened durable, then tell it."""
        if self.log.pending:
            self.log.commit()
        updates, self.book.outbox[:] = list(self.book.outbox), []
        for update in updates:
            for tell in self.subscribers:
                tell(update)

    def held_quantity(self, symbol: str) -> Quantity:
        return self.state.positions.get(symbol, Decimal(0))

    def close(self) -> None:
        self.log.close()
