"""Nonsense in any argument of any verb is answered with a sentence and an exit code that means something."""

import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mqd_ledger.cli.main import cli, execute
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
)
ALWAYS = {
    "run": ["--paper"],
    "backtest": ["--bars", "bars.csv"],
    "halt": ["--reason", "x"],
    "reduce": ["--reason", "x"],
    "resume": ["--reason", "x"],
    "replay": ["--until", "2026-01-05T15:00:00Z"],
    "why": ["1"],
    "sql": ["select 1"],
    "export": ["--format", "jsonl", "--out", "out.jsonl"],
    "backup": ["copy.ledger"],
    "import bars": ["bars.csv"],
    "import log": ["bars.csv", "--ledger", "new.ledger"],
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
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traded")
    write_bars(folder / "bars.csv", bar_rows(5))
    assert run_program(folder, "run", "--paper", "--bars", "bars.csv").code == 0
    return folder / "paper.ledger"


def arguments_of(verb: str, option: click.Parameter, value: str) -> list[str]:
    """A call of the verb that makes sense but for one value."""
    always = list(ALWAYS.get(verb, []))
    if isinstance(option, click.Argument):
        return [*verb.split(), *([] if "--" not in "".join(always) else always[1:]), "--", value]
    name = option.opts[0]
    if name in always:
        del always[always.index(name) : always.index(name) + 2]
    if verb == "run" and name != "--bars":
        always += ["--bars", "bars.csv"]
    return [*verb.split(), *always, name, value]


@pytest.mark.parametrize("verb", VERBS)
def test_no_value_of_any_argument_makes_the_program_fall_over(
    verb: str, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for option in VERBS[verb].params:
        if isinstance(option, click.Option) and (option.is_flag or option.name == "help"):
            continue
        for value in VALUES:
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir()
            monkeypatch.chdir(here)
            shutil.copy(ledger, here)
            shutil.copy(ledger.with_name("bars.csv"), here)
            arguments = arguments_of(verb, option, value)
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
    ),
)
def test_what_is_wrong_with_a_value_is_said(
    arguments: list[str],
    words: str,
    ledger: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ledger, tmp_path)
    shutil.copy(ledger.with_name("bars.csv"), tmp_path)
    assert execute(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("verb", ("orders", "status", "--help"))
def test_an_output_without_room_is_said_and_not_a_traceback(verb: str, ledger: Path) -> None:
    code = "import os\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    ended = run_program(ledger.parent, verb, code=code)
    assert ended.code == 2
    assert ended.err.startswith("mqd-ledger: the output cannot be written: No space left")
    assert len(ended.err.splitlines()) == 1
