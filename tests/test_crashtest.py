"""A session that is killed at seeded places comes back whole, and a comparison that looked away would be found out."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from mqd_ledger import events as e
from mqd_ledger import lock
from mqd_ledger.cli.crashtest import WIDTH, crashtest
from mqd_ledger.crashtest.compare import Record, Verdict, compare, proofs, record_of
from mqd_ledger.crashtest.session import SYMBOLS, Report, plan, truth
from mqd_ledger.crashtest.session import crashtest as run
from mqd_ledger.crashtest.victim import PLACES
from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.runs import fold
from mqd_ledger.state import State
from mqd_ledger.values import ZERO, DifferenceKind, Side
from tests.dsl import OPENING

SEED = 7
POINTS = [
    ("before-commit", 4),
    ("in-commit", 1),
    ("after-commit", 1),
    ("before-answer", 1),
    ("after-answer", 1),
    ("before-cancel", 1),
    ("recovery", 4),
]
PATIENCE = 30.0  # seconds
Account = dict[str, Any]


class Came(NamedTuple):
    """What a killed session left behind."""

    report: Report
    folder: Path
    record: Record
    state: State
    account: Account
    sent: list[bytes]


@pytest.fixture(scope="module")
def came(tmp_path_factory: pytest.TempPathFactory) -> Came:
    folder = tmp_path_factory.mktemp("crash") / "kept"
    report = run(POINTS, SEED, "none", folder, lambda _number, _kill: None)
    with LoopbackServer(sample_bars(SYMBOLS, sessions=3, seed=SEED), seed=SEED, directory=folder / "broker") as server:
        account = dict(truth(server))
    with LogReader.open(folder / "crash.ledger") as log:
        return Came(
            report, folder, record_of(log), fold(log), account, (folder / "crash.wire").read_bytes().splitlines()
        )


def failed(verdicts: list[Verdict]) -> list[str]:
    return [verdict.sentence for verdict in verdicts if not verdict.holds]


# --- killed, and back -------------------------------------------------------------------------------------------------


def test_a_session_killed_at_seven_places_agrees_with_its_broker(came: Came) -> None:
    assert failed(list(came.report.verdicts)) == []
    assert [(kill.place, kill.reached) for kill in came.report.kills] == [(place, True) for place, _ in POINTS]
    assert came.report.record.fills > 0
    assert came.report.record.starts >= 6  # one of the seven died before its recovery began, at the earliest


def test_the_comparison_made_again_from_what_is_kept_says_the_same(came: Came) -> None:
    assert compare(came.record, came.state, came.account, came.sent) == list(came.report.verdicts[:10])


def test_what_is_printed_is_no_wider_than_a_page(came: Came, capsys: pytest.CaptureFixture[str]) -> None:
    from mqd_ledger.cli.crashtest import _print

    faults = {f"a_fault_of_kind_{number}": number for number in range(30)}
    _print(came.report._replace(faults=faults), "heavy")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith("Killed 7 times in ")
    assert sum(line.startswith("pass  ") for line in lines) == len(came.report.verdicts)


def test_the_plan_follows_from_the_seed_and_comes_by_every_place() -> None:
    planned = list(plan(3 * len(PLACES), 5))
    assert planned == list(plan(3 * len(PLACES), 5)) != list(plan(3 * len(PLACES), 6))
    assert {place for place, _ in planned} == set(PLACES)
    assert all(1 <= times <= PLACES[place].times_max for place, times in planned)


# --- every verdict can fail -------------------------------------------------------------------------------------------


def _traded(account: Account) -> Account:
    order: Account = next(order for order in account["orders"] if order["fills"])
    return order


def _more_shares(account: Account) -> None:
    account["positions"]["SYNA"] = {"qty": "1000", "avg_entry_price": "1"}


def _other_cash(account: Account) -> None:
    account["cash"] = str(Decimal(account["cash"]) - Decimal("0.02"))


def _one_more_fill(account: Account) -> None:
    order = _traded(account)
    order["fills"].append(order["fills"][0])


def _one_fill_less(account: Account) -> None:
    _traded(account)["fills"].pop()


def _another_price(account: Account) -> None:
    fill = _traded(account)["fills"][0]
    fill["price"] = str(Decimal(fill["price"]) + 1)


def _an_order_twice(account: Account) -> None:
    account["orders"].append(deepcopy(_traded(account)))


def _an_order_of_somebody_else(account: Account) -> None:
    account["orders"].append({"client_order_id": "somebody", "status": "new", "fills": [], "undone": 0})


@pytest.mark.parametrize(
    ("change", "wrong"),
    (
        (_more_shares, ["positions are the broker's"]),
        (_other_cash, ["cash is the broker's"]),
        (_one_more_fill, ["no fill was lost"]),
        (_one_fill_less, ["no fill was booked twice, or made up"]),
        (_another_price, ["each was booked at its price"]),
        (_an_order_twice, ["every order at the broker is known here, once"]),
        (
            _an_order_of_somebody_else,
            ["every order at the broker is known here, once", "no order works on one side only"],
        ),
    ),
)
def test_a_broker_that_says_otherwise_is_found(came: Came, change: Callable[[Account], None], wrong: list[str]) -> None:
    account = deepcopy(came.account)
    change(account)
    assert failed(compare(came.record, came.state, account, came.sent)) == wrong


def test_an_order_by_hand_that_ended_without_a_trade_concerns_nobody(came: Came) -> None:
    account = deepcopy(came.account)
    account["orders"].append({"client_order_id": "somebody", "status": "canceled", "fills": [], "undone": 0})
    assert failed(compare(came.record, came.state, account, came.sent)) == []


def test_an_order_sent_again_with_another_content_is_found(came: Came) -> None:
    again = json.loads(came.sent[0])
    same = json.dumps(dict(reversed(again.items()))).encode()  # in another order it is the same order
    assert failed(compare(came.record, came.state, came.account, [*came.sent, same])) == []
    changed = json.dumps({**again, "qty": "999"}).encode()
    assert failed(compare(came.record, came.state, came.account, [*came.sent, changed])) == [
        "no order was sent twice with two contents"
    ]


def test_an_order_that_left_unrecorded_is_found(came: Came) -> None:
    early = json.dumps({**json.loads(came.sent[0]), "client_order_id": "early"}).encode()
    verdicts = compare(came.record, came.state, came.account, [*came.sent, early])
    assert failed(verdicts) == ["no order left before it was recorded"]


def test_a_booked_adjustment_is_found(came: Came) -> None:
    record = came.record._replace(adjusted=("D2 5 SYNA",))
    (verdict,) = [one for one in compare(record, came.state, came.account, came.sent) if not one.holds]
    assert verdict == Verdict("nothing had to be adjusted", False, "1: D2 5 SYNA")


def test_what_the_market_took_back_unheard_may_be_adjusted_and_no_more(came: Came) -> None:
    account = deepcopy(came.account)
    order = _traded(account)
    order["fills"].pop()
    order["undone"] = 1
    adjusted = ("D2 -5 SYNA", "D3 0.05 of cash")
    verdicts = compare(came.record._replace(adjusted=adjusted), came.state, account, came.sent)
    assert failed(verdicts) == []
    told = Verdict("nothing had to be adjusted but what was taken back of 1 fills unheard", True, ", ".join(adjusted))
    assert told in verdicts
    record = came.record._replace(adjusted=(*adjusted, "D4 1 SYNB"))
    assert failed(compare(record, came.state, account, came.sent)) == [told.sentence]


def test_a_changed_event_is_found(came: Came, tmp_path: Path) -> None:
    ledger = tmp_path / "changed.ledger"
    shutil.copy(came.folder / "crash.ledger", ledger)
    with sqlite3.connect(ledger) as database:
        database.execute("update events set payload = replace(payload, 'BUY', 'SELL')")
    database.close()
    assert failed(proofs(ledger))[0] == "verify: chain"


# --- what the ledger tells --------------------------------------------------------------------------------------------


def test_what_stands_in_the_end_is_counted_and_what_was_undone_is_not() -> None:
    at = OPENING
    fill = ("SYNA", Side.BUY, Decimal(3), Decimal(10), ZERO, Decimal(3), ZERO)
    undone = ("SYNA", Side.BUY, Decimal(3), Decimal(10), ZERO)
    corrected = ("SYNA", Side.BUY, Decimal(3), Decimal(10), Decimal(3), Decimal(11), ZERO)
    found: tuple[Any, ...] = ("ours", "theirs", Decimal(1), Decimal(10), ZERO, {}, False)
    opening = e.DifferenceFound(at, "D1", DifferenceKind.OPENING, "SYNA", *found)
    unknown = e.DifferenceFound(at, "D2", DifferenceKind.UNKNOWN, "SYNA", *found)
    booked = ("SYNA", Decimal(1), Decimal(10), ZERO, "reconciliation", "small")
    with EventLog.create() as log:
        log.record(
            [
                e.RecoveryStarted(at, 1),
                e.OrderSent(at, "a", 1),
                e.OrderSent(at, "a", 2),
                e.OrderFilled(at, "a", "a-1", *fill),
                e.OrderSent(at, "b", 1),
                e.OrderFilled(at, "b", "b-1", *fill),
                e.ExecutionBusted(at, "b", "b-1", *undone),
                e.OrderSent(at, "c", 1),
                e.OrderFilled(at, "c", "c-1", *fill),
                e.ExecutionCorrected(at, "c", "c-1", "c-2", *corrected),
                opening,
                e.AdjustmentBooked(at, "D1", *booked),
                unknown,
                e.AdjustmentBooked(at, "D2", *booked),
            ],
            at,
        )
        log.commit()
        record = record_of(log)
    assert record.known == {"a", "b", "c"}
    assert {name: tuple(map(int, one)) for name, one in record.traded.items()} == {"a": (3, 30), "c": (3, 33)}
    assert (record.starts, record.sent, record.sent_again, record.fills) == (1, 3, 1, 3)
    assert record.differences == {"OPENING": 1, "UNKNOWN": 1}
    assert record.adjusted == ("D2 1 SYNA",)


# --- when it cannot run, or is stopped --------------------------------------------------------------------------------


def test_a_directory_that_is_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"is not empty, it holds mine\.txt\. Give --directory a new or an empty folder"):
        run([], SEED, "none", tmp_path, lambda _number, _kill: None)
    with pytest.raises(BadInput, match="cannot keep its files"):
        run([], SEED, "none", tmp_path / "mine.txt" / "below", lambda _number, _kill: None)


def test_options_that_make_no_sense_are_refused() -> None:
    refused = CliRunner().invoke(crashtest, ["--faults", "enormous"])
    assert refused.exit_code == 2
    assert "'none', 'light', 'heavy'" in refused.output


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither of these signals")
@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGKILL))
def test_nothing_runs_on_when_the_test_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "crash"
    command = [sys.executable, "-m", "mqd_ledger", "crashtest", "--points", "50", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        victim = _until(lambda: lock.holder(folder / "crash.ledger"))
        parent.send_signal(number)
        parent.wait(PATIENCE)
    assert victim.pid != parent.pid
    _until(lambda: _is_gone(victim.pid))


def _until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come to be so in time"
        time.sleep(0.02)
    return found


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " in stat.read_text()  # ended, and its new parent has not looked yet
