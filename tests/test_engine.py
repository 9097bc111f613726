"""The engine: the order of things inside one bar, strategies that fail, and coming back to where the record ends."""

from collections.abc import Iterable
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from commands.cash import ReportCash
from commands.control import CreateLedger, EndRun, StartRun
from commands.market import ReportBadBar, ReportBar
from commands.trading import CancelOrder
from mqd_ledger import events as e
from mqd_ledger.audit.redecide import redecide
from mqd_ledger.brokers.simulated import SimulatedBroker
from mqd_ledger.engine import DecidedDifferently, Engine, Recorded, rehearse
from mqd_ledger.errors import CommandRefused
from mqd_ledger.orders import Order
from mqd_ledger.policy import Policy, Simulation, Sizing
from mqd_ledger.state import State
from mqd_ledger.strategies.base import ClosedPosition, Signal, Signals, Strategy, StrategyParameters
from mqd_ledger.strategies.host import StrategyHost
from mqd_ledger.strategies.vwap import VwapMeanReversion, VwapParameters
from mqd_ledger.values import Bar, Direction
from tests.dsl import MINUTE, OPEN, OPENING, SOURCE, D, Desk, Tape, books_balance, kinds

LONG, FLAT = Direction.LONG, Direction.FLAT
SEEDLING = structs.replace(
    OPEN, sizing=Sizing(method="fixed", quantity=D(10)), simulation=Simulation(participation_percent_max=D(50))
)


class Scripted(Strategy):
    """Answers its n-th bar with the n-th word: L(ong), F(lat), ! (raises), . (nothing). Notes what it was shown."""

    def __init__(self, words: str, **parameters: tuple[str, ...]) -> None:
        super().__init__(StrategyParameters(**parameters))
        self.words, self.seen, self.closed = words, list[str](), list[Decimal]()

    def on_bar(self, bar: Bar) -> Signals:
        word = self.words[len([one for one in self.seen if one.startswith("bar")]) % len(self.words)]
        self.seen.append(f"bar {bar.close} holding {self.context.position(bar.symbol)}")
        if word == "!":
            raise KeyError(bar.symbol)
        answers: dict[str, Signals] = {"L": Signal(LONG, "scripted"), "F": [Signal(FLAT, "scripted")], ".": None}
        return answers[word]

    def on_order_filled(self, order: Order, fill: e.OrderFilled) -> Signals:
        self.seen.append(f"{order.side} {fill.last_quantity} at {fill.last_price}")
        return None

    def on_position_closed(self, position: ClosedPosition) -> Signals:
        self.closed.append(position.realized_pnl)
        return None

    def on_stop(self) -> None:
        self.seen.append("stop")


def trade(strategies: dict[str, Strategy], bars: Iterable[str], run_policy: Policy = SEEDLING) -> Desk:
    desk = Desk(run_policy, marked=())
    desk.react(SimulatedBroker(desk.state), StrategyHost(desk.state, strategies))
    for text in bars:
        desk.bar(text)
    return desk


def test_inside_a_bar_working_orders_come_first_then_strategies_and_their_orders_wait_for_the_next() -> None:
    strategy = Scripted("L.F")
    desk = trade({"s": strategy}, ["SPY 14:30 100", "SPY 14:31 101 102 100 101.5", "SPY 14:32 103", "SPY 14:33 104"])
    assert strategy.seen == [
        "bar 100 holding 0",
        "BUY 10 at 101",
        "bar 101.5 holding 10",
        "bar 103 holding 10",
        "SELL 10 at 104",
        "bar 104 holding 0",
    ]
    assert kinds(desk.tape.events[3:]) == [
        "BarClosed", "SignalRaised", "OrderRequested", "OrderApproved", "OrderSent", "OrderSubmitted",
        "BarClosed", "OrderFilled", "LotOpened",
        "BarClosed", "SignalRaised", "OrderRequested", "OrderApproved", "OrderSent", "OrderSubmitted",
        "BarClosed", "OrderFilled", "LotClosed", "SignalRaised", "OrderRequested", "OrderApproved", "OrderSent",
        "OrderSubmitted",
    ]  # fmt: skip
    assert strategy.closed == [D(30)]


def test_every_event_names_what_it_answers_and_the_input_that_began_it() -> None:
    desk = trade({"s": Scripted("L.")}, ["SPY 14:30 100", "SPY 14:31 101"])
    tape = desk.tape.recorded
    raised = next(one for one in tape if isinstance(one.event, e.SignalRaised))
    first_bar = next(one for one in tape if isinstance(one.event, e.BarClosed))
    assert (raised.causation, raised.correlation, first_bar.causation) == (first_bar.position, first_bar.position, 0)
    filled = next(one for one in tape if isinstance(one.event, e.OrderFilled))
    acknowledged = next(one for one in tape if isinstance(one.event, e.OrderSubmitted))
    order_sent = next(one for one in tape if isinstance(one.event, e.OrderSent))
    assert (acknowledged.causation, acknowledged.correlation) == (order_sent.position, first_bar.position)
    second_bar = [one for one in tape if isinstance(one.event, e.BarClosed)][1]
    assert (filled.causation, filled.correlation) == (second_bar.position, second_bar.position)


