"""Who stops trading is obeyed: at any speed, by any file that looks like a wish, through kills, restarts and days."""

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mqd_ledger import app, operator_requests
from mqd_ledger.audit.verify import verify
from mqd_ledger.cli.main import execute
from mqd_ledger.errors import BadInput
from mqd_ledger.events import OrderApproved, OrderDenied, OrderRequested
from mqd_ledger.log import LogReader
from mqd_ledger.values import Side
from tests.desk import RUN, bar_rows, furnish, log_rows, run_program, write_bars
from tests.test_cli import interrupt, started, wait_for_event

# AAA is bought and falls; BBB is wanted again and again; AAA is sold; BBB is wanted on the next day.
LOSER = """
import os, signal
from decimal import Decimal
from mqd_ledger.strategies.base import Signal, Strategy
from mqd_ledger.values import Direction

class Loser(Strategy):
    def __init__(self, parameters):
        super().__init__(parameters)
        self.bars = 0

    def on_bar(self, bar):
        if bar.symbol == "BBB":
            return None
        self.bars += 1
        if os.environ.get("KILL_AT") == str(self.bars):
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        wanted = {2: ("AAA", Direction.LONG), 8: ("BBB", Direction.LONG), 10: ("AAA", Direction.FLAT),
                  14: ("BBB", Direction.LONG), 22: ("BBB", Direction.LONG)}.get(self.bars)
        if wanted:
            return Signal(wanted[1], f"bar {self.bars}", symbol=wanted[0], notional=Decimal(900))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trading_state(ledger: Path) -> tuple[str, str]:
    found = app.status(ledger)
    return found["trading_state"], found["trading_state_reason"]


def requests_of(here: Path) -> Path:
    directory = here / "paper.ledger.requests"
    directory.mkdir(exist_ok=True)
    return directory


def play(here: Path) -> dict[str, Any]:
    ended = run_program(here, *RUN)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_a_run_that_waits_for_its_next_bar_hears_a_halt(here: Path) -> None:
    """At this speed two bars are two minutes apart; nobody may have to wait for that to stop trading."""
    with started(here, *RUN, "--speed", "0.5") as process:
        wait_for_event(here / "paper.ledger", 3, process)
        assert execute(["halt", "--reason", "wait"]) == 0
        assert trading_state(here / "paper.ledger") == ("HALTED", "wait")
        interrupt(process)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert list(requests_of(here).iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can answer")
def test_a_request_to_end_stops_in_good_order_and_a_second_one_at_once_and_both_can_go_on(here: Path) -> None:
    for signals in (1, 2):
        with started(here, *RUN, "--speed", "0.5" if signals == 1 else "max") as process:
            wait_for_event(here / "paper.ledger", 3 if signals == 1 else 60, process)
            for _ in range(signals):
                process.terminate()
            output, errors = process.communicate(timeout=60)
        assert process.returncode in ({0} if signals == 1 else {0, 130}), errors
        assert "Traceback" not in errors
        if signals == 1:
            assert json.loads(output)["stopped"] is True
    assert play(here)["finished"] is True or "Nothing new" in play(here)["news"][0]
    assert run_program(here, *RUN, "--ledger", "whole.ledger").code == 0
    assert log_rows(here / "paper.ledger") == log_rows(here / "whole.ledger")


def test_a_halt_given_between_a_kill_and_the_restart_holds(here: Path) -> None:
    assert run_program(here, *RUN, env={"KILL_AT": "bar 50"}).code not in {0, 1, 2}
    assert execute(["halt", "--reason", "look first"]) == 0
    halted_at = len(log_rows(here / "paper.ledger"))
    assert run_program(here, *RUN, env={"KILL_AT": "bar 70"}).code not in {0, 1, 2}
    assert play(here)["trading_state"] == "HALTED"
    with LogReader.open(here / "paper.ledger") as log:
        kinds = {type(event) for event in log.events(after=halted_at)}
    assert OrderDenied in kinds
    assert OrderApproved not in kinds
    assert execute(["reduce", "--reason", "softer"]) == 2, "only a resume lifts a halt"
    assert execute(["resume", "--reason", "looked"]) == 0
    assert trading_state(here / "paper.ledger") == ("ACTIVE", "looked")
    assert all(finding.passed for finding in verify(here / "paper.ledger"))


UNREADABLE = {
    "half a letter": b"\xff",
    "a list": b"[]",
    "nothing": b"",
    "no verb": b'{"operator": "me", "reason": "x"}',
    "another verb": b'{"verb": "buy", "operator": "me", "reason": "x"}',
    "a verb that is none": b'{"verb": {}, "operator": "me", "reason": "x"}',
    "brackets without end": b"[" * 100_000,
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_wish_that_cannot_be_read_halts_to_be_safe(what: str, here: Path) -> None:
    write_bars(here / "bars.csv", bar_rows(4))
    (requests_of(here) / "1.json").write_bytes(UNREADABLE[what])
    assert execute(RUN) == 0
    state, reason = trading_state(here / "paper.ledger")
    assert state == "HALTED"
    assert "request 1 could not be read" in reason
    assert {path.suffix for path in requests_of(here).iterdir()} == {".answer"}


def test_odd_things_among_the_wishes_do_not_end_a_run(here: Path) -> None:
    directory = requests_of(here)
    (directory / "directory.json").mkdir()
    (directory / "half.tmp").write_text("{", encoding="utf-8")
    (directory / "surrogates.json").write_text(
        '{"verb": "halt", "operator": "\\ud800", "reason": "\\udc80"}', encoding="utf-8"
    )
    assert play(here)["trading_state"] == "HALTED"
    assert all(finding.passed for finding in verify(here / "paper.ledger"))


def test_a_thousand_wishes_are_taken_and_change_what_they_change_once(here: Path) -> None:
    for number in range(1000):
        wish = '{"verb": "halt", "operator": "me", "reason": "wait"}'
        (requests_of(here) / f"{number:04d}.json").write_text(wish, encoding="utf-8")
    with started(here, *RUN, "--speed", "1") as process:
        deadline = time.monotonic() + 60
        while list(requests_of(here).glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        interrupt(process)
        process.communicate(timeout=60)
    assert {path.suffix for path in requests_of(here).iterdir()} == {".answer"}
    assert [row[3] for row in log_rows(here / "paper.ledger")].count("TradingHalted.v1") == 1


def test_a_resume_that_nobody_waits_for_any_more_lifts_no_later_halt(here: Path) -> None:
    assert execute(RUN) == 0
    assert execute(["halt", "--reason", "wait"]) == 0
    forgotten = operator_requests.ask(here / "paper.ledger", "resume", "me", "go on")
    long_ago = time.time() - 3600
    os.utime(forgotten, (long_ago, long_ago))
    write_bars(here / "bars.csv", bar_rows(60))
    assert play(here)["trading_state"] == "HALTED"
    assert not forgotten.exists()


def test_an_asker_that_is_interrupted_takes_its_wish_back(here: Path) -> None:
    request = operator_requests.ask(here / "paper.ledger", "resume", "me", "go on")

    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        operator_requests.wait_for_answer(request, 60, interrupted)
    assert not request.exists()


def test_a_wish_to_a_run_that_ends_without_taking_it_is_not_lost(here: Path) -> None:
    request = operator_requests.ask(here / "paper.ledger", "halt", "me", "wait")
    assert operator_requests.wait_for_answer(request, 60, lambda: False) is False, "the caller does it itself then"
    assert not request.exists()


def test_a_wish_that_was_taken_but_not_answered_yet_cannot_be_withdrawn_and_its_asker_is_told(here: Path) -> None:
    request = operator_requests.ask(here / "paper.ledger", "halt", "me", "wait")
    box = operator_requests.RequestBox(here / "paper.ledger", every_seconds=0)
    ((taken, _),) = box.take(datetime(2026, 1, 5, tzinfo=UTC))
    with pytest.raises(BadInput, match="has taken the request, but not answered it"):
        operator_requests.wait_for_answer(request, 0.1, lambda: True)
    assert taken.exists()
    box.answer(taken, "")
    assert operator_requests.wait_for_answer(request, 60, lambda: True)
    assert list(requests_of(here).iterdir()) == []


def test_a_wish_that_a_killed_run_had_taken_is_taken_back_by_its_asker_or_by_the_next_run(here: Path) -> None:
    at = datetime(2026, 1, 5, tzinfo=UTC)
    request = operator_requests.ask(here / "paper.ledger", "halt", "me", "wait")
    ((_, first),) = operator_requests.RequestBox(here / "paper.ledger", every_seconds=0).take(at)
    ((_, again),) = operator_requests.RequestBox(here / "paper.ledger", every_seconds=0).take(at)
    assert again == first, "under the same request_id"
    assert operator_requests.wait_for_answer(request, 60, lambda: False) is False
    assert list(requests_of(here).iterdir()) == []


def test_answers_that_nobody_reads_are_swept_away_once_they_are_old(here: Path) -> None:
    directory = requests_of(here)
    long_ago = time.time() - 3600
    for name in ("old.answer", "old.tmp", "new.answer"):
        (directory / name).write_text("", encoding="utf-8")
        if name.startswith("old"):
            os.utime(directory / name, (long_ago, long_ago))
    assert list(operator_requests.RequestBox(here / "paper.ledger", every_seconds=0).take(datetime.now(UTC))) == []
    assert [path.name for path in directory.iterdir()] == ["new.answer"]


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_daily_loss_stops_buying_through_a_restart_until_the_next_day_and_never_stops_selling(here: Path) -> None:
    (here / "loser.py").write_text(LOSER, encoding="utf-8")
    rows = []
    for day in (5, 6):
        open_at = datetime(2026, 1, day, 15, 0, tzinfo=UTC)
        for minute in range(20 if day == 5 else 5):
            at = f"{open_at + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
            falling = 100 if minute < 4 and day == 5 else 70
            rows += [
                f"{name},{at},{price},{price},{price},{price},9000" for name, price in (("AAA", falling), ("BBB", 50))
            ]
    write_bars(here / "bars.csv", rows)
    settings = 'strategies: [{name: loser.py:Loser}]\nrisk: {daily_loss_max: "100"}\nsizing: {fractional: true}\n'
    (here / "mine.yaml").write_text(settings, encoding="utf-8")
    for bar in ("9", "12"):
        assert run_program(here, *RUN, env={"KILL_AT": bar}).code not in {0, 1, 2}
    assert play(here)["news"] == []

    with LogReader.open(here / "paper.ledger") as log:
        events = list(log.events())
    asked = {event.client_order_id: event for event in events if isinstance(event, OrderRequested)}
    verdicts = [
        (asked[event.client_order_id].symbol, asked[event.client_order_id].side, isinstance(event, OrderApproved))
        for event in events
        if isinstance(event, OrderApproved | OrderDenied)
    ]
    assert verdicts == [
        ("AAA", Side.BUY, True),
        ("BBB", Side.BUY, False),
        ("AAA", Side.SELL, True),
        ("BBB", Side.BUY, False),
        ("BBB", Side.BUY, True),
    ]
    reasons = {reason for event in events if isinstance(event, OrderDenied) for reason in event.reasons}
    assert [reason for reason in reasons if not reason.startswith("daily_loss_is_within_limit")] == []
