"""Measures mqd-ledger against what the machine can do at best, in one run, so that the ratios can be read on any machine.

    python tools/bench.py            the figures of the README, about a minute
    python tools/bench.py --long     and the long ones: two million bars for memory and SQL, recovery of a million events
    python tools/bench.py --latency  and the way from a bar to an order at a broker, another minute
    python tools/bench.py --soak     and a simulated month with faults, about eight minutes

Each measure is taken in turn with its limit, several times; the table shows medians and the median of the ratios.

The limits: a *bare durable loop* applies the same rule to the same bars with nothing around it (one function, no classes, no risk
gate, no lots) and writes every bar, order and fill with a hash chain to SQLite; a *bare select* reads every row of the log's table
and does nothing with it; a *bare commit* is one insert and commit with full sync.
"""

import argparse
import gc
import hashlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from commands.market import ReportBar
from mqd_ledger import app, chain
from mqd_ledger.engine import Engine
from mqd_ledger.events import Source
from mqd_ledger.evolve import evolve
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.log import EventLog
from mqd_ledger.runs import Controls
from mqd_ledger.settings import load
from mqd_ledger.state import State
from mqd_ledger.values import Bar

BARS = 200_000
ROUNDS = 5
BATCH = 2000


class Measure(NamedTuple):
    name: str
    unit: str
    ours: list[float]
    limit: list[float]
    wanted: float | None  # ours / limit, at least


def bars(count: int) -> list[Bar]:
    """Synthetic one-minute bars of one symbol that the VWAP rule trades about as often as it does real ones."""
    sessions = count // 390 + 3
    items = sample_bars(("SYNA",), sessions=sessions, seed=11, start=date(2020, 1, 2))
    return [bar for bar, _ in zip(items, range(count), strict=False)]


