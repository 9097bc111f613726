"""Snapshots: what comes back is what was kept, to the byte; nothing else is ever started from; and a start with them ends alike."""

import dataclasses
import random
import sqlite3
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import closing
from decimal import getcontext, localcontext
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from commands import command_of, decide
from mqd_ledger import app
from mqd_ledger import events as e
from mqd_ledger import snapshots as kept
from mqd_ledger.audit.verify import verify
from mqd_ledger.brokers.simulated import SimulatedBroker
from mqd_ledger.chain import Head
from mqd_ledger.errors import ChainBroken
from mqd_ledger.evolve import evolve
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.orders import Order, Trigger
from mqd_ledger.remembering import memory_of
from mqd_ledger.runs import Controls, play
from mqd_ledger.settings import load
from mqd_ledger.snapshots import Saver, Snapshots, checked, decode, encode, restore
from mqd_ledger.state import Execution, Mark, Period, State
from mqd_ledger.store import backup
from mqd_ledger.strategies.base import Strategy, StrategyParameters
from mqd_ledger.strategies.host import StrategyHost
from mqd_ledger.strategies.vwap import VwapMeanReversion, VwapParameters
from mqd_ledger.values import ARITHMETIC, Bar, DifferenceKind, LotCause, OrderType, Side, TimeInForce, TradingState
from tests.desk import KILL_SIGNAL, TRADER, environment, furnish, log_rows
from tests.dsl import MINUTE, OPENING, SOURCE, D, Desk, policy, submit
from tests.test_session_machine import Sessions

# --- the state and its bytes ------------------------------------------------------------------------------------------


def same(one: State, other: State) -> bool:
    """Equal in value, in the text of every decimal, and in the order in which every dict goes."""
    return one == other and encode(one) == encode(other)


