"""The thread that decides: comes back to where the record ends, then takes one arrival after another until it is told to stop."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from msgspec import structs

from commands import Command
from commands.broker_reports import BrokerReport
from commands.control import ActivateKillSwitch, CreateLedger, EndRun, HaltTrading, StartRun
from commands.market import ReportSymbolStatus
from commands.truth import ReportUnreachable, ReportUnusable, StartRecovery
from mqd_ledger import __version__
from mqd_ledger.desk.broker_side import TRADE_UPDATES, BrokerSide
from mqd_ledger.desk.connection import Connection
from mqd_ledger.desk.feed_side import FeedSide
from mqd_ledger.desk.inbox import Inbox
from mqd_ledger.desk.narration import NOT_YET, Narrator
from mqd_ledger.desk.outbox import Outbox
from mqd_ledger.desk.recorded import Recorded
from mqd_ledger.desk.sessions_side import SessionsSide
from mqd_ledger.desk.side import Every, Side
from mqd_ledger.desk.worker import Worker
from mqd_ledger.engine import DecidedDifferently, Engine
from mqd_ledger.errors import CommandRefused, LedgerUnreadable
from mqd_ledger.events import BarClosed, RunStarted, Source
from mqd_ledger.killing import breach
from mqd_ledger.log import EventLog
from mqd_ledger.policy import Policy
from mqd_ledger.recovery import Recovery
from mqd_ledger.run_changes import changes
from mqd_ledger.runs import Controls, LoadStrategies, MakeReactors, Outcome, fold, last_run, rehearsed
from mqd_ledger.snapshots import RUN_START, Saver
from mqd_ledger.state import State
from mqd_ledger.strategies.base import Strategy
from mqd_ledger.values import from_microseconds

IDLE_SECONDS = 0.05  # of the wall: how long the desk waits for an arrival before it looks at what is due
COMMIT_AT = 500  # events: a burst of arrivals that sends nothing out is written together
OVER_SECONDS = 10.0  # of the wall, for the broker's last words after a played market is over
LOOK_SECONDS = 1.0  # so long at most, however much arrives, nobody looks at what is due
STOP_SECONDS = 2.0  # a helper thread gets so long to end


@dataclass(frozen=True)
class DeskPlan:
    """What a run with a broker is made of."""

    mode: str
    source: Source
    strategies: LoadStrategies
    policy: Policy
    ledger_id: str  # of a new ledger
    reactors: MakeReactors  # the pure ones
    connection: Connection
    until: Callable[[State], bool] = lambda _state: False  # it stops by itself once that holds
    # Looks at the whole log while trading goes on, where the start has looked at its end alone; what is wrong with it, or "".
    check: Callable[[], str] | None = None


def trade(log: EventLog, plan: DeskPlan, controls: Controls) -> Outcome:
    """Trade on an open log until told to stop, or until a played market is over."""
    outcome = Outcome(State())
    parts = _open(log, plan, controls, outcome)
    saver = None if controls.snapshots is None else Saver(controls.snapshots, parts.engine.reactors)
    desk = Desk(log, parts, plan, controls, outcome, saver)
    try:
        outcome.finished = desk.run()
        if outcome.finished:
            desk.take(plan.connection.clock(), lambda _state, at: [EndRun(at, "the bars came to their end")])
        log.commit()
        parts.narrator.speak()
    finally:
        desk.close()
    if saver is not None:
        saver.close(outcome.state, log)
    outcome.news += [f"Strategy {name} was stopped: {why}" for name, why in outcome.state.stopped_strategies.items()]
    head = log.head
    outcome.head_position, outcome.log_hash = head.position, head.hash.hex()
    return outcome


class _Parts(NamedTuple):
    engine: Engine
    outbox: Outbox
    narrator: Narrator


def _open(log: EventLog, plan: DeskPlan, controls: Controls, outcome: Outcome) -> _Parts:
    """The open run, rehearsed to where its record ends; else a new one."""
    snapshots = controls.snapshots
    specs, _ = plan.strategies()
    started, ended = last_run(log)
    open_run = started.event if started is not None and not ended and isinstance(started.event, RunStarted) else None
    changed = changes(open_run, plan.mode, plan.source, specs, plan.policy)
    made: list[_Parts] = []  # the last one is the one that counts

    def engine_on(state: State, strategies: Mapping[str, Strategy]) -> Engine:
        outbox, narrator = Outbox(state), Narrator(state, controls.tell)
        made.append(_Parts(Engine(state, log, [outbox, narrator, *plan.reactors(state, strategies)]), outbox, narrator))
        return made[-1].engine

    if started is not None and open_run is not None and not changed:
        before = fold(log, upto=started.position - 1, snapshots=snapshots)
        try:
            rehearsed(log, started.position, before, lambda state: engine_on(state, plan.strategies()[1]), snapshots)
        except DecidedDifferently as different:
            changed = str(different)
        else:
            outcome.resumed_at = log.head.position
            return _heard(made[-1], outcome)
    if open_run is not None:
        outcome.news.append(f"The open run is ended and a new one started: {changed}")
    engine = engine_on(fold(log, snapshots=snapshots), plan.strategies()[1])
    parts = _heard(made[-1], outcome)
    at = max(plan.connection.clock(), from_microseconds(log.head.recorded_at))
    if not engine.state.ledger_id:
        engine.handle(CreateLedger(at, plan.ledger_id))
    if engine.state.run_is_open:
        engine.handle(EndRun(at, "another run was started on this ledger"))
    if snapshots is not None:
        snapshots.save(engine.state, log.head, pin=RUN_START)
    engine.handle(StartRun(at, plan.mode, __version__, plan.source, specs, plan.policy))
    log.commit()
    return parts


def _heard(parts: _Parts, outcome: Outcome) -> _Parts:
    """From here on what is decided has effects, and is told."""
    parts.outbox.is_muted = parts.narrator.is_muted = False
    outcome.state = parts.engine.state
    return parts


class Desk:
    def __init__(
        self,
        log: EventLog,
        parts: _Parts,
        plan: DeskPlan,
        controls: Controls,
        outcome: Outcome,
        saver: Saver | None,
    ) -> None:
        self.engine, self.state = parts.engine, parts.engine.state
        self.log = log
        self._outbox, self._narrator = parts.outbox, parts.narrator
        connection = plan.connection
        self._inbox = Inbox(connection.clock)
        self._connection = connection
        self._plan = plan
        self._controls = controls
        self._outcome = outcome
        self._saver = saver
        self._at = from_microseconds(log.head.recorded_at)  # the log's time never falls
        self._file = _identity(log.path)
        self._clock, self._seen_at = connection.clock(), self._at  # when it was looked at last
        self._looked_at = monotonic()
        recovery = Recovery(self.state, chain_detail=f"{log.head.position:,} events, their chain is whole")
        self._broker = BrokerSide(connection, self._inbox, recovery)
        self._feed = FeedSide(connection, self._inbox)
        sessions = SessionsSide(connection, self._broker.reader)
        self._sides: Sequence[Side] = (self._broker, self._feed, sessions)
        self._checker = Worker("log check", self._inbox)
        self._over_due = Every(1.0)
        self._over_at: float | None = None  # when the market was found to be over

    def run(self) -> bool:
        """True if the market came to its end, False if the run was told to stop."""
        self.take(self._connection.clock(), self._begin)
        if self._plan.check is not None:
            self._checker.give(self._plan.check, _checked)
        self._broker.stream.start()
        self._feed.stream.start()
        stopped, until = self._controls.stop.is_set, self._plan.until
        while not (stopped() or until(self.state)):
            arrival = self._inbox.take(0 if self._outbox else IDLE_SECONDS)
            if arrival is not None:
                self.take(arrival.received_at, arrival.translate)
            is_time = self._outbox or self.log.pending >= COMMIT_AT or not len(self._inbox)
            has_sent = is_time and self.settle()  # then the worker is not held up by what is due
            is_idle = not has_sent and (arrival is None or not len(self._inbox))
            if is_idle or monotonic() > self._looked_at + LOOK_SECONDS:
                self.look()
                if self._over_due(self._at) and self._connection.is_over() and self._has_rest():
                    return True
        return False

    def _has_rest(self) -> bool:
        """After a market's end the broker's last words on what still works are waited for, a while."""
        if not self.state.working and not len(self._inbox):
            return True
        self._over_at = self._over_at or monotonic()
        self._broker.ask_now(self._at)
        return monotonic() > self._over_at + OVER_SECONDS

    def _begin(self, _state: State, at: datetime) -> Iterable[Command]:
        yield StartRecovery(at)
        yield ReportUnreachable(at, TRADE_UPDATES, NOT_YET)
        yield from self._broker.recovery.begin(self.state, at)

    def take(self, received_at: datetime, translate: Callable[[State, datetime], Iterable[Command]]) -> None:
        """One arrival: every command it asks for, each with the state that the one before left."""
        self._at = max(self._at, received_at)
        for command in translate(self.state, self._at):
            self._handle(command)

    def _handle(self, command: Command) -> None:
        if command.at < self._at:  # the log's time never falls, and what is decided has to be decided the same again
            command = structs.replace(command, at=self._at)
        self._at = command.at
        if isinstance(command, BrokerReport | ReportSymbolStatus) and command.occurred_at > command.at:
            # A clock elsewhere is ahead of ours: what it says of the future is of now, or the day of the limits would move there.
            command = structs.replace(command, occurred_at=command.at)
        try:
            events = self.engine.handle(command)
        except CommandRefused as refused:
            if not isinstance(command, BrokerReport):
                self._controls.tell(f"refused: {refused}")
                return
            self.engine.handle(ReportUnusable(self._at, type(command).__name__, repr(command), str(refused)))
            return
        if events and type(events[0]) is BarClosed:
            self._outcome.bars += 1
            wanted = breach(self.state, self._at)
            if wanted is not None:
                self._activate(wanted)

    def _activate(self, command: ActivateKillSwitch) -> None:
        self.engine.handle(command)
        self._broker.ask_now(self._at)

    def settle(self) -> bool:
        """On the disk first, then out into the world; whether anything went out. Who watches is told when nothing does."""
        effects = [*self._outbox.take(), *self._broker.repeats()]
        if not effects:
            self.log.commit()
            self._narrator.speak()
            return False
        self._require_file()
        with Recorded() as recorded:  # made ready while the disk is waited for
            self.log.commit(meanwhile=partial(self._broker.send, effects, self.state, self._at, recorded))
        return True

    def look(self) -> None:
        """What is due, and what an operator asks."""
        self._looked_at = monotonic()
        self._require_file()
        now = self._now()
        for side in self._sides:
            for command in side.tick(self.state, now):
                self._handle(command)
        if self._controls.requests is not None:
            for path, command in self._controls.requests.take(now):
                refusal = ""
                try:
                    self.engine.handle(command)
                except CommandRefused as refused:
                    refusal = str(refused)
                self.log.commit()
                self._broker.recall(self.state)
                self._controls.requests.answer(path, refusal)
                self._broker.ask_now(now)
        self.settle()
        if self._saver is not None:
            self._saver.maybe(self.state, self.log)

    def _require_file(self) -> None:
        """A file that was removed takes what is written without a word, and nobody finds it again."""
        if self._file != _identity(self.log.path):
            raise LedgerUnreadable(
                f"The ledger {self.log.path} was removed, moved or replaced while it was traded on, so nothing is sent any more. "
                "Put it back, or restore a backup, and start again: what happened since is asked of the broker."
            )

    def _now(self) -> datetime:
        """By the clock. Where that was set back the log's time, which never falls, goes on at half the pace until they meet again:
        if it stood still, so would all that is due by it, the kill switch too.
        """
        clock = self._connection.clock()
        if clock < self._at:
            self._at = max(self._at, self._seen_at + max(clock - self._clock, timedelta()) / 2)
        else:
            self._at = clock
        self._clock, self._seen_at = clock, self._at
        return self._at

    def close(self) -> None:
        for stream in (self._feed.stream, self._broker.stream):
            stream.stop(STOP_SECONDS)
        self._broker.stop(STOP_SECONDS)
        self._feed.stop(0)
        self._checker.stop(0)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Of the file that has this name now."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _checked(problem: str, _state: State, at: datetime) -> Iterable[Command]:
    """What was tampered with is not traded on."""
    return [HaltTrading(at, "log check", problem)] if problem else []
