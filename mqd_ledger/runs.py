"""One run over bars: open the ledger, come back to where its record ends, play what is new, stop in good order.

A run that was killed or stopped goes on under the same number, and nothing in the log tells that it ever paused. A run that asks
for something else (other bars, strategies or settings) ends the open one and starts the next on the same account.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count, dropwhile, islice, takewhile

from commands.cash import ReportCash
from commands.control import CreateLedger, EndRun, StartRun
from commands.market import ReportBadBar, ReportBar
from mqd_ledger import __version__
from mqd_ledger.engine import DecidedDifferently, Engine, Reactor, Recorded, rehearse
from mqd_ledger.envelope import stored_names
from mqd_ledger.errors import BadInput, CommandRefused
from mqd_ledger.events import RunEnded, RunStarted, Source, StrategySpec
from mqd_ledger.feeds.aggregation import Aggregator, made_for
from mqd_ledger.feeds.validation import RejectedRow
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.operator_requests import RequestBox
from mqd_ledger.policy import Policy
from mqd_ledger.remembering import give_back
from mqd_ledger.run_changes import changes
from mqd_ledger.sessions import closes_at
from mqd_ledger.snapshots import RUN_START, Saver, Snapshots, restore
from mqd_ledger.state import State
from mqd_ledger.strategies.base import Strategy
from mqd_ledger.strategies.host import StrategyHost
from mqd_ledger.unattended import Unattended
from mqd_ledger.values import INTERVALS, Bar, Money, from_microseconds, iso

OPENING_DEPOSIT = "opening-deposit"
LISTEN_SECONDS = 0.2  # how long an operator waits at most while a run waits for its next bar

Item = Bar | RejectedRow
MakeReactors = Callable[[State, Mapping[str, Strategy]], Iterable[Reactor]]
LoadStrategies = Callable[[], tuple[tuple[StrategySpec, ...], Mapping[str, Strategy]]]


@dataclass(frozen=True)
class Plan:
    """All that a run is made of. `strategies` makes fresh instances each time it is called."""

    mode: str
    source: Source
    items: Callable[[], Iterable[Item]]  # the feed from its first item
    strategies: LoadStrategies
    policy: Policy
    cash: Money
    ledger_id: str
    reactors: MakeReactors
    commit_every: int  # events; 1 commits every turn


@dataclass
class Outcome:
    """How a run went. `news` are sentences for the person who started it."""

    state: State
    head_position: int = 0
    log_hash: str = ""
    bars: int = 0
    finished: bool = False
    resumed_at: int = 0
    news: list[str] = field(default_factory=list)


@dataclass
class Controls:
    """What reaches into a run from outside."""

    stop: threading.Event = field(default_factory=threading.Event)
    pace: float | None = None  # how many times faster than the clock; None: as fast as possible
    progress: Callable[[int], None] | None = None
    requests: RequestBox | None = None
    tell: Callable[[str], None] = lambda _line: None  # a person who watches
    snapshots: Snapshots | None = None  # None: a start folds the whole log


def play(log: EventLog, plan: Plan, controls: Controls) -> Outcome:
    """Run a plan on an open log until its bars end or it is told to stop."""
    outcome = Outcome(State())
    opened = _open(log, plan, controls.snapshots, outcome)
    if opened is not None:
        engine, items = opened
        saver = None if controls.snapshots is None else Saver(controls.snapshots, engine.reactors)
        outcome.finished = _feed(engine, log, items, plan, controls, outcome, saver)
        log.commit()
        if saver is not None:
            saver.close(engine.state, log)
    outcome.news += [f"Strategy {name} was stopped: {why}" for name, why in outcome.state.stopped_strategies.items()]
    head = log.head
    outcome.head_position, outcome.log_hash = head.position, head.hash.hex()
    return outcome


def _open(
    log: EventLog, plan: Plan, snapshots: Snapshots | None, outcome: Outcome
) -> tuple[Engine, Iterator[Item]] | None:
    """An engine that stands where the record ends, and the items still to come; None if there is nothing new to play."""
    specs, strategies = plan.strategies()
    started, ended = last_run(log)
    open_run = started.event if started is not None and not ended and isinstance(started.event, RunStarted) else None
    changed = changes(open_run, plan.mode, plan.source, specs, plan.policy)
    if started is not None and open_run is not None and not changed:
        try:
            return _resume(log, plan, started.position, snapshots, outcome)
        except DecidedDifferently as different:
            changed = str(different)
            specs, strategies = plan.strategies()
    state = outcome.state = fold(log, snapshots=snapshots)
    if state.account_number:
        raise BadInput(
            f"This ledger keeps the books of the {state.environment} account {state.account_number}; simulated money would be "
            "mixed up with it. Give another one with --ledger, or trade on it with its broker."
        )
    seen = dict(state.last_bars)
    first = _first_bar(_unseen(plan.items(), seen), plan)
    if first is None and not seen:
        raise BadInput(f"{plan.source.name} has no bar to play: look at --symbol, --from and --to, and at the file.")
    if first is None:
        outcome.news.append(f"Nothing new: every bar of {plan.source.name} is in this ledger already.")
        return None
    if closes_at(first) < from_microseconds(log.head.recorded_at):
        raise BadInput(
            f"{plan.source.name} goes on at {iso(first.start_at)}, but this ledger has come to "
            f"{iso(from_microseconds(log.head.recorded_at))} already, and its time never goes back. Play older bars into "
            "another ledger, or in a backtest."
        )
    if open_run is not None:
        outcome.news.append(f"The open run is ended and a new one started: {changed}")
    engine = Engine(state, log, plan.reactors(state, strategies))
    _start(engine, log, plan, specs, max(first.start_at, from_microseconds(log.head.recorded_at)), snapshots)
    return engine, _unseen(plan.items(), seen)


def _first_bar(items: Iterable[Item], plan: Plan) -> Bar | None:
    """The first usable bar, None where there are no items at all; items that are all unusable are an error that shows some."""
    problems: list[str] = []
    for item in items:
        if isinstance(item, Bar):
            return item
        problems = [*problems, f"line {item.line}: {item.reason}"][:3]
    if problems:
        raise BadInput(f"{plan.source.name} holds no usable bar. It begins with {'; '.join(problems)}.")
    return None


def _start(
    engine: Engine,
    log: EventLog,
    plan: Plan,
    specs: tuple[StrategySpec, ...],
    at: datetime,
    snapshots: Snapshots | None,
) -> None:
    if not engine.state.ledger_id:
        engine.handle(CreateLedger(at, plan.ledger_id))
    if OPENING_DEPOSIT not in engine.state.movements:  # `init` makes a ledger without
        engine.handle(ReportCash(at, OPENING_DEPOSIT, "DEPOSIT", plan.cash, "opening balance of a simulated account"))
    if engine.state.run_is_open:
        engine.handle(EndRun(at, "another run was started on this ledger"))
    if snapshots is not None:
        snapshots.save(engine.state, log.head, pin=RUN_START)
    engine.handle(StartRun(at, plan.mode, __version__, plan.source, specs, plan.policy))
    log.commit()


def last_run(log: EventLog) -> tuple[Recorded | None, bool]:
    """The last RunStarted, and whether that run has ended. A run has a stream of its own, so that is a few look-ups in an index."""
    runs = takewhile(bool, (log.stream(f"run-{number}") for number in count(1)))
    last = deque(runs, maxlen=1)
    if not last:
        return None, False
    first = last[0][0][0]
    (started,) = log.replay(first - 1, first)
    return started, any(row[3] in stored_names(RunEnded) for row in last[0])


def fold(log: LogReader, *, upto: int | None = None, snapshots: Snapshots | None = None) -> State:
    """The state that a log tells of."""
    return restore(log, snapshots, upto)


def rehearsed(
    log: EventLog, started: int, before: State, engine_on: Callable[[State], Engine], snapshots: Snapshots | None = None
) -> Engine:
    """An engine that stands where the record of the open run ends. `before` is the state before it `started`; `engine_on` makes a
    new engine, with new strategies, each time it is called.

    The run is rehearsed, which gives its reactors their state back. Where a snapshot has what they keep, that begins there; if
    something is then decided differently, only the whole run can tell whether that is so.
    """
    end = log.head.position
    found = None if snapshots is None else snapshots.latest(log, after=started, remembering=True)
    if found is not None and found.memory is not None:
        with suppress(DecidedDifferently, BadInput):
            engine = engine_on(found.state)
            give_back(found.memory, engine.reactors)
            rehearse(engine, log.replay(found.position, end))
            return engine
    engine = engine_on(before)
    rehearse(engine, log.replay(started - 1, end))
    return engine


def _resume(
    log: EventLog, plan: Plan, started: int, snapshots: Snapshots | None, outcome: Outcome
) -> tuple[Engine, Iterator[Item]]:
    before = fold(log, upto=started - 1, snapshots=snapshots)
    seen = dict(before.last_bars)
    engine = rehearsed(
        log, started, before, lambda state: Engine(state, log, plan.reactors(state, plan.strategies()[1])), snapshots
    )
    outcome.resumed_at, outcome.state = log.head.position, engine.state
    return engine, islice(_unseen(plan.items(), seen), engine.state.feed_items, None)


def _unseen(items: Iterable[Item], seen: Mapping[tuple[str, str], datetime]) -> Iterator[Item]:
    """What a ledger has not had yet: a new run over a longer file takes up where the last one ended."""
    if not seen:
        return iter(items)
    return dropwhile(
        lambda item: not _is_new(item, seen), (item for item in items if _is_new(item, seen, otherwise=True))
    )


def _is_new(item: Item, seen: Mapping[tuple[str, str], datetime], *, otherwise: bool = False) -> bool:
    """Whether a bar is later than what was seen of its symbol; `otherwise` for what is no bar."""
    if not isinstance(item, Bar):
        return otherwise
    last = seen.get((item.symbol, item.interval))
    return last is None or item.start_at > last


def _feed(
    engine: Engine,
    log: EventLog,
    items: Iterator[Item],
    plan: Plan,
    controls: Controls,
    outcome: Outcome,
    saver: Saver | None,
) -> bool:
    """Play items turn by turn; True if they came to their end, False if the run was told to stop."""
    at = from_microseconds(log.head.recorded_at)  # the run's time: that of the latest bar so far
    handle, stopped = engine.handle, controls.stop.is_set
    commit_every, progress, pace = plan.commit_every, controls.progress, controls.pace
    look_every = min(commit_every, 64)  # turns between two looks at what is not a bar
    bars = turns = 0
    if controls.requests is not None:
        _operator(engine, log, controls.requests, at)  # what was asked while nobody ran comes before any bar
    for item in items:
        if isinstance(item, Bar):
            lasts = INTERVALS[item.interval]
            end_at = closes_at(item)
            if end_at > at:
                # Nights and holidays are not waited out.
                if pace is not None and _wait(
                    engine, log, controls, at, min(end_at - at, lasts).total_seconds() / pace
                ):
                    break
                at = end_at
            handle(ReportBar(end_at, item))
            bars += 1
        else:
            handle(ReportBadBar(at, item.symbol, item.line, item.raw, item.reason))
        turns += 1
        if turns < look_every:
            continue
        turns = 0
        if log.pending >= commit_every:
            log.commit()
            if saver is not None:
                saver.maybe(engine.state, log)
        if controls.requests is not None:
            _operator(engine, log, controls.requests, at)
        if progress is not None and not bars & 63:
            progress(bars)
        if stopped():
            break
    else:
        engine.handle(EndRun(at, "the bars came to their end"))
        outcome.bars = bars
        return True
    outcome.bars = bars
    return False


def _wait(engine: Engine, log: EventLog, controls: Controls, at: datetime, seconds: float) -> bool:
    """Wait for the next bar, with an ear for the operator; True if the run was told to stop."""
    while seconds > 0:
        if controls.stop.wait(min(seconds, LISTEN_SECONDS)):
            return True
        seconds -= LISTEN_SECONDS
        if controls.requests is not None:
            _operator(engine, log, controls.requests, at)
    return False


def _operator(engine: Engine, log: EventLog, box: RequestBox, at: datetime) -> None:
    for path, command in box.take(at):
        refusal = ""
        try:
            engine.handle(command)
        except CommandRefused as refused:
            refusal = str(refused)
        log.commit()
        box.answer(path, refusal)


def strategies_loader(wanted: Iterable[tuple[str, Mapping[str, str]]]) -> LoadStrategies:
    """Fresh strategies for pairs of a source and parameters as texts; two of one name are told apart by a number."""
    from mqd_ledger.strategies import registry

    def load_all() -> tuple[tuple[StrategySpec, ...], Mapping[str, Strategy]]:
        specs: list[StrategySpec] = []
        strategies: dict[str, Strategy] = {}
        for source, texts in wanted_list:
            short = source.rpartition(":")[2]
            number = sum(1 for name in strategies if name == short or name.startswith(f"{short}-"))
            name = f"{short}-{number + 1}" if number else short
            spec, strategies[name] = registry.load(name, source, registry.values(texts))
            specs.append(spec)
        return tuple(specs), strategies

    wanted_list = list(wanted)
    return load_all


def simulated_reactors(state: State, strategies: Mapping[str, Strategy]) -> Iterable[Reactor]:
    """The broker first: working orders meet a bar before any strategy sees it; then what the run decides by itself."""
    from mqd_ledger.brokers.simulated import SimulatedBroker

    return (SimulatedBroker(state), Unattended(state), *broker_reactors(state, strategies))


def broker_reactors(state: State, strategies: Mapping[str, Strategy]) -> Iterable[Reactor]:
    """Where the broker is elsewhere its reports are inputs; only the strategies, and what is made for them, answer in here."""
    longer = made_for(strategy.parameters.interval for strategy in strategies.values())
    return (StrategyHost(state, strategies), *([Aggregator(longer)] if longer else []))