def test_a_strategy_that_raises_is_stopped_its_orders_are_canceled_and_the_others_go_on() -> None:
    broken, steady = Scripted("L!", symbols=("SPY",)), Scripted("L...", symbols=("SPY",))
    thin = [
        "SPY 14:30 100 v20",
        "SPY 14:31 101 v10",
        "SPY 14:32 102 v100",
    ]  # five shares a minute: the order still works
    desk = trade({"broken": broken, "steady": steady}, thin)
    assert desk.state.stopped_strategies == {"broken": "KeyError: 'SPY'"}
    after = kinds(desk.tape.events).index("StrategyStopped")
    assert kinds(desk.tape.events)[after : after + 3] == ["StrategyStopped", "CancelRequested", "OrderCanceled"]
    assert desk.state.strategy_positions == {("broken", "SPY"): D(5), ("steady", "SPY"): D(10)}
    assert len(broken.seen) == 3
    assert len(steady.seen) == 4
    books_balance(desk.state)


@pytest.mark.parametrize(
    ("answer", "error"),
    (
        ("buy", "a strategy answers with Signal"),
        (Signal(LONG, "x", quantity=D(0)), "a signal's quantity is a Decimal above zero"),
        (Signal(LONG, "x", quantity=D("NaN")), "a signal's quantity is a Decimal above zero"),
        (Signal(LONG, "x", quantity=D("1E-10")), "up to 9 decimals"),
        (Signal(LONG, "x", quantity=1.5), "a signal's quantity is a Decimal above zero"),  # type: ignore[arg-type]
        (Signal(LONG, "x", stop_price=D("NaN")), "a signal's stop_price is a Decimal"),
        (Signal(LONG, "x", confidence=0.8), "a signal's confidence is text, found 0.8"),  # type: ignore[arg-type]
        (Signal(LONG, None), "a signal's reason is text, found None"),  # type: ignore[arg-type]
    ),
)
def test_an_answer_that_is_no_signal_stops_the_strategy_before_it_reaches_the_log(answer: Signal, error: str) -> None:
    class Odd(Scripted):
        def on_bar(self, bar: Bar) -> Signals:
            self.seen.append(f"bar {bar.close}")
            return answer

    desk = trade({"odd": Odd(".")}, ["SPY 14:30 100"])
    assert error in desk.state.stopped_strategies["odd"]
    assert kinds(desk.tape.events)[-1] == "StrategyStopped"


def test_a_position_closed_lot_by_lot_is_told_once_with_the_profit_of_the_whole_round_trip() -> None:
    strategy = Scripted(".")
    desk = Desk(SEEDLING)
    desk.react(StrategyHost(desk.state, {"s": strategy}))
    for quantity, price in (("10", "100"), ("10", "110")):
        desk.trade(f"BUY {quantity} SPY", price, strategy="s")
    desk.trade("SELL 5 SPY", "120", strategy="s")
    assert strategy.closed == []
    desk.trade("SELL 15 SPY", "120", strategy="s")
    assert strategy.closed == [D(300)]
    desk.trade("SELL 5 SPY", "120", strategy="s")
    desk.trade("BUY 8 SPY", "110", strategy="s")  # through zero: the short is closed, the long is new
    assert strategy.closed == [D(300), D(50)]


def test_a_strategy_sees_the_same_whether_or_not_another_strategy_runs_beside_it() -> None:
    alone, beside = Scripted("L.F."), Scripted("L.F.")
    bars = [f"SPY 14:3{minute} {100 + minute}" for minute in range(8)]
    trade({"s": alone}, bars)
    trade({"a": Scripted("..LF", symbols=("QQQ",)), "s": beside}, bars)
    assert alone.seen == beside.seen


# --- coming back -----------------------------------------------------------------------------------------------------------

THIN = structs.replace(
    SEEDLING, simulation=Simulation(participation_percent_max=D(20))
)  # orders fill over several bars
PRICES = (100, 99, 101, 98, 95, 97, 99, 103, 100, 96, 94, 99, 104, 101, 97, 93, 96, 102)


def reactors(state: State) -> tuple[SimulatedBroker, StrategyHost]:
    vwap = VwapMeanReversion(
        VwapParameters(lookback=3, entry_percent=D(1), stop_loss_percent=D(3), take_profit_percent=D(2))
    )
    return SimulatedBroker(state), StrategyHost(
        state, {"vwap": vwap, "s": Scripted("L..F"), "broken": Scripted("...L.!")}
    )


