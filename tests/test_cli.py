"""The command line as its users meet it: every verb, every bad input, stopping and being killed."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest

from commands.control import CreateLedger, StartRun
from commands.truth import AttachAccount
from mqd_ledger.cli.main import VERBS, cli, execute
from mqd_ledger.cli.trading import STOP_SIGNALS, stopping
from mqd_ledger.engine import Engine
from mqd_ledger.errors import LedgerUnreadable
from mqd_ledger.events import OrderFilled, Source
from mqd_ledger.lock import WriterLock
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.policy import Policy
from mqd_ledger.state import State

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    *(
        "aiohttp",
        "alpaca",
        "dotenv",
        "duckdb",
        "eventsourcing",
        "msgpack",
        "pydantic",
        "requests",
        "rich",
        "stamina",
        "yaml",
    ),
    *("mqd_ledger.app", "mqd_ledger.live", "mqd_ledger.settings"),
)
GROUPS = {"config": ["check"], "import": ["bars", "log"]}
LEAVES = [[verb, *([sub] if sub else [])] for verb in VERBS for sub in GROUPS.get(verb, [""])]
BARS = """symbol,timestamp,open,high,low,close,volume
SPY,2026-01-05T14:30:00Z,500.00,500.50,499.75,500.25,1000
SPY,2026-01-05T14:31:00Z,500.25,500.75,500.00,500.50,1100
SPY,2026-01-05T14:32:00Z,500.50,501.00,500.25,500.75,1200
"""


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MQD_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **extra}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mqd_ledger", *arguments]


def program(folder: Path, *arguments: str, exit_code: int = 0, text: str | None = None) -> str:
    """Run the real program in a folder; what it printed."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(),
        input=text,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == exit_code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(),
        stdout=pipe,
        stderr=pipe,
        encoding="utf-8",
        creationflags=flags,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def interrupt(process: subprocess.Popen[str]) -> None:
    """What Ctrl-C does; Windows sends Ctrl-Break to a group of processes, never Ctrl-C."""
    if sys.platform == "win32":
        process.send_signal(signal.CTRL_BREAK_EVENT)
    else:
        process.send_signal(signal.SIGINT)


def wait_for_event(ledger: Path, position: int, process: subprocess.Popen[str]) -> None:
    """Until the log has come so far, or the process has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with LogReader.open(ledger) as log:
                if log.head.position >= position or process.poll() is not None:
                    return
        except LedgerUnreadable:  # it is not there yet, or is being made
            assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    raise AssertionError(f"event {position} was not recorded within a minute")


def no_float(text: str) -> Any:
    raise AssertionError(f"{text} is a JSON number with a fraction: amounts have to be text")


def parsed(output: str) -> Any:
    return json.loads(output, parse_float=no_float)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with paper.ledger, in which two synthetic sessions were traded."""
    folder = tmp_path_factory.mktemp("played")
    output = program(folder, "run", "--paper")
    assert output.count("SYNTHETIC BARS") == 2
    assert "mqd-ledger why sim" in output
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    for name in os.environ:
        if name.startswith(("MQD_", "APCA_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(here: Path, played: Path) -> Path:
    """A ledger of our own with two traded sessions, at the default place."""
    copy = here / "paper.ledger"
    assert execute(["backup", str(copy), "--ledger", str(played / "paper.ledger")]) == 0
    return copy


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], here: Path) -> Any:
    """Runs a verb in this process; what it printed. A bug would come through as an exception."""

    def run(*arguments: str, exit_code: int = 0) -> str:
        capsys.readouterr()
        found = execute(arguments)
        out, err = capsys.readouterr()
        assert found == exit_code, f"{arguments}: {found}\n{out}\n{err}"
        return out if exit_code in {0, 1} and not err else err

    return run


# --- help -------------------------------------------------------------------------------------------------------------


def leaf(verb: list[str]) -> click.Command:
    found: click.Command = cli
    for name in verb:
        assert isinstance(found, click.Group)
        deeper = found.get_command(click.Context(found), name)
        assert deeper is not None
        found = deeper
    return found


@pytest.mark.parametrize("verb", LEAVES, ids=" ".join)
def test_every_verb_explains_itself_with_examples_that_it_understands(verb: list[str], ask: Any) -> None:
    output = ask(*verb, "--help")
    examples = re.findall(rf"^ +mqd-ledger ({' '.join(verb)}\b.*)$", output, re.MULTILINE)
    assert examples, output
    for example in examples:
        arguments = shlex.split(example.partition(" < ")[0])
        leaf(verb).make_context(verb[-1], arguments[len(verb) :])


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_says_the_same_as_each_verb(verb: str) -> None:
    first_line = (leaf([verb]).help or "").splitlines()[0]
    assert first_line == VERBS[verb].summary


