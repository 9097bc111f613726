"""Nonsense in any argument of any verb is answered with a sentence and an exit code that means something.

A verb that would serve or trade on until it is told to end gets in `WAYS` what ends it: input that has ended, a server that is not
there, a folder that is taken. To cover a new verb: what it always needs, as a row of `WAYS`; its options are found by themselves.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from pathlib import Path
from threading import Thread

import click
import pytest

from commands.control import CreateLedger, StartRun
from commands.truth import AttachAccount, ReportDifference
from mqd_ledger.brokers.keys import NAMES
from mqd_ledger.cli.main import cli, execute
from mqd_ledger.engine import Engine
from mqd_ledger.events import Source
from mqd_ledger.log import EventLog
from mqd_ledger.policy import Policy
from mqd_ledger.state import State
from mqd_ledger.values import DifferenceKind
from tests.desk import bar_rows, run_program, write_bars

VALUES = (
    "",
    " ",
    "-1",
    "1e999",
    "NaN",
    "99999999999999999999999",
    "/dev/null/x",
    "nosuch.py:X",
    "a=b=c",
    "lookback=",
    "risk=5",
    "strategies=[{}]",
    "sample.symbols=[SPY]",
    'ledger="a\\0b"',
    "!!python/object:os.system",
    "9999-12-31",
    "0001-01-01T00:00:00+23:59",
    "select 1; select 2",
    "%s\n",
    "é" * 300,
    "..",
    "bars.csv",
    "\udcff",
    "zero\0byte",
    "http://[",
    "http://127.0.0.1:99999",
)
NOWHERE = "http://127.0.0.1:port"  # refused without asking the network
OTHER = ["--ledger", "other.ledger"]  # for a broker: paper.ledger keeps simulated money
AT_ALPACA = ["run", "--paper", "--broker", "alpaca", "--symbols", "SPY", *OTHER]
AT_LOOPBACK = ["run", "--paper", "--broker", "loopback", *OTHER, "--loopback-url"]
# What each verb needs besides, so that a call makes sense and comes to its end; one that has several ways goes all of them.
WAYS: dict[str, list[list[str]]] = {
    "run": [
        ["--paper", "--bars", "bars.csv"],
        ["--paper", "--broker", "loopback", "--loopback-url", NOWHERE, *OTHER],
    ],
    "backtest": [["--bars", "bars.csv"]],
    "loopback": [["--until-stdin-ends"], ["--until-stdin-ends", "--bars", "bars.csv"], ["--list-faults"]],
    "crashtest": [["--directory", "."]],  # which is not empty
    "halt": [["--reason", "x"]],
    "reduce": [["--reason", "x"]],
    "resume": [["--reason", "x"]],
    "kill": [["--reason", "x"], ["--reason", "x", "--loopback-url", NOWHERE, "--ledger", "broker.ledger"]],
    "reconcile": [[], ["--accept", "D1", "--reason", "x", "--ledger", "broker.ledger"]],
    "doctor": [["--broker", "loopback"]],
    "replay": [["--until", "2026-01-05T15:00:00Z"]],
    "why": [["1"]],
    "sql": [["select 1"]],
    "export": [["--format", "jsonl", "--out", "out.jsonl"]],
    "backup": [["copy.ledger"]],
    "import bars": [["bars.csv"]],
    "import log": [["bars.csv", "--ledger", "new.ledger"]],
}


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    for name in command.list_commands(click.Context(command)):
        deeper = command.get_command(click.Context(command), name)
        assert deeper is not None
        yield from leaves(deeper, (*path, name))


VERBS = dict(leaves(cli))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With bars, a ledger of a run over them, and one of an account at a loopback server that holds shares unknown to it."""
    folder = tmp_path_factory.mktemp("traded")
    write_bars(folder / "bars.csv", bar_rows(5))
    assert run_program(folder, "run", "--paper", "--bars", "bars.csv").code == 0
    at = datetime(2026, 1, 5, 15, tzinfo=UTC)
    with EventLog.create(folder / "broker.ledger", durability="normal") as log:
        engine = Engine(State(), log)
        engine.handle(CreateLedger(at, "desk"))
        engine.handle(StartRun(at, "loopback", "1", Source("alpaca", "loopback iex: SPY", ""), (), Policy()))
        engine.handle(AttachAccount(at, "alpaca", "loopback", "PA3LOOPBACK1"))
        engine.handle(
            ReportDifference(at, DifferenceKind.UNKNOWN, "SPY", "0", "10", quantity=Decimal(10), price=Decimal(600))
        )
        log.commit()
    return folder


@pytest.fixture
def empty_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody types, and nobody's keys are found."""
    for name in os.environ:
        if name.startswith("MQD_") or name in {one for pair in NAMES for one in pair}:
            monkeypatch.delenv(name)
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield


def calls_of(verb: str, option: click.Parameter, value: str) -> Iterator[list[str]]:
    """Calls of the verb that make sense but for one value."""
    for way in WAYS.get(verb, [[]]):
        if isinstance(option, click.Argument):
            yield [*verb.split(), *([] if "--" not in "".join(way) else way[1:]), "--", value]
            continue
        name, always = option.opts[0], list(way)
        if name in always:
            del always[always.index(name) : always.index(name) + 2]
        yield [*verb.split(), *always, name, value]