def inputs() -> list[ReportBar | ReportBadBar]:
    found: list[ReportBar | ReportBadBar] = []
    for number, close in enumerate(PRICES):
        start = OPENING + number * MINUTE
        high, low, opened = close + 1, close - 1, close - (number % 3) + 1
        prices = D(opened), D(max(high, opened)), D(min(low, opened)), D(close)
        found.append(ReportBar(start + MINUTE, Bar("SPY", "1m", start, *prices, 30 + number, "synthetic")))
        if number == 5:
            found.append(ReportBadBar(start + MINUTE, "SPY", 7, "SPY,,", "no price"))
    return found


def whole_session() -> Tape:
    state, tape = State(), Tape()
    engine = Engine(state, tape, reactors(state))
    engine.handle(CreateLedger(OPENING, "L"))
    engine.handle(ReportCash(OPENING, "opening", "DEPOSIT", D(10000), ""))
    engine.handle(StartRun(OPENING, "backtest", "0", SOURCE, (), THIN))
    for one in inputs():
        engine.handle(one)
    engine.handle(EndRun(OPENING + 18 * MINUTE, "over"))
    return tape


SESSION = whole_session()


def test_the_session_that_is_cut_below_has_everything_in_it() -> None:
    assert {"OrderFilled", "LotClosed", "StrategyStopped", "OrderCanceled", "SignalIgnored", "RunEnded"} <= set(
        kinds(SESSION.events)
    )
    assert len(SESSION.recorded) > 100


def comes_back(cut: int) -> tuple[State, Tape, Engine]:
    state, tape = State(), Tape()
    tape.recorded = SESSION.recorded[:cut]
    engine = Engine(state, tape, reactors(state))
    rehearse(engine, list(tape.recorded))
    return state, tape, engine


@settings(max_examples=80)
@given(cut=st.integers(1, len(SESSION.recorded)))
def test_a_record_that_stops_anywhere_goes_on_to_the_identical_session(cut: int) -> None:
    state, tape, engine = comes_back(cut)
    assert tape.events == SESSION.events[: len(tape.recorded)]  # the turn that was cut is finished
    if state.run is None:
        for lead in SESSION.events[len(tape.recorded) : 3]:
            engine.handle(_opening(lead))
    for one in inputs()[state.feed_items :]:
        engine.handle(one)
    if state.run_is_open:
        engine.handle(EndRun(OPENING + 18 * MINUTE, "over"))
    assert tape.events == SESSION.events
    assert [one.correlation for one in tape.recorded] == [one.correlation for one in SESSION.recorded]


def _opening(lead: e.Event) -> ReportCash | StartRun:
    if isinstance(lead, e.CashMoved):
        return ReportCash(OPENING, "opening", "DEPOSIT", D(10000), "")
    return StartRun(OPENING, "backtest", "0", SOURCE, (), THIN)


def test_a_strategy_that_now_decides_differently_is_named_with_the_position() -> None:
    state, tape = State(), Tape()
    host = StrategyHost(state, {"s": Scripted("...F")})
    engine = Engine(state, tape, (SimulatedBroker(state), host))
    with pytest.raises(DecidedDifferently, match=r"Event \d+ is recorded as SignalRaised, but event") as caught:
        rehearse(engine, SESSION.recorded)
    assert isinstance(SESSION.events[caught.value.position - 1], e.SignalRaised)
    assert tape.recorded == []


def test_a_recorded_event_whose_command_now_changes_nothing_is_named() -> None:
    tape = Tape()
    again = [
        *SESSION.recorded[:3],
        Recorded(4, SESSION.recorded[1].recorded_at, 4, 0, SESSION.events[1]),
    ]  # the deposit twice
    with pytest.raises(
        DecidedDifferently, match="Event 4 is recorded as CashMoved, but its command now changes nothing"
    ):
        rehearse(Engine(State(), tape), again)


def test_a_recorded_event_whose_command_is_now_refused_is_named() -> None:
    again = [Recorded(1, OPENING, 1, 0, e.RunEnded(OPENING, 1, "over"))]
    for take_again in (lambda: rehearse(Engine(State(), Tape()), again), lambda: redecide(again)):
        with pytest.raises(DecidedDifferently, match=r"Event 1 .* its command is now refused \(\"No run is open"):
            take_again()


def test_what_was_decided_differently_is_said_in_a_few_words() -> None:
    then, now = e.RunEnded(OPENING, 1, "x" * 5000), e.RunEnded(OPENING, 1, "y" * 5000)
    told = str(DecidedDifferently(Recorded(7, OPENING, 7, 0, then), now))
    assert told.startswith('Event 7 is recorded as RunEnded with reason "xxx')
    assert '…, but the same inputs now give "yyy' in told
    assert len(told) < 500


def test_a_refused_command_leaves_no_trace_and_the_engine_goes_on() -> None:
    desk = Desk()
    before = len(desk.tape.recorded)
    with pytest.raises(CommandRefused, match="No order 'nobody'"):
        desk.do(CancelOrder(desk.at, "nobody", "x"))
    assert len(desk.tape.recorded) == before
    assert desk.order("BUY 1 SPY") == "L-1-000001"
