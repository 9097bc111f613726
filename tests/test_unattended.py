"""What a simulated run decides by itself: a kill switch that ends, a day's loss that kills, what is closed before the close."""

import json
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from msgspec import structs

from commands.control import ActivateKillSwitch, EndRun, HaltTrading, ResumeTrading, StartRun, is_killing
from mqd_ledger import app, wishes
from mqd_ledger import events as e
from mqd_ledger.brokers.simulated import SimulatedBroker
from mqd_ledger.cli.main import execute
from mqd_ledger.engine import Engine, rehearse
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.operator_requests import kill_file
from mqd_ledger.policy import Operation, Simulation
from mqd_ledger.runs import Controls, fold, simulated_reactors
from mqd_ledger.settings import load
from mqd_ledger.state import State
from mqd_ledger.strategies.base import Signal, Strategy, StrategyParameters
from mqd_ledger.unattended import AT_THE_CLOSE, FLATTEN, Unattended
from mqd_ledger.values import Bar, Direction, OrderState, TradingState
from tests.desk import KILL_SIGNAL, RUN, furnish, log_rows, run_program
from tests.dsl import OPEN, SOURCE, D, Desk, Tape, at, kinds
from tests.test_cli import interrupt, started
from tests.test_kill import KILL_AT_COMMIT
from tests.test_kill_cli import state_of, until


def desk_of(when: str = "14:30", **operation: object) -> Desk:
    """A simulated run: bars come in, nothing else does."""
    desk = Desk(structs.replace(OPEN, operation=Operation(**operation)), when=at(when))  # type: ignore[arg-type]
    return desk.react(SimulatedBroker(desk.state), Unattended(desk.state))


def bought(desk: Desk, first_bar: str, symbol: str = "SPY") -> Desk:
    desk.order(f"BUY 10 {symbol}")
    desk.bar(first_bar)
    assert desk.state.positions[symbol] == 10
    return desk


def kill(desk: Desk) -> list[str]:
    """Everything recorded in its turn."""
    start = len(desk.tape.recorded)
    desk.do(ActivateKillSwitch(desk.at, "me", "enough"))
    return kinds(desk.tape.events[start:])


# --- the kill switch --------------------------------------------------------------------------------------------------


def test_where_nothing_is_open_it_has_completed_in_the_same_turn_and_resume_lifts_it() -> None:
    desk = desk_of()
    assert kill(desk) == ["KillSwitchActivated", "KillSwitchCompleted"]
    assert desk.state.kill_switch_completed
    desk.do(ResumeTrading(desk.at, "me", "looked at"))
    assert desk.state.trading_state is TradingState.ACTIVE
    assert kill(desk) == ["KillSwitchActivated", "KillSwitchCompleted"]


def test_orders_are_canceled_at_once_and_positions_closed_at_their_next_open() -> None:
    desk = bought(desk_of(), "SPY 14:30 100")
    stop = desk.order("SELL 10 SPY STOP 90")
    other = desk.order("BUY 5 QQQ LIMIT 50 GTC")
    assert kill(desk) == [
        "KillSwitchActivated", "CancelRequested", "CancelRequested", "OrderCanceled", "PositionCloseRequested",
        "OrderRequested", "OrderApproved", "OrderSent", "OrderSubmitted", "OrderCanceled",
    ]  # fmt: skip
    assert {desk.state.orders[name].state for name in (stop, other)} == {OrderState.CANCELED}
    assert is_killing(desk.state)
    assert kinds(desk.bar("QQQ 14:31 100")) == ["BarClosed"], "SPY is closed at a price of its own"
    assert kinds(desk.bar("SPY 14:31 97 98 96 97")) == ["BarClosed", "OrderFilled", "LotClosed", "KillSwitchCompleted"]
    assert desk.state.realized_pnl == -30
    assert desk.state.positions == {}


def test_orders_without_any_position_are_enough_to_wait_for_and_no_bar_is_needed() -> None:
    desk = desk_of()
    desk.order("BUY 5 QQQ LIMIT 50 GTC")
    desk.order("BUY 5 SPY")
    assert kill(desk)[-1] == "KillSwitchCompleted"


