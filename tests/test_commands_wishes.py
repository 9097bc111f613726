"""What we want from the market and who may: signals, orders, cancels, runs and control; and that every command has its test."""

import pathlib
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from msgspec import structs

from commands import DECIDERS, READ_BACK, command_of, decide
from commands.base import Command
from commands.control import CreateLedger, EndRun, HaltTrading, ReduceTrading, ResumeTrading, StartRun, StopStrategy
from commands.market import ReportBar
from commands.trading import CancelOrder, RaiseSignal
from mqd_ledger import events as e
from mqd_ledger.errors import BrokenPromise
from mqd_ledger.policy import Sizing
from mqd_ledger.risk import CHECK_NAMES, evaluate
from mqd_ledger.values import Direction, OrderState, Side, TradingState
from tests.dsl import (
    MINUTE,
    OPEN,
    OPENING,
    SOURCE,
    D,
    Desk,
    Given,
    at,
    bar,
    closed,
    fold,
    given,
    kinds,
    limits,
    policy,
    requested,
    submit,
    working,
    world,
)

NOW = OPENING
LONG, SHORT, FLAT = Direction.LONG, Direction.SHORT, Direction.FLAT
MARK = closed("SPY 14:29 100")


def signal(
    direction: Direction, quantity: str | None = None, notional: str | None = None, strategy: str = "s"
) -> RaiseSignal:
    sizes = (None if quantity is None else D(quantity), None if notional is None else D(notional))
    return RaiseSignal(NOW, strategy, "SPY", direction, "because", *sizes)


def raised(direction: Direction, quantity: str | None = None) -> e.SignalRaised:
    size = None if quantity is None else D(quantity)
    return e.SignalRaised(NOW, "s", "SPY", direction, "because", size, None, None, None, None)


def holding(quantity: int) -> tuple[e.Event, ...]:
    """Strategy s holds `quantity` shares, short where negative, at 100."""
    side = Side.BUY if quantity > 0 else Side.SELL
    size = D(abs(quantity))
    return (
        *working("held", f"{side} {size} SPY", strategy="s"),
        e.OrderFilled(NOW, "held", "h", "SPY", side, size, D(100), D(0), size, D(0)),
        e.LotOpened(NOW, "h", "SPY", "s", "h", D(quantity), D(100), D(quantity * 100), NOW),
    )


def test_an_order_that_passes_is_requested_approved_and_sent() -> None:
    decided = given(world(), MARK).when(submit("BUY 10 SPY"))
    state = decided.then(requested("L-1-000001", "BUY 10 SPY"), e.OrderApproved, e.OrderSent(NOW, "L-1-000001", 1))
    assert (state.orders["L-1-000001"].state, state.orders["L-1-000001"].attempts) == (OrderState.PENDING, 1)
    again = Given([])
    again.state = state
    again.when(submit("BUY 10 SPY")).then(requested("L-1-000002", "BUY 10 SPY"), e.OrderApproved, e.OrderSent)


def test_an_order_that_fails_a_check_is_denied_with_every_reason_and_works_no_more() -> None:
    decided = given(world(policy(position_notional_max=D(999))), MARK).when(submit("BUY 10 SPY"))
    denied = decided.events[1]
    assert isinstance(denied, e.OrderDenied)
    assert denied.reasons == ("position_notional_is_within_limit does not hold: notional 1000; allowed 999",)
    state = decided.then(e.OrderRequested, e.OrderDenied)
    assert (state.orders["L-1-000001"].state, state.working) == (OrderState.REJECTED, {})


@pytest.mark.parametrize(
    ("order", "more", "text"),
    (
        ("BUY 0 SPY", {}, "exactly one of quantity and notional, above zero"),
        ("BUY NaN SPY", {}, "exactly one of quantity and notional"),
        ("BUY 1 SPY", {"notional": D(5)}, "exactly one of quantity and notional"),
        ("BUY 1 SPY", {"quantity": None}, "exactly one of quantity and notional"),
        ("BUY $-5 SPY", {}, "exactly one of quantity and notional"),
        ("BUY 0.0000000001 SPY", {}, "up to 9 decimals; found 1E-10"),
        ("BUY 1 SPY", {"limit_price": D(5)}, "MARKET order takes no price, above zero; found limit_price 5"),
        ("BUY 1 SPY LIMIT", {}, "LIMIT order takes limit_price, above zero; found limit_price None"),
        ("BUY 1 SPY LIMIT 0", {}, "found limit_price 0"),
        ("BUY 1 SPY LIMIT NaN", {}, "found limit_price NaN"),
        ("BUY 1 SPY STOP 5", {"limit_price": D(5)}, "found limit_price 5"),
        ("BUY 1 SPY STOP_LIMIT 5", {}, "takes limit_price and stop_price"),
        ("BUY 1 SPY TRAILING_STOP 1", {"trail_percent": D(1)}, "found trail_price 1"),
        ("BUY 1 SPY TRAILING_STOP", {}, "takes trail_price"),
    ),
)
def test_an_order_that_makes_no_sense_is_refused(order: str, more: dict[str, Decimal | None], text: str) -> None:
    given(world(), MARK).when(structs.replace(submit(order), **more)).refused(text)


