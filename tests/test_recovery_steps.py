"""Between a start and the first order lie seven steps, in their order; none is skipped, and none is told twice."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from msgspec import structs

from commands.broker_reports import ReportSubmitted
from commands.control import ActivateKillSwitch, CompleteKillSwitch, HaltTrading
from commands.market import ReportBar
from commands.truth import AcceptDifference, StartRecovery
from mqd_ledger import events as e
from mqd_ledger.brokers.alpaca import AlpacaBroker, answer_commands
from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Budget
from mqd_ledger.brokers.base import BrokerBooks
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.desk.outbox import Outbox
from mqd_ledger.killing import next_steps
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.recovery import STEPS, Recovery
from mqd_ledger.values import DifferenceKind, OrderState, Side
from tests.broker_account import ORDERS, Account, attached, handle, is_decided_again, new_ledger, operated, resumed
from tests.dsl import OPENING, D, Desk, bar, books_balance, kinds, submit
from tests.loopback import KEY, SECRET, minutes, opened

SECOND = timedelta(seconds=1)
SETTLE = 10 * SECOND


def starting(desk: Desk) -> Recovery:
    """A process that has just come back to where the record ends."""
    recovery = Recovery(desk.state, "5 events, none altered")
    desk.do(StartRecovery(desk.at))
    desk.do(*recovery.begin(desk.state, desk.at))
    return recovery


def advance(desk: Desk, recovery: Recovery, books: BrokerBooks | None, problem: str | None = None) -> list[e.Event]:
    desk.at = max(desk.at, books.asked_at) if books is not None else desk.at
    events = []
    for command in recovery.advance(desk.state, books, problem, desk.at):
        assert not isinstance(command, ORDERS)
        events += handle(desk, command)
    return events


def steps(events: list[e.Event]) -> list[tuple[int, bool]]:
    return [(event.step, event.passed) for event in events if isinstance(event, e.RecoveryStepTaken)]


def is_denied(desk: Desk) -> bool:
    events = desk.do(submit("BUY 1 SPY", desk.at))
    return any(isinstance(event, e.OrderDenied) for event in events)


def test_a_whole_account_is_through_in_one_look() -> None:
    desk = attached()
    recovery = starting(desk)
    assert steps(desk.tape.events[-3:]) == [(1, True), (2, True)]
    assert is_denied(desk)
    events = advance(desk, recovery, Account().books(desk.at + SECOND))
    assert steps(events) == [(number, True) for number in range(3, 8)]
    assert recovery.is_done(desk.state)
    assert not is_denied(desk)
    assert [step.number for step in STEPS] == list(range(1, 8))
    is_decided_again(desk)


def test_what_was_missed_is_booked_and_every_order_answered_before_anything_is_compared() -> None:
    desk, account = attached(), Account()
    missed, lost = desk.order("BUY 10 SPY"), desk.order("BUY 5 QQQ")
    account.place(missed, "BUY 10 SPY", desk.at)
    account.fill(missed, "10", "100", desk.at + SECOND)
    recovery = starting(desk)
    desk.at += 60 * SECOND
    events = advance(desk, recovery, account.books(desk.at))
    assert steps(events) == [(3, True), (4, True)], "one order has no answer yet"
    assert desk.state.orders[missed].state is OrderState.FILLED
    assert is_denied(desk)
    events = advance(desk, recovery, account.books(desk.at + SETTLE))
    assert kinds(events)[0] == "OrderCanceled"
    assert desk.state.orders[lost].state is OrderState.CANCELED
    assert steps(events) == [(5, True), (6, True), (7, True)]
    assert recovery.is_done(desk.state)
    is_decided_again(desk)


def test_executions_that_are_not_told_hold_the_fourth_step_up() -> None:
    desk, account = attached(), Account()
    name = desk.order("BUY 10 SPY")
    account.place(name, "BUY 10 SPY", desk.at)
    account.fill(name, "10", "100", desk.at + SECOND, told=False)
    recovery = starting(desk)
    assert steps(advance(desk, recovery, account.books(desk.at + 60 * SECOND))) == [(3, True)]
    assert steps(advance(desk, recovery, account.books(desk.at + SETTLE))) == [(number, True) for number in range(4, 8)]
    assert desk.state.positions == {"SPY": D(10)}


def test_a_suspicion_is_waited_out_and_a_difference_has_to_be_accepted() -> None:
    desk, account = attached(), Account()
    account.move("SPY", D(10), "100")
    recovery = starting(desk)
    assert steps(advance(desk, recovery, account.books(desk.at + SECOND))) == [(3, True), (4, True), (5, True)]
    events = advance(desk, recovery, account.books(desk.at + SETTLE))
    assert steps(events) == [(6, True), (7, False)]
    failed = events[-1]
    assert isinstance(failed, e.RecoveryStepTaken)
    assert "D1: SPY 10, here 0" in failed.detail
    assert desk.state.blocks["recovery"] == f"limits: {failed.detail}"
    for _ in range(3):
        assert advance(desk, recovery, account.books(desk.at + SETTLE)) == [], "it is told once"
    desk.do(AcceptDifference(desk.at, "D1", "trader", "bought by hand"))
    assert steps(advance(desk, recovery, account.books(desk.at + SETTLE))) == [(7, True)]
    assert recovery.is_done(desk.state)
    is_decided_again(desk)


def test_a_broker_that_cannot_be_asked_is_told_once_and_asked_again() -> None:
    desk, account = attached(), Account()
    recovery = starting(desk)
    assert steps(advance(desk, recovery, None, "no answer within 10 s")) == [(3, False)]
    assert advance(desk, recovery, None, "no answer within 10 s") == []
    assert steps(advance(desk, recovery, None, "the keys were refused")) == [(3, False)]
    assert desk.state.blocks["recovery"] == "account: the keys were refused"
    assert steps(advance(desk, recovery, account.books(desk.at + SECOND)))[-1] == (7, True)
    assert recovery.is_done(desk.state)


def test_a_failure_in_between_lets_every_step_from_there_pass_again() -> None:
    desk, account = attached(), Account()
    account.move("SPY", D("0.1"), "100")
    recovery = starting(desk)
    advance(desk, recovery, account.books(desk.at + SECOND))
    advance(desk, recovery, None, "no answer within 10 s")
    events = advance(desk, recovery, account.books(desk.at + SETTLE))
    assert steps(events)[:3] == [(3, True), (4, True), (5, True)]


@pytest.mark.parametrize(
    ("number", "blocked", "told"),
    (
        ("PA1", "trading_blocked", "the account PA1 takes no orders: trading_blocked"),
        ("PA2", "", "keeps the books of the paper account PA1, but the keys belong to the paper account PA2"),
    ),
)
def test_an_account_that_cannot_be_traded_on_is_refused(number: str, blocked: str, told: str) -> None:
    desk, account = attached(), Account(number=number, blocked=blocked)
    account.move("SPY", D(10), "100")
    recovery = starting(desk)
    for moments in range(1, 4):
        advance(desk, recovery, account.books(desk.at + moments * SETTLE))
    failed = desk.tape.events[-1]
    assert isinstance(failed, e.RecoveryStepTaken)
    assert (failed.step, failed.passed) == (3, False)
    assert told in failed.detail
    assert not desk.state.differences
    assert is_denied(desk)


def test_the_first_start_attaches_the_account_and_takes_over_what_it_holds() -> None:
    tape = new_ledger().tape.recorded
    desk = resumed([one for one in tape if not isinstance(one.event, e.AccountAttached)])
    account = Account(cash=D(5000))
    account.move("SPY", D(10), "150", paid=False)
    account.prices["SPY"] = D(90)
    recovery, taken = starting(desk), []
    for _ in range(6):
        taken += advance(desk, recovery, account.books(desk.at + SETTLE))
    assert taken[0] == e.AccountAttached(OPENING + SETTLE, "alpaca", "paper", "PA1")
    found = [event for event in taken if isinstance(event, e.DifferenceFound)]
    assert [one.kind for one in found] == [DifferenceKind.OPENING] * 2
    assert steps(taken) == [(number, True) for number in range(3, 8)]
    assert desk.state.equity == 5900
    assert desk.state.day.start_equity == 5900
    is_decided_again(desk)


def test_a_halt_is_kept_and_no_reason_not_to_be_ready() -> None:
    desk = attached()
    desk.do(HaltTrading(desk.at, "trader", "look first"))
    recovery = starting(desk)
    events = advance(desk, recovery, Account().books(desk.at + SECOND))
    last = events[-1]
    assert isinstance(last, e.RecoveryStepTaken)
    assert last.passed
    assert "trading HALTED (look first)" in last.detail
    assert is_denied(desk)


def test_the_kill_switch_has_to_be_done_first() -> None:
    desk = attached()
    desk.do(ActivateKillSwitch(desk.at, "trader", "enough"))
    recovery = starting(desk)
    assert steps(advance(desk, recovery, Account().books(desk.at + SECOND)))[-1] == (7, False)
    assert desk.state.blocks["recovery"] == "limits: the kill switch is at work: enough"
    desk.do(CompleteKillSwitch(desk.at, "nothing is open"))
    assert steps(advance(desk, recovery, Account().books(desk.at + SECOND))) == [(7, True)]


def test_a_loss_that_is_not_to_be_borne_kills_at_the_start_too() -> None:
    """F6: a restart does not make the day's loss begin anew."""
    desk, account = attached(operated(kill_at_daily_loss=D(500))), Account()
    name = desk.order("BUY 100 SPY")
    account.place(name, "BUY 100 SPY", desk.at)
    desk.do(ReportSubmitted(desk.at, desk.at, name, f"b-{name}"))
    account.fill(name, "100", "100", desk.at)
    advance(desk, starting(desk), account.books(desk.at + SECOND))
    desk.do(ReportBar(desk.at + 60 * SECOND, bar("SPY 14:30 95")))
    again = resumed(desk.tape.recorded)
    events = advance(again, starting(again), account.books(desk.at + 61 * SECOND))
    assert kinds(events)[-2:] == ["KillSwitchActivated", "RecoveryStepTaken"]
    assert steps(events)[-1] == (7, False)


