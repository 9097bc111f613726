"""The doctor finds what keeps a run from trading, and says what to do about it."""

import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from commands.control import CreateLedger, StartRun
from commands.truth import AttachAccount
from mqd_ledger import operator_requests
from mqd_ledger.brokers.alpaca import AlpacaBroker
from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Budget
from mqd_ledger.brokers.base import BrokerAccount
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.cli.main import execute
from mqd_ledger.doctor import CHECKS, Finding, Host, Patient, examine
from mqd_ledger.doctor.ledger import TAIL
from mqd_ledger.engine import Engine
from mqd_ledger.events import CashMoved, Source
from mqd_ledger.log import EventLog
from mqd_ledger.loopback.faults import Faults
from mqd_ledger.loopback.faults_table import Fault
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.policy import Policy
from mqd_ledger.sessions import HORIZON
from mqd_ledger.settings import load
from mqd_ledger.state import State
from tests.test_keys import pair, write

AT = datetime(2026, 1, 5, 15, tzinfo=UTC)
SECRET = "loopback-secret"  # noqa: S105  of the loopback server's account
ENVIRON = {"APCA_API_KEY_ID": "PKLOOPBACK1", "APCA_API_SECRET_KEY": SECRET}
posix = pytest.mark.skipif(os.name != "posix", reason="rights are told by a mode on POSIX alone")


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(speed=None, faults=Faults()) as running:
        running.step(30)
        yield running


def unreachable(_keys: Keys) -> AlpacaBroker:
    raise AssertionError("simulated money needs no broker")


@pytest.fixture
def simulated(tmp_path: Path) -> Patient:
    return Patient(
        broker_name="simulated",
        environment="paper",
        ledger=tmp_path / "paper.ledger",
        environ={},
        clock=lambda: AT,
        connect=unreachable,
        dotenv=tmp_path / ".env",
    )


@pytest.fixture
def patient(simulated: Patient, server: LoopbackServer) -> Iterator[Patient]:
    """One that trades with the loopback server, by its clock."""
    opened: list[AlpacaRest] = []

    def connect(keys: Keys) -> AlpacaBroker:
        loopback = Keys(keys.key_id, keys.secret, "loopback")
        opened.append(AlpacaRest(loopback, server.rest_url, "loopback", budget=Budget(1000)))
        return AlpacaBroker(opened[-1], server.clock.now)

    hosts = (Host("127.0.0.1", server.port, is_encrypted=False),)
    yield replace(
        simulated, broker_name="alpaca", environ=ENVIRON, clock=server.clock.now, connect=connect, hosts=hosts
    )
    for rest in opened:
        rest.close()


def findings(patient: Patient) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(patient)}


def found(patient: Patient, check: str, verdict: Literal["ok", "warn", "FAIL", "skipped"]) -> str:
    """What is said of one thing, which has to have come out so."""
    finding = findings(patient)[check]
    assert finding.verdict == verdict, finding
    return f"{finding.found} {finding.advice}"


def filled(path: Path, account_number: str = "PA3LOOPBACK1", mode: str = "alpaca-paper", at: datetime = AT) -> Path:
    with EventLog.create(path, durability="normal") as log:
        engine = Engine(State(), log)
        engine.handle(CreateLedger(at, "desk"))
        engine.handle(StartRun(at, mode, "1", Source("alpaca", "x", ""), (), Policy()))
        engine.handle(AttachAccount(at, "alpaca", "paper", account_number))
    return path


def alter(ledger: Path, position: int) -> None:
    with closing(sqlite3.connect(ledger)) as file, file:
        file.execute(
            "update events set payload = replace(payload, 'desk', 'dusk') || ' ' where position = ?", (position,)
        )


def test_where_everything_is_in_place_nothing_has_to_be_done(patient: Patient) -> None:
    filled(patient.ledger)
    every = findings(patient)
    assert list(every) == list(CHECKS)
    assert {name: one for name, one in every.items() if one.verdict != "ok"}.keys() <= {"port", "libraries"}
    assert "PA3LOOPBACK1, equity 100,000.00" in every["account"].found
    assert "0.0 s" in every["clock"].found
    assert every["broker's calendar"].found == "agrees: the market opens 2026-01-06T14:30:00Z"
    assert every["keys"].found == "paper key PKLO… from the environment (APCA_API_KEY_ID)"
    assert SECRET not in str(every)