@pytest.mark.parametrize(
    ("order", "more"),
    (
        ("BUY $500 SPY", {}),
        ("BUY 1.123456789 SPY", {}),
        ("SELL 1 SPY LIMIT 101 GTC", {}),
        ("BUY 1 SPY STOP 101", {}),
        ("BUY 1 SPY STOP_LIMIT 101 102", {}),
        ("SELL 1 SPY TRAILING_STOP 2", {}),
        ("SELL 1 SPY TRAILING_STOP", {"trail_percent": D(2)}),
    ),
)
def test_every_type_of_order_is_read_back_from_its_request(order: str, more: dict[str, Decimal]) -> None:
    command = structs.replace(submit(order), **more)
    events = decide(command, fold([*world(), MARK]))
    assert kinds(events) == ["OrderRequested", "OrderApproved", "OrderSent"]
    assert command_of(events[0], NOW + MINUTE) == command  # recorded later than it was decided


@pytest.mark.parametrize(
    ("held", "wish", "order"),
    (
        (0, signal(LONG, "10"), "BUY 10 SPY"),
        (0, signal(SHORT, "10"), "SELL 10 SPY"),
        (0, signal(LONG, notional="500"), "BUY $500 SPY"),
        (0, signal(SHORT, notional="550"), "SELL 5 SPY"),
        (0, signal(LONG), "BUY 100 SPY"),  # 10 % of 100,000 at 100
        (7, signal(FLAT), "SELL 7 SPY"),
        (-7, signal(FLAT), "BUY 7 SPY"),
        (7, signal(SHORT, "3"), "SELL 10 SPY"),
        (-7, signal(LONG, "3"), "BUY 10 SPY"),
        (-7, signal(LONG, notional="350"), "BUY 10 SPY"),
    ),
)
def test_a_signal_orders_the_difference_between_what_is_held_and_what_is_wanted(
    held: int, wish: RaiseSignal, order: str
) -> None:
    before = holding(held) if held else ()
    wanted = requested(f"L-1-{2 if held else 1:06d}", order, strategy="s")
    in_hours = world(policy(session="regular"))
    given(in_hours, MARK, before).when(wish).then(e.SignalRaised, wanted, e.OrderApproved, e.OrderSent)


@pytest.mark.parametrize(("held", "direction"), ((0, FLAT), (7, LONG), (-7, SHORT)))
def test_a_signal_for_what_is_there_already_is_recorded_and_orders_nothing(held: int, direction: Direction) -> None:
    reason = f"it holds {held} already" if held else "it holds nothing to close"
    before = holding(held) if held else ()
    given(world(), MARK, before).when(signal(direction)).then(
        raised(direction), e.SignalIgnored(NOW, "s", "SPY", direction, reason)
    )


def test_while_its_order_works_a_strategy_gets_no_second_one_but_may_take_it_back() -> None:
    own = working("o", "BUY 10 SPY", strategy="s")
    ignored = "its order o is still working"
    given(world(), MARK, own).when(signal(LONG, "10")).then(
        raised(LONG, "10"), e.SignalIgnored(NOW, "s", "SPY", LONG, ignored)
    )
    given(world(), MARK, own).when(signal(FLAT)).then(
        raised(FLAT),
        e.SignalIgnored(NOW, "s", "SPY", FLAT, ignored),
        e.CancelRequested(NOW, "o", "signal FLAT: because"),
    )
    given(world(), MARK, own, e.CancelRequested(NOW, "o", "x")).when(signal(FLAT)).then(e.SignalRaised, e.SignalIgnored)
    given(world(), MARK, own).when(signal(LONG, "10", strategy="other")).then(
        e.SignalRaised, e.OrderRequested, e.OrderApproved, e.OrderSent
    )