def test_every_crash_in_between_begins_the_steps_again_and_ends_alike() -> None:
    desk, account = attached(), Account()
    for text in ("BUY 10 SPY", "BUY 5 QQQ"):
        name = desk.order(text)
        account.place(name, text, desk.at)
        account.fill(name, str(desk.state.orders[name].quantity), "100", desk.at + SECOND)
    account.orders["by-hand"] = structs.replace(account.place("by-hand", "BUY 1 SPY LIMIT 9"), created_at=desk.at)
    before = len(desk.tape.recorded)
    recovery = starting(desk)
    advance(desk, recovery, account.books(desk.at + 60 * SECOND))
    assert recovery.is_done(desk.state)
    for upto in range(before, len(desk.tape.recorded)):
        if desk.tape.recorded[upto].causation:
            continue  # a command's events are written together
        again = resumed(desk.tape.recorded[:upto])
        recovery = starting(again)
        advance(again, recovery, account.books(desk.at + 60 * SECOND))
        assert recovery.is_done(again.state)
        assert (again.state.positions, again.state.cash) == (desk.state.positions, desk.state.cash)
        assert again.state.fills_total == 2


# --- over real sockets ------------------------------------------------------------------------------------------------


class Connected:
    """A ledger and the loopback server, a minute between two looks; only the server's REST interface is heard."""

    def __init__(self, server: LoopbackServer, broker: AlpacaBroker, desk: Desk) -> None:
        self.server, self.broker = server, broker
        self.desk = self._listening(desk)
        self.recovery = starting(self.desk)

    def _listening(self, desk: Desk) -> Desk:
        self.outbox = Outbox(desk.state)
        self.outbox.is_muted = False
        return desk.react(self.outbox)

    def restart(self) -> None:
        """A process that has only the record; what it had under way is forgotten."""
        is_decided_again(self.desk)
        self.desk = self._listening(resumed(self.desk.tape.recorded))
        self.recovery = starting(self.desk)

    def look(self) -> None:
        self.desk.at = self.server.step()
        working = [
            (one.client_order_id, one.broker_order_id)
            for each in self.desk.state.working.values()
            for one in each.values()
        ]
        books = self.broker.books(working, max(self.desk.state.attached_at, OPENING), self.desk.at)
        if self.recovery.is_done(self.desk.state):
            commands = self.recovery.reconciler.compare(self.desk.state, books, self.desk.at)
        else:
            commands = self.recovery.advance(self.desk.state, books, None, self.desk.at)
        for command in commands:
            handle(self.desk, command)
        for command in next_steps(self.desk.state, books, self.desk.at, self.recovery.reconciler.empty_since):
            handle(self.desk, command)
        self.send()

    def send(self, *, answered: bool = True) -> None:
        for effect in self.outbox.take():
            answer = self.broker.perform(effect)
            for command in answer_commands(effect, answer, self.desk.state, self.desk.at) if answered else ():
                handle(self.desk, command)

    def recover(self) -> None:
        for _ in range(6):
            self.look()
            if self.recovery.is_done(self.desk.state):
                return
        pytest.fail(self.desk.state.blocks["recovery"])

    def is_alike(self) -> None:
        state, account = self.desk.state, self.broker.account()
        assert state.positions == {one.symbol: one.quantity for one in self.broker.positions()}
        assert abs(state.cash - account.cash) <= D("0.01")
        books_balance(state)