def test_a_short_position_and_two_orders_of_one_symbol_end_once() -> None:
    desk = desk_of()
    desk.order("SELL 10 SPY")
    desk.bar("SPY 14:30 100")
    for price in ("80", "90"):
        desk.order(f"BUY 10 SPY LIMIT {price}")
    assert kill(desk).count("OrderRequested") == 1
    desk.bar("SPY 14:31 100")
    assert desk.state.kill_switch_completed
    assert desk.state.fills_total == 2


def test_a_close_that_expires_is_asked_for_again_and_one_that_fills_in_parts_is_waited_for() -> None:
    thin = Simulation(participation_percent_max=D(10))
    desk = Desk(structs.replace(OPEN, simulation=thin))
    bought(desk.react(SimulatedBroker(desk.state), Unattended(desk.state)), "SPY 14:30 100")
    kill(desk)
    assert kinds(desk.bar("SPY 14:31 100 v40"))[-1] == "LotClosed"
    assert desk.state.positions == {"SPY": 6}
    assert kinds(desk.bar("SPY 2026-01-06T14:30 100 v400"))[:3] == [
        "BarClosed",
        "OrderExpired",
        "PositionCloseRequested",
    ]
    assert kinds(desk.bar("SPY 2026-01-06T14:31 100 v400"))[-1] == "KillSwitchCompleted"
    assert desk.state.positions == {}


def test_a_run_that_starts_under_a_kill_switch_that_nobody_heard_carries_it_out() -> None:
    """As an older version left it: recorded, and nothing done."""
    desk = bought(desk_of(), "SPY 14:30 100")
    desk.engine = Engine(desk.state, desk.tape)
    kill(desk)
    desk.do(EndRun(desk.at, "over"))
    desk.react(SimulatedBroker(desk.state), Unattended(desk.state))
    desk.do(StartRun(desk.at, "backtest", "0", SOURCE, (), OPEN))
    desk.bar("SPY 14:31 100")
    assert desk.state.kill_switch_completed


# --- the day's loss ---------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_to_be_borne_kills_at_the_bar_that_shows_it() -> None:
    desk = bought(desk_of(kill_at_daily_loss=D(50)), "SPY 14:30 100")
    assert kinds(desk.bar("SPY 14:31 100 100 95.01 95.01")) == ["BarClosed"]
    assert "KillSwitchActivated" in kinds(desk.bar("SPY 14:32 95 95 95 95"))
    assert desk.state.kill_switch is not None
    assert desk.state.kill_switch.reason == "the day's loss is 50; allowed is less than 50"
    assert kinds(desk.bar("SPY 14:33 94 94 94 94"))[-1] == "KillSwitchCompleted"
    assert desk.state.realized_pnl == -60
    assert kinds(desk.bar("SPY 14:34 90")) == ["BarClosed"], "once is enough"


class Always(Strategy):
    def on_bar(self, _bar: Bar) -> Signal:
        return Signal(Direction.LONG, "always", quantity=D(10))


def test_no_strategy_orders_at_the_bar_that_kills() -> None:
    desk = Desk(structs.replace(OPEN, operation=Operation(kill_at_daily_loss=D(50))))
    desk.react(*simulated_reactors(desk.state, {"s": Always(StrategyParameters())}))
    desk.bar("SPY 14:30 100")
    desk.bar("SPY 14:31 100")
    recorded = kinds(desk.bar("SPY 14:32 90"))
    assert recorded.index("KillSwitchActivated") < recorded.index("SignalRaised")
    desk.bar("SPY 14:33 90")
    assert desk.state.positions == {}
    assert desk.state.kill_switch_completed


# --- the close --------------------------------------------------------------------------------------------------------