@pytest.mark.parametrize(
    ("sizing", "more", "wish", "shares"),
    (
        (Sizing(method="fixed", quantity=D(3)), {}, signal(LONG), "3"),
        (Sizing(percent=D(20)), {}, signal(LONG), "200"),
        (Sizing(percent=D(20)), {"position_notional_max": D(1000)}, signal(LONG), "10"),
        (Sizing(percent=D(20)), {"position_percent_max": D(15)}, signal(LONG), "150"),
        (Sizing(percent=D(20)), {"exposure_max": D(1099)}, signal(LONG), "10"),
        (Sizing(percent=D("0.15"), fractional=True), {}, signal(LONG), "1.5"),
        (Sizing(percent=D("0.15"), fractional=True), {"whole_share_symbols": ("SPY",)}, signal(LONG), "1"),
        (Sizing(percent=D("0.05")), {}, signal(LONG), "1"),  # less than a share: one is asked for and the gate decides
        (Sizing(percent=D(200)), {}, signal(LONG), "1000"),  # never more than the account has
    ),
)
def test_a_signal_without_a_size_is_sized_inside_the_limits(
    sizing: Sizing, more: dict[str, object], wish: RaiseSignal, shares: str
) -> None:
    events = given(world(structs.replace(policy(), limits=limits(**more), sizing=sizing)), MARK).when(wish).events
    assert isinstance(events[1], e.OrderRequested)
    assert events[1].quantity == D(shares)


def test_a_signal_for_a_symbol_without_a_price_is_denied_and_not_guessed() -> None:
    decided = given(world()).when(signal(LONG))
    decided.then(e.SignalRaised, e.OrderRequested, e.OrderDenied)


def test_a_cancel_is_asked_for_once_and_only_of_an_order_that_works() -> None:
    cancel = CancelOrder(NOW, "o", "changed my mind")
    own = working("o", "BUY 10 SPY")
    state = given(world(), own).when(cancel).then(e.CancelRequested(NOW, "o", "changed my mind"))
    assert (state.orders["o"].cancel_requested, state.orders["o"].state) == (True, OrderState.SUBMITTED)
    again = Given([])
    again.state = state
    again.when(cancel).then_nothing()
    given(world(), own, e.OrderCanceled(NOW, "o", "")).when(cancel).refused(
        "is CANCELED already: there is nothing to cancel"
    )
    given(world()).when(cancel).refused("No order 'o' is known here")


def test_a_ledger_is_created_once_with_a_name_that_orders_can_carry() -> None:
    given().when(CreateLedger(NOW, "my-desk-1")).then(e.LedgerCreated(NOW, "my-desk-1"))
    given(world()).when(CreateLedger(NOW, "other")).refused("exists already: it is 'L'")
    for name in ("", "my desk", "a/b", "käse"):
        given().when(CreateLedger(NOW, name)).refused("letters, digits and hyphens")


def test_runs_are_numbered_and_one_ends_before_the_next_starts() -> None:
    start = StartRun(NOW, "backtest", "0", SOURCE, (), OPEN)
    given(world()).when(start).refused("A run is open already")
    given(world()).when(EndRun(NOW, "done")).then(e.RunEnded(NOW, 1, "done"))
    given(e.LedgerCreated(NOW, "L")).when(EndRun(NOW, "done")).refused("No run is open")
    given(world(), e.RunEnded(NOW, 1, "done")).when(EndRun(NOW, "done")).refused("No run is open")
    started = e.RunStarted(NOW, 2, "backtest", "0", SOURCE, (), OPEN, CHECK_NAMES)
    state = given(world(), e.StrategyStopped(NOW, "s", "x"), e.RunEnded(NOW, 1, "done")).when(start).then(started)
    assert (state.run_is_open, state.stopped_strategies, state.cash) == (True, {}, D(100000))


HALTED, REDUCED = e.TradingHalted(NOW, "ann", "lunch"), e.TradingReduced(NOW, "ann", "lunch")


@pytest.mark.parametrize(
    ("before", "command", "event", "state"),
    (
        ((), HaltTrading(NOW, "ann", "lunch"), HALTED, TradingState.HALTED),
        ((), ReduceTrading(NOW, "ann", "lunch"), REDUCED, TradingState.REDUCING),
        ((REDUCED,), HaltTrading(NOW, "ann", "lunch"), HALTED, TradingState.HALTED),
        ((HALTED,), ResumeTrading(NOW, "ann", "back"), e.TradingResumed(NOW, "ann", "back"), TradingState.ACTIVE),
        ((REDUCED,), ResumeTrading(NOW, "ann", "back"), e.TradingResumed(NOW, "ann", "back"), TradingState.ACTIVE),
        ((HALTED,), HaltTrading(NOW, "bob", "again"), None, TradingState.HALTED),
        ((REDUCED,), ReduceTrading(NOW, "bob", "again"), None, TradingState.REDUCING),
        ((), ResumeTrading(NOW, "bob", "again"), None, TradingState.ACTIVE),
    ),
)
def test_who_changed_the_trading_state_and_why_is_recorded(
    before: tuple[e.Event, ...], command: Command, event: e.Event | None, state: TradingState
) -> None:
    after = given(world(), before).when(command).then(*([] if event is None else [event]))
    assert after.trading_state is state