@pytest.fixture
def connected() -> Iterator[Connected]:
    prices = {"SPY": " ".join(["100"] * 60), "QQQ": " ".join(["200"] * 60)}
    with opened(minutes(**prices)) as server:
        server.by_hand(KEY, "QQQ", Side.BUY, D(3))
        server.step()
        rest = AlpacaRest(Keys(KEY, SECRET, "loopback"), server.rest_url, "loopback", budget=Budget(10_000))
        tape = [one for one in new_ledger().tape.recorded if not isinstance(one.event, e.AccountAttached)]
        desk = resumed(tape)
        desk.at = server.clock.now()
        yield Connected(server, AlpacaBroker(rest, server.clock.now), desk)
        rest.close()


def test_an_account_at_a_real_socket_is_taken_over_followed_and_killed(connected: Connected) -> None:
    connected.recover()
    connected.is_alike()
    assert connected.desk.state.positions == {"QQQ": D(3)}

    connected.desk.do(ReportBar(connected.desk.at, bar("SPY 14:30 100")))
    connected.desk.do(submit("BUY 10 SPY", connected.desk.at))
    connected.send(answered=False)  # the order arrives, and neither its answer nor its execution comes back
    connected.server.by_hand(KEY, "QQQ", Side.SELL, D(1))
    connected.restart()
    connected.recover()
    connected.is_alike()
    assert connected.desk.state.positions == {"QQQ": D(2), "SPY": D(10)}
    kinds_found = {one.kind for one in connected.desk.tape.events if isinstance(one, e.DifferenceFound)}
    missed = {DifferenceKind.MISSED_FILL, DifferenceKind.MANUAL_ORDER, DifferenceKind.MANUAL_TRADE}
    assert kinds_found == {DifferenceKind.OPENING, *missed}

    connected.desk.do(submit("SELL 10 SPY LIMIT 500", connected.desk.at))
    connected.send()
    connected.desk.do(ActivateKillSwitch(connected.desk.at, "trader", "enough"))
    connected.send()
    connected.restart()
    for _ in range(8):
        connected.look()
    assert connected.desk.state.kill_switch_completed
    assert (connected.broker.positions(), connected.broker.open_orders()) == ((), ())
    connected.is_alike()
    is_decided_again(connected.desk)
