"""The composition root: which parts make up which mode, and what each verb of the command line does with them.

The engine never knows which mode is running. A mode is a row of `MODES`: where its commands come from, who reacts, how the log is
kept, and what its time is.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, setcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from commands.control import CreateLedger
from mqd_ledger import chain, lock
from mqd_ledger.audit.as_of import as_of, limits_of
from mqd_ledger.audit.verify import Finding
from mqd_ledger.audit.verify import verify as prove
from mqd_ledger.engine import Engine
from mqd_ledger.errors import BadInput
from mqd_ledger.events import Source
from mqd_ledger.feeds.bars import open_bars
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.operator_requests import RequestBox, kill_file
from mqd_ledger.pipeline import PipedLog
from mqd_ledger.runs import (
    Controls,
    Item,
    MakeReactors,
    Outcome,
    Plan,
    broker_reactors,
    fold,
    play,
    simulated_reactors,
    strategies_loader,
)
from mqd_ledger.sessions import sessions_between
from mqd_ledger.settings import Settings
from mqd_ledger.snapshots import Snapshots
from mqd_ledger.state import State
from mqd_ledger.values import ARITHMETIC, EPOCH, INTERVALS, from_microseconds

SAMPLE_BEGINS = date(2026, 1, 5)


class Recording(NamedTuple):
    log: type[EventLog]
    durability: Literal["full", "normal"]
    commit_every: int  # events; 1: every turn, before anything else happens


class Mode(NamedTuple):
    commands_from: str
    time_from: str
    money: str  # whose, and who fills the orders
    reactors: MakeReactors | None  # None: it only folds
    recording: Recording | None  # None: it only reads
    takes_requests: bool  # of an operator, while it holds the lock


BARS, CLOCK = "the bars", "the clock"
LIVE = Recording(EventLog, "full", 1)
SIMULATED = "simulated money and broker"
MODES: Mapping[str, Mode] = MappingProxyType(
    {
        "paper": Mode("bars and operator", BARS, SIMULATED, simulated_reactors, LIVE, takes_requests=True),
        "backtest": Mode(
            "bars", BARS, SIMULATED, simulated_reactors, Recording(PipedLog, "normal", 2000), takes_requests=False
        ),
        "loopback": Mode(
            "streams and operator",
            BARS,
            "simulated money at a loopback server",
            broker_reactors,
            LIVE,
            takes_requests=True,
        ),
        "alpaca-paper": Mode(
            "streams and operator", CLOCK, "simulated money at Alpaca", broker_reactors, LIVE, takes_requests=True
        ),
        "alpaca-live": Mode(
            "streams and operator", CLOCK, "REAL MONEY at Alpaca", broker_reactors, LIVE, takes_requests=True
        ),
        "replay": Mode("nobody", "the log", "", None, None, takes_requests=False),
    }
)


def announcement(mode: str) -> str:
    """What a person is told of a mode before it begins."""
    row = MODES[mode]
    money = f", {row.money}" if row.money else ""
    return f"{mode}: commands from {row.commands_from}, time from {row.time_from}{money}"


@dataclass(frozen=True)
class Feed:
    """A source of bars and where it came from; `items` begins anew at each call. `stated` says what was detected."""

    source: Source
    items: Callable[[], Iterable[Item]]
    interval: str
    stated: tuple[str, ...] = ()


def feed_of_file(
    path: Path,
    *,
    symbol: str | None = None,
    zone: str | None = None,
    strict: bool = False,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Feed:
    file = open_bars(path, symbol=symbol, zone=zone, strict=strict, start=start, end=end)
    options = f"symbol={symbol} zone={zone} start={start} end={end}"
    sha256 = hashlib.sha256(f"{file.sha256} {options}".encode()).hexdigest()
    return Feed(
        Source("file", path.name, sha256),
        lambda: iter(file),
        file.detection.interval,
        tuple(file.detection.sentences()),
    )


def feed_of_sample(settings: Settings, ledger_state: State) -> Feed:
    """Synthetic sessions: those of the open run, or the ones after what this ledger has played already."""
    sample = settings.sample
    total = sample.sessions
    last_run = ledger_state.run
    played = max((mark.at for mark in ledger_state.marks.values()), default=None)
    if last_run is not None and last_run.source.kind == "synthetic" and played is not None:
        done = sum(1 for _ in sessions_between(SAMPLE_BEGINS, played.date()))
        total = done + sample.sessions
        if ledger_state.run_is_open:
            total = next(
                (count for count in range(done, total + 1) if _sample_source(settings, count) == last_run.source), total
            )
    source = _sample_source(settings, total)

    def items() -> Iterable[Item]:
        return sample_bars(tuple(sample.symbols), sessions=total, seed=sample.seed, start=SAMPLE_BEGINS)

    return Feed(source, items, "1m", (f"bars: {source.name}",))


def _sample_source(settings: Settings, sessions: int) -> Source:
    sample = settings.sample
    name = (
        f"synthetic sample: {', '.join(sample.symbols)}, {sessions} sessions from {SAMPLE_BEGINS}, seed {sample.seed}"
    )
    return Source("synthetic", name, hashlib.sha256(name.encode()).hexdigest())


def plan_of(mode: str, settings: Settings, feed: Feed) -> Plan:
    """Everything that a run over `feed` is made of."""
    reactors, recording = MODES[mode].reactors, MODES[mode].recording
    assert reactors is not None
    assert recording is not None
    policy = settings.policy
    if INTERVALS[feed.interval] >= INTERVALS["1d"] and policy.limits.session != "any":
        raise BadInput(
            f"{feed.source.name} holds daily bars, which close when the market does: no order could ever be sent with "
            f"risk.session {policy.limits.session!r}. Give --set risk.session=any; orders then meet the next day's open."
        )
    wanted = [(strategy.name, strategy.parameters) for strategy in settings.strategies]
    return Plan(
        mode,
        feed.source,
        feed.items,
        strategies_loader(wanted),
        policy,
        settings.cash,
        f"sim{feed.source.sha256[:8]}",
        reactors,
        recording.commit_every,
    )


def run_paper(
    settings: Settings, ledger: Path, make_feed: Callable[[State], Feed], controls: Controls
) -> tuple[Outcome, Feed]:
    """Trade simulated money on a ledger that survives: the same call goes on where the last one ended."""
    setcontext(ARITHMETIC.copy())
    with opened_ledger(ledger, MODES["paper"], controls) as log:
        chain.check(log.rows())  # what was tampered with is not traded on
        feed = make_feed(fold(log, snapshots=controls.snapshots))
        return play(log, plan_of("paper", settings, feed), controls), feed


@contextmanager
def opened_ledger(ledger: Path, mode: Mode, controls: Controls) -> Iterator[EventLog]:
    """A ledger to write, with an ear for its operator where the mode has one.

    One that was made here and in which nothing could be recorded is not left behind.
    """
    is_new = not ledger.exists()
    assert mode.recording is not None
    make = mode.recording.log.create if is_new else mode.recording.log.open
    controls.requests = RequestBox(ledger) if mode.takes_requests else None
    controls.snapshots = Snapshots(ledger) if mode.recording is LIVE else None
    with make(ledger, durability=mode.recording.durability) as log:
        try:
            yield log
        except BadInput:
            if is_new and not log.head.position:
                log.close()
                ledger.unlink(missing_ok=True)
            raise


class Report(NamedTuple):
    """What a backtest came to. Money in dollars; max_drawdown is a fraction of the peak (0.05 is 5 %); seconds of the whole run."""

    bars: int
    orders: int
    fills: int
    denied: int
    realized_pnl: Decimal
    unrealized_pnl: Decimal
    commissions: Decimal
    final_cash: Decimal
    final_equity: Decimal
    max_drawdown: Decimal
    log_hash: str
    seconds: Decimal


def backtest(settings: Settings, feed: Feed, out: Path | None, controls: Controls) -> tuple[Report, Outcome]:
    """Run the strategies over a feed; the whole log goes to `out`, or to a temporary file that is removed."""
    setcontext(ARITHMETIC.copy())
    plan = plan_of("backtest", settings, feed)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mqd-ledger-") as directory:
        with opened_ledger(out or Path(directory) / "backtest.ledger", MODES["backtest"], controls) as log:
            outcome = play(log, plan, controls)
        seconds = Decimal(time.perf_counter() - started).quantize(Decimal("0.001"))
    return _report(outcome, seconds), outcome


def _report(outcome: Outcome, seconds: Decimal) -> Report:
    state = outcome.state
    return Report(
        state.bars_total,
        state.orders_total,
        state.fills_total,
        state.denied_total,
        state.realized_pnl,
        state.unrealized_pnl,
        state.commissions,
        state.cash,
        state.equity,
        state.max_drawdown.quantize(Decimal("0.000001"), rounding=ROUND_HALF_EVEN),
        outcome.log_hash,
        seconds,
    )


def init(ledger: Path, ledger_id: str) -> int:
    """Make an empty ledger with an identity of its own; its first position."""
    with EventLog.create(ledger, durability="full") as log:
        position = log.head.position
        # A simulated ledger lives in its bars' time, and they may be of any year: it is made before all of them.
        Engine(State(), log).handle(CreateLedger(EPOCH, ledger_id))
        log.commit()
        return position + 1


def verify(ledger: Path, *, rerun: bool = False) -> list[Finding]:
    """Prove a ledger; `rerun` also runs its strategies again, which have to be there."""
    return prove(ledger, reactors_of if rerun else None)


def reactors_of(mode: str) -> MakeReactors:
    """Who reacts when a run of that mode is run again: its pure parts."""
    row = MODES.get(mode)
    if row is None or row.reactors is None:
        raise BadInput(f"This version knows no mode {mode!r} to run again; it knows {', '.join(MODES)}.")
    return row.reactors


def replay(ledger: Path, until: datetime, by: Literal["recorded", "event"]) -> dict[str, Any]:
    """Everything that was so at an instant."""
    return {"mode": announcement("replay"), **as_of(ledger, until, by)}


def status(ledger: Path) -> dict[str, Any]:
    """What the ledger is doing now: its run, its trading state, its money and how much of each limit is used."""
    with LogReader.open(ledger) as log:
        head = log.head
        # It may be written meanwhile.
        state = fold(log, upto=head.position, snapshots=Snapshots(ledger, read_only=True))
    run = state.run
    return {
        "ledger": str(ledger),
        "ledger_id": state.ledger_id,
        "events": head.position,
        "log_hash": head.hash.hex(),
        "last_recorded_at": from_microseconds(head.recorded_at) if head.position else None,
        "writer": str(lock.holder(ledger) or "none"),
        "run": run.run if run else None,
        "mode": run.mode if run else None,
        "run_is_open": state.run_is_open,
        "source": run.source.name if run else None,
        "strategies": [spec.strategy for spec in run.strategies] if run else [],
        "stopped_strategies": dict(state.stopped_strategies),
        "trading_state": state.trading_state.value,
        "trading_state_reason": state.trading_state_reason,
        "kill_switch": _kill_switch(state),
        "signal_file": str(signal) if (signal := kill_file(ledger)).exists() else None,
        "blocks": dict(state.blocks) if state.run_is_open else {},
        "account": f"{state.environment} {state.account_number}" if state.account_number else None,
        "differences": [found.difference_id for found in state.differences.values()],
        "cash": state.cash,
        "equity": state.equity,
        "realized_pnl": state.realized_pnl,
        "unrealized_pnl": state.unrealized_pnl,
        "commissions": state.commissions,
        "positions": len(state.positions),
        "working_orders": sum(len(orders) for orders in state.working.values()),
        "limits": limits_of(state),
    }


def _kill_switch(state: State) -> str | None:
    if state.kill_switch is None:
        return None
    how = "completed" if state.kill_switch_completed else "active"
    return f"{how}: {state.kill_switch.reason}"
