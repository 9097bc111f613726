"""The broker is the truth: what its books say that the ledger does not, as commands. Never an order.

First orders and executions, one order at a time: how it began, what it filled, how it ended. Then what is left over: money that the
broker explains, shares symbol by symbol with what was paid for them, and the rest of the cash last. Executions are booked wherever
they are told first. Everything else has to be seen twice, `settle` seconds apart and with nothing executed between, because what a
broker answers lags behind its own stream by seconds.

What comes out are iterators that look at the state as they go: every command is handled before the next one is asked for.
A kind of movement that the broker names anew gets its row in `holdings.py`; a way to tell orders apart belongs here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from commands import Command, decide
from commands.broker_reports import ReportAbsent, ReportCanceled, ReportExpired, ReportRejected, ReportUnknownOrder
from commands.truth import ReportUnusable
from mqd_ledger.brokers.base import BrokerBooks, BrokerFill, BrokerOrder
from mqd_ledger.brokers.holdings import cash, movements, shares
from mqd_ledger.brokers.missed import contradiction, disappearance, fill_of, is_counted, manual_order, missed, rest_of
from mqd_ledger.brokers.suspicions import Suspicions
from mqd_ledger.errors import CommandRefused
from mqd_ledger.orders import TERMINAL, Order
from mqd_ledger.state import State
from mqd_ledger.values import OrderState, Symbol

# What a broker's word on an order, its executions apart, asks of the ledger.
OrderCommands = Callable[[BrokerOrder, State, datetime], Iterable[Command]]

# Told after the order's executions, so that those are no surprise.
ENDS = (ReportCanceled, ReportExpired, ReportRejected)
# What a suspicion about an order is: executions untold, not listed, still open, ended unheard. Doubt is about its symbol.
UNTOLD, ABSENT, STRAY, ENDED, DOUBT = "untold", "absent", "stray", "ended", "doubt"


class _Books(NamedTuple):
    """A broker's books, ordered for going through them; `undone` are the orders of which an execution was taken back."""

    books: BrokerBooks
    orders: tuple[BrokerOrder, ...]
    fills: dict[str, list[BrokerFill]]  # by broker_order_id, by the order's filled quantity
    undone: frozenset[str]


