"""A strategy is anybody's code: whatever it does, it is stopped alone, the run goes on, and the person is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from mqd_ledger import app
from mqd_ledger.audit.verify import verify
from mqd_ledger.cli.main import execute
from mqd_ledger.events import RunStarted, StrategyStopped
from mqd_ledger.log import LogReader
from tests.desk import RUN, TRADER, bar_rows, furnish, run_program, write_bars

HEAD = """
import sys
from decimal import Decimal
from mqd_ledger.strategies.base import Signal, Strategy, StrategyParameters
from mqd_ledger.values import Direction
LONG = Direction.LONG

class Odd(Strategy):
"""
# What it does -> the words that the record of its end holds.
STOPPED: dict[str, tuple[str, str]] = {
    "raises at the start": ("def on_start(self, context): raise ValueError('no start')", "ValueError: no start"),
    "raises at a bar": ("def on_bar(self, bar): raise KeyError(bar.symbol)", "KeyError: 'AAA'"),
    "raises at a fill": (
        "def on_bar(self, bar): return Signal(LONG, 'x')\n    def on_order_filled(self, order, fill): raise ValueError('fill')",
        "ValueError: fill",
    ),
    "raises at the end": ("def on_stop(self): raise ValueError('end')", "ValueError: end"),
    "exits at the start": ("def on_start(self, context): sys.exit(3)", "SystemExit: 3"),
    "exits at a bar": ("def on_bar(self, bar): sys.exit(0)", "SystemExit: 0"),
    "exits at the end": ("def on_stop(self): sys.exit(9)", "SystemExit: 9"),
    "ends a generator": ("def on_bar(self, bar): raise GeneratorExit", "GeneratorExit"),
    "never returns from itself": ("def on_bar(self, bar): return self.on_bar(bar)", "RecursionError"),
    "tells where it lives": ("def on_bar(self, bar): raise ValueError(object())", "ValueError: <object object>"),
    "says what cannot be stored": ("def on_bar(self, bar): raise ValueError('\\udc80')", "ValueError: \\udc80"),
    "cannot say what it has": (
        "def on_bar(self, bar):\n        class Mute(Exception):\n            def __str__(self): return 1 / 0\n        raise Mute",
        "Mute, whose text cannot be had (ZeroDivisionError)",
    ),
    "answers a number": ("def on_bar(self, bar): return 5", "not iterable"),
    "answers a text": ("def on_bar(self, bar): return 'LONG'", "found str"),
    "answers objects": ("def on_bar(self, bar): return [object()]", "found object"),
    "answers a direction in words": ("def on_bar(self, bar): return Signal('LONG', 'x')", "found Signal('LONG'"),
    "answers for ever": (
        "def on_bar(self, bar):\n        while True:\n            yield Signal(LONG, 'x')",
        "more than 1000 signals",
    ),
    "gives no reason": ("def on_bar(self, bar): return Signal(LONG, None)", "reason is text"),
    "reasons in half a character": ("def on_bar(self, bar): return Signal(LONG, '\\ud800')", "UTF-8"),
    "reasons at length": ("def on_bar(self, bar): return Signal(LONG, 'x' * 10**6)", "up to 2000 characters"),
    "names half a symbol": ("def on_bar(self, bar): return Signal(LONG, 'x', symbol='\\udc80')", "symbol is up to"),
    "wants a float": ("def on_bar(self, bar): return Signal(LONG, 'x', quantity=1.5)", "found 1.5"),
    "wants nothing": ("def on_bar(self, bar): return Signal(LONG, 'x', quantity=Decimal(0))", "above zero"),
    "wants less than nothing": ("def on_bar(self, bar): return Signal(LONG, 'x', notional=Decimal(-5))", "above zero"),
    "wants no number": (
        "def on_bar(self, bar): return Signal(LONG, 'x', notional=Decimal('NaN'))",
        "found Decimal('NaN')",
    ),
    "wants everything": (
        "def on_bar(self, bar): return Signal(LONG, 'x', quantity=Decimal('1E+999999'))",
        "up to 1E+15",
    ),
    "wants the finest fraction": (
        "def on_bar(self, bar): return Signal(LONG, 'x', quantity=Decimal('1.0000000001'))",
        "up to 9 decimals",
    ),
    "wants more digits than there are": (
        "def on_bar(self, bar): return Signal(LONG, 'x', quantity=Decimal('1.' + '0' * 40 + '1'))",
        "up to 28 digits",
    ),
}
REFUSED: dict[str, tuple[str, list[str]]] = {
    "raises when made": (
        "def __init__(self, parameters): raise ValueError('not today')",
        ["cannot be made", "not today"],
    ),
    "exits when made": ("def __init__(self, parameters): sys.exit(0)", ["cannot be made", "SystemExit"]),
    "forgets its parameters": ("def __init__(self, parameters): pass", ["super().__init__(parameters)"]),
    "has a text that no log can hold": (
        "class Parameters(StrategyParameters):\n        x: str = '\\ud800'",
        ["a parameter that no log can hold"],
    ),
    "exits when imported": ("pass\nsys.exit(0)", ["does not import", "SystemExit"]),
    "is not Python": ("def def", ["does not import", "SyntaxError"]),
    "is no class of ours": ("pass\nOdd = 5", ["no strategy class 'Odd'"]),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path)
    write_bars(tmp_path / "bars.csv", bar_rows(12))
    (tmp_path / "mine.yaml").write_text(
        "strategies: [{name: odd.py:Odd}, {name: trader.py:Trader}]\nrisk: {order_notional_min: null}\n"
        "sizing: {fractional: true}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stops(ledger: Path) -> list[StrategyStopped]:
    with LogReader.open(ledger) as log:
        return [event for event in log.events() if isinstance(event, StrategyStopped)]


@pytest.mark.parametrize("what", STOPPED)
def test_a_strategy_that_goes_wrong_is_stopped_and_the_others_go_on(
    what: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = STOPPED[what]
    (here / "odd.py").write_text(f"{HEAD}    {code}\n", encoding="utf-8")
    assert execute(RUN) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    (stop,) = stops(here / "paper.ledger")
    assert stop.strategy == "Odd"
    assert words in stop.error
    assert found["news"] == [f"Strategy Odd was stopped: {stop.error}"]
    assert (found["finished"], found["bars"]) == (True, 36)
    assert found["fills"] > 0, "the other strategy trades on"
    assert [finding for finding in verify(here / "paper.ledger") if not finding.passed] == []


@pytest.mark.parametrize("what", REFUSED)
def test_a_strategy_that_cannot_be_had_is_refused_before_a_ledger_is_made(
    what: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = REFUSED[what]
    (here / "odd.py").write_text(f"{HEAD}    {code}\n", encoding="utf-8")
    assert execute(RUN) == 2
    said = capsys.readouterr().err
    assert [word for word in words if word not in said] == []
    assert not (here / "paper.ledger").exists()


def test_a_strategy_that_fails_with_its_address_is_no_other_after_a_restart(tmp_path: Path) -> None:
    """`<object object at 0x7f…>` differs in every process; the run that is taken up again is still the same one."""
    furnish(tmp_path)
    fails = TRADER.replace(
        '        self.count("bar")\n',
        '        self.count("bar")\n        if self.counts["bar"] == 20: raise ValueError(self)\n',
    )
    (tmp_path / "trader.py").write_text(fails, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(
        'strategies: [{name: trader.py:Trader}, {name: vwap, parameters: {lookback: "5", entry_percent: "0.3"}}]\n'
        "sizing: {fractional: true}\n",
        encoding="utf-8",
    )
    code = """
