"""`mqd-ledger run --broker ...` as a person uses it: a process that is stopped, killed, asked and refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mqd_ledger import events as e
from mqd_ledger.cli.main import execute
from mqd_ledger.errors import LedgerUnreadable
from mqd_ledger.log import LogReader
from mqd_ledger.runs import fold
from mqd_ledger.state import State
from mqd_ledger.store import backup
from mqd_ledger.values import TradingState
from tests.desk import environment
from tests.dsl import at
from tests.loopback import flat
from tests.trading import DEADLINE, KILL, Trader, market

PLAN = "15:00 SPY LONG 5; 16:00 SPY FLAT"
ALPACA = ("run", "--broker", "alpaca", "--ledger", "alpaca.ledger")
LIVE_KEY = {"APCA_API_KEY_ID": "AKIDOFALIVEACCOUNT00", "APCA_API_SECRET_KEY": "secret-of-a-live-account-never-shown"}
PAPER_KEY = {"APCA_API_KEY_ID": "PKIDOFAPAPERACCOUNT0", "APCA_API_SECRET_KEY": "secret-of-a-paper-account-never-shown"}


@pytest.fixture
def trader(tmp_path: Path) -> Iterator[Trader]:
    """A market that stands at the open, and a process that trades in it."""
    with market(flat()) as server:
        server.play_until(at("14:30:20"))
        found = Trader(server, tmp_path / "desk.ledger", [PLAN])
        try:
            found.spawn().ready()
            found.until(at("15:00"))
            yield found
        finally:
            found.close()


@contextmanager
def started(*arguments: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    pipe = subprocess.PIPE
    words = [sys.executable, "-m", "mqd_ledger", *arguments]
    process = subprocess.Popen(words, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """What the program answers, on both outputs."""
    capsys.readouterr()
    code = execute(arguments)
    out, err = capsys.readouterr()
    return code, out + err


def test_killed_asked_and_stopped(trader: Trader, capsys: pytest.CaptureFixture[str]) -> None:
    trader.bars(1)
    trader.quiet()
    ledger = ("--ledger", str(trader.ledger))

    code, status = asked(capsys, "status", *ledger, "--json")
    told = json.loads(status)
    assert code == 0
    assert str(trader.pid) in told["writer"]
    assert (told["mode"], told["positions"], told["trading_state"]) == ("loopback", 1, "ACTIVE")

    code, refusal = asked(capsys, *trader.words)
    assert code == 3, "two at once"
    assert str(trader.pid) in refusal

    assert trader.send(KILL) != 0
    code, status = asked(capsys, "status", *ledger, "--json")
    assert json.loads(status)["writer"] == "none"
    trader.spawn().ready()
    trader.until(at("16:00"))
    trader.bars(1)
    trader.quiet()
    assert trader.send(signal.SIGTERM) == 0
    assert trader.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]
    assert len(trader.events(e.RunStarted)) == 1
    assert len(trader.events(e.RecoveryStarted)) == 2
    assert not trader.events(e.RunEnded), "it goes on when it is started again"
    assert "Went on after event" in trader.said
    assert "Traceback" not in trader.said
    code, proof = asked(capsys, "verify", "--rerun", *ledger)
    assert (code, "FAIL" in proof) == (0, False), proof
    trader.agrees()
    trader.proved()


def test_an_older_copy_that_is_killed_while_it_takes_over_goes_on_with_that(trader: Trader) -> None:
    trader.bars(1)
    trader.quiet()
    older = Trader(trader.server, trader.ledger.with_name("older.ledger"), [PLAN])
    backup(trader.ledger, older.ledger)
    trader.until(at("16:00"))
    trader.bars(1)
    trader.quiet()
    assert trader.send(signal.SIGTERM) == 0
    try:
        older.spawn().wait_for(e.TradingHalted)
        assert older.send(KILL) != 0
        older.spawn().ready()
        assert len(older.events(e.TradingHalted)) == 1
        assert older.orders == ["BUY 5 FILLED", "SELL 5 FILLED"]
        assert older.state().trading_state is TradingState.HALTED
        assert older.send(signal.SIGTERM) == 0
        older.agrees()
        older.proved()
    finally:
        older.close()


def test_kill_while_it_runs(trader: Trader, capsys: pytest.CaptureFixture[str]) -> None:
    trader.bars(1)
    trader.quiet()
    code, told = asked(capsys, "kill", "--reason", "enough", "--ledger", str(trader.ledger))
    assert code == 0, told
    assert "has taken the request" in told
    trader.wait_for(e.KillSwitchCompleted, seconds=2)
    assert trader.at_broker()["positions"] == {}
    assert "KILLED" in trader.said
    assert trader.send(signal.SIGTERM) == 0
    trader.agrees()
    trader.proved()


def test_kill_while_nobody_runs(trader: Trader, capsys: pytest.CaptureFixture[str]) -> None:
    """It is recorded at once; the next run closes before it does anything else, and stays halted."""
    trader.bars(1)
    trader.quiet()
    assert trader.send(signal.SIGTERM) == 0
    code, told = asked(capsys, "kill", "--reason", "enough", "--ledger", str(trader.ledger))
    assert (code, "The kill switch is recorded" in told) == (2, True), told
    assert "its loopback server does not run" in " ".join(told.split())
    assert trader.state().trading_state is TradingState.HALTED
    trader.spawn().begun()
    trader.wait_for(e.KillSwitchCompleted, seconds=2)
    assert trader.at_broker()["positions"] == {}
    assert trader.send(signal.SIGTERM) == 0
    code, told = asked(capsys, "resume", "--reason", "looked at it", "--ledger", str(trader.ledger))
    assert (code, trader.state().trading_state) == (0, TradingState.ACTIVE), told
    trader.agrees()
    trader.proved()


def test_kill_that_closes_by_itself(trader: Trader) -> None:
    """Where it is told the way to the broker, nobody has to start a run for it."""
    trader.bars(1)
    trader.quiet()
    assert trader.send(signal.SIGTERM) == 0
    where = ["--ledger", str(trader.ledger), "--loopback-url", trader.server.rest_url]
    with started("kill", "--reason", "enough", *where, folder=trader.ledger.parent) as process:
        trader.wait_for(e.KillSwitchCompleted, seconds=2)
        out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert "Nothing is left at the broker" in " ".join(out.split())
    assert f"resume --reason TEXT --ledger {trader.ledger}" in " ".join(out.split())
    assert trader.at_broker()["positions"] == {}
    trader.agrees()
    trader.proved()


def test_json_alone_on_the_output(tmp_path: Path) -> None:
    with market(flat()) as server:
        trader = Trader(server, tmp_path / "desk.ledger", [PLAN])
        with started(*trader.words, "--json", folder=tmp_path) as process:
            trader.ready()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=DEADLINE)
        trader.close()
    assert process.returncode == 0
    assert json.loads(out)["mode"] == "loopback"
    assert "passed    7 limits" in err


def test_with_a_server_of_its_own(tmp_path: Path) -> None:
    """One command for all; it takes its server with it, and the same command goes on with the same account."""
    words = ["run", "--paper", "--broker", "loopback", "--speed", "1200", "--ledger", "own.ledger"]
    ledger = tmp_path / "own.ledger"
    for _ in range(2):
        bars = _state(ledger).bars_total + 5
        with started(*words, folder=tmp_path) as process:
            deadline = time.monotonic() + DEADLINE
            while _state(ledger).bars_total < bars:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, f"there were not {bars} bars in time"
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=DEADLINE)
        assert (process.returncode, err) == (0, "")
        assert "passed    7 limits" in out
        assert out.count("SYNTHETIC BARS") == 2, "before and after"
    state = _state(ledger)
    assert state.run is not None
    assert state.run.run == 1, "it is the same run"
    assert not state.blocks.get("recovery")
    assert execute(["verify", "--rerun", "--ledger", str(ledger)]) == 0


def _state(ledger: Path) -> State:
    try:
        with LogReader.open(ledger) as log:
            return fold(log, upto=log.head.position)
    except LedgerUnreadable:  # it is not there yet
        return State()


@pytest.mark.parametrize(
    ("words", "keys", "says"),
    (
        (
            (*ALPACA, "--live", "--symbols", "SPY"),
            {},
            ("live_trading: true", "There are no keys", "MQD_LIVE_CONFIRMED"),
        ),
        ((*ALPACA, "--live", "--symbols", "SPY"), PAPER_KEY, ("live_trading: true", "paper")),
        ((*ALPACA, "--live", "--symbols", "SPY"), LIVE_KEY, ("live_trading: true", "MQD_LIVE_CONFIRMED")),
        (
            (*ALPACA, "--live", "--symbols", "SPY", "--set", "live_trading=true"),
            LIVE_KEY,
            ("live_trading: is allowed only in the file given with --config",),
        ),
        ((*ALPACA, "--live"), LIVE_KEY, ("Say what to trade, with --symbols",)),
        (("run", "--paper", "--symbols", "SPY"), {}, ("--symbols SPY says what to trade with a broker",)),
        ((*ALPACA, "--paper", "--symbols", "SPY"), LIVE_KEY, ("live",)),
        ((*ALPACA, "--paper", "--symbols", "SPY"), {}, ("There are no keys to the broker's paper account",)),
        ((*ALPACA, "--paper"), PAPER_KEY, ("symbols: found none", "at least one symbol")),
        ((*ALPACA, "--paper", "--symbols", "spy"), PAPER_KEY, ("symbols", "as the exchange writes it")),
        (("run", "--paper", "--broker", "loopbck"), {}, ("broker: found 'loopbck'",)),
        (("run", "--live", "--broker", "loopback", "--symbols", "SPY"), {}, ("--live trades real money at Alpaca",)),
        (
            ("run", "--paper", "--broker", "loopback", "--loopback-url", "http://127.0.0.1:9"),
            {},
            ("No loopback server answers at http://127.0.0.1:9",),
        ),
        (("run", "--paper", "--loopback-url", "http://127.0.0.1:9"), {}, ("need a broker",)),
        (
            ("run", "--paper", "--broker", "loopback", "--loopback-url", "http://127.0.0.1:9", "--speed", "5"),
            {},
            ("plays at a pace of its own",),
        ),
        ((*ALPACA, "--paper", "--symbols", "SPY", "--speed", "5"), PAPER_KEY, ("the market itself sets the pace",)),
    ),
)
def test_what_is_refused_before_anything_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    keys: dict[str, str],
    says: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*LIVE_KEY, "MQD_ALPACA_KEY_ID", "MQD_ALPACA_SECRET_KEY", "MQD_LIVE_CONFIRMED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    code, told = asked(capsys, *words)
    assert code == 2, told
    flowing = " ".join(told.split())
    assert [text for text in says if text not in flowing] == [], told
    assert not [value for name, value in keys.items() if value in told]
    assert list(tmp_path.iterdir()) == [], "no ledger and no lock is left behind"


def test_symbols_that_the_server_does_not_play_are_refused_at_the_start(
    trader: Trader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a bar of them would ever come."""
    monkeypatch.chdir(tmp_path)
    words = ["run", "--paper", "--broker", "loopback", "--symbols", "SYNA,QQQ", "--ledger", "other.ledger"]
    code, told = asked(capsys, *words)
    assert (code, "found QQQ; the server plays SYNA, SYNB" in " ".join(told.split())) == (2, True), told
    code, told = asked(capsys, *words, "--loopback-url", trader.server.rest_url)
    assert (code, "found SYNA, QQQ; the server plays SPY" in " ".join(told.split())) == (2, True), told
    assert not Path("other.ledger").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of another kind")