class Reconciler:
    """Keeps only what it needs to see that a disagreement lasts, and what was said of it already."""

    def __init__(self, order_commands: OrderCommands) -> None:
        self._order_commands = order_commands
        self._suspicions = Suspicions()
        self._told: set[str] = set()
        self._empty: tuple[tuple[int, ...], datetime] | None = None
        self.strays: tuple[BrokerOrder, ...] = ()  # open at the broker though they ended here: to be canceled there

    def compare(self, state: State, books: BrokerBooks, at: datetime) -> Iterator[Command]:
        yield from self.compare_orders(state, books, at)
        yield from self.compare_holdings(state, books, at)

    @property
    def is_unsettled(self) -> bool:
        """Whether the last comparison saw something that it could not judge yet."""
        return bool(self._suspicions.young)

    @property
    def has_untold(self) -> bool:
        """Whether the broker counts executions that it has not told, and may still tell."""
        return any(about == UNTOLD for about, _ in self._suspicions.young)

    @property
    def empty_since(self) -> datetime | None:
        """Since when every comparison has found no order and no position at the broker while nothing changed in the ledger."""
        return None if self._empty is None else self._empty[1]

    # --- orders and their executions ----------------------------------------------------------------------------------

    def compare_orders(self, state: State, books: BrokerBooks, at: datetime) -> Iterator[Command]:
        self._suspicions.begin(books.asked_at, state.policy.unattended.settle)
        self.strays = ()
        sorted_books = _sorted(books, state)
        for theirs in sorted_books.orders:
            yield from self._order(theirs, sorted_books, state, at)
        listed = {order.client_order_id for order in sorted_books.orders}
        for ours in [order for orders in state.working.values() for order in orders.values()]:
            if ours.client_order_id not in listed and ours.approved and ours.requested_at <= books.asked_at:
                yield from self._absent(ours, books, at)

    def _order(self, theirs: BrokerOrder, sorted_books: _Books, state: State, at: datetime) -> Iterator[Command]:
        rows = sorted_books.fills.get(theirs.broker_order_id, [])
        is_new = theirs.client_order_id not in state.orders
        if is_new and not _concerns(theirs, rows, state):
            return
        reports = list(self._order_commands(theirs, state, at))
        if any(isinstance(report, ReportUnknownOrder) for report in reports):
            yield manual_order(theirs, at)
        yield from self._news([report for report in reports if not isinstance(report, ENDS)], state)
        ours = state.orders.get(theirs.client_order_id)
        if ours is None:
            return
        if ours.client_order_id not in sorted_books.undone:
            yield from self._executions(theirs, ours, rows, sorted_books.books, state, at)
        yield from self._news([report for report in reports if isinstance(report, ENDS)], state)
        if ours.is_working != (theirs.state not in TERMINAL):
            yield from self._ended(theirs, ours, sorted_books.books, at)

    def _executions(
        self,
        theirs: BrokerOrder,
        ours: Order,
        rows: Sequence[BrokerFill],
        books: BrokerBooks,
        state: State,
        at: datetime,
    ) -> Iterator[Command]:
        """Those that are not booked yet. One that is young is only on its way by the stream, too; an older one was missed."""
        settle = timedelta(seconds=state.policy.unattended.settle)
        for row in rows:
            fill = fill_of(row, theirs, ours, at)
            is_young = books.asked_at - row.occurred_at < settle
            if is_young and ours.quantity is None and theirs.state not in TERMINAL:
                self._suspicions.doubt(DOUBT, ours.symbol)  # only its end will say whether that was all for its dollars
            elif not is_counted(row, ours):
                if not is_young and changes(fill, state):
                    yield missed(fill, theirs, ours, state, books)
                yield from self._news([fill], state)
        rest = rest_of(theirs, ours, at)
        if not rest:
            return
        if not self._suspicions.lasts(UNTOLD, ours.client_order_id, (theirs.filled_quantity, ours.executions)):
            self._suspicions.doubt(DOUBT, ours.symbol)
            return
        for fill in rest:
            if changes(fill, state):
                yield missed(fill, theirs, ours, state, books)
            yield from self._news([fill], state)

    def _absent(self, ours: Order, books: BrokerBooks, at: datetime) -> Iterator[Command]:
        """Of an attempt, nobody knows whether it arrived until the broker has long enough not known it."""
        key = ours.client_order_id
        if not self._suspicions.lasts(ABSENT, key, (ours.attempts, ours.state)):
            self._suspicions.doubt(DOUBT, ours.symbol)
        elif ours.state is OrderState.PENDING and ours.broker_order_id is None:
            yield ReportAbsent(at, at, key)
        else:
            yield disappearance(ours, books, at)
            yield ReportCanceled(at, at, key, "the broker, which had acknowledged it, does not know it any more")

    def _ended(self, theirs: BrokerOrder, ours: Order, books: BrokerBooks, at: datetime) -> Iterator[Command]:
        """It works on one side only. What has ended here cannot work again, so it must not at the broker either."""
        key = ours.client_order_id
        if ours.is_working:
            is_filled = theirs.state is OrderState.FILLED
            if is_filled and ours.quantity is not None and ours.filled_quantity < theirs.filled_quantity:
                return  # what is missing of it is looked for among the executions
            if self._suspicions.lasts(ENDED, key, theirs.status):
                yield contradiction(theirs, ours, books, at)
                yield ReportCanceled(at, theirs.updated_at, key, f"the broker says that it is {theirs.status}")
        elif theirs.filled_quantity != theirs.quantity and self._suspicions.lasts(STRAY, key, ours.state):
            self.strays += (theirs,)
            if self._is_untold(f"{STRAY} {key}"):
                yield contradiction(theirs, ours, books, at)

    # --- shares and cash ----------------------------------------------------------------------------------------------

    def compare_holdings(self, state: State, books: BrokerBooks, at: datetime) -> Iterator[Command]:
        """After the orders of the same books."""
        suspicions = self._suspicions
        doubted: frozenset[Symbol] = frozenset(subject for about, subject in suspicions.young if about == DOUBT)
        yield from self._news(movements(state, books, at), state)
        yield from shares(state, books, at, suspicions, doubted)
        if not doubted:
            yield from cash(state, books, at, suspicions)
        suspicions.end()
        self._notice_emptiness(state, books)

    def _notice_emptiness(self, state: State, books: BrokerBooks) -> None:
        if books.positions or books.open_orders or books.unread or state.positions or state.working:
            self._empty = None
            return
        history = (state.fills_total, state.orders_total, len(state.closed_orders), state.differences_total)
        if self._empty is None or self._empty[0] != history:
            self._empty = history, books.asked_at

    # --- what is worth saying -----------------------------------------------------------------------------------------

    def _news(self, commands: Iterable[Command], state: State) -> Iterator[Command]:
        for command in commands:
            if self._is_news(command, state):
                yield command

    def _is_news(self, command: Command, state: State) -> bool:
        """Whether it changes anything. What makes no sense is handed on once: the desk records it as unusable."""
        if isinstance(command, ReportUnusable):
            return self._is_untold(f"{command.what} {command.reason} {command.raw}")
        try:
            return bool(decide(command, state))
        except CommandRefused as refused:
            return self._is_untold(f"{type(command).__name__} {refused}")

    def _is_untold(self, what: str) -> bool:
        if what in self._told:
            return False
        self._told.add(what)
        return True


def changes(command: Command, state: State) -> bool:
    """Whether something would be booked: the handler itself is asked. Evidence goes before that, and before nothing else."""
    try:
        return bool(decide(command, state))
    except CommandRefused:
        return False


def _sorted(books: BrokerBooks, state: State) -> _Books:
    """An order that stands in both lists counts as it was changed last; they are gone through as they traded, so that
    lots open and close as they did: one that took another's place comes after it.
    """
    latest: dict[str, BrokerOrder] = {}
    for order in (*books.orders, *books.open_orders):
        known = latest.get(order.broker_order_id)
        if known is None or order.updated_at > known.updated_at:
            latest[order.broker_order_id] = order
    fills: dict[str, list[BrokerFill]] = {}
    for fill in sorted(books.fills, key=lambda fill: (fill.cumulative_quantity, fill.occurred_at)):
        fills.setdefault(fill.broker_order_id, []).append(fill)
    first = {key: min(row.occurred_at for row in rows) for key, rows in fills.items()}
    orders = sorted(
        latest.values(), key=lambda one: (first.get(one.broker_order_id, one.created_at), one.broker_order_id)
    )
    undone = frozenset(execution.client_order_id for execution in state.executions.values() if execution.busted)
    return _Books(books, tuple(orders), fills, undone)


def _concerns(theirs: BrokerOrder, rows: list[BrokerFill], state: State) -> bool:
    """Whether an order that the ledger does not know is of these books: it works, or it traded after they were opened."""
    return theirs.state not in TERMINAL or any(row.occurred_at > state.attached_at for row in rows)