class Kept(Sessions):
    """Any session, kept after every step; and gone on with, at its end, from wherever it was kept."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[int, bytes]] = []

    def the_log_alone_gives_the_same_state(self) -> None:
        """Asserted by the machine itself; it takes the square of the time."""

    @rule(_now=st.just(None))
    def a_snapshot_is_taken(self, _now: None) -> None:
        self.taken.append((len(self.desk.tape.recorded), encode(self.state)))

    @invariant()
    def what_comes_back_is_what_was_kept(self) -> None:
        state, memory = decode(encode(self.state, [{"a": 1}]))
        assert same(state, self.state)
        assert memory == [{"a": 1}]
        for symbol, ours in state.working.items():
            assert all(order is state.orders[name] for name, order in ours.items()), symbol

    def teardown(self) -> None:
        for place, data in self.taken:
            state, _ = decode(data)
            recorded = self.desk.tape.recorded[place:]
            while recorded:
                events = decide(command_of(recorded[0].event, recorded[0].recorded_at), state)
                assert [one.event for one in recorded[: len(events)]] == events
                assert events
                for event in events:
                    evolve(state, event)
                recorded = recorded[len(events) :]
            assert same(state, self.state)


Kept.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestKept = Kept.TestCase


def full_state() -> State:
    """Every field holds something."""
    at = OPENING
    started = e.RunStarted(
        at, 3, "paper", "0", SOURCE, (e.StrategySpec("s", "vwap", {"n": 3, "l": ["a", None, 1.5]}, "00"),), policy()
    )
    order = Order(
        *("o", "s", "SPY", Side.BUY, OrderType.STOP_LIMIT, D("1.50"), None, D("1E+3"), D("0.000000001")),
        *(None, None, TimeInForce.GTC, True, at),
        ends=(Trigger.REJECTED, Trigger.CANCELED),
        spans=[(D("0.0"), D("1.50"), "x")],
        unknown_statuses=["held"],
        triggered_at=at,
        broker_order_id="b",
    )
    closing = e.LotClosed(at, "l", "SPY", "s", "x", D(-1), D("1.10"), D(2), D("0.90"), at, LotCause.TRADE)
    lot_opened = e.LotOpened(at, "l2", "SPY", "s", "x", D("1.50"), D("99.90"), D("149.8500"), at)
    state = State(
        ledger_id="L",
        policy=policy(daily_loss_max=None),
        run=started,
        run_is_open=True,
        feed_items=2,
        orders_requested=3,
        last_numbers={1: 12, 2: 7},
        stopped_strategies={"b": "2", "a": "1"},
        trading_state=TradingState.HALTED,
        trading_state_reason="r",
        trading_state_by="me",
        halted_from=TradingState.REDUCING,
        kill_switch=e.KillSwitchActivated(at, "me", "r", "q"),
        kill_switch_completed=True,
        blocks={"z": "1", "a": "2"},
        halted_symbols={"SPY": "LULD"},
        session="2026-01-05",
        account_number="PA1",
        environment="paper",
        taken_over=True,
        attached_at=at + MINUTE / 3,
        differences={
            "d": e.DifferenceFound(
                *(at, "d", DifferenceKind.CASH, "cash", "1", "2", D(0), D(0), D("1.00")), {"b": "1", "a": "2"}, True
            )
        },
        differences_total=1,
        orders={"p": dataclasses.replace(order, client_order_id="p"), "o": order},
        working={"SPY": {"o": order}},
        closed_orders=deque(["p", "n"]),
        executions={
            "x": Execution("o", D("1.50"), D("99.90"), D("0.0"), busted=True, closed=[closing], opened=D("1.0"))
        },
        recent_requests={("SPY", Side.SELL, D("1.50")): at, ("SPY", Side.BUY, D("1.5")): at},
        positions={"SPY": D("1.50")},
        strategy_positions={("s", "SPY"): D("1.50"), ("a", "SPY"): D("-0.50")},
        marks={"SPY": Mark(D("100.0"), at)},
        last_bars={("SPY", "5m"): at, ("SPY", "1m"): at},
        cash=D("1.10"),
        equity=D("-2.20"),
        deposits=D("3.0"),
        realized_pnl=D("1.0000"),
        commissions=D(1),
        fees=D(2),
        income=D("0.10"),
        movements={"m2", "m1"},
        charges={"c"},
        requests={"q"},
        peak_equity=D(9),
        low_equity=D(8),
        max_drawdown=D("0.1111111111111111111111111111"),
        consecutive_losses=2,
        day=Period(at, at + MINUTE, D(1), D(2), 3),
        week=Period(at, at + MINUTE, D(4), D(5), 6),
        last_execution_at=at,
        bars_total=1,
        rejected_total=2,
        orders_total=3,
        fills_total=4,
        denied_total=5,
    )
    evolve(state, lot_opened)
    return state


def test_every_field_comes_back_with_the_text_and_the_order_it_had() -> None:
    state = full_state()
    fresh = State()
    like_new = [
        field.name for field in dataclasses.fields(State) if getattr(state, field.name) == getattr(fresh, field.name)
    ]
    assert like_new == [], "give the new field of State a value in full_state"
    again, memory = decode(encode(state))
    assert again == state
    assert memory is None
    assert repr(again).replace("{'m1', 'm2'}", "{'m2', 'm1'}") == repr(state).replace("{'m1', 'm2'}", "{'m2', 'm1'}")
    assert again.working["SPY"]["o"] is again.orders["o"]
    assert isinstance(again.closed_orders, deque)
    assert again.policy.operation is msgspec.UNSET
    assert again.run is not None
    assert again.run.strategies[0].parameters == {"n": 3, "l": ["a", None, 1.5]}


def test_the_bytes_do_not_depend_on_how_a_set_was_filled() -> None:
    one, other = State(), State()
    one.movements = {f"m{number}" for number in range(50)}
    other.movements = {f"m{number}" for number in reversed(range(50))}
    assert encode(one) == encode(other)


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger of a session on a desk: thirty bars, some trades."""
    path = tmp_path / "a.ledger"
    desk = Desk()
    for minute in range(30):
        desk.bar(f"SPY 14:{30 + minute} {100 + minute % 7}")
        if minute % 4 == 0:
            desk.trade(f"{'BUY' if minute % 8 else 'SELL'} 1.50 SPY", "100.10")
    desk.do(submit("BUY 5 SPY LIMIT 90.00", desk.at))
    with EventLog.create(path) as log:
        for recorded in desk.tape.recorded:
            log.record([recorded.event], recorded.recorded_at, recorded.causation, recorded.correlation)
    return path


def head_at(log: LogReader, position: int) -> Head:
    row = next(iter(log.rows(position - 1, position)))
    return Head(position, row[9], row[5])