def test_before_the_close_orders_are_canceled_and_positions_closed_and_no_order_goes_out_any_more() -> None:
    desk = bought(desk_of("20:50", at_close="flatten"), "SPY 20:50 100")
    desk.order("BUY 5 QQQ LIMIT 50 GTC")
    assert kinds(desk.bar("SPY 20:53 100")) == ["BarClosed"]
    assert kinds(desk.bar("SPY 20:54 100")) == [
        "BarClosed", "SessionEnding", "CancelRequested", "OrderCanceled", "PositionCloseRequested", "OrderRequested",
        "OrderApproved", "OrderSent", "OrderSubmitted",
    ]  # fmt: skip
    assert desk.tape.events[-5] == e.PositionCloseRequested(desk.at, AT_THE_CLOSE, "2026-01-05 is ending", "", "SPY")
    assert kinds(desk.bar("QQQ 20:54 100")) == ["BarClosed"], "it is on its way"
    assert kinds(desk.bar("SPY 20:55 101 102 100 101")) == ["BarClosed", "OrderFilled", "LotClosed"]
    denied = desk.order("BUY 1 SPY")
    assert desk.state.orders[denied].state is OrderState.REJECTED
    assert kinds(desk.bar("SPY 20:59 100")) == ["BarClosed", "SessionClosed"]
    assert kinds(desk.bar("SPY 2026-01-06T14:30 100")) == ["BarClosed", "SessionOpened"]
    assert desk.state.orders[desk.order("BUY 1 SPY")].approved


def test_cancel_leaves_positions_and_hold_leaves_everything() -> None:
    for at_close, canceled in (("cancel", 1), ("hold", 0)):
        desk = bought(desk_of("20:50", at_close=at_close), "SPY 20:50 100")
        desk.order("BUY 5 QQQ LIMIT 50 GTC")
        desk.bar("SPY 20:54 100")
        desk.bar("SPY 20:55 100")
        assert kinds(desk.tape.events).count("OrderCanceled") == canceled, at_close
        assert desk.state.positions == {"SPY": 10}
    assert not any(isinstance(event, e.SessionEvent) for event in desk.tape.events), "holding records no sessions"


@pytest.mark.parametrize(
    ("interval", "before", "last", "closing"),
    (
        ("1m", 300, "2026-11-27T17:53", "2026-11-27T17:54"),  # a half day ends at 18:00 UTC
        ("1m", 20, "20:57", "20:58"),
        ("5m", 300, "20:45", "20:50"),
        ("1h", 300, "18:00", "19:00"),
        ("30m", 3600, "19:00", "19:30"),
    ),
)
def test_what_closes_goes_out_while_a_bar_is_left_to_fill_it(
    interval: str, before: int, last: str, closing: str
) -> None:
    desk = desk_of(last, at_close="flatten", close_before=before)
    desk.order("BUY 10 SPY")
    desk.bar(f"SPY {last} 100", interval)
    assert desk.state.positions == {"SPY": 10}
    assert "SessionEnding" not in kinds(desk.tape.events)
    assert "PositionCloseRequested" in kinds(desk.bar(f"SPY {closing} 100", interval))
    (opened,) = [event for event in desk.tape.events if isinstance(event, e.SessionOpened)]
    assert desk.at < opened.closes_at


def test_daily_bars_have_no_close_inside_the_day() -> None:
    desk = desk_of(at_close="flatten")
    for day in ("05", "06", "07"):
        assert kinds(desk.bar(f"SPY 2026-01-{day}T00:00 100", "1d")) == ["BarClosed"]


def test_the_close_under_a_halt_closes_nothing_and_says_so_and_under_the_kill_switch_leaves_it_its_orders() -> None:
    halted = bought(desk_of("20:50", at_close="flatten"), "SPY 20:50 100")
    halted.do(HaltTrading(halted.at, "me", "wait"))
    assert kinds(halted.bar("SPY 20:54 100")) == ["BarClosed", "SessionEnding", "BrokerUnreachable"]
    assert "SPY will be held over the close of 2026-01-05: trading is halted (wait)" in halted.state.blocks[FLATTEN]
    assert kinds(halted.bar("SPY 20:55 100")) == ["BarClosed"], "said once"
    halted.do(ResumeTrading(halted.at, "me", "go on"))
    assert kinds(halted.bar("SPY 20:56 100"))[:3] == ["BarClosed", "BrokerReachable", "PositionCloseRequested"]
    assert FLATTEN not in halted.state.blocks
    over = bought(desk_of("20:50", at_close="flatten"), "SPY 20:50 100")
    over.do(HaltTrading(over.at, "me", "wait"))
    over.bar("SPY 20:55 100")
    assert kinds(over.bar("SPY 20:59 100")) == ["BarClosed", "BrokerReachable", "SessionClosed"]
    assert over.state.blocks == {}
    killed = bought(desk_of("20:50", at_close="flatten"), "SPY 20:50 100")
    kill(killed)
    assert kinds(killed.bar("QQQ 20:55 100")) == ["BarClosed"]
    assert kinds(killed.bar("SPY 20:56 100"))[-1] == "KillSwitchCompleted"