def test_help_says_what_exit_codes_mean_and_how_the_shell_completes(ask: Any) -> None:
    output = ask("--help")
    assert "3  another process writes the ledger" in output
    assert "_MQD_LEDGER_COMPLETE=bash_source" in output


def test_help_of_no_verb_imports_what_trading_needs(tmp_path: Path) -> None:
    script = f"""
import sys
from mqd_ledger.cli.main import execute
for verb in {LEAVES!r}:
    assert execute([*verb, "--help"]) == 0
heavy = sorted(set({HEAVY!r}) & set(sys.modules))
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("begun", "completed"),
    (
        ("rec", {"reconcile"}),
        ("replay --u", {"--until"}),
        ("run --b", {"--bars", "--broker"}),
        ("loopback --f", {"--faults"}),
        ("crashtest --faults ", {"none", "light", "heavy"}),
        ("doctor --broker ", {"simulated", "loopback", "alpaca"}),
        ("kill --loop", {"--loopback-url"}),
        ("reconcile --a", {"--accept"}),
    ),
)
def test_the_shell_completes_verbs_options_and_their_values(begun: str, completed: set[str], tmp_path: Path) -> None:
    words = f"mqd-ledger {begun}"
    extra = {"_MQD_LEDGER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(command(), cwd=tmp_path, env=environment(**extra), capture_output=True, check=False)
    assert {line.partition(",")[2] for line in done.stdout.decode().split()} == completed


# --- the happy path ---------------------------------------------------------------------------------------------------


def test_status_shows_money_as_text_and_what_was_played(ledger: Path, ask: Any) -> None:
    found = parsed(ask("status", "--json"))
    assert found["mode"] == "paper"
    assert found["source"].startswith("synthetic")
    assert Decimal(found["equity"]) == Decimal(found["cash"]) + 0
    assert isinstance(found["cash"], str)
    assert found["last_recorded_at"].endswith("Z")
    assert "trading state" in ask("status")


def test_orders_are_filtered_and_limited(ledger: Path, ask: Any) -> None:
    orders = parsed(ask("orders", "--json"))
    assert len(orders) > 5
    assert parsed(ask("orders", "--json", "--limit", "3")) == orders[:3]
    syna = parsed(ask("orders", "--json", "--symbol", "syna"))
    assert {order["symbol"] for order in syna} == {"SYNA"}
    assert 0 < len(syna) < len(orders)
    assert ask("orders", "--state", "canceled").strip() == "No such order."
    assert f"{len(orders) - 1} older ones" in ask("orders", "--limit", "1")


def test_pnl_adds_up_however_it_is_grouped(ledger: Path, ask: Any) -> None:
    by = {name: parsed(ask("pnl", "--by", name, "--json")) for name in ("day", "symbol", "strategy")}
    totals = [one["total"] for one in by.values()]
    assert totals[0] == totals[1] == totals[2]
    for one in by.values():
        assert sum(Decimal(row["net_pnl"]) for row in one["rows"]) == Decimal(one["total"]["net_pnl"])
    assert Decimal(totals[0]["realized_pnl"]) == Decimal(parsed(ask("status", "--json"))["realized_pnl"])
    assert "total" in ask("pnl")


def test_why_leads_from_the_bar_to_the_profit(ledger: Path, ask: Any) -> None:
    order = parsed(ask("orders", "--json", "--limit", "1"))[0]["client_order_id"]
    story = parsed(ask("why", order, "--json"))
    steps = [step["event"] for step in story["steps"]]
    assert story["client_order_id"] == order
    assert steps[:4] == ["BarClosed", "SignalRaised", "OrderRequested", "OrderApproved"]
    assert "OrderFilled" in steps
    text = ask("why", order)
    assert "pass trading_is_allowed" in text
    assert text.count("├─") == len(steps) - 1


def test_replay_in_the_middle_shows_less_than_the_end(ledger: Path, ask: Any) -> None:
    until = "2026-01-05T18:00:00Z"
    middle = parsed(ask("replay", "--until", until, "--json"))
    assert middle["until"] == until
    assert 0 < len(middle["orders"]) < len(parsed(ask("orders", "--json")))
    assert isinstance(middle["cash"], str)
    assert (
        parsed(ask("replay", "--until", "2026-01-05T13:00:00-05:00", "--by", "event-time", "--json"))["cash"]
        == middle["cash"]
    )
    assert "Positions" in ask("replay", "--until", until)
    of_a_day = parsed(ask("replay", "--until", "2026-01-05", "--json"))
    midnight = parsed(ask("replay", "--until", "2026-01-05T23:59:59Z", "--json"))
    assert of_a_day.pop("until") == "2026-01-05T23:59:59.999999Z"
    assert midnight.pop("until")
    assert of_a_day == midnight, "a date is its whole day"
    assert len(of_a_day["orders"]) > len(middle["orders"])


def test_a_run_says_that_a_loss_has_no_limit(here: Path, ask: Any) -> None:
    (here / "bars.csv").write_text(BARS, encoding="utf-8")
    off = ask("run", "--paper", "--bars", "bars.csv", "--set", "risk.daily_loss_max=null")
    assert "daily_loss_max none, weekly_loss_max 1500" in off
    assert "daily_loss_max 500" in ask("backtest", "--bars", "bars.csv")


def test_positions_are_valued_at_the_last_bar(here: Path, ask: Any) -> None:
    write_falling_bars(here / "SPY.csv")
    ask("run", "--paper", "--bars", "SPY.csv")
    (held,) = parsed(ask("positions", "--json"))
    assert held["symbol"] == "SPY"
    assert Decimal(held["market_value"]) == Decimal(held["quantity"]) * Decimal(held["mark_price"])
    assert "SPY" in ask("positions")


def test_verify_passes_on_an_honest_ledger_and_fails_on_an_edited_one(ledger: Path, ask: Any) -> None:
    found = parsed(ask("verify", "--rerun", "--json"))
    assert found["passed"] is True
    assert len(found["findings"]) >= 3
    edit(ledger)
    output = ask("verify", exit_code=1)
    assert output.startswith("FAIL")
    assert "700" in output


@pytest.mark.parametrize(
    "question",
    (
        "select count(*) as n from events",
        "select symbol, sum(realized_pnl) as realized from pnl_daily group by symbol order by symbol",
        "select state, count(*) as n from orders group by state",
    ),
)
def test_sql_answers_in_every_form(ledger: Path, here: Path, ask: Any, question: str) -> None:
    rows = parsed(ask("sql", question, "--format", "json"))
    assert rows
    assert next(iter(rows[0])) in ask("sql", question)
    ask("sql", question, "--format", "csv", "--out", "answer.csv")
    with (here / "answer.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    ask("sql", question, "--format", "parquet", "--out", "answer.parquet")
    assert (here / "answer.parquet").read_bytes().startswith(b"PAR1")


def test_sql_reads_a_question_from_standard_input_and_lists_its_views(played: Path, ask: Any) -> None:
    output = program(played, "sql", "-", "--format", "csv", text="select count(*) as n from bars")
    assert output.split() == ["n", "1560"]
    assert "pnl_daily" in ask("sql", "--views")


def test_an_export_comes_back_as_the_same_ledger(ledger: Path, ask: Any) -> None:
    before = parsed(ask("status", "--json"))
    for form in ("parquet", "jsonl"):
        ask("export", "--format", form, "--out", f"archive.{form}")
        ask("import", "log", f"archive.{form}", "--ledger", f"{form}.ledger")
        after = parsed(ask("status", "--json", "--ledger", f"{form}.ledger"))
        assert after["log_hash"] == before["log_hash"]
        assert "exists" in ask("import", "log", f"archive.{form}", "--ledger", f"{form}.ledger", exit_code=2)


def test_a_backup_is_a_ledger_and_overwrites_nothing(ledger: Path, ask: Any) -> None:
    ask("backup", "copy.ledger")
    assert ask("orders", "--json", "--ledger", "copy.ledger") == ask("orders", "--json")
    assert "exists already" in ask("backup", "copy.ledger", exit_code=2)


def test_a_halt_holds_until_a_resume_with_a_reason(ledger: Path, ask: Any) -> None:
    assert "HALTED" in ask("halt", "--reason", "the feed looks wrong")
    assert "HALTED already" in ask("halt", "--reason", "again")
    assert "only a resume" in ask("reduce", "--reason", "a little", exit_code=2)
    state = parsed(ask("status", "--json"))
    assert (state["trading_state"], state["trading_state_reason"]) == ("HALTED", "the feed looks wrong")
    assert "--reason" in ask("resume", exit_code=2)
    assert "needs a reason" in ask("resume", "--reason", " ", exit_code=2)
    assert "ACTIVE" in ask("resume", "--reason", "checked")
    assert "REDUCING" in ask("reduce", "--reason", "before the news")


def test_init_makes_a_ledger_with_an_id_of_its_own(here: Path, ask: Any) -> None:
    assert "mqd-ledger run --paper" in ask("init")
    assert re.fullmatch(r"[0-9a-f]{8}", parsed(ask("status", "--json"))["ledger_id"])
    ask("init", "--ledger", "small.ledger", "--id", "small")
    assert parsed(ask("status", "--json", "--ledger", "small.ledger"))["ledger_id"] == "small"
    assert "exists already" in ask("init", exit_code=2)
    assert "letters, digits and hyphens" in ask("init", "--ledger", "bad.ledger", "--id", "a b", exit_code=2)
    assert list(here.glob("bad*")) == [], "nothing is left of what was refused"
    assert ask("positions").strip() == "No open position."


def test_a_finished_feed_says_nothing_new(here: Path, ask: Any) -> None:
    (here / "bars.csv").write_text(BARS, encoding="utf-8")
    ask("run", "--paper", "--bars", "bars.csv")
    assert "Nothing new" in ask("run", "--paper", "--bars", "bars.csv")
    assert parsed(ask("run", "--paper", "--bars", "bars.csv", "--json"))["bars"] == 0


def test_paper_bars_come_from_a_file_in_the_given_zone(here: Path, ask: Any) -> None:
    naive = BARS.replace("T14:", " 09:").replace("Z,", ",")
    (here / "SPY.csv").write_text(naive, encoding="utf-8")
    assert "--zone" in ask("run", "--paper", "--bars", "SPY.csv", exit_code=2)
    assert not (here / "paper.ledger").exists()
    ask("run", "--paper", "--bars", "SPY.csv", "--zone", "America/New_York")
    assert parsed(ask("status", "--json"))["last_recorded_at"] == "2026-01-05T14:33:00Z"


def test_imported_bars_can_be_played(here: Path, ask: Any) -> None:
    (here / "in.csv").write_text(BARS + "SPY,2026-01-05T14:33:00Z,NaN,1,1,1,1\n", encoding="utf-8")
    output = ask("import", "bars", "in.csv", "--out", "kept")
    assert "3 bars written" in output
    assert "line 5" in output
    found = parsed(ask("import", "bars", "in.csv", "--out", "kept", "--json"))
    assert (found["written"], found["rejected"]) == (3, 1)
    assert parsed(ask("run", "--paper", "--bars", "kept/in.parquet", "--json"))["bars"] == 3


def test_a_backtest_gives_the_same_hash_every_time(here: Path, ask: Any) -> None:
    arguments = ("backtest", "--bars", "sample", "--param", "lookback=30", "--set", "sample.sessions=1")
    first = parsed(ask(*arguments, "--json"))
    assert first["synthetic"] is True
    assert first["orders"] > 0
    assert isinstance(first["realized_pnl"], str)
    again = parsed(ask(*arguments, "--json", "--out", "kept.ledger"))
    assert again["log_hash"] == first["log_hash"]
    assert parsed(ask("status", "--json", "--ledger", "kept.ledger"))["log_hash"] == first["log_hash"]
    assert "exists already" in ask(*arguments, "--out", "kept.ledger", exit_code=2)
    assert "SYNTHETIC" in ask(*arguments)


def test_a_backtest_takes_the_bars_from_a_date_to_the_end_of_another(here: Path, ask: Any) -> None:
    rows = [f"SPY,2026-01-{day:02}T15:{minute}:00Z,500,501,499,500,1000" for day in (5, 6, 7) for minute in (30, 31)]
    (here / "bars.csv").write_text("\n".join([BARS.splitlines()[0], *rows, ""]), encoding="utf-8")

    def count(*limits: str) -> int:
        return int(parsed(ask("backtest", "--bars", "bars.csv", *limits, "--json"))["bars"])

    assert count() == 6
    assert count("--from", "2026-01-06") == 4
    assert count("--to", "2026-01-06") == 4
    assert count("--from", "2026-01-06", "--to", "2026-01-06") == 2
    assert count("--to", "2026-01-06T15:31:00Z") == 3


def test_a_strategy_of_ones_own_trades(here: Path, ask: Any) -> None:
    (here / "mine.py").write_text(
        "from mqd_ledger.strategies.base import Signal, Strategy, StrategyParameters\n"
        "from mqd_ledger.values import Direction\n"
        "class Buys(Strategy):\n"
        "    class Parameters(StrategyParameters):\n"
        "        every: int = 1\n"
        "    def on_bar(self, bar):\n"
        "        return Signal(Direction.LONG, 'always') if not self.context.position(bar.symbol) else None\n",
        encoding="utf-8",
    )
    (here / "bars.csv").write_text(BARS, encoding="utf-8")
    found = parsed(
        ask("run", "--paper", "--bars", "bars.csv", "--strategy", "mine.py:Buys", "--param", "every=2", "--json")
    )
    assert found["orders"] >= 1
    assert "every" in ask("backtest", "--bars", "bars.csv", "--strategy", "mine.py:Buys")


@pytest.mark.parametrize(
    ("verb", "keys"),
    (
        (["doctor"], {"passed", "checks"}),
        (["reconcile"], {"open", "booked"}),
        (["config", "check"], {"risk", "broker", "operation"}),
        (["verify"], {"passed", "findings"}),
        (["status"], {"kill_switch", "account", "differences"}),
    ),
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_said_is_also_had_as_json(verb: list[str], keys: set[str], ledger: Path, ask: Any) -> None:
    assert keys <= parsed(ask(*verb, "--json")).keys()
    assert ask(*verb)


def test_the_list_of_faults_is_had_as_json(ask: Any) -> None:
    faults = parsed(ask("loopback", "--list-faults", "--json"))
    assert all(fault["does"] for fault in faults)
    assert "gateway_timeout_after" in {fault["name"] for fault in faults}


def test_the_settings_in_force_are_shown_with_the_keys_that_set_takes(here: Path, ask: Any) -> None:
    output = ask("config", "check", "--set", "risk.daily_loss_max=50.10")
    assert re.search(r"risk\.daily_loss_max +50\.1\b", output)
    assert parsed(ask("config", "check", "--profile", "backtest", "--json"))["ledger"] == "backtest.ledger"


# --- bad input --------------------------------------------------------------------------------------------------------


def edit(ledger: Path) -> None:
    """Change one digit of one payload behind the program's back."""
    import sqlite3

    connection = sqlite3.connect(ledger)
    changed = "update events set payload = replace(payload, '2026', '2027') where position = 700"
    assert connection.execute(changed).rowcount == 1
    connection.commit()
    connection.close()


