"""The language of the core's tests: given these events, when this is asked, then this follows. Real state, real decisions."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Self

import pytest
from msgspec import structs

from commands import Command, command_of, decide
from commands.broker_reports import ReportSubmitted
from commands.cash import ReportCash
from commands.control import CreateLedger, StartRun
from commands.executions import ReportFill
from commands.market import ReportBar
from commands.trading import SubmitOrder
from mqd_ledger import events as e
from mqd_ledger.engine import Engine, Reactor, Recorded
from mqd_ledger.errors import CommandRefused
from mqd_ledger.evolve import evolve
from mqd_ledger.policy import Limits, Policy
from mqd_ledger.state import State
from mqd_ledger.values import Bar, LotMethod, OrderType, Side, TimeInForce

D = Decimal
MINUTE = timedelta(minutes=1)
BUY, SELL = Side.BUY, Side.SELL
SOURCE = e.Source("synthetic", "test", "00")

# No limit at all: where the books are of interest and not the gate.
OPEN_LIMITS = Limits(
    session="any",
    stale_after=None,
    daily_loss_max=None,
    position_notional_max=None,
    position_percent_max=None,
    exposure_max=None,
    positions_max=None,
    orders_per_day_max=None,
    duplicate_window=None,
    order_notional_min=None,
    short_selling=True,
)
OPEN = Policy(limits=OPEN_LIMITS)


def at(text: str) -> datetime:
    """An instant in UTC; without a date it is on Monday, 2026-01-05, when New York opens at 14:30."""
    return datetime.fromisoformat(text if "T" in text else f"2026-01-05T{text}").replace(tzinfo=UTC)


OPENING = at("14:30")


def limits(**changes: object) -> Limits:
    return structs.replace(OPEN_LIMITS, **changes)


def policy(lot_method: LotMethod = LotMethod.FIFO, **changes: object) -> Policy:
    return structs.replace(OPEN, lot_method=lot_method, limits=limits(**changes))


def bar(text: str, interval: str = "1m") -> Bar:
    """`"SPY 14:30 100 101 99 100.5 v1000"`: symbol, start, open, high, low, close, volume; or one price for all four."""
    symbol, start, *rest = text.split()
    volume = int(rest.pop()[1:]) if rest[-1].startswith("v") else 1000
    opened, high, low, close = [D(price) for price in rest] * (4 if len(rest) == 1 else 1)
    return Bar(symbol, interval, at(start), opened, high, low, close, volume, "synthetic")


def closed(text: str, interval: str = "1m") -> e.BarClosed:
    one = bar(text, interval)
    return e.BarClosed(one.end_at, one)


def world(run_policy: Policy = OPEN, deposit: str = "100000", when: datetime = OPENING) -> tuple[e.Event, ...]:
    """A ledger "L" with money and a run that has started."""
    return (
        e.LedgerCreated(when, "L"),
        e.CashMoved(when, "opening", "DEPOSIT", D(deposit), "to begin with"),
        e.RunStarted(when, 1, "backtest", "0", SOURCE, (), run_policy),
    )


def submit(text: str, when: datetime = OPENING, **more: object) -> SubmitOrder:
    """`"BUY 10 SPY"`, `"BUY $500 SPY"`, `"SELL 10 SPY LIMIT 101 IOC"`, `"BUY 5 SPY STOP_LIMIT 101 102"` (stop, limit)."""
    side, size, symbol, *rest = text.split()
    force = TimeInForce(rest.pop()) if rest and rest[-1] in TimeInForce.__members__ else TimeInForce.DAY
    order_type = OrderType(rest[0]) if rest else OrderType.MARKET
    names = {OrderType.LIMIT: ["limit_price"], OrderType.STOP: ["stop_price"]}.get(
        order_type, ["stop_price", "limit_price"]
    )
    if order_type is OrderType.TRAILING_STOP:
        names = ["trail_price"]
    dollars = size.startswith("$")
    fields: dict[str, object] = {
        "quantity": None if dollars else D(size),
        "notional": D(size[1:]) if dollars else None,
        "time_in_force": force,
        **dict(zip(names, map(D, rest[1:]), strict=False)),
        **more,
    }
    return structs.replace(SubmitOrder(when, symbol, Side(side), order_type), **fields)


def requested(order: str, text: str, when: datetime = OPENING, **more: object) -> e.OrderRequested:
    wish = submit(text, when, **more)
    return e.OrderRequested(
        when, order, wish.strategy, wish.symbol, wish.side, wish.order_type, wish.quantity, wish.notional, wish.limit_price,
        wish.stop_price, wish.trail_price, wish.trail_percent, wish.time_in_force, wish.extended_hours,
    )  # fmt: skip


def sent(order: str, text: str, when: datetime = OPENING, **more: object) -> tuple[e.Event, ...]:
    """An order that passed the gate and has left us: PENDING."""
    return requested(order, text, when, **more), e.OrderApproved(when, order, ()), e.OrderSent(when, order, 1)


def working(order: str, text: str, when: datetime = OPENING, **more: object) -> tuple[e.Event, ...]:
    """An order that the broker has acknowledged: SUBMITTED."""
    return *sent(order, text, when, **more), e.OrderSubmitted(when, order, f"b-{order}")


class Decided:
    """What one command led to."""

    def __init__(self, state: State, command: Command) -> None:
        self.state, self.command = state, command

    @property
    def events(self) -> list[e.Event]:
        return decide(self.command, self.state)

    def then(self, *expected: e.Event | type[e.Event]) -> State:
        """Exactly these events; a type stands for any event of it. The state afterwards."""
        events = self.events
        shown = "\n".join(map(repr, events))
        assert len(events) == len(expected), f"{len(expected)} events were expected, these came:\n{shown}"
        for event, wanted in zip(events, expected, strict=True):
            assert event == wanted if isinstance(wanted, e.Event) else type(event) is wanted, (
                f"{wanted} expected in:\n{shown}"
            )
        if (
            events
        ):  # read back from the log, where it may stand with a later time, the command has to give the same again
            again = command_of(events[0], self.command.at + MINUTE)
            assert decide(again, self.state) == events, f"read back as {again}"
        for event in events:
            evolve(self.state, event)
        return self.state

    def then_nothing(self) -> State:
        return self.then()

    def refused(self, text: str) -> None:
        before = repr(self.state)
        with pytest.raises(CommandRefused, match=text):
            decide(self.command, self.state)
        assert repr(self.state) == before


class Given:
    def __init__(self, events: Iterable[e.Event] | State) -> None:
        self.state = events if isinstance(events, State) else fold(events)

    def when(self, command: Command) -> Decided:
        return Decided(self.state, command)


def given(*events: e.Event | tuple[e.Event, ...]) -> Given:
    """Events, or tuples of them as `world` and `working` make."""
    flat: list[e.Event] = []
    for event in events:
        flat += event if isinstance(event, tuple) else [event]
    return Given(flat)


def fold(events: Iterable[e.Event]) -> State:
    state = State()
    for event in events:
        evolve(state, event)
    return state


class Tape:
    """A journal in memory that keeps the laws of the log: positions from 1, recorded time never goes back."""

    def __init__(self) -> None:
        self.recorded: list[Recorded] = []

    def record(self, events: Sequence[e.Event], recorded_at: datetime, causation: int = 0, correlation: int = 0) -> int:
        first = len(self.recorded) + 1
        heard = max(recorded_at, self.recorded[-1].recorded_at) if self.recorded else recorded_at
        for position, event in enumerate(events, first):
            cause = causation if position == first else first
            self.recorded.append(Recorded(position, heard, correlation or first, cause, event))
        return first

    @property
    def events(self) -> list[e.Event]:
        return [recorded.event for recorded in self.recorded]


DESKS: list["Desk"] = []  # of the test that runs now: every decision of each is taken again after it


class Desk:
    """An engine on a tape: commands in, events out, time moved by hand. What is `marked` was last at 100."""

    def __init__(
        self,
        run_policy: Policy = OPEN,
        deposit: str = "100000",
        when: datetime = OPENING,
        marked: Sequence[str] = ("SPY", "QQQ"),
    ) -> None:
        DESKS.append(self)
        self.state, self.tape, self.at = State(), Tape(), when
        self.engine = Engine(self.state, self.tape)
        self.do(
            CreateLedger(when, "L"),
            ReportCash(when, "opening", "DEPOSIT", D(deposit), "to begin with"),
            StartRun(when, "backtest", "0", SOURCE, (), run_policy),
            *(
                ReportBar(when, Bar(symbol, "1m", when - MINUTE, D(100), D(100), D(100), D(100), 1000, "synthetic"))
                for symbol in marked
            ),
        )

    def react(self, *reactors: Reactor) -> Self:
        """The same desk with somebody who answers."""
        self.engine = Engine(self.state, self.tape, reactors)
        return self

    def do(self, *commands: Command) -> list[e.Event]:
        return [event for command in commands for event in self.engine.handle(command)]

    def bar(self, text: str, interval: str = "1m") -> list[e.Event]:
        """A bar closes; everything recorded in its turn."""
        one = bar(text, interval)
        self.at = max(self.at, one.end_at)
        start = len(self.tape.recorded)
        self.do(ReportBar(self.at, one))
        return self.tape.events[start:]

    def order(self, text: str, **more: object) -> str:
        event = self.do(submit(text, self.at, **more))[0]
        assert isinstance(event, e.OrderRequested)
        return event.client_order_id

    def fill(self, order: str, execution: str, quantity: str, price: str, commission: str = "0") -> list[e.Event]:
        of = self.state.orders[order]
        sizes = D(quantity), D(price), D(commission)
        return self.do(ReportFill(self.at, self.at, order, execution, of.symbol, of.side, *sizes))

    def trade(self, text: str, price: str, execution: str = "", **more: object) -> str:
        """An order acknowledged and filled at once; `execution` names it and its lot."""
        order = self.order(text, **more)
        self.do(ReportSubmitted(self.at, self.at, order, f"b-{order}"))
        quantity = self.state.orders[order].quantity
        assert quantity is not None
        self.fill(order, execution or f"x-{order}", str(quantity), price)
        return order


def kinds(events: Iterable[e.Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def lots_of(state: State, symbol: str = "SPY") -> list[tuple[str, Decimal, Decimal]]:
    """Open lots: id, signed quantity, cost price."""
    return [(lot.lot_id, lot.quantity, lot.cost_price) for lot in state.lots.get(symbol, [])]


def books_balance(state: State) -> None:
    """What must hold after every event, whatever happened."""
    cost = sum((lot.cost_basis for lots in state.lots.values() for lot in lots), D(0))
    assert state.cash + cost == state.deposits + state.realized_pnl + state.income - state.commissions - state.fees
    worth = sum((quantity * state.marks[symbol].price for symbol, quantity in state.positions.items()), D(0))
    assert state.equity == state.cash + worth
    held = {symbol: sum((lot.quantity for lot in lots), D(0)) for symbol, lots in state.lots.items()}
    assert {symbol: quantity for symbol, quantity in held.items() if quantity} == state.positions
    for symbol, lots in state.lots.items():
        assert len({lot.quantity > 0 for lot in lots}) == 1, f"lots of both sides in {symbol}"
    by_symbol: dict[str, Decimal] = {}
    for (_, symbol), quantity in state.strategy_positions.items():
        by_symbol[symbol] = by_symbol.get(symbol, D(0)) + quantity
    assert {symbol: quantity for symbol, quantity in by_symbol.items() if quantity} == state.positions