def save_at(ledger: Path, *positions: int, pin: str = "") -> Snapshots:
    snapshots = Snapshots(ledger)
    with LogReader.open(ledger) as log:
        for position in positions:
            assert snapshots.save(restore(log, upto=position), head_at(log, position), pin=pin)
    return snapshots


def names(snapshots: Snapshots) -> list[str]:
    return sorted(path.name for path in snapshots.folder.iterdir())


def test_a_start_folds_only_what_came_after_the_newest_snapshot(ledger: Path) -> None:
    snapshots = save_at(ledger, 40, 80)
    with LogReader.open(ledger) as log:
        found = snapshots.latest(log)
        assert found is not None
        assert found.position == 80
        assert same(found.state, restore(log, upto=80))
        for upto in (None, 39, 40, 41, 79, 80, 81):
            assert same(restore(log, snapshots, upto), restore(log, upto=upto))
        assert snapshots.latest(log, upto=39) is None
        assert snapshots.latest(log, after=81) is None
        assert snapshots.latest(log, remembering=True) is None


def test_the_last_two_are_kept_and_the_one_of_the_runs_start(ledger: Path) -> None:
    snapshots = save_at(ledger, 9, 20, pin=kept.RUN_START)
    assert names(snapshots) == ["run-start-20.snapshot"]
    save_at(ledger, 30, 40, 50)
    assert names(snapshots) == ["run-start-20.snapshot", "state-40.snapshot", "state-50.snapshot"]
    with LogReader.open(ledger) as log:
        found = snapshots.latest(log, upto=35)
        assert found is not None
        assert found.position == 20


def test_a_file_that_was_cut_short_is_tidied_away_with_the_next(ledger: Path) -> None:
    snapshots = save_at(ledger, 40)
    (snapshots.folder / "state-44.new").write_bytes(b"half")
    save_at(ledger, 50)
    assert names(snapshots) == ["state-40.snapshot", "state-50.snapshot"]


def resealed(path: Path, change: Callable[[kept.Header], kept.Header], body: bytes | None = None) -> None:
    """A file with another header or body and the right hash over both: forged, not damaged."""
    line, _, old = path.read_bytes().partition(b"\n")
    header = msgspec.structs.replace(change(msgspec.json.decode(line, type=kept.Header)), sha256="")
    body = old if body is None else body
    header = msgspec.structs.replace(header, sha256=kept._digest(header, body))
    path.write_bytes(msgspec.json.encode(header) + b"\n" + body)


