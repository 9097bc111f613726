"""What the tests of the whole program share: running it in a folder, hostile bars and strategies, reading the log it leaves."""

import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from mqd_ledger.chain import Row
from mqd_ledger.log import LogReader

ROOT = Path(__file__).resolve().parent.parent
OPEN_AT = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
SYMBOLS = ("AAA", "BBB", "CCC")
HEADER = "symbol,timestamp,open,high,low,close,volume"
KILL_SIGNAL = "getattr(signal, 'SIGKILL', signal.SIGTERM)"  # on Windows SIGTERM ends a process as hard

# Trades a little in every symbol; kills its own process where the environment says: "bar 17", "fill 2", "start 1", "stop 1".
TRADER = f"""
import os, signal
from decimal import Decimal
from mqd_ledger.strategies.base import Signal, Strategy, StrategyParameters
from mqd_ledger.values import Direction

class Trader(Strategy):
    class Parameters(StrategyParameters):
        every: int = 5
        held: int = 3

    def __init__(self, parameters):
        super().__init__(parameters)
        self.seen = {{}}
        self.counts = {{}}

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1
        if os.environ.get("KILL_AT") == f"{{what}} {{self.counts[what]}}":
            os.kill(os.getpid(), {KILL_SIGNAL})

    def on_start(self, context):
        self.count("start")

    def on_bar(self, bar):
        self.count("bar")
        number = self.seen[bar.symbol] = self.seen.get(bar.symbol, 0) + 1
        if number % self.parameters.every == 0:
            return Signal(Direction.LONG, f"bar {{number}}", notional=Decimal(120))
        if number % self.parameters.every == self.parameters.held:
            return Signal(Direction.FLAT, f"bar {{number}}")

    def on_order_filled(self, order, fill):
        self.count("fill")

    def on_position_closed(self, position):
        self.count("close")

    def on_stop(self):
        self.count("stop")
"""
SETTINGS = """
strategies:
  - name: vwap
    parameters: {lookback: "5", entry_percent: "0.3", stop_loss_percent: "0.4", take_profit_percent: "0.3"}
  - name: trader.py:Trader
  - name: trader.py:Trader
    parameters: {every: "7", symbols: "[AAA,CCC]"}
risk: {order_notional_min: "1", duplicate_window: null}
sizing: {fractional: true}
simulation:
  commission: {model: per_share, per_share: "0.005", minimum: "0.01"}
  slippage: {model: bps, bps: "2"}
  participation_percent_max: "10"
"""


def bar_rows(minutes: int, symbols: Sequence[str] = SYMBOLS, start_at: datetime = OPEN_AT, seed: int = 5) -> list[str]:
    """One-minute bars whose prices wander; the same every time."""
    dice = random.Random(seed)  # noqa: S311  no secret
    cents = {symbol: 4000 + 1000 * place for place, symbol in enumerate(symbols)}
    rows = []
    for minute in range(minutes):
        for symbol in symbols:
            opened = cents[symbol]
            closed = cents[symbol] = opened + dice.randint(-40, 40)
            high, low = max(opened, closed) + dice.randint(0, 5), min(opened, closed) - dice.randint(0, 5)
            prices = ",".join(f"{price // 100}.{price % 100:02d}" for price in (opened, high, low, closed))
            at = f"{start_at + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"
            rows.append(f"{symbol},{at},{prices},{dice.randint(50, 3000)}")
    return rows


def spoiled(rows: Sequence[str]) -> list[str]:
    """The same with bad rows in between: not a number, turned round, twice, torn."""
    dice = random.Random(9)  # noqa: S311  no secret
    found: list[str] = []
    for number, row in enumerate(rows):
        found.append(row)
        if number % 11 == 3:
            symbol, at, opened, high, low, closed, volume = row.split(",")
            found.append(
                dice.choice(
                    (
                        row,
                        f"{symbol},{at},NaN,{high},{low},{closed},{volume}",
                        f"{symbol},{at},{opened},{low},{high}9,{closed},{volume}",
                        f"{symbol},{at},{opened}",
                        f"{symbol},tomorrow,{opened},{high},{low},{closed},{volume}",
                    )
                )
            )
    return found


def write_bars(path: Path, rows: Sequence[str]) -> Path:
    path.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8", newline="\n")
    return path


def furnish(folder: Path, minutes: int = 40) -> Path:
    """A folder with bars.csv, trader.py and mine.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bars(folder / "bars.csv", spoiled(bar_rows(minutes)))
    (folder / "trader.py").write_text(TRADER, encoding="utf-8", newline="\n")
    (folder / "mine.yaml").write_text(SETTINGS, encoding="utf-8", newline="\n")
    return folder


RUN = ("run", "--paper", "--bars", "bars.csv", "--config", "mine.yaml", "--json")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MQD_")}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def run_program(
    folder: Path, *arguments: str, code: str = "", env: Mapping[str, str] | None = None, text: str | None = None
) -> Ended:
    """The real program to its end, however it ends; `code` is executed in its process before it begins."""
    begin = [
        "-c",
        f"import sys\n{code}\nfrom mqd_ledger.cli.main import main\nsys.argv[0] = 'mqd-ledger'\nmain()",
    ]
    done = subprocess.run(
        [sys.executable, *(begin if code else ["-m", "mqd_ledger"]), *arguments],
        cwd=folder,
        env=environment(**(env or {})),
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=120,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def log_rows(ledger: Path) -> list[Row]:
    with LogReader.open(ledger) as log:
        return list(log.rows())
