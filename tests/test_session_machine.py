"""Whole sessions as Hypothesis dreams them up: whatever market, broker and operator do in whatever order, the books hold."""

from collections.abc import Callable
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from commands import Command, command_of, decide
from commands.broker_reports import (
    ReportBust,
    ReportCanceled,
    ReportCancelRejected,
    ReportCorrection,
    ReportExpired,
    ReportFill,
    ReportRejected,
    ReportSubmitted,
    ReportUnknownOrder,
)
from commands.cash import ReportCash, ReportFee
from commands.control import HaltTrading, ReduceTrading, ResumeTrading, StopStrategy
from commands.market import ReportBar
from commands.trading import CancelOrder, RaiseSignal
from mqd_ledger.evolve import evolve
from mqd_ledger.orders import Order
from mqd_ledger.policy import Sizing
from mqd_ledger.state import Execution, State
from mqd_ledger.values import Bar, Direction, LotMethod, Side
from tests.dsl import MINUTE, D, Desk, books_balance, fold, limits, policy, submit

SYMBOLS = ("SPY", "QQQ")
PRICES = st.integers(1, 40_000).map(lambda cents: D(cents) / 100)
QUANTITIES = st.one_of(
    st.integers(1, 20).map(D),
    st.integers(1, 3_000_000_000).map(lambda parts: D(parts).scaleb(-9)),
)
ENDS: tuple[type[ReportRejected | ReportCanceled | ReportExpired], ...] = (
    ReportRejected,
    ReportCanceled,
    ReportExpired,
)