def test_no_damaged_byte_and_no_missing_one_is_ever_started_from(ledger: Path) -> None:
    snapshots = save_at(ledger, 80)
    path = snapshots.folder / "state-80.snapshot"
    whole = path.read_bytes()
    places = {*range(whole.index(b"\n") + 20), *range(0, len(whole), 97)}
    with LogReader.open(ledger) as log:
        for place in places:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            found = snapshots.latest(log)
            assert found is None or encode(found.state) == encode(restore(log, upto=80)), (
                place
            )  # a comma may become a blank
            assert found is not None or not path.exists(), place
        for length in (0, 1, whole.index(b"\n"), len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert snapshots.latest(log) is None
            assert snapshots.head(log) == Head()


@pytest.mark.parametrize(
    "change",
    (
        lambda header: msgspec.structs.replace(header, code="0" * 64),
        lambda header: msgspec.structs.replace(header, format=0),
        lambda header: msgspec.structs.replace(header, hash="0" * 64),
        lambda header: msgspec.structs.replace(header, recorded_at=1),
        lambda header: msgspec.structs.replace(header, position=79),
    ),
    ids=("other code", "other format", "other log", "other time", "other place"),
)
def test_what_does_not_fit_is_passed_over_for_the_one_before(
    ledger: Path, change: Callable[[kept.Header], kept.Header]
) -> None:
    snapshots = save_at(ledger, 40, 80)
    resealed(snapshots.folder / "state-80.snapshot", change)
    with LogReader.open(ledger) as log:
        looking = Snapshots(ledger, read_only=True).latest(log)
        assert looking is not None
        assert looking.position == 40
        assert names(snapshots) == ["state-40.snapshot", "state-80.snapshot"]  # who only reads removes nothing
        assert same(restore(log, snapshots), restore(log))
    assert names(snapshots) == ["state-40.snapshot"]


def test_a_body_that_is_no_state_is_passed_over(ledger: Path) -> None:
    snapshots = save_at(ledger, 80)
    for body in (b"", msgspec.msgpack.encode({"state": {"cash": []}, "memory": None}), msgspec.msgpack.encode(7)):
        save_at(ledger, 80)
        resealed(snapshots.folder / "state-80.snapshot", lambda header: header, body)
        with LogReader.open(ledger) as log:
            assert snapshots.latest(log) is None


def test_a_snapshot_of_what_a_restored_backup_does_not_have_is_passed_over(ledger: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.ledger"
    backup(ledger, older)
    with EventLog.open(ledger) as log:
        log.record([e.FeeCharged(OPENING + 99 * MINUTE, "f", "SEC", D(1), "x")], OPENING + 99 * MINUTE)
    with LogReader.open(ledger) as log:
        end = log.head.position
    snapshots = save_at(ledger, 40, end)
    for suffix in ("", "-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
    backup(older, ledger)
    with LogReader.open(ledger) as log:
        assert same(restore(log, snapshots), restore(log))
    assert names(snapshots) == ["state-40.snapshot"]


def test_where_nothing_can_be_written_there_are_just_no_snapshots(ledger: Path) -> None:
    snapshots = Snapshots(ledger)
    snapshots.folder.write_text("in the way", encoding="utf-8")
    with LogReader.open(ledger) as log:
        assert not snapshots.save(restore(log), log.head)
        assert same(restore(log, snapshots), restore(log))
        assert not Snapshots(ledger, read_only=True).save(restore(log), log.head)
    assert not Snapshots(ledger.with_name("new.ledger")).save(State(), Head())  # nothing has happened yet


def test_a_run_saves_now_and_then_and_at_its_end(ledger: Path) -> None:
    snapshots = Snapshots(ledger, every=10)
    with EventLog.open(ledger) as log:
        state, saver, start = restore(log), Saver(snapshots), log.head.position
        for number in range(25):
            event = e.FeeCharged(OPENING + 99 * MINUTE, f"f{number}", "SEC", D(1), "x")
            log.record([event], OPENING + 99 * MINUTE)
            evolve(state, event)
            assert not saver.maybe(state, log)  # it is not on the disk yet
            log.commit()
            saver.maybe(state, log)
        saver.close(state, log)
        saver.close(state, log)
        found = snapshots.latest(log)
        assert found is not None
        assert found.position == start + 25
        assert same(found.state, state)
        assert same(restore(log, snapshots), restore(log))
    assert len(names(snapshots)) == 2


def test_a_run_on_a_long_ledger_without_a_snapshot_makes_one_at_once(ledger: Path) -> None:
    snapshots = Snapshots(ledger, every=10)
    with EventLog.open(ledger) as log:
        state, saver = restore(log), Saver(snapshots)
        assert saver.maybe(state, log)
        saver.close(state, log)
        assert names(snapshots) == [f"state-{log.head.position}.snapshot"]
        assert not Saver(snapshots).maybe(state, log)


# --- the chain --------------------------------------------------------------------------------------------------------


def tamper(ledger: Path, position: int) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("update events set payload = payload || ' ' where position = ?", (position,))
        connection.commit()


def test_a_start_checks_the_chain_from_the_newest_snapshot_on_and_verify_all_of_it(ledger: Path) -> None:
    snapshots = save_at(ledger, 40, 80)
    with LogReader.open(ledger) as log:
        assert checked(log, snapshots) == checked(log) == log.head
    tamper(ledger, 60)
    with LogReader.open(ledger) as log:
        assert checked(log, snapshots) == log.head
        with pytest.raises(ChainBroken, match="Event 60 "):
            checked(log)
        with pytest.raises(ChainBroken, match="Event 60 "):
            kept.check_whole(ledger)
    finding = verify(ledger)[0]
    assert not finding.passed
    assert "Event 60 " in finding.detail
    tamper(ledger, 90)
    with LogReader.open(ledger) as log, pytest.raises(ChainBroken, match="Event 90 "):
        checked(log, snapshots)


def test_without_a_usable_snapshot_the_whole_chain_is_checked(ledger: Path) -> None:
    snapshots = save_at(ledger, 80)
    tamper(ledger, 60)
    (snapshots.folder / "state-80.snapshot").write_bytes(b"{}")
    with LogReader.open(ledger) as log, pytest.raises(ChainBroken, match="Event 60 "):
        checked(log, snapshots)


def test_a_forged_state_is_found_by_verify(ledger: Path) -> None:
    snapshots = save_at(ledger, 80)
    assert [(one.name, one.passed) for one in verify(ledger)][-1] == ("snapshot", True)
    with LogReader.open(ledger) as log:
        state = restore(log, upto=80)
    state.cash += 1
    state.lots["SPY"][0].quantity *= D("1.0")  # as much, written otherwise
    resealed(snapshots.folder / "state-80.snapshot", lambda header: header, encode(state))
    finding = verify(ledger)[-1]
    assert (finding.name, finding.passed) == ("snapshot", False)
    assert "another lots, cash than the log gives" in finding.detail
    (snapshots.folder / "state-80.snapshot").unlink()
    assert all(one.passed for one in verify(ledger))


def test_a_process_in_the_background_checks_the_whole_of_it(ledger: Path) -> None:
    save_at(ledger, 80)
    command = [sys.executable, "-m", "mqd_ledger.snapshots", str(ledger)]
    good = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    tamper(ledger, 60)
    bad = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    assert "none altered" in good.stdout
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "Event 60 " in bad.stderr
    assert "Traceback" not in bad.stderr


# --- runs that are killed ---------------------------------------------------------------------------------------------

# As `run --paper` does it, with a snapshot every so many events (0: none).
DRIVER = """
import sys
from decimal import setcontext
from pathlib import Path
from mqd_ledger import app
from mqd_ledger.log import EventLog
from mqd_ledger.remembering import memory_of
from mqd_ledger.runs import Controls, play
from mqd_ledger.settings import load
from mqd_ledger.snapshots import Snapshots, checked
from mqd_ledger.values import ARITHMETIC

setcontext(ARITHMETIC.copy())
ledger, every = Path(sys.argv[1]), int(sys.argv[2])
snapshots = Snapshots(ledger, every=every) if every else None
plan = app.plan_of("paper", load("paper", Path("mine.yaml")), app.feed_of_file(Path("bars.csv")))
with (EventLog.open if ledger.exists() else EventLog.create)(ledger) as log:
    checked(log, snapshots)
    outcome = play(log, plan, Controls(snapshots=snapshots))
    assert outcome.finished
print(*outcome.news)
"""
SAVING = """
    def save(self):
        return [self.seen, self.context.position("AAA")]

    def load(self, value):
        self.seen = value[0]
        with open("loaded.txt", "a") as file:
            print(value, file=file)
"""


def drive(folder: Path, ledger: str, every: int, kill_at: str = "") -> str | None:
    """What the run said; None if it was killed."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, ledger, str(every)],
        cwd=folder,
        env=environment(KILL_AT=kill_at),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in ((0,) if not kill_at else (0, -9)), done.stderr
    return done.stdout.strip() if done.returncode == 0 else None


def killed_and_resumed(folder: Path, ledger: str, every: int, kills: int, seed: int) -> None:
    """Killed where the dice say, in the middle of a turn each time, then let through."""
    dice = random.Random(seed)  # noqa: S311  no secret
    for _ in range(kills):
        point = dice.choice((f"bar {dice.randint(2, 50)}", f"fill {dice.randint(1, 5)}"))
        assert drive(folder, ledger, every, point) is None, point
    assert drive(folder, ledger, every) == ""


@pytest.mark.skipif("SIGKILL" not in KILL_SIGNAL, reason="ends processes by signal")
def test_a_run_that_goes_on_from_snapshots_writes_the_bytes_of_one_that_was_never_killed(tmp_path: Path) -> None:
    folder = furnish(tmp_path, minutes=60)
    (folder / "trader.py").write_text(TRADER + SAVING, encoding="utf-8")
    assert drive(folder, "whole.ledger", 0) == ""
    whole = log_rows(folder / "whole.ledger")
    assert not (folder / "loaded.txt").exists()
    killed_and_resumed(folder, "a.ledger", every=40, kills=5, seed=3)
    killed_and_resumed(folder, "b.ledger", every=7, kills=5, seed=4)
    assert log_rows(folder / "a.ledger") == log_rows(folder / "b.ledger") == whole
    assert len((folder / "loaded.txt").read_text().splitlines()) >= 6  # two traders in each start
    assert {path.name.rpartition("-")[0] for path in (folder / "a.ledger.cache").glob("*.snapshot")} == {
        "run-start",
        "state",
    }
    assert [one for one in verify(folder / "a.ledger") if not one.passed] == []


BROKEN = {
    "does not save": "",
    "raises when saving": SAVING.replace("return [", "return [1 / 0, "),
    "saves what JSON does not have": SAVING.replace("return [", "return [object(), "),
    "raises when loading": SAVING.replace("self.seen = value[0]", "self.seen = value[2]"),
    "loads something else": SAVING.replace("self.seen = value[0]", "self.seen = {'AAA': 3, 'BBB': 1, 'CCC': 4}"),
}


def played(ledger: Path, every: int, bars: int | None = None) -> list[str]:
    """As DRIVER, in this process; stopped after so many bars. The news of the run."""
    controls = Controls(snapshots=Snapshots(ledger, every=every) if every else None)
    if bars is not None:
        controls.progress = lambda done: controls.stop.set() if done >= bars else None
    plan = app.plan_of("paper", load("paper", Path("mine.yaml")), app.feed_of_file(Path("bars.csv")))
    with localcontext(ARITHMETIC), (EventLog.open if ledger.exists() else EventLog.create)(ledger) as log:
        return play(log, plan, controls).news


def position_of(snapshot: Path) -> int:
    return int(snapshot.stem.rpartition("-")[2])


@pytest.mark.parametrize("how", BROKEN)
def test_where_strategies_cannot_be_given_back_what_they_knew_the_whole_run_is_rehearsed(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(furnish(tmp_path, minutes=25))
    Path("trader.py").write_text(TRADER + BROKEN[how], encoding="utf-8")
    assert played(Path("whole.ledger"), 0) == []
    ledger = Path("a.ledger")
    played(ledger, 30, bars=64)
    kept = sorted(ledger.with_name("a.ledger.cache").glob("state-*.snapshot"), key=position_of)
    assert len(kept) > 1
    for later in kept[
        1:
    ]:  # a kill leaves none of the end, and how many there are before depends on how fast they were written
        later.unlink()
    assert played(ledger, 30) == []
    assert log_rows(ledger) == log_rows(Path("whole.ledger"))


def test_vwap_knows_after_loading_what_it_knew() -> None:
    desk = Desk(marked=())
    parameters = VwapParameters(lookback=3, entry_percent=D(1))
    host = StrategyHost(desk.state, {"vwap": VwapMeanReversion(parameters)})
    desk.react(host)
    for minute in range(5):
        desk.bar(f"SPY 14:{30 + minute} {100 + minute}.50 v{70 + minute}")
    saved = host.save()
    assert saved is not None
    again = StrategyHost(desk.state, {"vwap": VwapMeanReversion(parameters)})
    again.load(saved)
    assert again.save() == saved
    assert decode(encode(desk.state, [saved]))[1] == [saved]


class Counting(Strategy):
    bars = 0

    def on_bar(self, bar: Bar) -> None:  # noqa: ARG002  as the interface names it
        self.bars += 1
        if self.bars == 2:
            getcontext().prec = 9

    def save(self) -> int:
        return self.bars


class Inheriting(Counting):
    pass


def test_what_may_know_more_than_it_saves_is_not_trusted_to_have_saved_it() -> None:
    desk = Desk(marked=())
    host = StrategyHost(desk.state, {"s": Counting(StrategyParameters())})
    desk.react(host).bar("SPY 14:30 100")
    assert host.save() == {"strategies": {"s": "1"}, "round_trips": []}
    assert StrategyHost(desk.state, {"s": Inheriting(StrategyParameters())}).save() is None
    desk.bar("SPY 14:31 100")
    assert host.save() is None, "its arithmetic is another now, and nothing would set that up again"
    assert memory_of([SimulatedBroker(desk.state)]) == [[]]
    assert memory_of([SimulatedBroker(desk.state), host]) is None
    assert memory_of([object()]) is None


def test_a_strategy_that_was_stopped_is_not_asked() -> None:
    class Raising(Strategy):
        def save(self) -> object:
            raise AssertionError("it was stopped")

    desk = Desk(marked=())
    host = StrategyHost(desk.state, {"s": Raising(StrategyParameters())})
    desk.state.stopped_strategies["s"] = "KeyError"
    assert host.save() == {"strategies": {}, "round_trips": []}