def furnish(here: Path, folder: Path, taken: str) -> None:
    """The folder as it was, with a folder of the name in question that is not empty."""
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    for name in ("bars.csv", "paper.ledger", "broker.ledger"):
        shutil.copy(folder / name, here)
    if taken:
        with suppress(OSError, ValueError):  # no folder can have that name
            (here / taken).mkdir(parents=True)
            (here / taken / "file").touch()


@pytest.mark.parametrize("verb", VERBS)
def test_no_value_of_any_argument_makes_the_program_fall_over(
    verb: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    empty_input: None,
) -> None:
    here = tmp_path / "here"
    options = [
        one for one in VERBS[verb].params if not (isinstance(one, click.Option) and (one.is_flag or one.name == "help"))
    ]
    for option, value in product(options, VALUES):
        # A crash test in a folder of its own would go on for a minute.
        taken = value if verb == "crashtest" and option.name == "directory" else ""
        for arguments in calls_of(verb, option, value):
            furnish(here, folder, taken)
            monkeypatch.chdir(here)
            capsys.readouterr()
            code = execute(arguments)
            said = capsys.readouterr()
            assert code in {0, 1, 2, 3, 4}, arguments
            assert code in {0, 1} or len(said.err.strip()) > 20, arguments
            monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        (["run", "--paper", "--strategy", "-1"], "There is no strategy '-1'"),
        (["run", "--paper", "--strategy", ""], "There is no strategy ''"),
        (["backtest", "--bars", "bars.csv", "--to", "9999-12-31"], "last day of the calendar"),
        (["export", "--format", "jsonl", "--out", ""], "is a directory"),
        (["halt", "--reason", "\udcff"], "not UTF-8"),
        (["run", "--paper", "--set", 'ledger="a\\0b"'], "zero byte"),
        (["run", "--paper", "--live"], "one of the two"),
        (["run", "--live", "--broker", ""], "broker: found ''; nothing is no value"),
        (["run", "--live", "--broker", "loopback"], "the loopback server has none"),
        (["run", "--paper", "--broker", "alpaca"], "at least one symbol is needed"),
        (["run", "--live", "--broker", "alpaca", "--symbols", "a=b"], "symbols: found 'a=b'"),
        (["run", "--live", "--broker", "alpaca", "--symbols", "SPY"], "Live trading does not begin"),
        (["run", "--live", "--broker", "alpaca", "--symbols", "SPY", "--bars", "bars.csv"], "Leave one of them away"),
        ([*AT_ALPACA, "--loopback-url", NOWHERE], "--loopback-url"),
        (AT_ALPACA, "There are no keys"),
        ([*AT_LOOPBACK, "127.0.0.1:1", "--bars", "bars.csv"], "plays bars of its own"),
        ([*AT_LOOPBACK, "127.0.0.1:1"], "begins with http://"),
        ([*AT_LOOPBACK, "http://127.0.0.1:65536"], "Port out of range"),
        ([*AT_LOOPBACK, "http://[::1"], "Invalid IPv6 URL"),
        (["run", "--paper", "--broker", "loopback", "--bars", "nosuch.csv", *OTHER], "did not start"),
        (["run", "--paper", "--broker", "loopback", "--bars", "bars.csv"], "keeps simulated money"),
        (["kill", "--reason", "x", "--ledger", "broker.ledger", "--loopback-url", NOWHERE], "nothing is closed"),
        (["kill", "--reason", " "], "needs a reason"),
        (["reconcile", "--accept", "D1"], "--reason TEXT"),
        (["reconcile", "--accept", "D9", "--reason", "x", "--ledger", "broker.ledger"], "D9"),
        (["reconcile", "--reason", "x"], "--accept ID"),
        (["doctor", "--broker", "nobody"], "is not one of"),
        (["crashtest", "--points", "0"], "is not in the range"),
        (["crashtest", "--directory", "bars.csv"], "folder that can be written"),
        (["loopback", "--speed", "100001"], "no more than 100,000"),
        (["loopback", "--port", "65536"], "is not in the range"),
        (["loopback", "--faults", "bars.csv"], "bars.csv"),
    ),
)
def test_what_is_wrong_with_a_value_is_said(
    arguments: list[str],
    words: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    empty_input: None,
) -> None:
    here = tmp_path / "here"
    furnish(here, folder, "")
    monkeypatch.chdir(here)
    assert execute(arguments) == 2
    assert words in capsys.readouterr().err


class Somebody(BaseHTTPRequestHandler):
    """A web server that knows nothing of trading, and has an answer to everything."""

    answer = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name that the library gives it
        pass


@pytest.mark.parametrize("answer", (b"", b"<html>", b"\xff", b"[]", b"{}", b'{"rest": "x"}', b"null"))
def test_somebody_else_at_the_address_of_a_loopback_server_is_told_from_one(
    answer: bytes, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    handler = type("Answering", (Somebody,), {"answer": answer})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        assert execute([*AT_LOOPBACK, f"http://127.0.0.1:{server.server_port}"]) == 2
        thread.join()
    assert "is no loopback server" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("verb", ("orders", "status", "--help"))
def test_an_output_without_room_is_said_and_not_a_traceback(verb: str, folder: Path) -> None:
    code = "import os\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    ended = run_program(folder, verb, code=code)
    assert ended.code == 2
    assert ended.err.startswith("mqd-ledger: the output cannot be written: No space left")
    assert len(ended.err.splitlines()) == 1
