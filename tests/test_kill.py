"""A run that is killed, anywhere and any number of times, ends with the same log to the byte as one that never was."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mqd_ledger.audit.verify import verify
from mqd_ledger.events import OrderFilled, OrderRequested, TradingHalted
from mqd_ledger.log import LogReader
from tests.desk import KILL_SIGNAL, RUN, bar_rows, environment, furnish, log_rows, run_program, spoiled, write_bars

# In a strategy, so in the middle of a turn: nothing of it may be there afterwards.
IN_A_TURN = ("start 1", "bar 1", "bar 2", "bar 33", "fill 1", "fill 4", "close 2", "bar 88", "stop 1")
# Before and after the n-th transaction is on the disk.
KILL_AT_COMMIT = """
import os, signal
from mqd_ledger.store.recorder import SQLiteLedgerRecorder
write, left = SQLiteLedgerRecorder.write, [{commit}]
def dying(self, batch):
    left[0] -= 1
    if not left[0] and "{when}" == "before":
        os.kill(os.getpid(), {signal})
    write(self, batch)
    if not left[0]:
        os.kill(os.getpid(), {signal})
SQLiteLedgerRecorder.write = dying
"""
AT_COMMITS = (("before", 1), ("after", 1), ("before", 20), ("after", 20), ("after", 17))
KILL_BEFORE_THE_ANSWER = f"""
import os, signal
from mqd_ledger.operator_requests import RequestBox
RequestBox.answer = lambda *_: os.kill(os.getpid(), {KILL_SIGNAL})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one run went through without a break, into whole.ledger."""
    folder = furnish(tmp_path_factory.mktemp("desk"))
    ended = run_program(folder, *RUN, "--ledger", "whole.ledger")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["finished"] is True
    return folder


def test_a_run_killed_at_fourteen_points_leaves_the_same_log_as_one_that_never_was(folder: Path) -> None:
    broken = (*RUN, "--ledger", "broken.ledger")
    for point in IN_A_TURN[:5]:
        assert run_program(folder, *broken, env={"KILL_AT": point}).code not in {0, 1, 2}, point
    for when, commit in AT_COMMITS:
        code = KILL_AT_COMMIT.format(when=when, commit=commit, signal=KILL_SIGNAL)
        assert run_program(folder, *broken, code=code).code not in {0, 1, 2}, (when, commit)
    for point in IN_A_TURN[5:]:
        assert run_program(folder, *broken, env={"KILL_AT": point}).code not in {0, 1, 2}, point
    ended = run_program(folder, *broken)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["news"] == []

    whole, resumed = log_rows(folder / "whole.ledger"), log_rows(folder / "broken.ledger")
    assert resumed == whole
    assert [finding for finding in verify(folder / "broken.ledger") if not finding.passed] == []


def test_no_order_and_no_execution_is_ever_numbered_twice(folder: Path) -> None:
    with LogReader.open(folder / "whole.ledger") as log:
        events = list(log.events())
    orders = [event.client_order_id for event in events if isinstance(event, OrderRequested)]
    fills = [event.execution_id for event in events if isinstance(event, OrderFilled)]
    assert len(orders) > 20
    assert len(fills) > 20
    assert len(set(orders)) == len(orders)
    assert len(set(fills)) == len(fills)


def test_a_halt_that_was_recorded_but_not_answered_before_the_kill_holds_and_is_recorded_once(tmp_path: Path) -> None:
    furnish(tmp_path)
    requests = tmp_path / "paper.ledger.requests"
    requests.mkdir()
    (requests / "1.json").write_text('{"verb": "halt", "operator": "me", "reason": "wait"}', encoding="utf-8")
    assert run_program(tmp_path, *RUN, code=KILL_BEFORE_THE_ANSWER).code not in {0, 1, 2}
    assert list(requests.iterdir()) == [requests / "1.taken"]
    ended = run_program(tmp_path, *RUN)
    assert json.loads(ended.out)["trading_state"] == "HALTED"
    assert list(requests.iterdir()) == [requests / "1.answer"]
    with LogReader.open(tmp_path / "paper.ledger") as log:
        halts = list(log.replay(types=("TradingHalted.v1",)))
        approved_later = list(log.replay(after=halts[0].position, types=("OrderApproved.v1",)))
    assert [halt.event.reason for halt in halts if isinstance(halt.event, TradingHalted)] == ["wait"]
    assert approved_later == []
    assert all(finding.passed for finding in verify(tmp_path / "paper.ledger"))


def test_a_run_killed_by_the_clock_goes_on_over_a_longer_feed(tmp_path: Path) -> None:
    """Killed wherever it happens to be: the points above are chosen, these are not."""
    furnish(tmp_path)
    write_bars(tmp_path / "bars.csv", spoiled(bar_rows(150)))
    command = [sys.executable, "-m", "mqd_ledger", *RUN]
    for seconds in (0.45, 0.6, 0.75):
        try:
            subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            continue
    assert run_program(tmp_path, *RUN).code == 0
    assert run_program(tmp_path, *RUN, "--ledger", "whole.ledger").code == 0
    assert log_rows(tmp_path / "paper.ledger") == log_rows(tmp_path / "whole.ledger")
