"""Whole sessions as Hypothesis dreams them up: whatever market, broker and operator do in whatever order, the books hold."""

from collections.abc import Callable
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from commands import Command
from commands.broker_reports import (
    ReportAbsent,
    ReportCanceled,
    ReportCancelRejected,
    ReportExpired,
    ReportRejected,
    ReportReplaced,
    ReportReplaceRejected,
    ReportSubmitted,
    ReportUnknownOrder,
)
from commands.cash import ReportCash, ReportFee
from commands.control import (
    ActivateKillSwitch,
    CompleteKillSwitch,
    HaltTrading,
    ReduceTrading,
    ResumeTrading,
    StopStrategy,
)
from commands.executions import ReportBust, ReportCorrection, ReportFill
from commands.market import EndSession as NearSessionsEnd
from commands.market import (
    OpenSession,
    ReportBar,
    ReportCorrectedBar,
    ReportFeedRecovered,
    ReportFeedStale,
    ReportQuote,
    ReportSymbolStatus,
)
from commands.trading import CancelOrder, ClosePosition, RaiseSignal, ReplaceOrder
from commands.truth import (
    CASH,
    AcceptDifference,
    ReportAgreement,
    ReportDifference,
    ReportReachable,
    ReportUnreachable,
)
from mqd_ledger import events as e
from mqd_ledger.audit.redecide import redecide
from mqd_ledger.errors import CommandRefused
from mqd_ledger.orders import Order
from mqd_ledger.policy import Sizing
from mqd_ledger.state import Execution, State
from mqd_ledger.values import Bar, DifferenceKind, Direction, LotMethod, Side, TradingState
from tests.dsl import DESKS, MINUTE, D, Desk, books_balance, fold, limits, policy, submit

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

    def __init__(self) -> None:
        super().__init__()
        self.told: list[ReportFill] = []  # by the broker, with its own count of each order
        self.counts: dict[str, Decimal] = {}  # of the shares of each order

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

    def ask(self, *commands: Command) -> list[e.Event]:
        """What may be refused: an operator asks at any time."""
        events: list[e.Event] = []
        for command in commands:
            before = repr(self.state)
            try:
                events += self.desk.do(command)
            except CommandRefused:
                assert repr(self.state) == before
        return events

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
        forbidden = self.state.blocks or self.state.trading_state is TradingState.HALTED
        decided = self.desk.do(submit(f"{side} {size} {symbol}", self.desk.at))[1]
        assert not forbidden or isinstance(decided, e.OrderDenied)

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
            count = self.counts[order.client_order_id] = self.counts.get(order.client_order_id, D(0)) + quantity
            told = ReportFill(self.desk.at, self.desk.at, *of, quantity, price, D(fee) / 100, left, count)
            self.report(told)
            self.told.append(told)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def another_source_tells_the_same_shares(self, data: st.DataObject) -> None:
        told = data.draw(st.sampled_from(self.told))
        if not self.state.executions[told.execution_id].busted:
            before = repr(self.state)
            assert self.desk.do(structs.replace(told, execution_id=self.name())) == []
            assert repr(self.state) == before

    @rule(data=st.data(), later=st.sampled_from((0, 12, 40)))
    def order_never_arrived(self, data: st.DataObject, later: int) -> None:
        order = self.an_order(data, lambda order: order.approved and order.broker_order_id is None)
        if order:
            self.desk.at += MINUTE * later / 60
            self.desk.do(ReportAbsent(self.desk.at, self.desk.at, order.client_order_id))

    @rule(data=st.data(), size=st.one_of(st.none(), QUANTITIES), answer=st.sampled_from(("done", "refused", "nothing")))
    def order_is_replaced(self, data: st.DataObject, size: Decimal | None, answer: str) -> None:
        order = self.an_order(data, lambda order: order.is_working and order.quantity is not None)
        if not order:
            return
        self.ask(ReplaceOrder(self.desk.at, order.client_order_id, "dreamt", size))
        of = self.desk.at, self.desk.at, order.client_order_id
        if answer == "refused":
            self.report(ReportReplaceRejected(*of, "too late"))
        elif answer == "done" and order.replacement_id:
            new = order.replacement_id
            quantity = size or order.leaves_quantity or D(1)
            self.report(ReportReplaced(*of, new, f"b-{new}", quantity, None, None, order.time_in_force))

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
        kind = "DIVIDEND" if cents % 3 == 0 else "DEPOSIT" if cents > 0 else "WITHDRAWAL"
        self.report(ReportCash(self.desk.at, self.name(), kind, D(cents) / 100, "dreamt"))

    @rule(cents=st.integers(1, 300))
    def fee_is_charged(self, cents: int) -> None:
        self.report(ReportFee(self.desk.at, self.name(), "SEC", D(cents) / 100, "dreamt"))

    @rule()
    def trading_is_halted_and_resumed(self) -> None:
        self.ask(HaltTrading(self.desk.at, "ann", "dreamt"), ResumeTrading(self.desk.at, "ann", "awake"))

    @rule(is_reduced=st.booleans())
    def trading_is_reduced(self, is_reduced: bool) -> None:
        self.ask((ReduceTrading if is_reduced else ResumeTrading)(self.desk.at, "ann", "dreamt"))

    @rule(is_completed=st.booleans(), is_resumed=st.booleans())
    def kill_switch_is_thrown(self, is_completed: bool, is_resumed: bool) -> None:
        is_new = bool(self.ask(ActivateKillSwitch(self.desk.at, "ann", "dreamt")))
        assert self.state.trading_state is TradingState.HALTED
        working = [order for orders in self.state.working.values() for order in orders.values()]
        assert not is_new or all(order.cancel_requested for order in working)
        if is_completed:
            self.ask(CompleteKillSwitch(self.desk.at, "dreamt"))
        if is_resumed:
            self.ask(ResumeTrading(self.desk.at, "ann", "awake"))

    @rule(symbol=st.sampled_from(SYMBOLS))
    def position_is_closed(self, symbol: str) -> None:
        for event in self.ask(ClosePosition(self.desk.at, symbol, "ann", "dreamt")):
            if isinstance(event, e.OrderRequested):
                held = self.state.positions[symbol]
                assert event.quantity is not None
                assert event.quantity <= abs(held)
                assert (event.side is Side.SELL) == (held > 0)

    @rule(symbol=st.sampled_from(SYMBOLS), bid=PRICES, spread=st.integers(-5, 50), seconds=st.integers(-30, 30))
    def quote_comes(self, symbol: str, bid: Decimal, spread: int, seconds: int) -> None:
        when = self.desk.at + MINUTE * seconds / 60
        of = symbol, bid, 1, bid + D(spread) / 100, 2, "dreamt"
        self.report(ReportQuote(max(when, self.desk.at), when, *of))

    @rule(symbol=st.sampled_from(SYMBOLS), close=PRICES, back=st.integers(0, 2))
    def bar_is_corrected(self, symbol: str, close: Decimal, back: int) -> None:
        start_at = self.state.last_bars[symbol, "1m"] - back * MINUTE
        self.desk.do(
            ReportCorrectedBar(self.desk.at, Bar(symbol, "1m", start_at, close, close, close, close, 1, "dreamt"))
        )

    @rule(what=st.sampled_from(("orders", "trade_updates", "feed", "SPY", "QQQ", "session")), is_down=st.booleans())
    def something_goes_down_or_comes_back(self, what: str, is_down: bool) -> None:
        at, session = self.desk.at, f"{self.desk.at:%Y-%m-%d}"
        if what == "feed":
            self.report(ReportFeedStale(at, what, "dreamt") if is_down else ReportFeedRecovered(at, what, "awake"))
        elif what in SYMBOLS:
            self.report(ReportSymbolStatus(at, at, what, is_down, "H" if is_down else "T", "dreamt"))
        elif what == "session":
            self.report(OpenSession(at, session, at))
            if is_down:
                self.report(NearSessionsEnd(at, session, "cancel"))
            else:
                self.report(OpenSession(at, f"after {session}", at))
        else:
            self.report(ReportUnreachable(at, what, "dreamt") if is_down else ReportReachable(at, what, "awake"))

    @rule(
        kind=st.sampled_from([kind for kind in DifferenceKind if kind is not DifferenceKind.CORPORATE_ACTION]),
        symbol=st.sampled_from(SYMBOLS),
        side=st.sampled_from(Side),
        quantity=QUANTITIES,
        price=PRICES,
    )
    def shares_differ(self, kind: DifferenceKind, symbol: str, side: Side, quantity: Decimal, price: Decimal) -> None:
        signed = quantity if side is Side.BUY else -quantity
        ours = self.state.positions.get(symbol, D(0))
        self.desk.do(ReportDifference(self.desk.at, kind, symbol, str(ours), str(ours + signed), signed, price))

    @rule(cents=st.integers(-60_00, 60_00).filter(bool))
    def cash_differs(self, cents: int) -> None:
        amount, ours = D(cents) / 100, self.state.cash
        self.desk.do(
            ReportDifference(self.desk.at, DifferenceKind.CASH, CASH, str(ours), str(ours + amount), amount=amount)
        )

    @rule(symbol=st.sampled_from(SYMBOLS), ratio=st.sampled_from(("2", "1.5", "0.5", "0.1", "0", "-1")))
    def shares_are_split(self, symbol: str, ratio: str) -> None:
        held, equity = self.state.positions.get(symbol, D(0)), self.state.equity
        change = (held * (D(ratio) - 1)).quantize(D("1e-9"))
        if change:
            ours, theirs = str(held), str(held + change)
            kind = DifferenceKind.CORPORATE_ACTION
            self.desk.do(ReportDifference(self.desk.at, kind, symbol, ours, theirs, change))
            if held * (held + change) > 0 and symbol not in {one.subject for one in self.state.differences.values()}:
                assert abs(self.state.equity - equity) < D("0.000001")

    @precondition(lambda self: self.state.differences)
    @rule(data=st.data(), is_accepted=st.booleans())
    def difference_is_settled(self, data: st.DataObject, is_accepted: bool) -> None:
        found = data.draw(st.sampled_from(list(self.state.differences.values())))
        assert found.needs_acceptance
        if is_accepted:
            self.desk.do(AcceptDifference(self.desk.at, found.difference_id, "ann", "dreamt"))
        else:
            self.desk.do(ReportAgreement(self.desk.at, found.subject, "dreamt"))
        assert found.difference_id not in self.state.differences

    @invariant()
    def an_open_difference_keeps_trading_halted(self) -> None:
        assert not self.state.differences or self.state.trading_state is TradingState.HALTED

    @rule()
    def strategy_raises(self) -> None:
        self.desk.do(StopStrategy(self.desk.at, "one", "KeyError"))

    @precondition(lambda self: self.last_report is not None)
    @rule()
    def last_report_comes_again(self) -> None:
        assert self.last_report is not None
        report = self.last_report
        of = self.state.orders.get(getattr(report, "client_order_id", ""))
        is_news = of is not None and (
            (isinstance(report, ReportCancelRejected) and of.cancel_requested)  # asked for again since
            or (isinstance(report, ReportReplaceRejected) and bool(of.replacement_id))
        )
        if not is_news and not isinstance(report, ReportBar):  # a bar heard twice is recorded as rejected
            before = repr(self.state)
            assert self.desk.do(self.last_report) == []
            assert repr(self.state) == before

    @invariant()
    def books_hold(self) -> None:
        books_balance(self.state)
        signed: dict[str, Decimal] = {}
        for event in self.desk.tape.events:
            if isinstance(event, e.AdjustmentBooked) and event.quantity:
                signed[event.symbol] = signed.get(event.symbol, D(0)) + event.quantity
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
        redecide(self.desk.tape.recorded)
        DESKS.remove(self.desk)


Sessions.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestSessions = Sessions.TestCase
