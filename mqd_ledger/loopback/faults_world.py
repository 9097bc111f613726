"""What happens to the market, the accounts and the server itself, minute by minute: halts, gaps, hands in the web page, splits.

To add one: a function in `HAPPENINGS` under the name of its row in `faults_table.FAULTS`. It says in a few words what it did; where
it says nothing (there was no position to close, no bar to correct), it is tried again at the next minute. What cannot be done at
all (an unknown symbol) is listed with the reason. All of it runs on the server's thread.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from commands.broker_reports import ReportExpired
from commands.executions import ReportBust, ReportCorrection, ReportFill
from commands.trading import CancelOrder
from commands.truth import ReportDifference
from mqd_ledger.errors import BadInput
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.faults_table import Fault
from mqd_ledger.loopback.orders import OrderRecord, order_json
from mqd_ledger.sessions import session_at
from mqd_ledger.values import CENT, ZERO, Bar, DifferenceKind, Side, Symbol, TimeInForce, plain

if TYPE_CHECKING:
    from mqd_ledger.loopback.server import LoopbackServer

MINUTE = timedelta(minutes=1)
NO_LONGER = "canceled by the client, at last"


class Planner(Protocol):
    """`faults.Faults`, as far as the world asks it."""

    def cancel(self, order: Mapping[str, Any], key: str) -> Fault | None: ...

    def minute(self, world: "World", at: datetime) -> None: ...


class World:
    """The server as faults see it, with what they have begun and will end."""

    def __init__(self, server: "LoopbackServer", planner: Planner) -> None:
        self.server = server
        self.planner = planner
        self.closed_early_at: datetime | None = None
        self._later: list[tuple[datetime, Callable[[], None]]] = []

    def attach(self) -> None:
        """At each start of the server; its accounts may be new ones."""
        if self._played not in self.server.market.on_play:
            self.server.market.on_play.append(self._played)
        for account in self.server.accounts.values():
            account.holds_cancel = self._holds(account)

    def now(self) -> datetime:
        return self.server.clock.now()

    def after(self, minutes: int, action: Callable[[], None]) -> None:
        self._later.append((self.now() + minutes * MINUTE, action))

    def _played(self, at: datetime, bars: list[Bar]) -> None:
        due = [action for when, action in self._later if when <= at]
        self._later = [(when, action) for when, action in self._later if when > at]
        for action in due:
            action()
        market = self.server.market
        if bars or market.halted or market.dropped:  # the bell alone is no minute
            self.planner.minute(self, at)

    def account(self, fault: Fault) -> Account:
        key = str(fault.param("key"))
        if key and key not in self.server.accounts:
            raise BadInput(f"There is no account {key}; there is {', '.join(self.server.accounts)}.")
        return self.server.account(key)

    def symbol(self, fault: Fault) -> Symbol:
        symbols = self.server.market.symbols
        symbol = str(fault.param("symbol")) or symbols[0]
        if symbol not in symbols:
            raise BadInput(f"{symbol} is not traded here; {', '.join(symbols)} is.")
        return symbol

    def held(self, fault: Fault) -> Symbol | None:
        """A position of the account: the one that the fault names, else the first."""
        positions = sorted(self.account(fault).state.positions)
        wanted = str(fault.param("symbol"))
        return next((symbol for symbol in positions if wanted in {"", symbol}), None)

    def restart(self) -> None:
        with self.server._life:  # noqa: SLF001  who stops it meanwhile does not find it started again
            if self.server.is_running:
                self.server.restart()

    # --- cancels ----------------------------------------------------------------------------------------------------------

    def _holds(self, account: Account) -> Callable[[OrderRecord], bool]:
        def holds(order: OrderRecord) -> bool:
            fault = self.planner.cancel(order_json(order), account.spec.key)
            if fault is None:
                return False
            if fault.kind == "cancel_fills":
                asyncio.get_running_loop().call_soon(self._fill, account, order)
            elif minutes := int(fault.param("minutes")):
                self.after(minutes, lambda: self._cancel(account, order))
            return True

        return holds

    def _fill(self, account: Account, order: OrderRecord) -> None:
        """The rest of an order at the price of the moment; one by notional has no rest to speak of and is canceled."""
        price = account.market.price(order.symbol)
        if order.engine_id not in account.book.open:
            return
        if order.quantity is None or price is None:
            self._cancel(account, order)
            return
        number = account.state.orders[order.engine_id].executions + 1
        at = account.instant()
        execution_id = f"{order.engine_id}-{number}"
        account.engine.handle(
            ReportFill(at, at, order.engine_id, execution_id, order.symbol, order.side, order.leaves_quantity, price)
        )
        account.publish()

    def _cancel(self, account: Account, order: OrderRecord) -> None:
        if order.engine_id in account.book.open:
            account.engine.handle(CancelOrder(account.instant(), order.engine_id, NO_LONGER))
            account.publish()

    # --- fills that do not stand ------------------------------------------------------------------------------------------

    def after_fill(self, fault: Fault, update: Mapping[str, Any], key: str) -> None:
        """At the next minute the last execution of an order is undone or corrected."""
        undo = self._bust if fault.kind == "bust" else self._correct
        order_id = update["order"]["id"]

        def once_known() -> None:
            account = self.server.account(key)
            if account.book.by_id[order_id].executions:
                undo(account, order_id, fault)

        self.after(1, once_known)

    def _bust(self, account: Account, order_id: str, _fault: Fault) -> None:
        order = account.book.by_id[order_id]
        last, at = order.executions[-1], account.instant()
        account.engine.handle(
            ReportBust(at, at, order.engine_id, last.engine_id, order.symbol, order.side, last.quantity, last.price)
        )
        account.publish()

    def _correct(self, account: Account, order_id: str, fault: Fault) -> None:
        order = account.book.by_id[order_id]
        last, at = order.executions[-1], account.instant()
        price = last.price + int(fault.param("cents")) * CENT
        account.engine.handle(
            ReportCorrection(at, at, order.engine_id, last.engine_id, f"{last.engine_id}c", last.quantity, price)
        )
        account.publish()


# --- happenings ---------------------------------------------------------------------------------------------------------------


def _halt(world: World, fault: Fault) -> str:
    symbol, minutes = world.symbol(fault), int(fault.param("minutes"))
    market = world.server.market
    if symbol in market.halted:
        return ""
    market.halt(symbol)
    world.after(minutes, lambda: market.resume(symbol))
    return f"{symbol} for {minutes} minutes"


def _half_day(world: World, _fault: Fault) -> str:
    market, at = world.server.market, world.now()
    session = session_at(at)
    if session is None or world.closed_early_at is not None:
        return ""
    world.closed_early_at = at
    closed = set(market.symbols) - market.halted
    market.halted |= closed  # nobody is told: a close is no halt
    for account in world.server.accounts.values():
        _expire_day_orders(account)

    def open_again() -> None:
        world.closed_early_at = None
        market.halted -= closed

    world.after(int((session.close_at - at) / MINUTE), open_again)
    return f"closed at {at:%H:%M} UTC"


def _expire_day_orders(account: Account) -> None:
    for order in [order for order in account.book.open.values() if order.time_in_force is TimeInForce.DAY]:
        at = account.instant()
        account.engine.handle(ReportExpired(at, at, order.engine_id, "the market closed early"))
    account.publish()


def _clock_skew(world: World, fault: Fault) -> str:
    seconds = float(fault.param("market_seconds"))
    world.server.clock.skew = timedelta(seconds=seconds)
    return f"{seconds} seconds"


def _gap(world: World, fault: Fault) -> str:
    symbol, minutes = world.symbol(fault), int(fault.param("minutes"))
    dropped = world.server.market.dropped
    if symbol in dropped:
        return ""
    dropped.add(symbol)
    world.after(minutes, lambda: dropped.discard(symbol))
    return f"{symbol} for {minutes} minutes"


def _corrected_bar(world: World, fault: Fault) -> str:
    symbol = world.symbol(fault)
    history = world.server.market.history.get(symbol)
    if not history:
        return ""
    corrected = world.server.market.correct(symbol, history[-1].close + int(fault.param("cents")) * CENT)
    return f"{symbol} now closes at {plain(corrected.close)}"


def _order_by_hand(world: World, fault: Fault) -> str:
    side, quantity, symbol = Side(str(fault.param("side")).upper()), fault.param("qty"), world.symbol(fault)
    world.server.by_hand(world.account(fault).spec.key, symbol, side, quantity)
    return f"{side} {plain(quantity)} {symbol}"


def _closed_by_hand(world: World, fault: Fault) -> str:
    symbol = world.held(fault)
    if symbol is None:
        return ""
    world.server.close_by_hand(world.account(fault).spec.key, symbol)
    return symbol


def _split(world: World, fault: Fault) -> str:
    symbol, account = world.held(fault), world.account(fault)
    if symbol is None:
        return ""
    held, ratio = account.held_quantity(symbol), fault.param("ratio")
    more = held * ratio - held
    what = f"{symbol} {plain(held)} became {plain(held + more)}"
    kind = DifferenceKind.CORPORATE_ACTION
    account.engine.handle(
        ReportDifference(account.instant(), kind, symbol, plain(held), plain(held + more), more, ZERO)
    )
    account.publish()
    return what


def _restart(world: World, _fault: Fault) -> str:
    threading.Thread(target=world.restart, name="loopback restart", daemon=True).start()
    return "the server"


HAPPENINGS: Mapping[tuple[str, str], Callable[[World, Fault], str]] = MappingProxyType(
    {
        ("market", "halt"): _halt,
        ("market", "half_day"): _half_day,
        ("market", "clock_skew"): _clock_skew,
        ("market", "gap"): _gap,
        ("market", "corrected_bar"): _corrected_bar,
        ("account", "order_by_hand"): _order_by_hand,
        ("account", "closed_by_hand"): _closed_by_hand,
        ("account", "split"): _split,
        ("server", "restart"): _restart,
    }
)
