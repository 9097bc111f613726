"""From a start to the first order: seven steps, always in this order, and no order before the last one has passed.

The record is checked and the state rebuilt before a `Recovery` exists; what needs the broker it does itself, given his books again
and again until every step has passed. A step that cannot be judged yet says nothing; one that fails is recorded once, with what is
wrong, for as long as the same is wrong. To change what has to hold before trading, change `unfit`.

As with the reconciler's, every command that comes out is handled before the next one is asked for.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from commands import Command
from commands.control import is_killing
from commands.truth import AttachAccount, TakeRecoveryStep
from mqd_ledger.brokers.alpaca_updates import order_commands
from mqd_ledger.brokers.base import BrokerAccount, BrokerBooks
from mqd_ledger.brokers.reconciliation import Reconciler
from mqd_ledger.killing import breach
from mqd_ledger.state import State
from mqd_ledger.values import OrderState, TradingState, iso, plain

BLOCK = "recovery"  # the block that stands until the last step has passed
BROKER = "alpaca"


class Step(NamedTuple):
    number: int
    name: str
    sentence: str


STEPS = (
    Step(1, "log", "the log is whole: every event is the one that was written"),
    Step(2, "state", "positions, orders and limits are rebuilt from the log"),
    Step(3, "account", "account, positions, open orders and executions are fetched from the broker"),
    Step(4, "executions", "executions that were missed are booked"),
    Step(5, "pending", "every order that had no answer has one"),
    Step(6, "comparison", "orders, shares and cash are the broker's, or what differs is recorded"),
    Step(7, "limits", "loss limits and trading state allow to go on"),
)


class Recovery:
    def __init__(self, state: State, chain_detail: str) -> None:
        """`state` is that which the log gives; `chain_detail` says how the log was checked."""
        self.reconciler = Reconciler(order_commands)
        self._details = {1: chain_detail, 2: _rebuilt(state)}
        self._fills_before = state.fills_total
        self._differences_before = state.differences_total
        self._passed = 0  # the last step that has
        self._failure: tuple[int, str] | None = None  # as it was recorded last

    def begin(self, _state: State, at: datetime) -> Iterator[Command]:
        """The steps that were taken before this one exists."""
        for number, detail in self._details.items():
            yield from self._pass(number, detail, at)

    def is_done(self, state: State) -> bool:
        return self._passed == len(STEPS) and BLOCK not in state.blocks

    def advance(self, state: State, books: BrokerBooks | None, problem: str | None, at: datetime) -> Iterator[Command]:
        """As far as these books lead; without any, `problem` is why there are none."""
        if books is None:
            yield from self._fail(3, problem or "the broker was not asked", at)
            return
        wrong = _refused(books.account, state)
        if wrong:
            yield from self._fail(3, wrong, at)
            return
        account = books.account
        if not state.account_number:
            yield AttachAccount(at, BROKER, account.environment, account.account_number)
        yield from self._pass(3, _fetched(books), at)
        yield from self.reconciler.compare_orders(state, books, at)
        if not self.reconciler.has_untold:
            yield from self._pass(4, f"{state.fills_total - self._fills_before} booked since the start", at)
        pending = _pending(state)
        if not pending:
            yield from self._pass(5, "no order is without an answer", at)
        yield from self.reconciler.compare_holdings(state, books, at)
        if not pending and not self.reconciler.is_unsettled:
            yield from self._pass(6, _compared(state, books, state.differences_total - self._differences_before), at)
        if self._passed >= 6:
            yield from self._judge(state, at)

    def _judge(self, state: State, at: datetime) -> Iterator[Command]:
        wanted = breach(state, at)
        if wanted is not None:
            yield wanted
        wrong = unfit(state)
        if wrong:
            yield from self._fail(7, wrong, at)
        else:
            yield from self._pass(7, _limits(state), at)

    def _pass(self, number: int, detail: str, at: datetime) -> Iterator[Command]:
        """Each step once, and none before the one in front of it."""
        if number == self._passed + 1:
            self._passed = number
            yield TakeRecoveryStep(at, number, STEPS[number - 1].name, True, number == len(STEPS), detail)  # noqa: FBT003

    def _fail(self, number: int, detail: str, at: datetime) -> Iterator[Command]:
        """It and what follows it has to pass again; the same failure is told once."""
        self._passed = min(self._passed, number - 1)
        if self._failure != (number, detail):
            self._failure = number, detail
            yield TakeRecoveryStep(at, number, STEPS[number - 1].name, False, False, detail)  # noqa: FBT003


def _refused(account: BrokerAccount, state: State) -> str:
    if account.is_blocked:
        return (
            f"the account {account.account_number} takes no orders: {account.blocked_because or 'it is blocked'}. "
            "Look at the account in the broker's own web page."
        )
    attached = (state.environment, state.account_number)
    if state.account_number and attached != (account.environment, account.account_number):
        return (
            f"this ledger keeps the books of the {state.environment} account {state.account_number}, but the keys belong to the "
            f"{account.environment} account {account.account_number}. Use that account's keys, or another ledger."
        )
    return ""


def unfit(state: State) -> str:
    """Why trading must not begin. A halt or a reduction is no reason: the risk gate keeps to it."""
    if is_killing(state) and state.kill_switch is not None:
        return f"the kill switch is at work: {state.kill_switch.reason}"
    open_ones = [found for found in state.differences.values() if found.needs_acceptance]
    if open_ones:
        told = "; ".join(f"{one.difference_id}: {one.subject} {one.theirs}, here {one.ours}" for one in open_ones)
        return (
            f"the broker's account differs ({told}). Look at it with `mqd-ledger reconcile` and accept each difference with "
            "`mqd-ledger reconcile --accept ID --reason TEXT`."
        )
    return ""


def _pending(state: State) -> list[str]:
    return [
        order.client_order_id
        for orders in state.working.values()
        for order in orders.values()
        if order.approved and order.state is OrderState.PENDING
    ]


def _rebuilt(state: State) -> str:
    working = sum(len(orders) for orders in state.working.values())
    return f"{len(state.positions)} positions, {working} working orders, cash {plain(state.cash)}"


def _fetched(books: BrokerBooks) -> str:
    account = books.account
    return (
        f"{account.environment} account {account.account_number}: {len(books.positions)} positions, {len(books.open_orders)} open "
        f"orders, {len(books.fills)} executions, cash {plain(account.cash)}"
    )


def _compared(state: State, books: BrokerBooks, found: int) -> str:
    waiting = sum(1 for one in state.differences.values() if one.needs_acceptance)
    return (
        f"as of {iso(books.asked_at)}; {found} differences found since the start, {waiting} of them wait to be accepted"
    )


def _limits(state: State) -> str:
    limits = state.policy.limits
    loss, week = state.day.start_equity - state.equity, state.week.start_equity - state.equity
    told = f"day's loss {plain(loss)} of {_limit(limits.daily_loss_max)}, week's {plain(week)} of {_limit(limits.weekly_loss_max)}"
    by = f" ({state.trading_state_reason})" if state.trading_state is not TradingState.ACTIVE else ""
    return f"{told}, {state.day.orders} orders today, trading {state.trading_state}{by}"


def _limit(limit: object) -> str:
    return "no limit" if limit is None else f"{limit}"
