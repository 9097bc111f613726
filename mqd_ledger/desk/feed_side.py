"""The market data side: frames become commands, silence is noticed, what the stream did not bring is read from the history."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from commands import Command
from commands.market import ReportBar, ReportFeedRecovered, ReportFeedStale, ReportSymbolStatus
from mqd_ledger.desk.connection import Connection
from mqd_ledger.desk.inbox import Inbox
from mqd_ledger.desk.side import Every
from mqd_ledger.desk.worker import Worker
from mqd_ledger.errors import LedgerError
from mqd_ledger.feeds.alpaca import commands_of
from mqd_ledger.feeds.alpaca_history import gap_commands
from mqd_ledger.feeds.supervised import Item
from mqd_ledger.feeds.validation import RejectedRow
from mqd_ledger.sessions import session_at
from mqd_ledger.state import State
from mqd_ledger.values import EPOCH, Bar, Symbol

Found = Sequence[Bar | RejectedRow]
BARS = "bars"
NEVER = datetime.max.replace(tzinfo=UTC)
GAP_MAX = timedelta(
    days=7
)  # bars older than that are not asked for: no indicator of a minute strategy looks back so far
READS_MAX = 3  # attempts to read a gap
HELD_MAX = 10_000  # frames that wait for it
JITTER = 2.0  # seconds of the wall that a bar may be late where the market's minutes are short
SETTLED = 3  # seconds into a minute, when the history has the one before
GAP_AGAIN = 15.0  # seconds until a history that could not be read is asked for again


class FeedSide:
    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        self._connection = connection
        self._inbox = inbox
        self._reader = Worker("history", inbox)  # another host than the broker's: neither waits for the other
        self._heard_at = EPOCH  # of the last bar, by the desk's clock
        self._has_gap = False  # the stream was away, or lost frames: what it did not bring is to be read
        self._reading = False
        self._is_new_gap = False  # the stream was away again while the last one was read
        self._failures = 0
        self._halted: dict[Symbol, datetime] = {}  # by the exchange -> since when, as far as it was noticed here
        self._held: deque[Mapping[str, Any]] = deque(maxlen=HELD_MAX)
        self._last_reason = ""
        self._read_due = Every(GAP_AGAIN)
        self._look_due = Every(1.0)
        self.stream = connection.feed(self.hear)

    def stop(self, seconds: float) -> None:
        self._reader.stop(seconds)

    def hear(self, item: Item) -> None:
        """Called by the stream's thread, which keeps what finds no room, or says that it lost it."""
        match item:
            case ("frame", _, raw, received_at):
                self._inbox.offer(lambda state, at: self._frame(raw, state, at), received_at)
            case ("up", _):
                self._inbox.offer(self._up)
            case ("down", _, reason):
                self._inbox.offer(lambda state, at: self._down(reason, state, at))

    def _frame(self, raw: Mapping[str, Any], _state: State, at: datetime) -> Iterator[Command]:
        is_bar = raw.get("T") == "b"
        if is_bar and self._has_gap:
            self._held.append(raw)  # what was missed is older and has to come first
            return
        for command in commands_of(raw, at):
            if isinstance(command, ReportBar) and command.bar.start_at >= self._halted.get(command.bar.symbol, NEVER):
                yield ReportSymbolStatus(at, at, command.bar.symbol, False, "", "it trades again")  # noqa: FBT003
            yield command
        if is_bar:
            self._heard_at = at
            yield ReportFeedRecovered(at, BARS, "bars come again")

    def _up(self, _state: State, _at: datetime) -> Iterator[Command]:
        self._has_gap = True
        self._is_new_gap |= self._reading
        self._read_due = Every(GAP_AGAIN)
        self._last_reason = ""
        return iter(())

    def _down(self, reason: str, _state: State, _at: datetime) -> Iterator[Command]:
        self._has_gap = True
        self._is_new_gap |= self._reading
        self._last_reason = reason
        return iter(())

    def tick(self, state: State, at: datetime) -> Iterator[Command]:
        can_read = self._has_gap and self.stream.stream.is_up and not self._reading and at.second >= SETTLED
        if can_read and self._read_due(at):
            self._reading, self._is_new_gap = True, False
            since = {symbol: _since(symbol, state, at) for symbol in self._connection.symbols}
            self._reader.give(lambda: self._read(since, at), self._filled)
        if not self._look_due(at):
            return
        # The word that trading goes on may be lost; a minute that began after the halt and has trades says the same.
        self._halted = {symbol: self._halted.get(symbol, at) for symbol in state.halted_symbols}
        session = session_at(at)
        if session is None or self._heard_at == EPOCH:
            self._heard_at = at
            return
        silent = (at - max(self._heard_at, session.open_at)).total_seconds()
        if silent > max(state.policy.unattended.feed_silent_after, JITTER * self._connection.rate()):
            reason = f"no bar came for {silent:.0f} s{self._last_reason and f': {self._last_reason}'}"
            yield ReportFeedStale(at, BARS, reason)
        yield from self._fresh_prices(state, at)

    def _fresh_prices(self, state: State, at: datetime) -> Iterator[Command]:
        """What is held or ordered gets a price from its quote where minutes bring no trade, so that its exit is not refused."""
        oldest = state.policy.limits.stale_after
        if oldest is None:
            return
        for symbol in dict.fromkeys([*state.positions, *state.working]):
            mark = state.marks.get(symbol)
            quote = self.stream.quotes.needed(symbol, mark, at, oldest)
            if quote is not None:
                yield quote

    def _read(self, since: Mapping[Symbol, datetime | None], until: datetime) -> Found | LedgerError:
        try:
            return self._connection.history(since, until)
        except LedgerError as problem:
            return problem

    def _filled(self, bars: Found | LedgerError, state: State, at: datetime) -> Iterator[Command]:
        self._reading = False
        if isinstance(bars, LedgerError):
            self._failures += 1
            yield ReportFeedStale(at, BARS, f"what the stream did not bring could not be read: {bars}")
            if self._failures < READS_MAX:
                return
            bars = ()  # it goes on with the gap, which the event before this tells
        self._failures = 0
        self._has_gap = self._is_new_gap
        known = {symbol: start_at for (symbol, interval), start_at in state.last_bars.items() if interval == "1m"}
        yield from gap_commands(bars, at, known)
        if self._has_gap:
            return
        held, self._held = list(self._held), deque(maxlen=HELD_MAX)
        for raw in held:
            for command in commands_of(raw, at):
                if not isinstance(command, ReportBar) or _is_new(command.bar, state):
                    yield command
        self._heard_at = at
        yield ReportFeedRecovered(at, BARS, "the stream is up, and what it had not brought was read")


def _is_new(bar: Bar, state: State) -> bool:
    return bar.start_at > state.last_bars.get((bar.symbol, bar.interval), EPOCH)


def _since(symbol: Symbol, state: State, at: datetime) -> datetime | None:
    last = state.last_bars.get((symbol, "1m"))
    return None if last is None else max(last, at - GAP_MAX)