def test_a_session_that_a_run_left_ending_ends_also_in_a_run_that_holds() -> None:
    desk = desk_of("20:50", at_close="cancel")
    desk.bar("SPY 20:55 100")
    desk.do(EndRun(desk.at, "other settings"), StartRun(desk.at, "backtest", "0", SOURCE, (), OPEN))
    assert kinds(desk.bar("SPY 2026-01-06T14:30 100")) == ["BarClosed", "SessionClosed"]
    assert desk.state.blocks == {}


def test_all_of_it_is_rehearsed_from_the_bars_alone() -> None:
    policy = structs.replace(OPEN, operation=Operation(at_close="flatten", kill_at_daily_loss=D(50)))
    desk = Desk(policy, when=at("20:50"), marked=())
    desk.react(*simulated_reactors(desk.state, {"s": Always(StrategyParameters())}))
    for bar in ("20:50 100", "20:51 100", "20:54 100", "20:55 100", "2026-01-06T14:30 90", "2026-01-06T14:31 90"):
        desk.bar(f"SPY {bar}")
    for price in (90, 80, 79):
        desk.bar(f"SPY 2026-01-06T14:{122 - price} {price}")
    state, tape = State(), Tape()
    engine = Engine(state, tape, simulated_reactors(state, {"s": Always(StrategyParameters())}))
    rehearse(engine, desk.tape.recorded)
    assert (state, tape.recorded) == (desk.state, [])
    assert desk.state.kill_switch_completed


# --- the whole program ------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def proved(ledger: Path) -> None:
    assert [finding for finding in app.verify(ledger, rerun=True) if not finding.passed] == []


def recorded(ledger: Path, *wanted: type[e.Event]) -> list[e.Event]:
    with LogReader.open(ledger) as log:
        return [event for event in log.events() if isinstance(event, wanted)]


def broken_off(folder: Path, name: str = "paper.ledger") -> Path:
    """A run that was killed while it held something."""
    ledger = folder / name
    assert run_program(folder, *RUN, "--ledger", name, env={"KILL_AT": "bar 66"}).code not in {0, 1, 2}
    assert state_of(ledger).positions
    return ledger