def test_a_halt_is_never_weakened_and_every_change_needs_a_reason() -> None:
    given(world(), HALTED).when(ReduceTrading(NOW, "ann", "softly")).refused("only a resume with a reason lifts a halt")
    for control in (HaltTrading, ReduceTrading, ResumeTrading):
        given(world()).when(control(NOW, "ann", " ")).refused("needs a reason")


def test_a_stopped_strategy_loses_its_working_orders_and_keeps_its_position() -> None:
    orders = (*working("mine", "SELL 5 SPY", strategy="s"), *working("theirs", "BUY 5 SPY", strategy="t"))
    asked = (*working("asked", "BUY 1 QQQ", strategy="s"), e.CancelRequested(NOW, "asked", "before"))
    state = (
        given(world(), MARK, holding(7), orders, asked)
        .when(StopStrategy(NOW, "s", "KeyError: 1"))
        .then(e.StrategyStopped(NOW, "s", "KeyError: 1"), e.CancelRequested(NOW, "mine", "strategy s was stopped"))
    )
    assert state.strategy_positions["s", "SPY"] == 7
    again = Given([])
    again.state = state
    again.when(StopStrategy(NOW, "s", "KeyError: 2")).then_nothing()


def test_every_command_is_tested_here_or_beside() -> None:
    here = pathlib.Path(__file__).parent
    text = "".join(
        (here / name).read_text(encoding="utf-8")
        for name in (*(path.name for path in here.glob("test_commands_*.py")), "test_feed_events.py", "dsl.py")
    )
    assert [command.__name__ for command in DECIDERS if f"{command.__name__}(" not in text] == []


def test_every_group_of_events_can_be_read_back_and_what_only_follows_cannot() -> None:
    assert {READ_BACK[event].__name__ for event in READ_BACK} == {"<lambda>"}
    with pytest.raises(BrokenPromise, match="begins with OrderApproved, which only ever follows"):
        command_of(e.OrderApproved(NOW, "o", ()), NOW)


def test_a_decision_recorded_late_is_taken_again_as_it_was_taken() -> None:
    """The log's recorded time never goes back, so it may be later than the time at which was decided."""
    desk = Desk()
    desk.at = at("14:40")
    desk.bar("SPY 14:39 100")
    early = at("14:35")
    wishes: list[Command] = [
        submit("BUY 1 SPY", early),
        HaltTrading(early, "ann", "lunch"),
        ResumeTrading(early, "ann", "back"),
        StopStrategy(early, "s", "x"),
        RaiseSignal(early, "t", "SPY", LONG, "because"),
        CancelOrder(early, "L-1-000001", "x"),
    ]
    for wish in wishes:
        before = len(desk.tape.recorded)
        assert desk.do(wish)
        lead = desk.tape.recorded[before]
        assert command_of(lead.event, at("14:40")) == wish


def test_a_request_that_is_heard_twice_counts_once_even_over_a_later_one() -> None:
    """A run was killed between doing what it was asked and saying so; meanwhile the operator changed his mind."""
    first, resumed = e.TradingHalted(NOW, "ann", "odd prices", "r1"), e.TradingResumed(NOW, "ann", "fine", "r2")
    again = e.TradingHalted(NOW, "ann", "odd again", "r3")
    state = given(world(), first, resumed, again).when(ResumeTrading(NOW, "ann", "fine", "r2")).then_nothing()
    assert state.trading_state is TradingState.HALTED
    given(world(), first, resumed).when(HaltTrading(NOW, "ann", "odd prices", "r1")).then_nothing()


def test_a_check_that_came_later_leaves_the_decisions_of_a_run_alone() -> None:
    started = e.RunStarted(NOW, 2, "backtest", "0", SOURCE, (), OPEN, ("price_is_known", "session_is_open"))
    state = fold([*world(), started])
    checks, _ = evaluate(requested("o", "BUY 5 SPY MARKET"), state)
    assert [check.name for check in checks] == ["price_is_known", "session_is_open"]
    newer = e.RunStarted(NOW, 2, "backtest", "9", SOURCE, (), OPEN, ("a_check_of_tomorrow",))
    with pytest.raises(BrokenPromise, match="a_check_of_tomorrow, which this version does not have"):
        evaluate(requested("o", "BUY 5 SPY MARKET"), fold([*world(), newer]))


def test_a_daily_bar_is_known_at_the_close_of_its_session_and_not_at_the_midnight_after() -> None:
    friday = bar("SPY 14:30 100", "1d")
    friday = structs.replace(friday, start_at=datetime(2025, 11, 28, 5, tzinfo=UTC))  # a half day
    close = datetime(2025, 11, 28, 18, tzinfo=UTC)
    given(world(when=datetime(2025, 11, 1, tzinfo=UTC))).when(ReportBar(close, friday)).then(e.BarClosed(close, friday))
