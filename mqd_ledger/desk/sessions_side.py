"""Follows the exchange's day: opens and closes sessions in the log, does before the close what the policy asks for, and compares
our calendar with the broker's.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

from commands import Command
from commands.market import CloseSession, EndSession, OpenSession
from commands.trading import CancelOrder
from commands.truth import ReportReachable, ReportUnreachable
from mqd_ledger.brokers.base import BrokerClock
from mqd_ledger.desk.connection import Connection
from mqd_ledger.desk.side import Every
from mqd_ledger.desk.worker import Worker
from mqd_ledger.errors import LedgerError
from mqd_ledger.orders import Order
from mqd_ledger.recovery import BLOCK as RECOVERY
from mqd_ledger.sessions import Session, session_at
from mqd_ledger.state import State
from mqd_ledger.unattended import FLATTEN, flatten
from mqd_ledger.values import ZERO, OrderType, Quantity, iso

CALENDAR = "calendar"  # the block that stands while the broker's hours are not ours
CLOCK = "clock"  # the block that stands while one of the two clocks is wrong
CLOCK_EVERY = 60.0  # seconds
CLOSE_AGAIN = 10.0  # seconds until a position that is still there is closed once more
NEAR = timedelta(seconds=5)  # by so much the two clocks may differ, and around an opening or a close the hours


class SessionsSide:
    def __init__(self, connection: Connection, reader: Worker) -> None:
        self._connection = connection
        self._reader = reader
        self._clock_due = Every(CLOCK_EVERY)
        self._is_asked = False  # one question at a time: a broker that is slow to answer is not asked the more
        self._close_due = Every(CLOSE_AGAIN)
        self._closes_at: datetime | None = None  # the broker's word on the session that is open

    def tick(self, state: State, at: datetime) -> Iterator[Command]:
        session = session_at(at)
        name = "" if session is None else session.date.isoformat()
        if state.session and state.session != name:
            self._closes_at = None
            yield CloseSession(at, state.session, state.policy.unattended.at_close)
        if session is not None:
            if state.session != name:
                yield ReportReachable(at, FLATTEN, "another session has begun")
                yield OpenSession(at, name, session.close_at)
            yield from self._before_the_close(session, name, state, at)
        if not self._is_asked and self._clock_due(at):
            self._is_asked = True
            self._reader.give(_told(self._connection.broker.clock), partial(self._compare, at))

    def _before_the_close(self, session: Session, name: str, state: State, at: datetime) -> Iterator[Command]:
        rules = state.policy.unattended
        closes_at = session.close_at if self._closes_at is None else min(session.close_at, self._closes_at)
        if rules.at_close == "hold" or at < closes_at - timedelta(seconds=rules.close_before):
            return
        yield EndSession(at, name, rules.at_close)
        if not self._close_due(at):
            return
        for order in [order for orders in state.working.values() for order in orders.values()]:
            if not order.cancel_requested and not _closes(order, state.positions.get(order.symbol, ZERO)):
                yield CancelOrder(at, order.client_order_id, f"{name} is ending")  # its cancel was refused once
        # What the record says is held may have been sold elsewhere while nobody looked.
        if rules.at_close == "flatten" and RECOVERY not in state.blocks:
            yield from flatten(name, state, at)

    def _compare(
        self, asked_at: datetime, clock: BrokerClock | LedgerError, _state: State, at: datetime
    ) -> Iterator[Command]:
        """An unscheduled close is the broker's to know; orders wait while one of the two says closed. An answer may be slow: it
        is of some instant since it was asked for.
        """
        self._is_asked = False
        if not isinstance(clock, BrokerClock):
            return  # the comparison of the books says that the broker cannot be asked
        session = session_at(at)
        if clock.is_open and clock.next_close_at - at < timedelta(hours=24):
            self._closes_at = clock.next_close_at
        near = max(NEAR, timedelta(seconds=2 * self._connection.rate()))
        first, last = asked_at - near, at + near
        if not first <= clock.now <= last:
            yield ReportUnreachable(
                at, CLOCK, f"it is {iso(clock.now)} at the broker and {iso(at)} here; set this machine's clock"
            )
        else:
            yield ReportReachable(at, CLOCK, "the broker's clock and ours agree")
        edges = [clock.next_open_at, clock.next_close_at, *([session.open_at, session.close_at] if session else [])]
        if clock.is_open == (session is not None):
            yield ReportReachable(at, CALENDAR, "the broker's hours are ours again")
        elif not any(first <= edge <= last for edge in edges):
            ours, theirs = ("open", "closed") if session else ("closed", "open")
            detail = (
                f"the market is {theirs} at the broker and {ours} by our calendar (broker: next open "
                f"{iso(clock.next_open_at)}, next close {iso(clock.next_close_at)})"
            )
            yield ReportUnreachable(at, CALENDAR, detail)


def _closes(order: Order, held: Quantity) -> bool:
    return not order.strategy and order.order_type is OrderType.MARKET and order.signed(held) < 0


def _told(ask: Callable[[], BrokerClock]) -> Callable[[], BrokerClock | LedgerError]:
    def asked() -> BrokerClock | LedgerError:
        try:
            return ask()
        except LedgerError as problem:
            return problem

    return asked