import os
from mqd_ledger.store.recorder import SQLiteLedgerRecorder
write, left = SQLiteLedgerRecorder.write, [100]
def dying(self, batch):
    left[0] -= 1
    if not left[0]: os._exit(7)
    write(self, batch)
SQLiteLedgerRecorder.write = dying
"""
    assert run_program(tmp_path, *RUN, code=code).code == 7
    assert len(stops(tmp_path / "paper.ledger")) == 1, "it had failed before the process was killed"
    found = json.loads(run_program(tmp_path, *RUN).out)
    assert not [news for news in found["news"] if "new one started" in news]
    assert found["resumed_at"] > 0
    assert len(stops(tmp_path / "paper.ledger")) == 1


def test_what_a_strategy_prints_does_not_spoil_the_json(here: Path) -> None:
    (here / "odd.py").write_text(
        f"print('imported')\n{HEAD}    def on_bar(self, bar): print('hello')\n", encoding="utf-8"
    )
    ended = run_program(here, *RUN)
    assert json.loads(ended.out)["bars"] == 36
    assert ended.err.count("hello") == 36
    assert json.loads(run_program(here, "verify", "--rerun", "--json").out)["passed"] is True


def test_two_strategies_of_one_name_keep_their_positions_apart(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = "strategies: [{name: trader.py:Trader}, {name: trader.py:Trader, parameters: {every: '4'}}]\n"
    (here / "mine.yaml").write_text(f"{mine}sizing: {{fractional: true}}\n", encoding="utf-8")
    assert execute(RUN) == 0
    capsys.readouterr()
    assert execute(["orders", "--json"]) == 0
    orders = json.loads(capsys.readouterr().out)
    assert {order["strategy"] for order in orders} == {"Trader", "Trader-2"}
    with LogReader.open(here / "paper.ledger") as log:
        (started,) = [event for event in log.events() if isinstance(event, RunStarted)]
    assert [(spec.strategy, spec.source) for spec in started.strategies] == [
        ("Trader", "trader.py:Trader"),
        ("Trader-2", "trader.py:Trader"),
    ]
    assert started.strategies[1].parameters["every"] == 4, "parameters are recorded as what they are"
    assert started.strategies[1].parameters["symbols"] == []
    assert all(finding.passed for finding in verify(here / "paper.ledger", app.reactors_of))


def test_a_strategy_that_leaves_its_directory_can_still_be_halted(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = here / "paper.ledger.requests"
    requests.mkdir()
    (requests / "1.json").write_text('{"verb": "halt", "operator": "me", "reason": "wait"}', encoding="utf-8")
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    code = f"    def on_bar(self, bar):\n        import os\n        os.chdir({str(elsewhere)!r})\n"
    (here / "odd.py").write_text(HEAD + code, encoding="utf-8")
    assert execute(RUN) == 0
    assert json.loads(capsys.readouterr().out)["trading_state"] == "HALTED"


def test_a_strategy_that_leaves_out_what_it_signaled_is_found(tmp_path: Path) -> None:
    furnish(tmp_path)
    forgets = TRADER.replace(
        "        if number % self.parameters.every == 0:",
        "        if number % self.parameters.every == 0 and not os.environ.get('SILENT'):",
    )
    assert forgets != TRADER
    (tmp_path / "trader.py").write_text(forgets, encoding="utf-8")
    assert run_program(tmp_path, *RUN).code == 0
    ended = run_program(tmp_path, "verify", "--rerun", env={"SILENT": "1"})
    assert ended.code == 1
    assert "is not answered with it any more" in ended.out