def test_simulated_money_needs_no_keys_and_no_network(simulated: Patient) -> None:
    every = findings(simulated)
    skipped = {name for name, one in every.items() if one.found.startswith("only for broker")}
    assert skipped == {name for name, check in CHECKS.items() if check.broker}
    assert {one.verdict for name, one in every.items() if name not in skipped} <= {"ok", "skipped", "warn"}
    assert found(replace(simulated, broker_name="loopback"), "port", "ok")


# --- keys, network, account -------------------------------------------------------------------------------------------


def test_without_keys_what_needs_them_waits(patient: Patient) -> None:
    every = findings(replace(patient, environ={}))
    assert every["keys"].verdict == "FAIL"
    assert "There are no keys to the broker's paper account" in every["keys"].found
    assert every["account"].found == "waits for: keys"
    assert every["clock"].found == "waits for: account"


def test_keys_that_the_broker_does_not_know_are_told_without_showing_them(patient: Patient) -> None:
    wrong = {**ENVIRON, "APCA_API_SECRET_KEY": "another-secret"}
    text = found(replace(patient, environ=wrong), "account", "FAIL")
    assert "another-secret" not in text
    assert "PKLOOPBACK1" not in text


@posix
def test_a_key_file_that_others_may_read_is_warned_of(patient: Patient) -> None:
    write(patient.dotenv, pair(key_id="PKLOOPBACK1", secret=SECRET), 0o644)
    assert "chmod 600" in found(replace(patient, environ={}), "key file", "warn")


def test_a_host_that_does_not_answer_is_named_and_nothing_more_is_asked_of_it(patient: Patient) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        closed = Host("127.0.0.1", taken.getsockname()[1], is_encrypted=False)
        every = findings(replace(patient, hosts=(*patient.hosts, closed)))
    assert every["network"].verdict == "FAIL"
    assert "127.0.0.1: Connection refused" in every["network"].found or os.name != "posix"
    assert every["account"].found == "waits for: network"
    unknown = Host("no-such-host.invalid")
    assert "its name is not known" in found(replace(patient, hosts=(unknown,)), "network", "FAIL")


def test_a_host_that_cannot_be_trusted_is_named(patient: Patient, server: LoopbackServer) -> None:
    """It speaks no TLS, as somebody in between who answers in its place."""
    not_encrypted = Host("127.0.0.1", server.port)
    assert "127.0.0.1: " in found(replace(patient, hosts=(not_encrypted,)), "network", "FAIL")


class Blocked(AlpacaBroker):
    """The loopback server blocks no account."""

    def account(self) -> BrokerAccount:
        return msgspec.structs.replace(super().account(), is_blocked=True, blocked_because="trading_blocked")


def test_an_account_that_may_not_trade_is_a_failure(patient: Patient, server: LoopbackServer) -> None:
    rest = AlpacaRest(Keys("PKLOOPBACK1", SECRET, "loopback"), server.rest_url, "loopback", budget=Budget(1000))
    blocked = replace(patient, connect=lambda _keys: Blocked(rest, server.clock.now))
    assert "PA3LOOPBACK1 is blocked: trading_blocked" in found(blocked, "account", "FAIL")
    rest.close()


def test_an_account_of_the_other_kind_or_of_another_ledger_is_a_failure(patient: Patient) -> None:
    live = replace(patient, environment="live", environ={**ENVIRON, "APCA_API_KEY_ID": "AKLOOPBACK1"})
    connect = patient.connect
    live = replace(live, connect=lambda _keys: connect(Keys("PKLOOPBACK1", SECRET, "paper")))
    assert "is a paper account, but --live was given" in found(live, "account", "FAIL")
    filled(patient.ledger, account_number="PA3OTHER")
    assert "keeps the books of PA3OTHER" in found(patient, "account", "FAIL")


def test_what_live_trading_still_needs_is_told(patient: Patient) -> None:
    live = replace(patient, environment="live", settings=load("live"))
    assert "Set live_trading: true" in found(live, "live trading", "warn")
    allowed = replace(live, settings=load("live").model_copy(update={"live_trading": True}))
    assert "typed confirmation" in found(allowed, "live trading", "ok")
    assert "Say what to trade" in found(replace(allowed, symbols_chosen=False), "live trading", "warn")