def test_kill_without_a_run_is_carried_out_by_the_next_one_and_lifted_by_resume(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = broken_off(here)
    assert execute(["kill", "--reason", "k"]) == 0
    assert "What closes them fills at the next bar of each symbol" in " ".join(capsys.readouterr().out.split())
    state = state_of(ledger)
    assert {order.symbol for orders in state.working.values() for order in orders.values()} == set(state.positions)
    assert execute(["resume", "--reason", "too early"]) == 2
    assert run_program(here, *RUN).code == 0
    state = state_of(ledger)
    assert (state.positions, state.working, state.kill_switch_completed) == ({}, {}, True)
    proved(ledger)
    assert execute(["resume", "--reason", "r"]) == 0
    assert state_of(ledger).trading_state is TradingState.ACTIVE
    capsys.readouterr()
    assert execute(["kill", "--reason", "again"]) == 0
    assert "Everything is closed" in capsys.readouterr().out
    assert execute(["resume", "--reason", "r"]) == 0
    proved(ledger)


def test_a_run_killed_while_the_kill_switch_works_goes_on_with_it_to_the_same_log(here: Path) -> None:
    for name in ("whole.ledger", "broken.ledger"):
        broken_off(here, name)
        assert "is recorded" in wishes.kill(here / name, "me", "k", _never)
    assert run_program(here, *RUN, "--ledger", "whole.ledger").code == 0
    for when, commit in (("before", 1), ("after", 1), ("before", 2), ("after", 3), ("after", 20)):
        code = KILL_AT_COMMIT.format(when=when, commit=commit, signal=KILL_SIGNAL)
        assert run_program(here, *RUN, "--ledger", "broken.ledger", code=code).code not in {0, 1, 2}, (when, commit)
    assert run_program(here, *RUN, "--ledger", "broken.ledger").code == 0
    assert log_rows(here / "broken.ledger") == log_rows(here / "whole.ledger")
    assert len(recorded(here / "broken.ledger", e.KillSwitchCompleted)) == 1
    proved(here / "broken.ledger")


def _never() -> datetime:
    raise AssertionError("a simulated ledger lives in its bars' time")


@pytest.mark.parametrize("way", ("command", "signal file"))
def test_kill_reaches_a_run_that_goes_on(here: Path, way: str) -> None:
    ledger = here / "paper.ledger"
    with started(here, *RUN, "--speed", "400") as process:
        until(lambda: process.poll() is not None or (ledger.exists() and recorded(ledger, e.OrderFilled)))
        if way == "command":
            assert execute(["kill", "--reason", "k"]) == 0
        else:
            kill_file(ledger).touch()
        until(lambda: recorded(ledger, e.KillSwitchCompleted))
        interrupt(process)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(out)["trading_state"] == "HALTED"
    assert state_of(ledger).positions == {}
    proved(ledger)
    assert execute(["resume", "--reason", "r"]) == 0


def test_a_signal_file_that_waits_for_a_run_is_obeyed_before_its_first_bar(here: Path) -> None:
    ledger = broken_off(here)
    kill_file(ledger).touch()
    bars = len(recorded(ledger, e.BarClosed))
    assert run_program(here, *RUN).code == 0
    events = recorded(ledger, e.BarClosed, e.KillSwitchActivated)
    assert isinstance(events[bars], e.KillSwitchActivated)
    assert state_of(ledger).kill_switch_completed
    proved(ledger)


def test_a_ledger_that_an_older_version_left_under_its_kill_switch_is_free_again(here: Path) -> None:
    ledger = broken_off(here)
    with EventLog.open(ledger) as log:  # nobody answered then
        state = fold(log)
        Engine(state, log).handle(ActivateKillSwitch(state.last_execution_at, "me", "k"))
    ended = run_program(here, *RUN)
    assert ended.code == 0, ended.err
    assert state_of(ledger).kill_switch_completed
    assert execute(["resume", "--reason", "r"]) == 0


@pytest.mark.parametrize("mode", ("paper", "backtest"))
def test_both_simulated_modes_obey_the_settings_of_an_operation(tmp_path: Path, mode: str) -> None:
    _play(mode, tmp_path / "flat.ledger", "operation.at_close=flatten")
    ended = recorded(tmp_path / "flat.ledger", e.SessionEnding)
    assert [event.occurred_at.strftime("%d %H:%M") for event in ended] == ["05 20:55", "06 20:55"]
    _play(mode, tmp_path / "killed.ledger", "operation.kill_at_daily_loss=1")
    killed = state_of(tmp_path / "killed.ledger")
    assert (killed.positions, killed.kill_switch_completed) == ({}, True)
    for name in ("flat.ledger", "killed.ledger"):
        proved(tmp_path / name)
    _play(mode, tmp_path / "held.ledger")
    assert recorded(tmp_path / "held.ledger", e.SessionEvent, e.KillSwitchActivated) == []


def _play(mode: str, ledger: Path, *overrides: str) -> None:
    """Two made-up sessions."""
    settings = load(mode, None, {}, overrides)
    if mode == "paper":
        app.run_paper(settings, ledger, partial(app.feed_of_sample, settings), Controls())
    else:
        app.backtest(settings, app.feed_of_sample(settings, State()), ledger, Controls())