def write_falling_bars(path: Path) -> None:
    """Twenty calm minutes and a fall of four percent, which the VWAP rule buys."""
    lines = ["timestamp,open,high,low,close,volume"]
    for minute in range(30, 58):
        close = "200.00" if minute < 52 else "192.00"
        lines.append(f"2026-01-05T15:{minute}:00Z,{close},{close},{close},{close},1000")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


BAD_INPUT: dict[str, tuple[list[str], int, list[str]]] = {
    "no --paper": (["run"], 2, ["--paper (simulated money) or --live (real money)"]),
    "a broker for live": (["run", "--live", "--set", "broker=simulated"], 2, ["need a broker", "--broker alpaca"]),
    "no bars": (["backtest"], 2, ["--bars FILE", "--bars sample"]),
    "missing bars": (["run", "--paper", "--bars", "nowhere.csv"], 2, ["nowhere.csv does not exist"]),
    "a directory of bars": (["run", "--paper", "--bars", "."], 2, ["is a directory"]),
    "malformed CSV": (["run", "--paper", "--bars", "malformed.csv"], 2, ["malformed.csv", "no column for"]),
    "nothing but NaN": (["run", "--paper", "--bars", "nan.csv"], 2, ["no usable bar", "line 2"]),
    "NaN with --strict": (["run", "--paper", "--bars", "one-nan.csv", "--strict"], 2, ["one-nan.csv, line 4"]),
    "not bars at all": (["backtest", "--bars", "text.ledger"], 2, ["text.ledger"]),
    "unknown settings": (
        ["config", "check", "--set", "risk.dayly_loss_max=1", "--set", "cash=-5", "--set", "nosuch=1", "--set", "x"],
        2,
        ["risk.dayly_loss_max", "daily_loss_max", "cash: found '-5'", "nosuch", "--set x"],
    ),
    "unknown key in a file": (["run", "--paper", "--config", "bad.yaml"], 2, ["risk.nosuch", "simulation.wrong"]),
    "missing settings file": (["config", "check", "--config", "nosuch.yaml"], 2, ["nosuch.yaml"]),
    "bad speed": (["run", "--paper", "--speed", "fast"], 2, ["'fast'", "max"]),
    "no speed": (["run", "--paper", "--speed", "0"], 2, ["'0'", "max"]),
    "unknown strategy": (["run", "--paper", "--strategy", "nosuch"], 2, ["no strategy 'nosuch'", "vwap"]),
    "strategy that does not import": (
        ["run", "--paper", "--strategy", "broken.py:Mine"],
        2,
        ["broken.py", "does not import"],
    ),
    "strategy without its class": (["run", "--paper", "--strategy", "empty.py:Mine"], 2, ["no strategy class 'Mine'"]),
    "param without =": (["run", "--paper", "--param", "lookback"], 2, ["--param lookback", "name=value"]),
    "unknown param": (["run", "--paper", "--param", "lookbak=3"], 2, ["lookbak", "lookback (20)"]),
    "bad param": (["backtest", "--bars", "sample", "--param", "lookback=many"], 2, ["lookback: found 'many'"]),
    "a speed backwards": (["run", "--paper", "--speed", "-1"], 2, ["'-1'", "max is allowed, or a number above 0"]),
    "a server at once": (
        ["run", "--paper", "--broker", "loopback", "--speed", "max"],
        2,
        ["loopback.speed: found 'max'", "a number above 0 is allowed"],
    ),
    "symbols without a broker": (["run", "--paper", "--symbols", "SPY"], 2, ["--symbols SPY", "add --broker loopback"]),
    "a zone that is none": (["run", "--paper", "--bars", "spy.csv", "--zone", "Mars"], 2, ["'Mars' is no time zone"]),
    "a zone that is none to import": (["import", "bars", "spy.csv", "--zone", "Mars"], 2, ["'Mars' is no time zone"]),
    "a folder that is not there": (["run", "--paper", "--ledger", "no/x.ledger"], 2, ["there is no folder no"]),
    "a folder for a new ledger": (["init", "--ledger", "no/x.ledger"], 2, ["there is no folder no"]),
    "a folder for a backtest": (
        ["backtest", "--bars", "spy.csv", "--out", "no/x.ledger"],
        2,
        ["--out no/x.ledger: there is no folder no"],
    ),
    "an empty limit": (["run", "--paper", "--set", "risk.daily_loss_max="], 2, ["daily_loss_max", "the word null"]),
    "negative cash": (["backtest", "--bars", "sample", "--cash", "-5"], 2, ["cash: found '-5'", "zero or above"]),
    "cash in words": (["backtest", "--bars", "sample", "--cash", "lots"], 2, ["cash: found 'lots'"]),
    "dates of the sample": (["backtest", "--bars", "sample", "--from", "2026-01-05"], 2, ["sample.sessions"]),
    "a zone of the sample": (["run", "--paper", "--zone", "UTC"], 2, ["--zone", "sample.sessions"]),
    "a naive from": (["backtest", "--bars", "spy.csv", "--from", "2026-01-05T10:00"], 2, ["--from", "no time zone"]),
    "missing ledger": (["status"], 4, ["There is no ledger paper.ledger", "mqd-ledger run --paper"]),
    "missing ledger for sql": (["sql", "select 1"], 4, ["There is no ledger"]),
    "missing ledger for halt": (["halt", "--reason", "x"], 4, ["There is no ledger"]),
    "a text as ledger": (["status", "--ledger", "text.ledger"], 4, ["text.ledger"]),
    "orders of a text": (["orders", "--ledger", "text.ledger"], 4, ["text.ledger"]),
    "verify of a text": (["verify", "--ledger", "text.ledger"], 4, ["text.ledger"]),
    "sql over a text": (["sql", "select count(*) from events", "--ledger", "text.ledger"], 4, ["text.ledger"]),
    "a run on a text": (["run", "--paper", "--ledger", "text.ledger"], 4, ["text.ledger"]),
    "a directory as ledger": (["status", "--ledger", "."], 4, ["directory"]),
    "a run on a directory": (["run", "--paper", "--ledger", "."], 4, ["directory"]),
    "a naive until": (["replay", "--until", "2026-01-05T15:00"], 2, ["no time zone", "add Z for UTC"]),
    "no time": (["replay", "--until", "yesterday"], 2, ["is not a time"]),
    "a bad id": (["init", "--id", "no good"], 2, ["letters, digits and hyphens"]),
    "a table into a file": (["sql", "select 1", "--out", "x"], 2, ["--format"]),
    "parquet for the terminal": (["sql", "select 1", "--format", "parquet"], 2, ["--out"]),
    "no query": (["sql"], 2, ["--views"]),
    "no such verb": (["nosuch"], 2, ["No such command"]),
    "an import of nothing": (["import", "log", "nowhere.parquet", "--ledger", "new.ledger"], 2, ["nowhere.parquet"]),
    "an import of a text": (["import", "log", "spy.csv", "--ledger", "new.ledger"], 2, ["spy.csv"]),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_answered_with_a_sentence_and_its_exit_code(name: str, here: Path, ask: Any) -> None:
    arguments, exit_code, words = BAD_INPUT[name]
    header, first, second, third = BARS.splitlines()
    bad = second.replace("500.50", "NaN")
    files = {
        "spy.csv": BARS,
        "malformed.csv": "one,two\n1,2\n",
        "nan.csv": "\n".join([header, *(re.sub("1.00$", "NaN", row) for row in (first, second, third)), ""]),
        "one-nan.csv": f"{header}\n{first}\n{third}\n{bad}\n",
        "bad.yaml": "risk:\n  nosuch: 1\nsimulation:\n  wrong: 2\n",
        "text.ledger": "this is no ledger\n" * 100,
        "broken.py": "import nosuchmodule\n",
        "empty.py": "class Other: pass\n",
    }
    for file, content in files.items():
        (here / file).write_text(content, encoding="utf-8")
    answer = ask(*arguments, exit_code=exit_code)
    assert [word for word in words if word not in answer] == [], answer
    if "ledger" in " ".join(words):
        return
    assert not (here / "new.ledger").exists()
    assert not (here / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        (["replay", "--until", "2020-01-01T00:00:00Z"], ["2020-01-01T00:00:00Z", "its first event", "2026-01-05"]),
        (["why", "nosuch"], ["no order 'nosuch'", "mqd-ledger orders"]),
        (["sql", "delete from events"], ["SELECT", "DELETE"]),
        (["sql", "select * from nosuch"], ["nosuch", "events"]),
        (["sql", "select nosuch from orders"], ["nosuch"]),
        (["sql", "selekt"], ["selekt"]),
        (["sql", "with x as (copy events to 'stolen.csv') select 1"], ["mqd-ledger:"]),
        (["sql", "select * from read_text('paper.ledger')"], ["mqd-ledger:"]),
        (["import", "log", "paper.ledger", "--ledger", "paper.ledger"], ["mqd-ledger:"]),
    ),
    ids=lambda value: " ".join(value[:2]) if value[0] in VERBS else "",
)
def test_a_question_that_makes_no_sense_changes_nothing(
    arguments: list[str], words: list[str], ledger: Path, here: Path, ask: Any
) -> None:
    before = ask("status", "--json")
    answer = ask(*arguments, exit_code=2)
    assert [word for word in words if word not in answer] == [], answer
    assert ask("status", "--json") == before
    assert not (here / "stolen.csv").exists()


