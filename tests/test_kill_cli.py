"""The kill switch is reached by every way there is, and differences are shown and accepted."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from commands.control import ActivateKillSwitch, CreateLedger, StartRun
from commands.truth import AttachAccount, ReportAgreement, ReportDifference
from mqd_ledger import app, operator_requests, wishes
from mqd_ledger.brokers.keys import NAMES
from mqd_ledger.cli.main import execute
from mqd_ledger.engine import Engine
from mqd_ledger.errors import CommandRefused
from mqd_ledger.events import AdjustmentBooked, KillSwitchActivated, Source
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.operator_requests import RequestBox, kill_file
from mqd_ledger.policy import Policy
from mqd_ledger.runs import fold
from mqd_ledger.state import State
from mqd_ledger.values import DifferenceKind, TradingState
from tests.desk import RUN, furnish
from tests.test_cli import interrupt, started, wait_for_event

AT = datetime(2026, 1, 5, 15, tzinfo=UTC)
LATER = AT + timedelta(hours=1)


def later() -> datetime:
    return LATER


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(here: Path) -> Path:
    """Of a run with a broker that is over for now: 10 shares and 30 dollars are missing in the books, and 5 dollars were."""
    path = here / "paper.ledger"
    with EventLog.create(path, durability="normal") as log:
        engine = Engine(State(), log)
        engine.handle(CreateLedger(AT, "desk"))
        engine.handle(StartRun(AT, "alpaca-paper", "1", Source("alpaca", "paper iex: SPY", ""), (), Policy()))
        engine.handle(AttachAccount(AT, "alpaca", "paper", "PA3LOOPBACK1"))
        shares = {"quantity": Decimal(10), "price": Decimal(600), "evidence": {"last fill": "none"}}
        engine.handle(ReportDifference(AT, DifferenceKind.UNKNOWN, "SPY", "0", "10", **shares))  # type: ignore[arg-type]
        for cents, theirs in ((3000, "1030"), (500, "1005")):
            amount = Decimal(cents) / 100
            found = ReportDifference(AT, DifferenceKind.CASH, "cash", "1000", theirs, amount=amount)
            engine.handle(found)
    return path


def state_of(path: Path) -> State:
    with LogReader.open(path) as log:
        return fold(log)


def kills(path: Path) -> list[KillSwitchActivated]:
    with LogReader.open(path) as log:
        return [event for event in log.events() if isinstance(event, KillSwitchActivated)]


def until(happened: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def another_writer(path: Path, work: Callable[[EventLog, threading.Event], None]) -> Iterator[None]:
    """Somebody who holds the lock, in a thread, until he is done or the test is."""
    ready, over = threading.Event(), threading.Event()

    def hold() -> None:
        with EventLog.open(path, durability="normal") as log:
            ready.set()
            work(log, over)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        over.set()
        thread.join(60)


def listens(path: Path) -> Callable[[EventLog, threading.Event], None]:
    """What every run does between two turns."""

    def work(log: EventLog, over: threading.Event) -> None:
        engine, box = Engine(fold(log), log), RequestBox(path, every_seconds=0)
        while not over.wait(0.01):
            for file, command in box.take(LATER):
                refusal = ""
                try:
                    engine.handle(command)
                except CommandRefused as refused:
                    refusal = str(refused)
                log.commit()
                box.answer(file, refusal)

    return work


def hangs(_log: EventLog, over: threading.Event) -> None:
    over.wait(60)


# --- kill -------------------------------------------------------------------------------------------------------------


def test_without_a_running_process_and_keys_it_is_recorded_and_said_what_is_left(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (name for pair in NAMES for name in pair):
        monkeypatch.delenv(name, raising=False)
    assert execute(["kill", "--reason", "it buys too much"]) == 2
    told = capsys.readouterr().err
    assert "The kill switch is recorded, but nothing is closed at the broker yet: There are no keys" in told
    assert "the paper account PA3LOOPBACK1 has 0 positions and 0 working orders" in told
    state = state_of(ledger)
    assert state.kill_switch is not None
    assert state.kill_switch.reason == "it buys too much"
    assert state.trading_state is TradingState.HALTED
    assert execute(["kill", "--reason", "again"]) == 2
    assert "was active already" in capsys.readouterr().err
    assert len(kills(ledger)) == 1
    assert execute(["resume", "--reason", "go on"]) == 2, "the kill switch is still at work"


def test_what_finishes_it_at_the_broker_is_called_once_it_is_recorded(ledger: Path) -> None:
    def finish(path: Path, state: State) -> str:
        assert state.account_number == "PA3LOOPBACK1"
        return f"{len(kills(path))} kill switch in the log; nothing is left."

    assert wishes.kill(ledger, "me", "x", later, finish=finish) == (
        "The kill switch is recorded. 1 kill switch in the log; nothing is left."
    )
    with EventLog.create(ledger.with_name("simulated.ledger")) as log:
        Engine(State(), log).handle(CreateLedger(AT, "sim"))
    told = wishes.kill(ledger.with_name("simulated.ledger"), "me", "x", later, finish=finish)
    assert "this ledger has 0 positions" in told, "a ledger without a broker has nothing to finish there"


def test_a_running_process_takes_it_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with started(here, *RUN, "--speed", "0.5") as process:
        wait_for_event(here / "paper.ledger", 3, process)
        assert execute(["kill", "--reason", "stop it all"]) == 0
        assert "has taken the request: the kill switch is active" in capsys.readouterr().out
        assert [event.reason for event in kills(here / "paper.ledger")] == ["stop it all"]
        interrupt(process)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert not kill_file(here / "paper.ledger").exists()


def test_a_process_that_does_not_answer_finds_a_signal_file_and_so_does_the_next_run(ledger: Path) -> None:
    with another_writer(ledger, hangs):
        told = wishes.kill(ledger, "me", "it hangs", later, patience=0.1)
    assert "has not answered within 0.1 s" in told
    assert kill_file(ledger).read_text(encoding="utf-8") == "it hangs (me)"
    assert list((ledger.parent / "paper.ledger.requests").iterdir()) == [], "asked once, not twice"
    with another_writer(ledger, listens(ledger)):
        until(lambda: not kill_file(ledger).exists())
    (activated,) = kills(ledger)
    assert (activated.operator, activated.reason) == ("signal file", "it hangs (me)")
    assert kill_file(ledger).with_name("paper.ledger.kill.taken-1").exists()


def test_a_process_that_ends_without_an_answer_leaves_it_to_the_asker(ledger: Path) -> None:
    def ends_when_asked(_log: EventLog, over: threading.Event) -> None:
        requests = operator_requests.requests_directory(ledger)
        while not over.wait(0.01) and not list(requests.glob("*.json")):
            pass

    with another_writer(ledger, ends_when_asked):
        assert "The kill switch is recorded" in wishes.kill(ledger, "me", "x", later)
    assert len(kills(ledger)) == 1
    assert not kill_file(ledger).exists()


def test_a_kill_without_a_reason_is_refused_before_anybody_is_asked(ledger: Path) -> None:
    assert execute(["kill", "--reason", "  "]) == 2
    assert execute(["kill"]) == 2
    assert kills(ledger) == []


# --- the signal file --------------------------------------------------------------------------------------------------


def test_a_touched_file_stops_a_run_that_waits_for_its_next_bar(here: Path) -> None:
    with started(here, *RUN, "--speed", "0.5") as process:
        wait_for_event(here / "paper.ledger", 3, process)
        (here / "paper.ledger.kill").touch()
        until((here / "paper.ledger.kill.taken-1").exists)
        interrupt(process)
        process.communicate(timeout=60)
    (activated,) = kills(here / "paper.ledger")
    assert (activated.operator, activated.reason) == ("signal file", "signal file")


WRITTEN = {
    "nothing": (b"", "signal file"),
    "a reason": (b"  the fan burns\r\n", "the fan burns"),
    "what an editor adds": (b"\xef\xbb\xbfthe fan burns", "the fan burns"),
    "no text": (b"\xff\xfe", r"\xff\xfe"),
    "too much": (b"x" * 1_000_000, "x" * operator_requests.TEXT_MAX),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_whatever_is_in_the_file_it_counts(what: str, ledger: Path) -> None:
    content, reason = WRITTEN[what]
    kill_file(ledger).write_bytes(content)
    ((path, command),) = RequestBox(ledger, every_seconds=0).take(AT)
    assert path == kill_file(ledger)
    assert isinstance(command, ActivateKillSwitch)
    assert command.reason == reason


def test_a_folder_of_that_name_counts_too_and_each_is_put_away_under_a_new_name(ledger: Path) -> None:
    box = RequestBox(ledger, every_seconds=0)
    for number in (1, 2, 3):
        kill_file(ledger).mkdir()
        ((path, _),) = box.take(AT)
        box.answer(path, "")
        assert kill_file(ledger).with_name(f"paper.ledger.kill.taken-{number}").is_dir()
    assert list(box.take(AT)) == []


def test_an_old_file_counts_and_one_that_a_killed_run_had_taken_counts_once(ledger: Path) -> None:
    kill_file(ledger).touch()
    os.utime(kill_file(ledger), (0, 0))
    ((_, first),) = RequestBox(ledger, every_seconds=0).take(AT)
    box = RequestBox(ledger, every_seconds=0)
    ((path, again),) = box.take(AT)
    assert again == first, "under the same id: the log knows it"
    assert list(box.take(AT)) == [], "not twice by one run, also where it could not be renamed"
    box.answer(path, "")
    kill_file(ledger).touch()
    ((_, another),) = box.take(AT)
    assert another != first, "a new file is a new wish"


def test_an_old_request_to_kill_counts_and_needs_no_reason(ledger: Path) -> None:
    request = operator_requests.ask(ledger, "kill", "me", " ")
    os.utime(request, (0, 0))
    ((_, command),) = RequestBox(ledger, every_seconds=0).take(AT)
    assert isinstance(command, ActivateKillSwitch)
    assert command.reason == "no reason was given"


def test_who_lets_trading_go_on_is_told_of_a_signal_file_that_still_waits(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_file(ledger).touch()
    assert execute(["reduce", "--reason", "x"]) == 2, "it is halted for its differences"
    for difference in ("D1", "D2"):
        execute(["reconcile", "--accept", difference, "--reason", "x"])
    capsys.readouterr()
    assert execute(["halt", "--reason", "x"]) == 0
    assert (
        f"The signal file {kill_file(Path('paper.ledger'))} still asks for the kill switch" in capsys.readouterr().out
    )


# --- reconcile --------------------------------------------------------------------------------------------------------


def test_open_differences_are_listed_with_both_sides_and_what_they_are_worth(
    ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["reconcile", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (first,) = found["open"]
    assert first == {
        "difference_id": "D1",
        "kind": "UNKNOWN",
        "subject": "SPY",
        "ours": "0",
        "theirs": "10",
        "worth": "6000",
        "since": "2026-01-05T15:00:00Z",
        "needs_acceptance": True,
        "evidence": {"last fill": "none"},
    }
    assert [(row["difference_id"], row["worth"], row["operator"]) for row in found["booked"]] == [
        ("D3", "5", "reconciliation")
    ]
    assert execute(["reconcile"]) == 0
    told = capsys.readouterr().out
    for expected in (
        "D1",
        "UNKNOWN",
        "SPY",
        "6,000.00",
        "last fill none",
        "reconcile --accept ID",
        "Booked last:",
        "D3",
    ):
        assert expected in told
    assert "D2" not in told, "another took its place"


def test_an_accepted_difference_is_booked_and_trading_goes_on(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert state_of(ledger).trading_state is TradingState.HALTED
    assert execute(["reconcile", "--accept", "D1", "--reason", "bought by hand"]) == 0
    assert capsys.readouterr().out == "D1 is booked. Trading is ACTIVE.\n"
    state = state_of(ledger)
    assert (state.positions, state.differences) == ({"SPY": Decimal(10)}, {})
    with LogReader.open(ledger) as log:
        booked = [event for event in log.events() if isinstance(event, AdjustmentBooked)]
    assert (booked[-1].difference_id, booked[-1].reason) == ("D1", "bought by hand")
    assert booked[-1].occurred_at > AT, "a ledger of a broker's account lives in the clock's time"
    assert execute(["reconcile"]) == 0
    assert "No open difference" in capsys.readouterr().out


def test_a_running_process_books_it(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with another_writer(ledger, listens(ledger)):
        assert execute(["reconcile", "--accept", "D1", "--reason", "bought by hand"]) == 0
        assert "has taken the request: accept D1" in capsys.readouterr().out
        assert execute(["reconcile", "--accept", "D9", "--reason", "x"]) == 2
        assert "There is no open difference 'D9'" in capsys.readouterr().err
    assert state_of(ledger).positions == {"SPY": Decimal(10)}


def test_an_acceptance_that_nobody_waits_for_any_more_is_forgotten(ledger: Path) -> None:
    forgotten = operator_requests.ask(ledger, "accept", "me", "x", "D1")
    os.utime(forgotten, (0, 0))
    assert list(RequestBox(ledger, every_seconds=0).take(AT)) == []


def test_a_difference_that_went_away_is_shown_no_more(ledger: Path) -> None:
    with EventLog.open(ledger, durability="normal") as log:
        Engine(fold(log), log).handle(ReportAgreement(LATER, "SPY", "the broker mended it"))
    assert wishes.differences(ledger)["open"] == []


def test_what_is_wrong_with_an_acceptance_is_told(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["--accept", "D1"], "Give --reason TEXT with --accept"),
        (["--reason", "x"], "--reason belongs to --accept ID"),
        (["--accept", "D1", "--reason", " "], "needs a reason"),
        (["--accept", "D9", "--reason", "x"], "There is no open difference 'D9'; open are: D1."),
    ):
        assert execute(["reconcile", *arguments]) == 2
        assert expected in capsys.readouterr().err


def test_every_wish_has_a_command_for_a_request(ledger: Path) -> None:
    for verb in (*operator_requests.REQUESTS, *operator_requests.ABOUT):
        asked = wishes.Wish(verb, "me", "x", "D1" if verb in operator_requests.ABOUT else "")
        assert asked.command(AT).at == AT
    assert app.status(ledger)["trading_state"] == "HALTED"
