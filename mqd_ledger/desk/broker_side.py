"""The broker's side of the desk: what was decided is sent, what is not known is asked for, and the books are compared.

An answer that never came is not an answer: the order is looked up by its client_order_id until the broker has said that it has it,
or long enough that it has not. Only then is anything decided anew (`commands/broker_reports.py`, `absent`).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import NamedTuple

from commands import Command
from commands.broker_reports import RESENDS_IN, ReportAbsent
from commands.control import is_killing
from commands.truth import ReportReachable, ReportUnreachable, ReportUnusable
from mqd_ledger.brokers.alpaca import Answer, Cancel, Effect, LookUp, Replace, Submit, answer_commands
from mqd_ledger.brokers.alpaca_updates import commands_of
from mqd_ledger.brokers.base import BrokerBooks
from mqd_ledger.brokers.keys import check_account
from mqd_ledger.brokers.reconciliation import Reconciler
from mqd_ledger.desk.connection import Connection
from mqd_ledger.desk.inbox import Inbox
from mqd_ledger.desk.outbox import unanswered
from mqd_ledger.desk.recorded import Recorded
from mqd_ledger.desk.worker import Worker
from mqd_ledger.errors import LedgerError
from mqd_ledger.feeds.supervised import Item
from mqd_ledger.killing import next_steps
from mqd_ledger.recovery import Recovery
from mqd_ledger.sessions import session_at
from mqd_ledger.state import State
from mqd_ledger.values import EPOCH, TradingState

ORDERS, TRADE_UPDATES = "orders", "trade_updates"  # the ways to the broker, as blocks name them
OVERLAP = timedelta(hours=1)  # executions are asked for from before the last one known: they come late and out of order
LOOK_AGAIN = (1, 2, 4, 8, 15, 30)  # seconds between two look-ups of one order; the last one for ever
ASK_AGAIN = (1, 2, 5, 10, 30, 60)  # seconds between two comparisons that could not be made
KILL_EVERY = timedelta(seconds=2)
OPEN_EVERY = 25.0  # seconds of the wall: so often the connection for orders is used; many close one after 60 without
OPEN_AT = range(10, 56)  # seconds of a minute, when no bar comes and no order is about to
EARLY_MAX = 10_000  # updates; what is lost of them is in the books
PATIENCE = 2  # comparisons that may fail before orders wait


class _Lookup(NamedTuple):
    due_at: datetime
    tries: int
    attempt_at: datetime


class BrokerSide:
    def __init__(self, connection: Connection, inbox: Inbox, recovery: Recovery) -> None:
        self.connection = connection
        self.recovery = recovery
        self.reconciler: Reconciler = recovery.reconciler
        self._inbox = inbox
        self._entry = Worker("order entry", inbox)
        # Where cancels are not answered, what closes does not wait behind them.
        self._cancels = Worker("order cancels", inbox)
        self.reader = Worker("broker reader", inbox)
        self._lookups: dict[str, _Lookup] = {}
        self._queued: dict[str, Submit] = {}  # orders that wait to be sent, or for the answer
        self._recalled: set[str] = set()  # of these, the ones that are not to be sent any more
        self._canceling: set[str] = set()  # orders whose cancel waits to be sent, or for the answer
        self._repeats: list[Effect] = []  # cancels that are asked for once more, after the next commit
        self._is_ours = False  # the account that answers is that of the ledger
        self._early: deque[object] = deque(maxlen=EARLY_MAX)  # what its stream said before that was known
        self._asking = False
        self._ask_again = False  # once the look that is under way has ended
        self._ask_at = EPOCH
        self._failures = 0
        self._open_at = 0.0
        self._told: set[str] = set()  # of what could not be read
        self._stream_up_at: datetime | None = None  # since then; None while it is down
        self.stream = connection.trades(self.hear)

    def stop(self, seconds: float) -> None:
        for worker in (self._entry, self._cancels, self.reader):
            worker.stop(seconds)

    # --- what was decided goes out ------------------------------------------------------------------------------------

    def send(self, effects: Iterable[Effect], state: State, at: datetime, recorded: Recorded) -> None:
        """Each is prepared at once; it leaves when the turn that wants it is `recorded`."""
        latest = at + timedelta(seconds=state.policy.unattended.resend_within)
        session = session_at(at)
        if session is not None and state.policy.limits.session == "regular":
            latest = min(latest, session.close_at)  # what the broker gets after it waits there for the next open
        for effect in effects:
            key, worker = effect.client_order_id, self._entry
            if isinstance(effect, Submit):
                self._queued[key] = effect
            elif isinstance(effect, Cancel):
                if key in self._queued:
                    self._recalled.add(key)
                if key in self._canceling:
                    continue  # it is asked for in this moment
                self._canceling.add(key)
                worker = self._cancels
            worker.give(partial(self._perform, effect, latest, recorded), partial(self._answered, effect, at))

    def recall(self, state: State) -> None:
        """What waits behind a broker that does not answer stays here where trading has stopped meanwhile; not what closes."""
        if self._queued and (state.trading_state is not TradingState.ACTIVE or state.blocks.keys() - RESENDS_IN):
            self._recalled.update(key for key, submit in self._queued.items() if not submit.closes)

    def _perform(self, effect: Effect, latest: datetime, recorded: Recorded) -> Answer:
        """An order that waited behind a broker that does not answer is not sent when nobody expects it any more."""
        if isinstance(effect, Submit):
            if effect.client_order_id in self._recalled:
                return Answer("absent", None, "it was taken back before its turn to be sent")
            if self.connection.clock() > latest:
                return Answer("absent", None, "it waited too long for its turn to be sent")
        with self.connection.broker.rest.held_back(recorded):
            return self.connection.broker.perform(effect)

    def _answered(
        self, effect: Effect, sent_at: datetime, answer: Answer, state: State, at: datetime
    ) -> Iterator[Command]:
        key = effect.replacement_id if isinstance(effect, Replace) else effect.client_order_id
        if isinstance(effect, Submit):
            self._queued.pop(key, None)
            self._recalled.discard(key)
        elif isinstance(effect, Cancel):
            self._canceling.discard(key)
        known = self._lookups.pop(key, None)
        if answer.kind == "unknown":
            count = known.tries + 1 if known else 0
            wait = timedelta(seconds=LOOK_AGAIN[min(count, len(LOOK_AGAIN) - 1)])
            attempt_at = known.attempt_at if known and not isinstance(effect, Submit) else sent_at
            self._lookups[key] = _Lookup(at + wait, count, attempt_at)
            if isinstance(effect, Submit) or count >= PATIENCE:
                self.ask_now(at)  # is it only this order, or the whole way that is down?
            if isinstance(effect, Cancel):  # an order that still works then is asked back again
                self._ask_at = min(self._ask_at, at + KILL_EVERY)
        yield from answer_commands(effect, answer, state, at)

    # --- what the stream says -----------------------------------------------------------------------------------------

    def hear(self, item: Item) -> None:
        """Called by the stream's thread, which keeps what finds no room, or says that it lost it."""
        match item:
            case ("frame", _, raw, received_at):
                self._inbox.offer(lambda state, at: self._update(raw, state, at), received_at)
            case ("up", _):
                self._inbox.offer(self._up)
            case ("down", _, reason):
                self._inbox.offer(lambda state, at: self._down(reason, state, at))

    def _update(self, raw: object, state: State, at: datetime) -> Iterable[Command]:
        """Nothing is booked before the broker has said that these keys are of the account that the books are of."""
        if self._is_ours:
            return commands_of(raw, state, at)
        self._early.append(raw)
        return ()

    def _up(self, _state: State, at: datetime) -> Iterator[Command]:
        """What was said while it was away is read from the books; until they are compared, orders go on waiting."""
        self._stream_up_at = at
        self.ask_now(at)
        return iter(())

    def _down(self, reason: str, _state: State, at: datetime) -> Iterator[Command]:
        self._stream_up_at = None
        yield ReportUnreachable(at, TRADE_UPDATES, reason)

    # --- what is due --------------------------------------------------------------------------------------------------

    def tick(self, state: State, at: datetime) -> Iterator[Command]:
        self.connection.broker.rest.hang_up_late()
        self.recall(state)
        for key, lookup in [(key, lookup) for key, lookup in self._lookups.items() if lookup.due_at <= at]:
            del self._lookups[key]
            effect = LookUp(key, lookup.attempt_at)
            self.reader.give(partial(self.connection.broker.perform, effect), partial(self._looked_up, effect, lookup))
        if at >= self._ask_at and not self._asking:
            self._ask(state, at)
        if at.second in OPEN_AT and monotonic() >= self._open_at:
            self._open_at = monotonic() + OPEN_EVERY
            self._entry.give(self.connection.broker.rest.keep_open, lambda _nothing, _state, _at: ())
        return iter(())

    def _looked_up(
        self, effect: LookUp, lookup: _Lookup, answer: Answer, state: State, at: datetime
    ) -> Iterator[Command]:
        if effect.client_order_id in self._queued:
            return  # it was sent again since this was asked: what comes of that is not known here
        self._lookups.setdefault(effect.client_order_id, lookup)
        yield from self._answered(effect, lookup.attempt_at, answer, state, at)

    def _ask(self, state: State, at: datetime) -> None:
        self._asking, self._ask_again = True, False
        working = [
            (order.client_order_id, order.broker_order_id)
            for orders in state.working.values()
            for order in orders.values()
            if order.approved
        ]
        last = min(state.last_execution_at, at)  # it is the broker's time, whose clock may have been ahead
        after = max(state.attached_at, last - OVERLAP) if state.account_number else at
        self.reader.give(partial(self._books, working, after, at), self._compare)

    def _books(
        self, working: list[tuple[str, str | None]], after: datetime, asked_at: datetime
    ) -> BrokerBooks | LedgerError:
        try:
            return self.connection.broker.books(working, after, asked_at)
        except LedgerError as problem:
            return problem

    def _compare(self, books: BrokerBooks | LedgerError, state: State, at: datetime) -> Iterator[Command]:
        self._asking = False
        if isinstance(books, LedgerError):
            yield from self._cannot_be_asked(books, state, at)
            return
        self._failures = 0
        check_account(
            self.connection.environment, books.account.account_number
        )  # else the run ends here, before any order
        if books.unread:
            yield ReportUnreachable(at, ORDERS, " ".join(books.unread))
        else:
            yield ReportReachable(at, ORDERS, "the broker answers")
        for problem in [problem for problem in books.problems if problem not in self._told]:
            self._told.add(problem)
            yield ReportUnusable(at, ORDERS, problem, "it was left out of the comparison")
        if not self.recovery.is_done(state):
            found = self.recovery.advance(state, books, None, at)
        else:
            found = self.reconciler.compare(state, books, at)
        # What waits here for its turn cannot be at the broker, and is not lost either.
        yield from (one for one in found if not (isinstance(one, ReportAbsent) and one.client_order_id in self._queued))
        yield from self._heard_early(books, state, at)
        open_orders = {order.client_order_id: order for order in books.open_orders}
        strays = (Cancel(stray.client_order_id, stray.broker_order_id) for stray in self.reconciler.strays)
        self._repeats += [*unanswered(state, open_orders), *strays]
        if is_killing(state):
            yield from next_steps(state, books, at, self.reconciler.empty_since)
        if self._stream_up_at is not None and books.asked_at >= self._stream_up_at:
            yield ReportReachable(at, TRADE_UPDATES, "the stream is up and the books were compared")
        self._ask_at = at if self._ask_again else at + self._pause(state)

    def _heard_early(self, books: BrokerBooks, state: State, at: datetime) -> Iterator[Command]:
        account = books.account
        is_ours = (account.environment, account.account_number) == (state.environment, state.account_number)
        if is_ours and not self._is_ours:
            self._is_ours = True
            for raw in self._early:
                yield from commands_of(raw, state, at)
        self._early.clear()

    def repeats(self) -> list[Effect]:
        repeats, self._repeats = self._repeats, []
        return repeats

    def _cannot_be_asked(self, problem: LedgerError, state: State, at: datetime) -> Iterator[Command]:
        self._ask_at = at + timedelta(seconds=ASK_AGAIN[min(self._failures, len(ASK_AGAIN) - 1)])
        self._failures += 1
        if not self.recovery.is_done(state):
            yield from self.recovery.advance(state, None, str(problem), at)
        if self._failures >= PATIENCE:
            yield ReportUnreachable(at, ORDERS, str(problem))
        yield from next_steps(state, None, at)  # of the kill switch: what it can do without the books

    def _pause(self, state: State) -> timedelta:
        """Until the books are looked at again."""
        rules = state.policy.unattended
        if is_killing(state):
            return KILL_EVERY
        if not self.recovery.is_done(state) or self.reconciler.is_unsettled:
            return timedelta(seconds=max(1, rules.settle // 2))
        return timedelta(seconds=rules.reconcile_every)

    def ask_now(self, at: datetime) -> None:
        """The next look at the books is due, also where one is under way: that was asked for before this became known."""
        self._ask_at = min(self._ask_at, at)
        self._ask_again = self._asking