def test_a_bad_row_does_not_end_a_run(here: Path, ask: Any) -> None:
    bad = "SPY,2026-01-05T14:33:00Z,NaN,501,500,500,100\nSPY,2026-01-05T14:34:00Z,500,501,500,500,100\n"
    (here / "bars.csv").write_text(BARS + bad, encoding="utf-8")
    assert parsed(ask("run", "--paper", "--bars", "bars.csv", "--json"))["bars"] == 4
    (rejected,) = parsed(ask("sql", "select * from bars_rejected", "--format", "json"))
    assert rejected["line"] == 5


def test_errors_reach_the_shell_as_one_line_and_a_code(tmp_path: Path) -> None:
    done = subprocess.run(
        command("status", "--ledger", "nö.ledger"), cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 4
    assert done.stdout == b""
    (line,) = done.stderr.decode("utf-8").splitlines()
    assert line.startswith("mqd-ledger: There is no ledger nö.ledger")


def test_a_reader_that_goes_away_is_no_error_to_complain_about(played: Path) -> None:
    process = subprocess.Popen(
        command("orders", "--json"), cwd=played, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert errors == b""


# --- the terminal -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals in Python")
@pytest.mark.parametrize("columns", (40, 80, 200))
def test_no_line_is_wider_than_the_terminal(columns: int, played: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    arguments = ("orders", "--limit", "3")
    process = subprocess.Popen(
        command(*arguments),
        cwd=played,
        env=environment(COLUMNS=str(columns), TERM="xterm"),
        stdout=theirs,
        close_fds=True,
    )
    os.close(theirs)
    printed = b""
    try:
        while chunk := os.read(ours, 65536):
            printed += chunk
    except OSError:  # how Linux says that the other side was closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed.decode("utf-8")).replace("\r", "").splitlines()
    assert any("SYNA" in line or "SYNB" in line for line in lines)
    assert [line for line in lines if len(line.rstrip()) > columns] == []


# --- stopping and being killed ----------------------------------------------------------------------------------------

KILLED_AT = (3, 131, 302, 577)  # positions in the log, by chance
ONE_SESSION = ("run", "--paper", "--set", "sample.sessions=1", "--json")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of one synthetic session played without a break."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return str(parsed(program(folder, *ONE_SESSION))["log_hash"])


def test_an_interrupted_run_stops_in_good_order_and_goes_on(tmp_path: Path, uninterrupted: str) -> None:
    with started(tmp_path, *ONE_SESSION, "--speed", "600") as process:
        wait_for_event(tmp_path / "paper.ledger", 8, process)
        interrupt(process)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    stopped = parsed(output)
    assert (stopped["stopped"], stopped["finished"]) == (True, False)
    finished = parsed(program(tmp_path, *ONE_SESSION))
    assert finished["resumed_at"] == stopped["events"]
    assert finished["log_hash"] == uninterrupted


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, uninterrupted: str) -> None:
    for moment in KILLED_AT:
        with started(tmp_path, *ONE_SESSION) as process:
            wait_for_event(tmp_path / "paper.ledger", moment, process)
            process.kill()
            process.communicate(timeout=60)
    finished = parsed(program(tmp_path, *ONE_SESSION))
    with LogReader.open(tmp_path / "paper.ledger") as log:
        hashes = [row[9].hex() for row in log.rows()]
    # A kill that came after the last bar leaves a finished session; the next command then plays another one.
    assert uninterrupted in hashes
    assert finished["finished"] is True


def test_a_running_ledger_can_be_looked_at_and_halted_but_not_written_by_another(here: Path, ask: Any) -> None:
    with started(here, *ONE_SESSION, "--speed", "600") as process:
        wait_for_event(here / "paper.ledger", 8, process)
        answer = ask(*ONE_SESSION, exit_code=3)
        assert str(process.pid) in answer
        assert str(process.pid) in parsed(ask("status", "--json"))["writer"]
        assert "has taken the request" in ask("halt", "--reason", "wait")
        assert parsed(ask("status", "--json"))["trading_state"] == "HALTED"
        ask("backup", "copy.ledger")
        interrupt(process)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert parsed(ask("status", "--json"))["trading_state_reason"] == "wait"
    assert parsed(ask("status", "--json", "--ledger", "copy.ledger"))["events"] > 0


def test_a_second_run_is_refused_before_it_starts_a_loopback_server(here: Path, ask: Any) -> None:
    ask("init")
    with WriterLock(here / "paper.ledger"):
        assert f"process {os.getpid()}" in ask("run", "--paper", "--broker", "loopback", exit_code=3)
    assert not (here / "paper.ledger.loopback").exists()


def test_a_kill_that_cannot_reach_the_broker_is_recorded_and_says_so(here: Path, ask: Any) -> None:
    """The one command that records something and is no success: it has to be seen that the positions are still there."""
    at = datetime(2026, 1, 5, 15, tzinfo=UTC)
    with EventLog.create(here / "paper.ledger", durability="normal") as log:
        engine = Engine(State(), log)
        engine.handle(CreateLedger(at, "desk"))
        engine.handle(StartRun(at, "alpaca-paper", "1", Source("alpaca", "paper iex: SPY", ""), (), Policy()))
        engine.handle(AttachAccount(at, "alpaca", "paper", "PA3LOOPBACK1"))
        log.commit()
    answer = ask("kill", "--reason", "enough", exit_code=2)
    assert "The kill switch is recorded, but nothing is closed at the broker yet" in answer
    assert parsed(ask("status", "--json"))["kill_switch"] == "active: enough"


@pytest.mark.parametrize("mode", ("alpaca-paper", "alpaca-live", "loopback"))
def test_a_kill_on_a_ledger_that_never_reached_its_account_is_no_success(mode: str, here: Path, ask: Any) -> None:
    """Who trades at that account is not known here, and nobody has looked."""
    at = datetime(2026, 1, 5, 15, tzinfo=UTC)
    with EventLog.create(here / "paper.ledger", durability="normal") as log:
        engine = Engine(State(), log)
        engine.handle(CreateLedger(at, "desk"))
        engine.handle(StartRun(at, mode, "1", Source("alpaca", "x", ""), (), Policy()))
        log.commit()
    assert "The broker has not shown that nothing is left" in ask("kill", "--reason", "enough", exit_code=2)
    assert parsed(ask("status", "--json"))["kill_switch"] == "active: enough"
    before = (here / "paper.ledger").read_bytes()
    for words in ([], ["--broker", "loopback"]):
        if mode != "loopback" or not words:
            assert f"were of mode {mode}" in ask("run", "--paper", *words, exit_code=2)
    assert (here / "paper.ledger").read_bytes() == before
    assert not (here / "paper.ledger.loopback").exists()


def test_a_kill_on_simulated_money_is_a_success(ledger: Path, ask: Any) -> None:
    assert "The kill switch is recorded" in ask("kill", "--reason", "enough")


def test_the_first_request_to_stop_waits_and_the_second_does_not() -> None:
    stop = threading.Event()
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stopping(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.wait(10)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_on_daily_bars_an_order_meets_the_open_of_the_next_session(tmp_path: Path) -> None:
    # Of January 2025; the exchange was closed on the 9th.
    days = {2: 100, 3: 100, 6: 100, 7: 90, 8: 95, 10: 99, 13: 98}
    rows = [f"SPY,2025-01-{day:02}T05:00:00Z,{price},{price},{price},{price},1000" for day, price in days.items()]
    (tmp_path / "SPY_daily.csv").write_text("symbol,timestamp,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    ledger = tmp_path / "daily.ledger"
    words = "--strategy vwap --param lookback=3 --set risk.session=any --set risk.stale_after=null --json"
    arguments = ["backtest", "--bars", str(tmp_path / "SPY_daily.csv"), "--out", str(ledger), *words.split()]
    done = subprocess.run([sys.executable, "-m", "mqd_ledger", *arguments], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["fills"] == 2
    with LogReader.open(ledger) as log:
        fills = [one.event for one in log.replay() if isinstance(one.event, OrderFilled)]
    assert [(str(fill.last_price), fill.occurred_at.day) for fill in fills] == [("95", 8), ("98", 13)]