def bare_loop(feed: list[Bar], path: Path) -> int:  # noqa: PLR0915  one function on purpose: it is the limit
    """The limit: rolling 20-bar VWAP, entry 2 % under it, stop 2 %, target 1.5 %; next-bar fills; everything durable, chained."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")
    connection.execute("create table log(position integer primary key, kind text, payload text, hash blob)")
    encode, sha256 = msgspec.json.Encoder().encode, hashlib.sha256
    window: deque[tuple[Decimal, int]] = deque()
    price_volume, volume = Decimal(0), 0
    entry_limit, stop_limit, target_limit = Decimal("0.98"), Decimal("0.98"), Decimal("1.015")
    rows: list[tuple[int, str, str, bytes]] = []
    previous, position, orders = bytes(32), 0, 0
    pending, entry = "", None
    cash, shares = Decimal(100_000), Decimal(0)

    def write(kind: str, payload: bytes) -> None:
        nonlocal previous, position
        position += 1
        previous = sha256(previous + payload).digest()
        rows.append((position, kind, payload.decode(), previous))
        if len(rows) >= BATCH:
            flush()

    def flush() -> None:
        connection.execute("begin")
        connection.executemany("insert into log values (?,?,?,?)", rows)
        connection.execute("commit")
        rows.clear()

    for bar in feed:
        write("bar", encode(bar))
        if pending:
            quantity = Decimal(1000) // bar.open if pending == "buy" else -shares
            shares += quantity
            cash -= quantity * bar.open
            entry = bar.open if pending == "buy" else None
            write("fill", encode((orders, pending, quantity, bar.open, cash)))
            pending = ""
        typical = (bar.high + bar.low + bar.close) * bar.volume
        window.append((typical, bar.volume))
        price_volume += typical
        volume += bar.volume
        if len(window) > 20:
            old_typical, old_volume = window.popleft()
            price_volume -= old_typical
            volume -= old_volume
        if entry is not None:
            if bar.close <= entry * stop_limit or bar.close >= entry * target_limit:
                pending = "sell"
        elif len(window) == 20 and volume and bar.close * 3 * volume <= price_volume * entry_limit:
            pending = "buy"
        if pending:
            orders += 1
            write("order", encode((orders, pending, bar.symbol, bar.close, bar.start_at)))
    flush()
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    return orders


def our_backtest(feed: list[Bar], path: Path) -> int:
    """The product: the same rule through commands, risk gate, lots, chain, with everything in a ledger file."""
    overrides = ["risk.orders_per_day_max=null", "risk.daily_loss_max=null", "risk.weekly_loss_max=null"]
    settings = load("backtest", overrides=overrides)
    report, _ = app.backtest(
        settings, app.Feed(Source("memory", "bench", "0" * 64), lambda: feed, "1m"), path, Controls()
    )
    return report.orders


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def backtest_measure(directory: Path, rounds: int) -> Measure:
    feed = bars(BARS)
    ours, limit = [], []
    for number in range(rounds):
        bare = directory / f"bare-{number}.db"
        limit.append(BARS / timed(lambda path=bare: bare_loop(feed, path)))  # type: ignore[misc]
        path = directory / f"ours-{number}.ledger"
        ours.append(BARS / timed(lambda path=path: our_backtest(feed, path)))  # type: ignore[misc]
    return Measure("backtest, everything durable / bare durable loop", "bars/s", ours, limit, 0.6)


def _rows(path: Path) -> int:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        count = 0
        for _ in connection.execute("select * from events order by position"):
            count += 1
        return count


def _replay(log: EventLog) -> None:
    state = State()
    for event in log.events():
        evolve(state, event)


def reading_measures(ledger: Path, rounds: int) -> Iterator[Measure]:
    bare: list[float] = []
    replayed: list[float] = []
    checked: list[float] = []
    with EventLog.open(ledger, durability="normal") as log:
        events = log.head.position
        for _ in range(rounds):
            bare.append(events / timed(lambda: _rows(ledger)))
            replayed.append(events / timed(lambda: _replay(log)))
            checked.append(events / timed(lambda: chain.check(log.rows())))
    yield Measure("replay: read, decode, evolve / bare select", "events/s", replayed, bare, 0.45)
    yield Measure("verify the chain / bare select", "events/s", checked, bare, 0.45)


def commit_measure(directory: Path, rounds: int) -> Measure:
    feed = bars(400)
    ours, limit = [], []
    for number in range(rounds):
        with closing(sqlite3.connect(directory / f"commit-{number}.db", isolation_level=None)) as connection:
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=full")
            connection.execute("create table log(position integer primary key, payload text)")

            def bare(connection: sqlite3.Connection = connection) -> None:
                for place in range(len(feed)):
                    connection.execute("begin immediate")
                    connection.execute("insert into log values (?, ?)", (place + 1, "x" * 180))
                    connection.execute("commit")

            limit.append(len(feed) / timed(bare))
        with EventLog.create(directory / f"live-{number}.ledger", durability="full") as log:
            engine = Engine(State(), log)

            def turns(engine: Engine = engine, log: EventLog = log) -> None:
                for bar in feed:
                    engine.handle(ReportBar(bar.end_at, bar))
                    log.commit()

            ours.append(len(feed) / timed(turns))
    return Measure("one bar decided, recorded, committed / bare commit", "commits/s", ours, limit, 0.5)


def command_seconds(*arguments: str) -> float:
    return timed(
        lambda: subprocess.run([sys.executable, "-m", "mqd_ledger", *arguments], check=True, capture_output=True)
    )


def show(measure: Measure) -> None:
    ratio = statistics.median(one / other for one, other in zip(measure.ours, measure.limit, strict=True))
    wanted = "" if measure.wanted is None else f"  (at least {measure.wanted})"
    print(
        f"{measure.name:<52} {statistics.median(measure.ours):>10,.0f} / {statistics.median(measure.limit):>10,.0f} "
        f"{measure.unit:<9} ratio {ratio:.2f}{wanted}"
    )


def long_measures(directory: Path) -> None:
    """Memory of a backtest of two million bars in a process of its own, and SQL over a million events."""
    code = (
        "import resource, sys; sys.path.insert(0, 'tools'); import bench; from pathlib import Path; "
        "from itertools import islice; from datetime import date; from mqd_ledger import app; "
        "from mqd_ledger.events import Source; from mqd_ledger.runs import Controls; from mqd_ledger.settings import load; "
        "items = lambda: islice(bench.sample_bars(('SYNA',), sessions=5200, seed=11, start=date(2000, 1, 3)), 2_000_000); "
        "report, _ = app.backtest(load('backtest', overrides=['risk.orders_per_day_max=null']), "
        "app.Feed(Source('memory', 'bench', '0' * 64), items, '1m'), Path(sys.argv[1]), Controls()); "
        "megabytes = [resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]; "
        "print(report.bars, report.orders, *megabytes)"
    )
    ledger = directory / "two-million.ledger"
    done = subprocess.run([sys.executable, "-c", code, str(ledger)], check=True, capture_output=True, text=True)
    played, orders, engine, writer = done.stdout.split()
    print(
        f"backtest of {int(played):,} bars, {int(orders):,} orders: at the most {engine} MB in the engine and {writer} MB in "
        "the writing process (under 300 together)"
    )
    query = ("sql", "select count(*) from events", "--ledger", str(ledger))
    first = command_seconds(*query)
    warm = statistics.median(command_seconds(*query) for _ in range(ROUNDS))
    print(
        f"sql count over that log: {first:.2f} s the first time (it builds its segments), {warm:.2f} s after (under 0.5)"
    )


# A run on paper that was stopped after so many bars; and how a later process comes back to where its record ends.
OPEN_RUN = """
import sys; sys.path.insert(0, 'tools')
import bench
from dataclasses import replace
from decimal import setcontext
from pathlib import Path
from mqd_ledger import app, runs
from mqd_ledger.engine import Engine
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.pipeline import PipedLog
from mqd_ledger.snapshots import Snapshots, checked, restore
from mqd_ledger.values import ARITHMETIC