@pytest.mark.parametrize(("key_id", "secret"), (("PK...", "..."), ("PKLOOPBACK1", "<secret>"), ("PK…", SECRET)))
def test_the_dots_of_the_example_are_no_keys(patient: Patient, key_id: str, secret: str) -> None:
    patient.dotenv.write_text(f"APCA_API_KEY_ID={key_id}\nAPCA_API_SECRET_KEY={secret}\n", encoding="utf-8")
    patient.dotenv.chmod(0o600)
    found(replace(patient, environ={}), "keys", "FAIL")
    assert findings(replace(patient, environ={}))["account"].found == "waits for: keys"


def test_a_ledger_that_keeps_other_books_is_a_failure(patient: Patient, simulated: Patient) -> None:
    assert found(simulated, "books", "ok")
    filled(patient.ledger)
    assert "its runs were of mode alpaca-paper" in found(patient, "books", "ok")
    assert "needs a ledger of its own" in found(replace(patient, broker_name="loopback"), "books", "FAIL")
    assert "needs a ledger of its own" in found(replace(patient, environment="live"), "books", "FAIL")
    assert "needs a ledger of its own" in found(simulated, "books", "FAIL")


# --- clock and calendar -----------------------------------------------------------------------------------------------


# In this order, for a server never stamps anything earlier than what it has stamped.
SKEWS: dict[float, tuple[Literal["ok", "warn", "FAIL"], str]] = {
    -30: ("FAIL", "30.0 s ahead of"),
    -2: ("warn", "2.0 s ahead of"),
    0.5: ("ok", "0.5 s behind"),
    2: ("warn", "2.0 s behind"),
    30: ("FAIL", "30.0 s behind"),
}


def test_a_clock_that_is_wrong_is_found_out_by_the_brokers(patient: Patient) -> None:
    with LoopbackServer(speed=None) as wrong:
        wrong.step(30)
        rest = AlpacaRest(Keys("PKLOOPBACK1", SECRET, "loopback"), wrong.rest_url, "loopback", budget=Budget(1000))
        there = replace(patient, connect=lambda _keys: AlpacaBroker(rest, wrong.clock.now), clock=wrong.clock.now)
        for skew, (verdict, text) in SKEWS.items():
            wrong.clock.skew = timedelta(seconds=skew)
            assert text in found(there, "clock", verdict)
        rest.close()


def test_a_calendar_that_is_not_the_brokers_is_a_failure(patient: Patient) -> None:
    """The exchange closes early, and no table knew."""
    with LoopbackServer(speed=None, faults=Faults([Fault("market", "half_day", at=3)])) as surprised:
        surprised.step(30)
        rest = AlpacaRest(Keys("PKLOOPBACK1", SECRET, "loopback"), surprised.rest_url, "loopback", budget=Budget(1000))
        there = replace(
            patient, connect=lambda _keys: AlpacaBroker(rest, surprised.clock.now), clock=surprised.clock.now
        )
        text = found(there, "broker's calendar", "FAIL")
        rest.close()
    assert "the broker: closed" in text
    assert "here: open" in text
    assert "mqd_ledger/sessions.py" in text


def test_a_calendar_that_ends_soon_is_warned_of(simulated: Patient) -> None:
    end = datetime(HORIZON.year, HORIZON.month, HORIZON.day, tzinfo=UTC)
    assert found(replace(simulated, clock=lambda: end - timedelta(days=100)), "calendar", "ok")
    assert found(replace(simulated, clock=lambda: end - timedelta(days=80)), "calendar", "warn")
    assert found(replace(simulated, clock=lambda: end), "calendar", "FAIL")


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_a_ledger_its_writer_and_its_tail(simulated: Patient) -> None:
    assert "is not there yet" in found(simulated, "ledger", "ok")
    assert found(simulated, "chain", "skipped")
    filled(simulated.ledger)
    assert "events: 3" in found(simulated, "ledger", "ok")
    assert found(simulated, "writer", "ok") == "nobody writes it now "
    assert "the last 3 events are as they were written" in found(simulated, "chain", "ok")
    with EventLog.open(simulated.ledger):
        assert f"written by process {os.getpid()}" in found(simulated, "writer", "ok")