class Sessions(RuleBasedStateMachine):
    desk: Desk
    last_report: Command | None = None
    number = 0

    @initialize(method=st.sampled_from(LotMethod), short_selling=st.booleans(), limited=st.booleans())
    def open_desk(self, method: LotMethod, short_selling: bool, limited: bool) -> None:
        bounds = limits(short_selling=short_selling)
        if limited:
            bounds = limits(
                short_selling=short_selling, daily_loss_max=D(500), exposure_max=D(9000), duplicate_window=30
            )
        self.desk = Desk(
            structs.replace(policy(method), limits=bounds, sizing=Sizing(fractional=True)), deposit="10000"
        )

    @property
    def state(self) -> State:
        return self.desk.state

    def report(self, command: Command) -> None:
        self.desk.do(command)
        self.last_report = command

    def name(self) -> str:
        self.number += 1
        return f"n{self.number}"

    def an_order(self, data: st.DataObject, suits: Callable[[Order], bool]) -> Order | None:
        orders = [order for order in self.state.orders.values() if suits(order)]
        return data.draw(st.sampled_from(orders)) if orders else None

    def an_execution(self, data: st.DataObject) -> tuple[str, Execution, Order] | None:
        booked = [(name, one) for name, one in self.state.executions.items() if not one.busted]
        if not booked:
            return None
        name, one = data.draw(st.sampled_from(booked))
        return name, one, self.state.orders[one.client_order_id]

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        prices=st.lists(PRICES, min_size=4, max_size=4),
        later=st.sampled_from((1, 5, 600)),
    )
    def bar_closes(self, symbol: str, prices: list[Decimal], later: int) -> None:
        low, first, second, high = sorted(prices)
        start_at = self.desk.at
        self.desk.at += later * MINUTE
        self.report(ReportBar(self.desk.at, Bar(symbol, "1m", start_at, first, high, low, second, 500, "synthetic")))

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        direction=st.sampled_from(Direction),
        strategy=st.sampled_from(("one", "two")),
        size=st.one_of(st.none(), QUANTITIES),
    )
    def strategy_signals(self, symbol: str, direction: Direction, strategy: str, size: Decimal | None) -> None:
        self.desk.do(RaiseSignal(self.desk.at, strategy, symbol, direction, "dreamt", size))

    @rule(
        side=st.sampled_from(Side),
        size=st.one_of(QUANTITIES.map(str), st.integers(1, 900).map(lambda dollars: f"${dollars}")),
        symbol=st.sampled_from(SYMBOLS),
    )
    def operator_orders(self, side: Side, size: str, symbol: str) -> None:
        self.desk.do(submit(f"{side} {size} {symbol}", self.desk.at))

    @rule(data=st.data())
    def broker_acknowledges(self, data: st.DataObject) -> None:
        order = self.an_order(data, lambda order: order.approved and order.broker_order_id is None)
        if order:
            self.report(
                ReportSubmitted(self.desk.at, self.desk.at, order.client_order_id, f"b-{order.client_order_id}")
            )

    @rule(data=st.data(), share=st.sampled_from(("0.3", "0.5", "1", "1", "1.1")), price=PRICES, fee=st.integers(0, 50))
    def execution_happens(self, data: st.DataObject, share: str, price: Decimal, fee: int) -> None:
        order = self.an_order(data, lambda order: order.approved)
        if order:
            leaves = order.leaves_quantity or D(1)
            quantity = (leaves * D(share)).quantize(D("1e-9")) or D("1e-9")
            left = D(0) if share == "1" else D(1)
            name = self.name()
            of = (order.client_order_id, name, order.symbol, order.side)
            self.report(ReportFill(self.desk.at, self.desk.at, *of, quantity, price, D(fee) / 100, left))

    @rule(data=st.data(), end=st.sampled_from(ENDS))
    def order_ends(self, data: st.DataObject, end: type[ReportRejected | ReportCanceled | ReportExpired]) -> None:
        order = self.an_order(data, lambda order: order.approved)
        if order:
            self.report(end(self.desk.at, self.desk.at, order.client_order_id, "dreamt"))

    @rule(data=st.data(), is_refused=st.booleans())
    def cancel_is_asked(self, data: st.DataObject, is_refused: bool) -> None:
        order = self.an_order(data, lambda order: order.is_working)
        if order:
            self.desk.do(CancelOrder(self.desk.at, order.client_order_id, "dreamt"))
            if is_refused:
                self.report(ReportCancelRejected(self.desk.at, self.desk.at, order.client_order_id, "too late"))

    @rule(data=st.data(), commission=st.integers(0, 5))
    def execution_is_busted(self, data: st.DataObject, commission: int) -> None:
        found = self.an_execution(data)
        if found:
            name, one, order = found
            of = (order.client_order_id, name, order.symbol, order.side)
            self.report(ReportBust(self.desk.at, self.desk.at, *of, abs(one.signed_quantity), one.price, D(commission)))

    @rule(data=st.data(), quantity=QUANTITIES, price=PRICES)
    def execution_is_corrected(self, data: st.DataObject, quantity: Decimal, price: Decimal) -> None:
        found = self.an_execution(data)
        if found:
            name, _, order = found
            new = self.name()
            self.report(ReportCorrection(self.desk.at, self.desk.at, order.client_order_id, name, new, quantity, price))

    @rule(side=st.sampled_from(Side), quantity=QUANTITIES, symbol=st.sampled_from(SYMBOLS))
    def foreign_order_appears(self, side: Side, quantity: Decimal, symbol: str) -> None:
        name = self.name()
        self.report(ReportUnknownOrder(self.desk.at, self.desk.at, name, f"b-{name}", symbol, side, quantity))

    @rule(cents=st.integers(-500_00, 500_00).filter(bool))
    def cash_moves(self, cents: int) -> None:
        kind = "DEPOSIT" if cents > 0 else "WITHDRAWAL"
        self.report(ReportCash(self.desk.at, self.name(), kind, D(cents) / 100, "dreamt"))

    @rule(cents=st.integers(1, 300))
    def fee_is_charged(self, cents: int) -> None:
        self.report(ReportFee(self.desk.at, self.name(), "SEC", D(cents) / 100, "dreamt"))

    @rule()
    def trading_is_halted_and_resumed(self) -> None:
        self.desk.do(HaltTrading(self.desk.at, "ann", "dreamt"), ResumeTrading(self.desk.at, "ann", "awake"))

    @rule(is_reduced=st.booleans())
    def trading_is_reduced(self, is_reduced: bool) -> None:
        self.desk.do((ReduceTrading if is_reduced else ResumeTrading)(self.desk.at, "ann", "dreamt"))

    @rule()
    def strategy_raises(self) -> None:
        self.desk.do(StopStrategy(self.desk.at, "one", "KeyError"))

    @precondition(lambda self: self.last_report is not None)
    @rule()
    def last_report_comes_again(self) -> None:
        assert self.last_report is not None
        if not isinstance(self.last_report, ReportBar):  # a bar heard twice is recorded as rejected
            before = repr(self.state)
            assert self.desk.do(self.last_report) == []
            assert repr(self.state) == before

    @invariant()
    def books_hold(self) -> None:
        books_balance(self.state)
        signed: dict[str, Decimal] = {}
        for one in self.state.executions.values():
            if not one.busted:
                symbol = self.state.orders[one.client_order_id].symbol
                signed[symbol] = signed.get(symbol, D(0)) + one.signed_quantity
        assert {symbol: quantity for symbol, quantity in signed.items() if quantity} == self.state.positions

    @invariant()
    def the_log_alone_gives_the_same_state(self) -> None:
        assert repr(fold(self.desk.tape.events)) == repr(self.state)

    @invariant()
    def every_order_adds_up(self) -> None:
        for order in self.state.orders.values():
            if order.quantity is not None and order.filled_quantity <= order.quantity:
                assert order.filled_quantity + order.leaves_quantity == order.quantity
            assert order.filled_quantity >= 0
            assert order.is_working == (order.client_order_id in self.state.working.get(order.symbol, {}))

    @invariant()
    def every_number_is_a_number(self) -> None:
        state = self.state
        assert "NaN" not in repr(state)
        assert state.max_drawdown >= 0
        assert state.peak_equity >= state.equity or state.peak_equity == 0

    def teardown(self) -> None:
        """Every decision in the log, taken again from its start, comes out the same."""
        if not hasattr(self, "desk"):
            return
        recorded = self.desk.tape.recorded
        state, place = State(), 0
        while place < len(recorded):
            lead = recorded[place]
            events = decide(command_of(lead.event, lead.recorded_at), state)
            assert [one.event for one in recorded[place : place + len(events)]] == events
            assert events
            for event in events:
                evolve(state, event)
            place += len(events)
        assert repr(state) == repr(self.state)


Sessions.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestSessions = Sessions.TestCase