@pytest.mark.parametrize("typed", ("yes", "alpaca.ledge"))
def test_a_person_is_asked_before_real_money_is_traded(typed: str, tmp_path: Path) -> None:
    """At a real terminal, with keys of nobody: another word than the ledger's name ends it before anything is connected."""
    import pty

    (tmp_path / "mine.yaml").write_text("live_trading: true\nsymbols: [SPY]\n", encoding="utf-8")
    controller, terminal = pty.openpty()
    words = [sys.executable, "-m", "mqd_ledger", *ALPACA, "--live", "--config", "mine.yaml"]
    settings = {**environment(), **LIVE_KEY}
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, cwd=tmp_path, env=settings, stdin=terminal, stdout=pipe, stderr=pipe, text=True)
    os.close(terminal)
    try:
        os.write(controller, f"{typed}\n".encode())
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        os.close(controller)
    assert process.returncode == 2
    assert "This trades REAL MONEY: SPY with the key AKID…" in out
    assert out.rstrip("\n").endswith("Type alpaca.ledger to begin: ")
    assert f"{typed!r} was typed, and 'alpaca.ledger' has to be" in err
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml"}


def test_simulated_money_and_a_broker_never_share_a_ledger(trader: Trader, capsys: pytest.CaptureFixture[str]) -> None:
    """The books of one would be altered by the other."""
    trader.bars(1)
    trader.quiet()
    assert trader.send(signal.SIGTERM) == 0
    before = len(trader.events(e.Event))
    code, told = asked(capsys, "run", "--paper", "--ledger", str(trader.ledger))
    assert (code, "keeps the books of a loopback account" in told) == (2, True), told
    assert len(trader.events(e.Event)) == before
    simulated = str(trader.ledger.with_name("simulated.ledger"))
    assert asked(capsys, "run", "--paper", "--ledger", simulated)[0] == 0
    where = ["--broker", "loopback", "--loopback-url", trader.server.rest_url]
    code, told = asked(capsys, "run", "--paper", *where, "--ledger", simulated)
    assert (code, "keeps simulated money" in told) == (2, True), told