setcontext(ARITHMETIC.copy())
what, ledger, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
snapshots = None if what == 'whole' else Snapshots(ledger)
no_limits = ['risk.orders_per_day_max=null', 'risk.daily_loss_max=null', 'risk.weekly_loss_max=null']
items = lambda: bench.sample_bars(('SYNA',), sessions=5200, seed=11, start=bench.date(2000, 1, 3))
feed = app.Feed(bench.Source('memory', 'bench', '0' * 64), items, '1m')
plan = app.plan_of('paper', bench.load('paper', overrides=no_limits), feed)

def engine_on(log):
    return lambda state: Engine(state, log, plan.reactors(state, plan.strategies()[1]))

def come_back(log):
    started, _ = runs.last_run(log)
    before = runs.fold(log, upto=started.position - 1, snapshots=snapshots)
    runs.rehearsed(log, started.position, before, engine_on(log), snapshots)

if what == 'make':
    controls = runs.Controls(snapshots=snapshots)
    controls.progress = lambda bars: controls.stop.set() if bars >= count else None
    with PipedLog.create(ledger, durability='normal') as log:
        runs.play(log, replace(plan, commit_every=2000), controls)
        print(log.head.position)
else:
    with EventLog.open(ledger) as log:
        parts = [bench.timed(lambda: checked(log, snapshots)), bench.timed(lambda: come_back(log))]
    with LogReader.open(ledger) as log:
        print(*parts, bench.timed(lambda: restore(log, snapshots)))
"""


def recovery_measure(directory: Path, count: int = 900_000) -> None:
    """From the command to the moment at which an open run stands where its record ends and could ask its broker."""
    ledger = directory / "open.ledger"

    def run(what: str) -> tuple[float, list[str]]:
        answers: list[str] = []
        command = [sys.executable, "-c", OPEN_RUN, what, str(ledger), str(count)]
        seconds = timed(lambda: answers.extend(subprocess.check_output(command, text=True).split()))
        return seconds, answers

    _, (events,) = run("make")
    newest = max((directory / "open.ledger.cache").glob("state-*"), key=lambda path: path.stat().st_mtime)
    for what, said in (
        ("snapshot", "from its end"),
        ("older", "a crash after the last snapshot"),
        ("whole", "without any"),
    ):
        if what == "older":
            newest.unlink()
        seconds, parts = run(what)
        chain_seconds, run_seconds, state_seconds = map(float, parts)
        print(
            f"recovery of an open run of {int(events):,} events, {said}: {seconds:.2f} s in all (under 2 with snapshots); of that "
            f"the chain {chain_seconds:.2f}, the run {run_seconds:.2f}; the state alone, for a verb that reads, {state_seconds:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="also measure memory and SQL over millions")
    parser.add_argument("--latency", action="store_true", help="measure only the way from a bar to an order")
    parser.add_argument("--soak", action="store_true", help="only trade a simulated month, about eight minutes")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if arguments.soak:
        sys.exit(subprocess.call([sys.executable, str(Path(__file__).with_name("soak.py"))]))
    if arguments.latency:
        command = [sys.executable, str(Path(__file__).with_name("bench_latency.py")), "--rounds", str(arguments.rounds)]
        sys.exit(subprocess.call(command))
    with tempfile.TemporaryDirectory(prefix="mqd-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        print(f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} processors")
        show(backtest_measure(directory, arguments.rounds))
        for measure in reading_measures(directory / "ours-0.ledger", arguments.rounds):
            show(measure)
        show(commit_measure(directory, arguments.rounds))
        seconds = statistics.median(command_seconds("--help") for _ in range(arguments.rounds))
        print(f"mqd-ledger --help: {seconds * 1000:.0f} ms (under 100)")
        if arguments.long:
            long_measures(directory)
            recovery_measure(directory)


if __name__ == "__main__":
    main()