def test_only_the_tail_of_a_long_chain_is_looked_at(simulated: Patient) -> None:
    filled(simulated.ledger)
    with EventLog.open(simulated.ledger, durability="normal") as log:
        log.record([CashMoved(AT, f"{number}", "DEPOSIT", Decimal(1), "") for number in range(TAIL - 2)], AT)
    assert f"the last {TAIL:,} events" in found(simulated, "chain", "ok")
    alter(simulated.ledger, 1)
    assert found(simulated, "chain", "ok"), "that is for verify"
    alter(simulated.ledger, TAIL + 1)
    assert f"Event {TAIL + 1} " in found(simulated, "chain", "FAIL")


def test_what_is_no_ledger_is_a_failure_and_the_rest_waits_for_it(simulated: Patient) -> None:
    simulated.ledger.write_text("no ledger at all, but long enough to be looked at as one" * 100, encoding="utf-8")
    every = findings(simulated)
    assert every["ledger"].verdict == "FAIL"
    assert every["chain"].found == "waits for: ledger"


def test_a_process_that_has_recorded_nothing_while_the_market_is_open_may_hang(simulated: Patient) -> None:
    filled(simulated.ledger)
    later = replace(simulated, clock=lambda: AT + timedelta(minutes=30))
    assert found(later, "last event", "ok"), "nobody trades"
    with EventLog.open(simulated.ledger):
        assert "although a process trades" in found(later, "last event", "warn")
        assert found(replace(simulated, clock=lambda: AT + timedelta(minutes=5)), "last event", "ok")
        at_night = replace(simulated, clock=lambda: AT + timedelta(hours=12))
        assert found(at_night, "last event", "ok"), "there is nothing to record"


def test_a_signal_file_and_requests_that_wait_are_told(simulated: Patient) -> None:
    assert found(simulated, "signal file", "ok")
    operator_requests.kill_file(simulated.ledger).touch()
    assert "asks for the kill switch" in found(simulated, "signal file", "warn")
    operator_requests.ask(simulated.ledger, "halt", "me", "x")
    assert "1 waiting in" in found(simulated, "requests", "warn")


def test_a_folder_of_requests_that_does_not_work_is_a_failure(simulated: Patient) -> None:
    directory = operator_requests.requests_directory(simulated.ledger)
    directory.touch()
    assert "is no folder" in found(simulated, "requests", "FAIL")
    directory.unlink()
    directory.mkdir()
    assert found(simulated, "requests", "ok")
    if os.name == "posix":
        directory.chmod(0o777)
        assert "chmod 700" in found(simulated, "requests", "warn")


def test_a_folder_that_is_not_there_is_a_failure_of_the_disk(simulated: Patient) -> None:
    nowhere = replace(simulated, ledger=simulated.ledger.parent / "nowhere" / "paper.ledger")
    assert "No such file or directory" in found(nowhere, "disk space", "FAIL") or os.name != "posix"
    assert found(nowhere, "disk speed", "FAIL")


# --- the verb ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)

    def asked(*arguments: str) -> tuple[int, str]:
        code = execute(["doctor", *arguments])
        return code, capsys.readouterr().out

    return asked


def test_the_verb_shows_every_check_and_fails_where_one_does(ask: Any, tmp_path: Path) -> None:
    code, out = ask()
    assert code == 0
    assert [name for name in CHECKS if name not in out] == []
    code, out = ask("--json", "--set", "risk.daily_loss_max=-1")
    told = json.loads(out)
    assert (code, told["passed"]) == (1, False)
    (settings,) = [check for check in told["checks"] if check["check"] == "settings"]
    assert settings["verdict"] == "FAIL"
    assert "risk.daily_loss_max: found '-1'" in settings["found"]
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_the_verb_refuses_symbols_that_nobody_trades(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--symbols", "SPY", "--ledger", str(tmp_path / "x.ledger")]) == 2
    assert "--symbols SPY says what to trade with a broker" in capsys.readouterr().err


def test_the_verb_while_a_process_trades_is_not_in_its_way(ask: Any, tmp_path: Path) -> None:
    filled(tmp_path / "paper.ledger", mode="paper")
    with EventLog.open(tmp_path / "paper.ledger"):
        answers: list[int] = []
        other = threading.Thread(target=lambda: answers.append(ask()[0]))
        other.start()
        other.join(60)
    assert answers == [0]
