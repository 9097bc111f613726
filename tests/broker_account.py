"""A broker's account as its books tell it, made by hand: what it holds, and which of its executions it has told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from msgspec import structs

from commands import Command
from commands.control import CreateLedger, StartRun
from commands.trading import CancelOrder, ClosePosition, RaiseSignal, ReplaceOrder, SubmitOrder
from commands.truth import AttachAccount, StartRecovery, TakeRecoveryStep
from mqd_ledger import events as e
from mqd_ledger.brokers.alpaca_updates import order_commands
from mqd_ledger.brokers.base import (
    BrokerAccount,
    BrokerBooks,
    BrokerFill,
    BrokerMovement,
    BrokerOrder,
    BrokerPosition,
)
from mqd_ledger.brokers.reconciliation import Reconciler
from mqd_ledger.engine import Engine, Recorded, rehearse
from mqd_ledger.errors import CommandRefused
from mqd_ledger.orders import TERMINAL
from mqd_ledger.policy import Operation, Policy
from mqd_ledger.state import State
from mqd_ledger.values import OrderState, Side
from tests.dsl import OPEN, OPENING, SOURCE, D, Desk, Tape, fold, submit

NUMBER = "PA1"
STATES = {
    "new": OrderState.SUBMITTED,
    "partially_filled": OrderState.PARTIALLY_FILLED,
    "filled": OrderState.FILLED,
    "canceled": OrderState.CANCELED,
    "expired": OrderState.EXPIRED,
    "replaced": OrderState.CANCELED,
}
ORDERS = (SubmitOrder, ClosePosition, ReplaceOrder, CancelOrder, RaiseSignal)


def operated(**rules: object) -> Policy:
    return structs.replace(OPEN, operation=structs.replace(Operation(), **rules))


@dataclass
class Account:
    cash: Decimal = field(default_factory=lambda: D(100000))
    held: dict[str, Decimal] = field(default_factory=dict)
    cost: dict[str, Decimal] = field(default_factory=dict)
    prices: dict[str, Decimal] = field(default_factory=dict)
    orders: dict[str, BrokerOrder] = field(default_factory=dict)
    rows: list[BrokerFill] = field(default_factory=list)
    movements: list[BrokerMovement] = field(default_factory=list)
    number: str = NUMBER
    blocked: str = ""

    def place(self, name: str, text: str, at: datetime = OPENING, **more: object) -> BrokerOrder:
        wish = submit(text, at)
        order = BrokerOrder(
            f"b-{name}", name, wish.symbol, wish.side, wish.order_type, wish.time_in_force, wish.quantity, wish.notional,
            wish.limit_price, wish.stop_price, "new", OrderState.SUBMITTED, D(0), None, at, at,
        )  # fmt: skip
        self.orders[name] = structs.replace(order, **more)
        return self.orders[name]

    def fill(self, name: str, quantity: str, price: str, at: datetime, *, told: bool = True) -> BrokerFill:
        order, size = self.orders[name], D(quantity)
        filled = order.filled_quantity + size
        spent = (order.filled_average_price or D(0)) * order.filled_quantity + size * D(price)
        status = "filled" if filled == order.quantity else "partially_filled"
        if order.state in TERMINAL:
            status = order.status
        self.orders[name] = structs.replace(
            order, filled_quantity=filled, filled_average_price=spent / filled, status=status, state=STATES[status], updated_at=at
        )  # fmt: skip
        self.move(order.symbol, size if order.side is Side.BUY else -size, price)
        row = BrokerFill(f"a-{name}-{filled}", f"b-{name}", order.symbol, order.side, size, D(price), filled, at)
        if told:
            self.rows.insert(0, row)  # the latest first, as no ledger wants them
        return row

    def end(self, name: str, status: str, at: datetime) -> None:
        self.orders[name] = structs.replace(self.orders[name], status=status, state=STATES[status], updated_at=at)

    def move(self, symbol: str, quantity: Decimal, price: str | Decimal, *, paid: bool = True) -> None:
        """Shares come or go; without an order where nobody is told why."""
        held, cost = self.held.get(symbol, D(0)), self.cost.get(symbol, D(0))
        if paid:
            self.cash -= quantity * D(price)
        self.held[symbol] = held + quantity
        if held * quantity >= 0:
            self.cost[symbol] = cost + quantity * D(price)
        elif held * self.held[symbol] >= 0:
            self.cost[symbol] = cost * self.held[symbol] / held
        else:
            self.cost[symbol] = self.held[symbol] * D(price)
        self.prices.setdefault(symbol, D(price))

    def books(self, asked_at: datetime) -> BrokerBooks:
        worth = sum((quantity * self.prices[symbol] for symbol, quantity in self.held.items()), D(0))
        return BrokerBooks(
            asked_at,
            BrokerAccount(self.number, "paper", self.cash, self.cash + worth, D(0), bool(self.blocked), self.blocked),
            tuple(
                BrokerPosition(symbol, quantity, self.cost[symbol] / quantity, self.prices[symbol])
                for symbol, quantity in self.held.items()
                if quantity
            ),
            tuple(order for order in self.orders.values() if order.state not in TERMINAL),
            tuple(self.orders.values()),
            tuple(self.rows),
            tuple(self.movements),
        )


def attached(policy: Policy | None = None, deposit: str = "100000") -> Desk:
    """A desk whose ledger keeps the books of the account that is compared with, and has been compared with it once."""
    desk = Desk(policy or operated(), deposit)
    desk.do(AttachAccount(desk.at, "alpaca", "paper", NUMBER))
    take_over(desk)
    return desk


def take_over(desk: Desk) -> None:
    """A recovery has passed: from now on what differs is a difference."""
    desk.do(StartRecovery(desk.at))
    desk.do(TakeRecoveryStep(desk.at, 7, "limits", passed=True, is_last=True, detail="as given"))


def new_ledger(policy: Policy | None = None) -> Desk:
    """Attached, and never compared: there is no money in the books yet."""
    tape = Tape()
    engine = Engine(State(), tape)
    engine.handle(CreateLedger(OPENING, "L"))
    engine.handle(StartRun(OPENING, "broker", "0", SOURCE, (), policy or operated()))
    engine.handle(AttachAccount(OPENING, "alpaca", "paper", NUMBER))
    return resumed(tape.recorded)


def resumed(recorded: Sequence[Recorded]) -> Desk:
    """Another process that comes back to where these events end."""
    desk = Desk()
    desk.tape.recorded = list(recorded)
    desk.state = desk.engine.state = fold(one.event for one in recorded)
    desk.at = recorded[-1].recorded_at
    return desk


def reconciler() -> Reconciler:
    return Reconciler(order_commands)


def handle(desk: Desk, command: Command) -> list[e.Event]:
    """As the desk does: what makes no sense leaves no trace."""
    before = len(desk.tape.recorded)
    try:
        desk.do(command)
    except CommandRefused:
        assert len(desk.tape.recorded) == before
    return desk.tape.events[before:]


def look(desk: Desk, eyes: Reconciler, books: BrokerBooks) -> list[e.Event]:
    """A comparison, every command of it handled before the next one is asked for. What is recorded is no order of ours."""
    desk.at = max(desk.at, books.asked_at)
    events = []
    for command in eyes.compare(desk.state, books, desk.at):
        assert not isinstance(command, ORDERS)
        events += handle(desk, command)
    return events


def is_decided_again(desk: Desk) -> None:
    """Every recorded input gives the recorded events once more."""
    state = State()
    rehearse(Engine(state, Tape()), desk.tape.recorded)
    assert state == desk.state
